//! The mix of one run: how large a world, how bad its weather, which faults and how often. All
//! drawn from the seed, each run its own.

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
    /// How far clocks drift, in parts of a million, either way.
    pub drift_ppm_max: u64,
    /// How far clocks are wrong about the date, in milliseconds, either way.
    pub wall_off_ms_max: u64,
    /// The longest that a client thinks between two operations.
    pub think_max: Duration,
    /// The longest pause between two faults.
    pub pause_max: Duration,
    /// How often each kind of fault is chosen, against the others.
    pub weights: Weights,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot.
    pub snapshot_entries_kept: u64,
}

/// How often each kind of fault is chosen, against the others.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// Links are cut.
    pub cut: u64,
    /// Links are mended.
    pub mend: u64,
    /// Nodes crash.
    pub crash: u64,
    /// The leader is asked to hand over.
    pub transfer: u64,
    /// Weather and wear change.
    pub change: u64,
    /// A container's process is killed.
    pub kill: u64,
    /// Members come, go, are promoted or demoted.
    pub members: u64,
    /// A cell is evacuated, or given work again.
    pub evacuate: u64,
    /// The whole cluster is upgraded, node after node.
    pub upgrade: u64,
}

impl Mix {
    /// The mix of a seed.
    pub fn draw(rng: &mut Rng) -> Self {
        let snapshot_entries = *rng.pick(&[20, 100, 500]);
        Self {
            voters: *rng.pick(&[3, 3, 3, 5]),
            clients: 1 + rng.below(6),
            break_for: Duration::from_secs(30 + rng.below(60)),
            weather: Weather::draw(rng),
            wear: Wear::draw(rng),
            habits: Habits::CALM,
            drift_ppm_max: *rng.pick(&[0, 200, 50_000]),
            wall_off_ms_max: *rng.pick(&[0, 500, 60_000]),
            think_max: Duration::from_millis(*rng.pick(&[5, 50, 500])),
            pause_max: Duration::from_millis(*rng.pick(&[500, 2_000, 8_000])),
            weights: Weights {
                cut: *rng.pick(&[0, 2, 6]),
                mend: *rng.pick(&[1, 3]),
                crash: *rng.pick(&[0, 2, 6]),
                transfer: *rng.pick(&[0, 1, 2]),
                change: *rng.pick(&[0, 1]),
                kill: 0,
                members: *rng.pick(&[0, 0, 2]),
                evacuate: 0,
                upgrade: 0,
            },
            snapshot_entries,
            snapshot_entries_kept: rng.below(snapshot_entries),
        }
    }

    /// What whole nodes have besides. Members stay the same: a node removed from the cluster is
    /// its operator's to stop, and its cell would be missing for good.
    pub fn widen(&mut self, rng: &mut Rng) {
        self.habits = Habits::draw(rng);
        self.weights.kill = *rng.pick(&[0, 1, 4]);
        self.weights.members = 0;
        self.weights.evacuate = *rng.pick(&[0, 1, 3]);
        self.weights.upgrade = *rng.pick(&[0, 1]);
    }

    /// What replica `id` is told.
    pub fn config(&self, id: NodeId) -> Config {
        Config {
            snapshot_entries: self.snapshot_entries,
            snapshot_entries_kept: self.snapshot_entries_kept,
            snapshot_lag_entries: 2 * self.snapshot_entries,
            purge_entries_min: 1,
            ..Config::new(id)
        }
    }
}

/// A number of `max` at most, either way.
pub(super) fn either_way(rng: &mut Rng, max: u64) -> i64 {
    let size = i64::try_from(rng.below(max + 1)).expect("bounds are small");
    if rng.chance(PerMillion(500_000)) { size } else { -size }
}
