//! A world: replicas on simulated disks and a simulated network, clients, and what goes wrong.
//!
//! A run has two phases. First things break, and whatever happens must be safe. Then everything
//! is mended, and the cluster must come right within a bound of virtual time, twice: the second
//! time after all nodes lost power at once.

mod disk;
mod heal;
mod machine;
mod mix;
mod nemesis;
mod node;
mod operator;
mod peers;
mod surroundings;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft_rt::AsyncRuntime;
use replica::NodeId;

pub use self::machine::Habits;
use self::machine::Machine;
use self::mix::either_way;
pub use self::mix::{Fault, Ingredient, Less, Mix, Sabotage, Scope};
use self::nemesis::Nemesis;
use self::node::NodeState;
use crate::check::{Checker, News, Violation};
use crate::coverage;
use crate::disk::Disk;
use crate::network::{Links, Network};
use crate::rng::{Rng, nanos};
use crate::runtime::{self, Clock, Group, SimRuntime};
use crate::trace::{Listener, Trace};

/// Values for the tests of checkers.
#[cfg(test)]
pub(crate) mod samples {
    pub(crate) use super::surroundings::cell;
    pub(crate) use super::workload::commands::{action, desired_lrp};
}

/// What travels between nodes.
type Bytes = Arc<[u8]>;

/// What everything in a run shares.
struct World {
    seed: u64,
    mix: Mix,
    scope: Scope,
    sabotage: Option<Sabotage>,
    /// Faults that a shrunk run leaves out.
    skip: BTreeSet<u64>,
    /// How many faults were drawn.
    faults: AtomicU64,
    network: Network<Bytes, Bytes>,
    nodes: Mutex<BTreeMap<NodeId, NodeState>>,
    checker: Mutex<Checker>,
    /// The times that proposals carry: no two the same, so that no two have the same bytes.
    stamps: Mutex<BTreeSet<u64>>,
    /// When the registry of images is back, in nanoseconds of virtual time.
    registry_back_ns: AtomicU64,
    /// Set when clients are to stop.
    quiet: AtomicBool,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The hash of every poll and event.
    pub hash: u64,
    /// How many polls there were.
    pub polls: u64,
    /// Virtual time, from beginning to end.
    pub elapsed: Duration,
    /// How often each event happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The longest that the cluster took to come right.
    pub healed_within: Option<Duration>,
    /// The last entry agreed.
    pub agreed: Option<u64>,
    /// How many faults were drawn.
    pub faults: u64,
    /// How many nodes there were at first.
    pub voters: NodeId,
    /// How many clients.
    pub clients: u64,
    /// How long things broke.
    pub break_for: Duration,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// Which run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The seed of everything.
    pub seed: u64,
    /// How much of a node there is.
    pub scope: Scope,
    /// Whether the mix is that of an ordinary day, instead of the seed's.
    pub of_people: bool,
    /// What it has less of than its seed says.
    pub less: Less,
    /// Something wrong in it that checkers must find.
    pub sabotage: Option<Sabotage>,
}

impl Run {
    /// The run of a seed.
    pub fn of(seed: u64, scope: Scope) -> Self {
        Self { seed, scope, of_people: false, less: Less::default(), sabotage: None }
    }

    fn mix(&self) -> Mix {
        let mix = Mix::draw(self.seed, self.scope);
        let mix = if self.of_people { mix.of_people() } else { mix };
        mix.shrink(&self.less)
    }
}

/// Runs a world from beginning to end. The listener is told every event.
pub fn run(run: &Run, listener: Option<Listener>) -> Report {
    let seed = run.seed;
    let mut runtime = SimRuntime::with_seed(seed);
    if let Some(listener) = listener {
        runtime.listen(listener);
    }
    let world = Arc::new(World::new(run));
    let healed_within = runtime.block_on(world.clone().unfold());
    let checker = world.checker();
    let panics = runtime.panics().into_iter().map(|panic| Violation {
        at_ns: panic.at_ns,
        property: "nothing panics",
        what: format!("{}: {}", panic.group, panic.message),
    });
    let violations = panics.chain(checker.violations().iter().cloned()).collect();
    let report = |trace: &Trace| Report {
        seed,
        hash: trace.hash(),
        polls: trace.polls(),
        elapsed: runtime.elapsed(),
        counts: all_counts(trace, &checker),
        healed_within,
        agreed: checker.agreed(),
        faults: world.faults.load(Ordering::Relaxed),
        voters: world.mix.voters,
        clients: world.mix.clients,
        break_for: world.mix.break_for,
        violations,
    };
    runtime.trace(report)
}

/// Everything that was counted in a run.
fn all_counts(trace: &Trace, checker: &Checker) -> BTreeMap<&'static str, u64> {
    let mut counts = trace.counts().clone();
    coverage::add(&mut counts, checker.counts());
    counts
}

impl World {
    fn new(run: &Run) -> Self {
        let Run { seed, scope, sabotage, .. } = *run;
        let mix = run.mix();
        let links = Links::new(mix.weather, Rng::stream(seed, "links"));
        let world = Self {
            seed,
            mix,
            scope,
            sabotage,
            skip: run.less.skip.clone(),
            faults: AtomicU64::new(0),
            network: Network::new(links),
            nodes: Mutex::default(),
            checker: Mutex::default(),
            stamps: Mutex::default(),
            registry_back_ns: AtomicU64::new(0),
            quiet: AtomicBool::new(false),
        };
        if scope == Scope::Nodes {
            world.checker().history().expect_nodes();
        }
        for id in 1..=world.mix.voters {
            world.add_node(id);
        }
        world
    }

    /// A new node with an empty disk, down.
    fn add_node(&self, id: NodeId) {
        let mut rng = Rng::stream(self.seed, &format!("node-{id}"));
        let drift_ppm = either_way(&mut rng, self.mix.drift_ppm_max);
        let node = NodeState {
            disk: Disk::new(self.mix.wear, Rng::stream(self.seed, &format!("disk-{id}"))),
            clock: Clock::drifting(i32::try_from(drift_ppm).expect("drift is below a million")),
            wall_off_ms: either_way(&mut rng, self.mix.wall_off_ms_max),
            machine: Arc::new(Machine::new(
                self.mix.habits,
                Rng::stream(self.seed, &format!("machine-{id}")),
            )),
            lives: 0,
            life: None,
            retired: false,
            forgot: false,
            rotten: None,
        };
        if self.sabotage == Some(Sabotage::LyingDisks) {
            node.disk.lie();
        }
        let earlier = self.nodes().insert(id, node);
        assert!(earlier.is_none(), "node ids are never used again");
    }

    /// From beginning to end. Returns the longest that healing took, unless it failed.
    async fn unfold(self: Arc<Self>) -> Option<Duration> {
        for id in 1..=self.mix.voters {
            self.start(id);
        }
        let people = runtime::new_group("clients", Clock::default());
        for number in 0..self.mix.clients {
            drop(runtime::spawn_in(people, workload::client(self.clone(), number)));
        }
        Nemesis::new(self.clone()).rage().await;
        self.quiet.store(true, Ordering::Relaxed);
        let mut healed = self.heal().await;
        if healed.is_some() {
            runtime::event("power_cut", &[]);
            let all: Vec<NodeId> = self.nodes().keys().copied().collect();
            for id in &all {
                self.crash(*id);
            }
            healed = healed.max(self.heal().await);
            self.check(Checker::finish);
        }
        self.end();
        healed
    }

    /// Lets go of every node: they hold the world that holds them.
    fn end(&self) {
        let ids: Vec<NodeId> = self.nodes().keys().copied().collect();
        for id in ids {
            self.crash(id);
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, NodeState>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checker(&self) -> MutexGuard<'_, Checker> {
        self.checker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the checkers, at this moment.
    fn check<T>(&self, tell: impl FnOnce(&mut Checker, u64) -> T) -> T {
        let mut checker = self.checker();
        let before = checker.violations().len();
        let told = tell(&mut checker, nanos(runtime::true_time()));
        for News { index, command, result } in checker.take_news() {
            let name = if result.is_ok() { "agreed" } else { "refused" };
            let detail = || match &result {
                Ok(_) => format!("{command:?}"),
                Err(refusal) => format!("{refusal}: {command:?}"),
            };
            runtime::event_with(name, &[("index", index)], detail);
        }
        for violation in &checker.violations()[before..] {
            runtime::event_with("violated", &[], || violation.to_string());
        }
        told
    }

    fn violated(&self, property: &'static str, what: String) {
        self.check(|checker, at_ns| checker.violated(at_ns, property, what));
    }

    /// Whether there is anything left to learn from this run: its first violation ends it.
    fn broken(&self) -> bool {
        !self.checker().violations().is_empty() || !runtime::panics().is_empty()
    }

    /// The registry of images is away until then.
    fn set_registry_back(&self, at: Duration) {
        self.registry_back_ns.store(nanos(at), Ordering::Relaxed);
    }

    fn is_registry_away(&self) -> bool {
        nanos(runtime::true_time()) < self.registry_back_ns.load(Ordering::Relaxed)
    }

    fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Waits in the world's own, true time.
    async fn pause(duration: Duration) {
        debug_assert_eq!(runtime::current_group(), Group::WORLD);
        SimRuntime::sleep(duration).await;
    }
}
