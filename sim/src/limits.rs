//! The simulator's bounds: what it may not exceed, and where each number comes from.

use std::time::Duration;

use model::Millis;
use replica::limits::SNAPSHOT_INSTALL_TIMEOUT;

/// Polls in a row during which virtual time stands still, before the run is called a livelock.
///
/// Five replicas under load and faults need below 20,000 polls at one instant (measured); two
/// tasks that wake each other for ever pass this in about a second of real time.
pub const POLLS_AT_ONE_INSTANT_MAX: u64 = 10_000_000;

/// Unsynced write batches one disk holds before a write is refused: a node that never syncs is
/// broken, and should not eat the simulator's memory.
pub const DISK_UNSYNCED_BATCHES_MAX: usize = 100_000;

/// Violations kept of one run: the first ones tell the story, later ones follow from them.
pub const VIOLATIONS_KEPT_MAX: usize = 20;

/// How long a replica may take to stop when its disk has failed: what it was about to answer.
pub const STOP_MAX: Duration = Duration::from_millis(100);

/// How long after a replica stopped by itself its node is started again: a supervisor's pause.
pub const RESTART_AFTER_STOP: Duration = Duration::from_secs(1);

/// Virtual time within which a healed cluster must agree again, with every member at the same
/// entry: an election (2 to 4 s for the replica's own times), one that failed before it, and the
/// longest wait of a peer that was unreachable, twice over; and before all that the answer to a
/// snapshot's last chunk, which a leader may be waiting for in vain (seed 55: a lost one kept a
/// follower from hearing of new entries for that long).
pub const HEAL_MAX: Duration = SNAPSHOT_INSTALL_TIMEOUT.saturating_add(Duration::from_secs(30));

/// Virtual time within which what runs must be what is desired, once a cluster agrees again: the
/// longest wait of an instance that crashed often (16 min), clocks two minutes apart, and two
/// minutes for all the rest (a silent cell 15 s, a rejected task's rest 30 s, thrice).
pub const CONVERGE_MAX: Duration = Duration::from_secs(20 * 60);

/// As [`CONVERGE_MAX`], in a world that is wrong and will not come right however long one waits.
pub const CONVERGE_SABOTAGED_MAX: Duration = Duration::from_secs(60);

/// How long an evacuation after healing may take: longer than it ever does, so that nothing on the
/// way may be ended.
pub const EVACUATION_TIMEOUT: Millis = Millis::from_secs(60 * 60);

/// Virtual time within which a cell is empty when nothing goes wrong: every task on it ends (5
/// min), and every instance is replaced.
pub const EVACUATE_MAX: Duration = Duration::from_secs(6 * 60);

/// How long a cluster with nothing to do is watched.
pub const QUIET: Duration = Duration::from_secs(2);

/// Entries that change nothing meanwhile, at the most: reports that crossed with what they report.
pub const QUIET_ENTRIES_MAX: u64 = 5;

/// How fast a clock may run or how slow, in percent of true time: far worse than any crystal.
pub const DRIFT_PERCENT_MAX: u64 = 5;

/// How long an operator waits for one answer.
pub const OPERATOR_PATIENCE: Duration = Duration::from_secs(30);

/// How often an operator tries to have a new machine let in, at the most.
pub const JOIN_TRIES_MAX: u64 = 10;

/// How long between two tries.
pub const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// How often the healing looks whether it is done.
pub const HEAL_LOOK: Duration = Duration::from_millis(100);

/// Members that a run's changes bring a cluster to, at the most.
pub const MEMBERS_MAX: usize = 7;

/// Voters that a run's changes leave a cluster, at the least.
pub const VOTERS_MIN: usize = 3;

/// Tasks in the state above which clients desire no more: states stay quick to compare.
pub const TASKS_MAX: usize = 60;

/// LRPs above which clients ask whole nodes for no more: each takes up to 4 containers.
pub const LRPS_RUNNING_MAX: usize = 6;

/// LRPs in the state above which clients desire no more.
pub const LRPS_MAX: usize = 20;

/// What a cell offers at the least, in MiB, for one to be enough for all that clients desire.
pub const CELL_MEMORY_AMPLE_MB: u32 = 4096;
