//! Scale by simulation: a cluster of a thousand cells and more in one process, and what things cost.
//!
//! The product's own replicas and agents, on a network that has a bandwidth and no faults, without
//! checkers: [`crate::world`] says whether it is right, this says what it takes. Replicas share
//! their states ([`replica::memo`]) and keep no rows; only voters keep their log. Processors cost
//! nothing here: what is measured is time on the wire and on disks, messages and bytes.

mod disk;
mod node;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{ActualState, Command, Intake, Millis, Presence, Proposal, State};
use openraft_rt::AsyncRuntime;
use replica::memo::Memo;
use replica::status::Role;
use replica::{Node, NodeId};

use self::node::{Member, ScaleReplica};
use crate::rng::{Rng, nanos};
use crate::runtime::{self, Clock, Group, SimRuntime};

/// How large a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Members, each with a cell.
    pub members: u64,
    /// Of these, those that vote.
    pub voters: u64,
    /// Instances for each cell, on average.
    pub instances_per_cell: u64,
}

/// What one thing took.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// What.
    pub what: String,
    /// Instances that it placed, moved or replaced.
    pub instances: u64,
    /// Virtual time.
    pub took: Duration,
    /// Entries that were agreed.
    pub entries: u64,
    /// Bytes of proposals among them.
    pub log_bytes: u64,
    /// Messages that leaders sent.
    pub leader_messages: u64,
    /// Bytes of these.
    pub leader_bytes: u64,
}

/// A zone has as many cells as there are cells in all, through this.
const ZONES: u64 = 10;
/// An evacuation of everything goes in as many steps.
const EVACUATION_STEPS: u64 = 25;
/// Instances of one app.
const INSTANCES_PER_APP: u64 = 25;
/// Apps that one proposal desires.
const APPS_PER_PROPOSAL: usize = 100;
/// What a node's network card sends, in bytes a second: 10 Gbit/s.
const BYTES_PER_SECOND: u64 = 1_250_000_000;
/// How often a network card tells of what has arrived: what arrives between is heard together.
/// Cards that are busy do so (interrupt coalescing, usually 50 to 250 us); and a leader that hears
/// a thousand answers together looks at them in a few turns of its loop, instead of one turn each.
const HEARD_EACH_NS: u64 = 100_000;
/// The longest that anything may take, in virtual time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What everything in a measurement shares.
struct Scale {
    size: Size,
    members: Mutex<BTreeMap<NodeId, Member>>,
    rng: Mutex<Rng>,
    memo: Arc<Memo>,
    /// When each node's network card is free again, in nanoseconds.
    free_ns: Mutex<BTreeMap<NodeId, u64>>,
    leader: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    last_date: AtomicU64,
}

impl fmt::Debug for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scale").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Measures a cluster of a size, and tells of each thing when it is over.
pub fn measure(size: Size, tell: impl FnMut(&Cost) + 'static) {
    let mut runtime = SimRuntime::with_seed(1);
    let scale = Arc::new(Scale {
        size,
        members: Mutex::default(),
        rng: Mutex::new(Rng::stream(1, "scale")),
        memo: Arc::default(),
        free_ns: Mutex::default(),
        leader: AtomicU64::new(0),
        messages: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        last_date: AtomicU64::new(0),
    });
    runtime.block_on(scale.unfold(tell));
}

/// The marks that a cost is counted from.
struct Mark {
    at: Duration,
    applied: u64,
    log_bytes: u64,
    messages: u64,
    bytes: u64,
}

impl Scale {
    async fn unfold(self: Arc<Self>, mut tell: impl FnMut(&Cost)) {
        let Size { members, voters, instances_per_cell } = self.size;
        let all = members * instances_per_cell;

        for id in 1..=members {
            self.start(id);
        }
        let mark = self.mark();
        self.wait("a leader", || self.leads().is_some()).await;
        let learners = (voters + 1..=members).map(|id| (id, address(id).address)).collect();
        let added = self.at_leader(|replica| async move { replica.add_learners(learners).await });
        added.await.expect("there is a leader").expect("it can add them");
        self.wait("all cells", || self.state().cells().count() as u64 == members).await;
        tell(&self.cost("all members join and register", 0, &mark));

        let mark = self.mark();
        self.desire(all).await;
        self.wait("all desired", || self.state().actual_lrps().count() as u64 == all).await;
        tell(&self.cost("they are desired", all, &mark));
        self.wait_until_all_run(all).await;
        tell(&self.cost("they are desired, placed and run", all, &mark));

        let quiet = Duration::from_secs(60);
        let mark = self.mark();
        SimRuntime::sleep(quiet).await;
        tell(&self.cost("a quiet minute", 0, &mark));

        let mark = self.mark();
        let lost = self.kill(vec![members]);
        self.wait_until_all_run(all).await;
        tell(&self.cost("a cell is lost", lost, &mark));

        let mark = self.mark();
        let zone = |id: &NodeId| id % ZONES == 3 && *id > voters && *id < members;
        let lost = self.kill((1..=members).filter(zone).collect());
        self.wait_until_all_run(all).await;
        tell(&self.cost("a zone is lost", lost, &mark));

        let mark = self.mark();
        let leader = self.leads().map_or(1, |replica| replica.id());
        let lost = self.kill(vec![leader]);
        self.wait_until_all_run(all).await;
        tell(&self.cost("the leader is lost, and its cell", lost, &mark));

        let mark = self.mark();
        let cells: Vec<NodeId> = self.members().keys().copied().collect();
        let step = usize::try_from(members.div_ceil(EVACUATION_STEPS)).expect("members are few");
        for cells in cells.chunks(step) {
            self.evacuate(cells).await;
        }
        self.wait_until_all_run(all).await;
        tell(&self.cost("everything is evacuated, in turn", all, &mark));

        let left: Vec<NodeId> = self.members().keys().copied().collect();
        self.kill(left);
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<NodeId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replica that leads.
    fn leads(&self) -> Option<ScaleReplica> {
        let members = self.members();
        let voters = members.range(..=self.size.voters).filter_map(|(_, it)| it.replica.clone());
        let leader = voters.into_iter().find(|replica| replica.status().role == Role::Leader)?;
        self.leader.store(leader.id(), Ordering::Relaxed);
        Some(leader)
    }

    /// The newest state that any voter shows.
    fn state(&self) -> State {
        let members = self.members();
        let voters = members.range(..=self.size.voters).filter_map(|(_, it)| it.replica.as_ref());
        let newest = voters.map(replica::Replica::read_stale).max_by_key(|it| it.applied);
        newest.unwrap_or_default().state
    }

    fn mark(&self) -> Mark {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Mark {
            at: runtime::true_time(),
            applied: self.applied(),
            log_bytes: self.memo.bytes(),
            messages: load(&self.messages),
            bytes: load(&self.bytes),
        }
    }

    fn applied(&self) -> u64 {
        let members = self.members();
        let replicas = members.values().filter_map(|member| member.replica.as_ref());
        replicas.filter_map(|replica| replica.read_stale().applied).max().unwrap_or(0)
    }

    fn cost(&self, what: &str, instances: u64, mark: &Mark) -> Cost {
        let now = self.mark();
        Cost {
            what: what.to_owned(),
            instances,
            took: now.at - mark.at,
            entries: now.applied - mark.applied,
            log_bytes: now.log_bytes - mark.log_bytes,
            leader_messages: now.messages - mark.messages,
            leader_bytes: now.bytes - mark.bytes,
        }
    }

    async fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let until = runtime::true_time() + PATIENCE;
        while !is_so() {
            assert!(runtime::true_time() < until, "{what} not within {PATIENCE:?}");
            let _counted_from_now = self.leads();
            SimRuntime::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until every instance runs, and on a cell that is there.
    async fn wait_until_all_run(&self, all: u64) {
        let is_lost = |state: &State, cell: &model::CellId| {
            state.cell(cell).is_none_or(|cell| {
                !cell.is_present() || !self.members().contains_key(&cell.node_id)
            })
        };
        let lost_have_work = |state: &State| {
            state.loads().any(|(cell, load)| load.containers > 0 && is_lost(state, cell))
        };
        let has_all = |state: &State| {
            let rows = state.actual_lrps().filter(|row| {
                let runs = matches!(row.state, ActualState::Running { .. });
                runs && row.presence == Presence::Ordinary
            });
            rows.count() as u64 == all
        };
        let settled = || {
            let state = self.state();
            let waits = state.unclaimed().next().is_some()
                || state.loads().any(|(_, load)| load.starting > 0);
            !waits && !lost_have_work(&state) && has_all(&state)
        };
        self.wait("all run", settled).await;
    }

    async fn desire(&self, all: u64) {
        let apps: Vec<Command> = (0..all / INSTANCES_PER_APP)
            .map(|number| node::app(number, INSTANCES_PER_APP))
            .collect();
        for commands in apps.chunks(APPS_PER_PROPOSAL) {
            self.order(commands.to_vec()).await;
        }
    }

    /// Has commands agreed, as an operator at the leader.
    async fn order(&self, commands: Vec<Command>) {
        loop {
            let proposal = Proposal { at: self.date(), commands: commands.clone() };
            if self.leads().is_some()
                && let Ok(Ok(_)) =
                    self.at_leader(|replica| async move { replica.propose(&proposal).await }).await
            {
                return;
            }
            SimRuntime::sleep(Duration::from_millis(100)).await;
        }
    }

    fn at_leader<F>(&self, work: impl FnOnce(ScaleReplica) -> F) -> runtime::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let replica = self.leads().expect("there is a leader");
        let group = self.members()[&replica.id()].group;
        runtime::spawn_in(group, work(replica))
    }

    /// Empties cells, and gives them work again when they are empty.
    async fn evacuate(&self, cells: &[NodeId]) {
        let ids: Vec<model::CellId> = cells.iter().map(|id| node::cell_id(*id)).collect();
        let evacuate = |cell_id: &model::CellId| Command::EvacuateCell {
            cell_id: cell_id.clone(),
            timeout: Millis::from_secs(3600),
        };
        self.order(ids.iter().map(evacuate).collect()).await;
        let is_empty = || {
            let state = self.state();
            let is_emptied = |id: &model::CellId| {
                state.cell(id).is_some_and(|cell| cell.intake != Intake::Open)
                    && state.load(id).is_none()
            };
            ids.iter().all(is_emptied)
        };
        self.wait("cells are empty", is_empty).await;
        let open = |cell_id: &model::CellId| Command::OpenCell { cell_id: cell_id.clone() };
        self.order(ids.iter().map(open).collect()).await;
    }

    /// Takes nodes away for good. Returns how many instances were there.
    fn kill(&self, ids: Vec<NodeId>) -> u64 {
        let state = self.state();
        let load = |id: &NodeId| state.load(&node::cell_id(*id)).map_or(0, |it| it.containers);
        let lost = ids.iter().map(|id| u64::from(load(id))).sum();
        for id in ids {
            let member = self.members().remove(&id);
            if let Some(member) = member {
                runtime::kill(member.group);
            }
        }
        lost
    }

    /// A message leaves a node. Returns when it arrives.
    fn send(&self, from: NodeId, bytes: u64) -> Duration {
        if from == self.leader.load(Ordering::Relaxed) {
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let now = nanos(runtime::true_time());
        let mut free = self.free_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let free = free.entry(from).or_default();
        *free = now.max(*free) + bytes * 1_000_000_000 / BYTES_PER_SECOND;
        let latency = self.between(Duration::from_micros(100), Duration::from_micros(500));
        let arrives = *free + nanos(latency);
        Duration::from_nanos(arrives.next_multiple_of(HEARD_EACH_NS) - now)
    }

    fn between(&self, low: Duration, high: Duration) -> Duration {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).between(low, high)
    }

    /// The date, never the same twice.
    fn date(&self) -> Millis {
        let now = u64::try_from(runtime::true_time().as_millis()).unwrap_or(u64::MAX);
        let now = 1_700_000_000_000 + now;
        Millis(self.last_date.fetch_max(now, Ordering::Relaxed).max(now))
    }

    /// A group for one node's tasks.
    fn group(id: NodeId) -> Group {
        runtime::new_group(format!("node-{id}"), Clock::default())
    }
}

/// What the others know of a node.
fn address(id: NodeId) -> Node {
    let address = format!("10.{}.{}.1:1", id / 256, id % 256);
    Node { name: format!("node-{id}"), address, ..Node::default() }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_small_cluster_places_loses_and_moves_everything() {
        let costs: Rc<RefCell<Vec<Cost>>> = Rc::default();
        let told = costs.clone();
        let size = Size { members: 40, voters: 3, instances_per_cell: 25 };
        measure(size, move |cost| told.borrow_mut().push(cost.clone()));
        let costs = costs.borrow();
        let of = |what: &str| costs.iter().find(|cost| cost.what == what).expect("it was told");
        assert_eq!(of("they are desired, placed and run").instances, 1000);
        assert!(of("a quiet minute").entries == 0, "{costs:?}");
        let lost = of("a cell is lost");
        assert!(lost.instances > 0 && lost.took < Duration::from_secs(20), "{lost:?}");
        assert!(of("everything is evacuated, in turn").leader_messages > 0);
    }
}
