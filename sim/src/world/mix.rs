//! The mix of one run: how large a world, how bad its weather, which faults and how often. All
//! drawn from the seed, each run its own; a shrunk run has less of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use replica::{Config, NodeId};

use super::machine::Habits;
use crate::disk::Wear;
use crate::network::Weather;
use crate::rng::{PerMillion, Rng};

/// How much of a node there is in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Replicas; clients propose commands of every kind, sensible or not.
    Replicas,
    /// Whole nodes with agents and containers; clients ask for what people ask for.
    Nodes,
}

/// Something wrong with the world itself, for tests of the checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Disks say that they have synced, and have not.
    LyingDisks,
    /// A container that starts does so twice.
    StartTwice,
    /// A container that is removed stays.
    KeepContainers,
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Mix {
    /// How many replicas vote at first; their ids are 1 and up.
    pub voters: NodeId,
    /// How many clients there are.
    pub clients: u64,
    /// How long things break.
    pub break_for: Duration,
    /// How messages fare while they do.
    pub weather: Weather,
    /// How disks fare while they do.
    pub wear: Wear,
    /// How containers fare meanwhile.
    pub habits: Habits,
    /// Most containers that start at once in the whole cluster; 0 is unlimited.
    pub starting_max: u32,
    /// What a cell offers, in MiB of memory.
    pub cell_memory_mb: u32,
    /// How far clocks drift, in parts of a million, either way.
    pub drift_ppm_max: u64,
    /// How far clocks are wrong about the date, in milliseconds, either way.
    pub wall_off_ms_max: u64,
    /// The longest that a client thinks between two operations.
    pub think_max: Duration,
    /// The longest pause between two faults.
    pub pause_max: Duration,
    /// How often each kind of fault is chosen, against the others.
    pub weights: BTreeMap<Fault, u64>,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot.
    pub snapshot_entries_kept: u64,
    /// Bytes of a snapshot's chunk: small ones make many chances to lose one.
    pub snapshot_chunk_bytes: usize,
}

/// A kind of thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Links are cut.
    Cut,
    /// Links are cut and mended, over and over.
    Flap,
    /// Links are mended.
    Mend,
    /// Nodes crash.
    Crash,
    /// All nodes of a zone crash.
    Zone,
    /// The leader is asked to hand over.
    Transfer,
    /// Weather and wear change.
    Change,
    /// A clock's date jumps.
    Jump,
    /// A disk is full for a while.
    Full,
    /// Members come, go, are promoted or demoted.
    Members,
    /// A node and its disk are gone for good, and a new one takes its place.
    Replace,
    /// A node's disk is emptied, and the node started again.
    Forget,
    /// A bit on a disk flips for good.
    Rot,
    /// The registry of images is away: no container can be made.
    Registry,
    /// A container's process is killed.
    Kill,
    /// A cell is evacuated, or given work again.
    Evacuate,
    /// The whole cluster is upgraded, node after node.
    Upgrade,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Cut,
        Self::Flap,
        Self::Mend,
        Self::Crash,
        Self::Zone,
        Self::Transfer,
        Self::Change,
        Self::Jump,
        Self::Full,
        Self::Members,
        Self::Replace,
        Self::Forget,
        Self::Rot,
        Self::Registry,
        Self::Kill,
        Self::Evacuate,
        Self::Upgrade,
    ];

    /// The weights that a run draws from.
    fn weights(self, scope: Scope) -> &'static [u64] {
        match (self, scope) {
            (Self::Cut | Self::Crash, _) => &[0, 2, 6],
            (Self::Mend, _) => &[1, 3],
            (Self::Flap | Self::Transfer, _) => &[0, 1, 2],
            (Self::Change | Self::Jump, _) => &[0, 1],
            (Self::Zone | Self::Full | Self::Replace | Self::Forget | Self::Rot, _) => &[0, 0, 1],
            (Self::Members, _) => &[0, 0, 2],
            (Self::Kill, Scope::Nodes) => &[0, 1, 4],
            (Self::Evacuate, Scope::Nodes) => &[0, 1, 3],
            (Self::Upgrade, Scope::Nodes) => &[0, 1],
            (Self::Registry, Scope::Nodes) => &[0, 0, 2],
            (Self::Kill | Self::Evacuate | Self::Upgrade | Self::Registry, Scope::Replicas) => &[0],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Flap => "flap",
            Self::Mend => "mend",
            Self::Crash => "crash",
            Self::Zone => "zone",
            Self::Transfer => "transfer",
            Self::Change => "change",
            Self::Jump => "jump",
            Self::Full => "full",
            Self::Members => "members",
            Self::Replace => "replace",
            Self::Forget => "forget",
            Self::Rot => "rot",
            Self::Registry => "registry",
            Self::Kill => "kill",
            Self::Evacuate => "evacuate",
            Self::Upgrade => "upgrade",
        }
    }
}

impl Mix {
    /// The mix of a seed.
    pub fn draw(seed: u64, scope: Scope) -> Self {
        let rng = &mut Rng::stream(seed, "mix");
        let snapshot_entries = *rng.pick(&[20, 100, 500]);
        let think_ms = *rng.pick(&[5, 50, 500, 5_000, 20_000]);
        // Now and then a long and slow one: what only hours bring about.
        let is_long = think_ms >= 5_000 && rng.chance(PerMillion(250_000));
        let break_s = if is_long { 1_200 + rng.below(2_400) } else { 30 + rng.below(60) };
        let pause_ms = if is_long { 60_000 } else { *rng.pick(&[500, 2_000, 8_000]) };
        let weight = |fault: Fault| {
            let mut rng = Rng::stream(seed, fault.name());
            (fault, *rng.pick(fault.weights(scope)))
        };
        let mut mix = Self {
            voters: *rng.pick(&[3, 3, 3, 5]),
            clients: 1 + rng.below(6),
            break_for: Duration::from_secs(break_s),
            weather: Weather::draw(rng),
            wear: Wear::draw(rng),
            habits: if scope == Scope::Nodes { Habits::draw(rng) } else { Habits::CALM },
            starting_max: *Rng::stream(seed, "starting").pick(&[0, 0, 2]),
            cell_memory_mb: *rng.pick(&[8_192, 8_192, 64]),
            drift_ppm_max: *rng.pick(&[0, 200, 50_000]),
            wall_off_ms_max: *rng.pick(&[0, 500, 60_000]),
            think_max: Duration::from_millis(think_ms),
            pause_max: Duration::from_millis(pause_ms),
            weights: Fault::ALL.into_iter().map(weight).collect(),
            snapshot_entries,
            snapshot_entries_kept: rng.below(snapshot_entries),
            snapshot_chunk_bytes: *Rng::stream(seed, "chunk").pick(&[1_000, 512 << 10]),
        };
        if is_long && scope == Scope::Nodes && mix.starting_max > 0 {
            // Few at a time start, and most of them hang: some tasks wait for too long.
            mix.habits.hangs = PerMillion(950_000);
            mix.habits.hang = Duration::from_secs(11 * 60);
        }
        mix
    }

    /// As a cluster on an ordinary day: five nodes, people who take their time, and all faults
    /// that the seed says.
    #[must_use]
    pub fn of_people(self) -> Self {
        Self {
            voters: 5,
            clients: 6,
            think_max: Duration::from_secs(20),
            pause_max: Duration::from_secs(8),
            break_for: Duration::from_secs(300),
            ..self
        }
    }

    /// With less of everything.
    #[must_use]
    pub fn shrink(mut self, less: &Less) -> Self {
        self.voters = less.voters.unwrap_or(self.voters);
        self.clients = less.clients.unwrap_or(self.clients);
        self.break_for = less.break_s.map_or(self.break_for, Duration::from_secs);
        for ingredient in &less.without {
            match ingredient {
                Ingredient::Fault(fault) => {
                    self.weights.insert(*fault, 0);
                }
                Ingredient::Weather => self.weather = Weather::FAIR,
                Ingredient::Wear => self.wear = Wear::NEW,
                Ingredient::Habits => self.habits = Habits::CALM,
                Ingredient::Clocks => {
                    self.drift_ppm_max = 0;
                    self.wall_off_ms_max = 0;
                }
            }
        }
        self
    }

    /// What replica `id` is told.
    pub fn config(&self, id: NodeId) -> Config {
        Config {
            snapshot_entries: self.snapshot_entries,
            snapshot_entries_kept: self.snapshot_entries_kept,
            snapshot_lag_entries: 2 * self.snapshot_entries,
            purge_entries_min: 1,
            snapshot_chunk_bytes: self.snapshot_chunk_bytes,
            ..Config::new(id)
        }
    }
}

/// A part of a mix that a shrunk run can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ingredient {
    /// A kind of fault.
    Fault(Fault),
    /// Messages that are lost, late or doubled.
    Weather,
    /// Disks that are slow or fail.
    Wear,
    /// Containers that fare badly.
    Habits,
    /// Clocks that drift and are wrong.
    Clocks,
}

impl Ingredient {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let others = [Self::Weather, Self::Wear, Self::Habits, Self::Clocks];
        Fault::ALL.into_iter().map(Self::Fault).chain(others)
    }
}

impl fmt::Display for Ingredient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fault(fault) => fault.name(),
            Self::Weather => "weather",
            Self::Wear => "wear",
            Self::Habits => "habits",
            Self::Clocks => "clocks",
        })
    }
}

impl std::str::FromStr for Ingredient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::all().map(|it| it.to_string()).collect::<Vec<_>>().join(", ");
        let found = Self::all().find(|ingredient| ingredient.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is none of {}", known()))
    }
}

/// What a run has less of than its seed says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Less {
    /// So many voters.
    pub voters: Option<NodeId>,
    /// So many clients.
    pub clients: Option<u64>,
    /// So many seconds of faults.
    pub break_s: Option<u64>,
    /// None of these.
    pub without: BTreeSet<Ingredient>,
    /// Not these of the faults, counted from 1.
    pub skip: BTreeSet<u64>,
}

/// As options of `sim run`.
impl fmt::Display for Less {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers =
            [("voters", self.voters), ("clients", self.clients), ("break-for", self.break_s)];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, " --{name} {number}")?;
            }
        }
        let list = |items: Vec<String>| items.join(",");
        if !self.without.is_empty() {
            write!(
                f,
                " --without {}",
                list(self.without.iter().map(ToString::to_string).collect())
            )?;
        }
        if !self.skip.is_empty() {
            write!(f, " --skip {}", list(ranges(&self.skip)))?;
        }
        Ok(())
    }
}

/// As few words as will do: `2`, `5-9`.
fn ranges(numbers: &BTreeSet<u64>) -> Vec<String> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            Some(_) | None => ranges.push((*number, *number)),
        }
    }
    let word =
        |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.into_iter().map(word).collect()
}

/// A number of `max` at most, either way.
pub(super) fn either_way(rng: &mut Rng, max: u64) -> i64 {
    let size = i64::try_from(rng.below(max + 1)).expect("bounds are small");
    if rng.chance(PerMillion(500_000)) { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingredients_are_named_as_they_are_read() {
        for ingredient in Ingredient::all() {
            assert_eq!(ingredient.to_string().parse(), Ok(ingredient));
        }
        assert!("rain".parse::<Ingredient>().is_err());
    }

    #[test]
    fn a_shrunk_mix_has_less() {
        let less = Less {
            voters: Some(3),
            break_s: Some(7),
            without: BTreeSet::from([Ingredient::Weather, Ingredient::Fault(Fault::Cut)]),
            skip: BTreeSet::from([2, 5, 6, 7]),
            ..Less::default()
        };
        assert_eq!(
            less.to_string(),
            " --voters 3 --break-for 7 --without cut,weather --skip 2,5-7"
        );
        let mix = Mix::draw(5, Scope::Nodes).shrink(&less);
        assert_eq!((mix.voters, mix.break_for), (3, Duration::from_secs(7)));
        assert_eq!((mix.weather, mix.weights[&Fault::Cut]), (Weather::FAIR, 0));
    }
}
