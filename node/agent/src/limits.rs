//! Every bound of the loops, by name.

use std::time::Duration;

use model::Millis;

/// Between two heartbeats of a cell to the leader. Diego: presence is renewed every 5 s for a
/// TTL of 15 s; three times as often here, as a heartbeat costs no log entry.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long a heartbeat or a question to the leader may take.
pub const SOFT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change of the members may take at the leader: two steps of a joint change, each
/// within an election's time.
pub const MEMBERS_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two turns at the least, so that a flood of changes shares turns.
pub const TURN_PAUSE: Duration = Duration::from_millis(5);
/// The pause after a turn is at least so many times as long as its planning took: the leader plans
/// for a quarter of one processor's time at most, unless there is more to decide than fits a turn.
pub const TURN_PAUSE_TIMES: u32 = 3;
/// Between two turns at the most: the safety net, as Diego's convergence of 30 s.
pub const TURN_SWEEP: Duration = Duration::from_secs(30);
/// As [`TURN_SWEEP`], while some cell is missing and may be heard again.
pub const TURN_SWEEP_MISSING: Duration = Duration::from_millis(500);
/// After a turn that could not be proposed.
pub const TURN_RETRY: Duration = Duration::from_millis(200);
/// Between two looks of a cell at its containers at the most. Diego: the rep's bulk sync is 30 s.
pub const CELL_SWEEP: Duration = Duration::from_secs(5);
/// Reports of one cell that share a proposal, at the most: each may bring a task's result of 50 KiB,
/// and a proposal has 8 MiB.
pub const REPORTS_MAX: usize = 100;
/// Between two proposals of one cell's reports, on average: what comes up meanwhile shares the next.
/// Every entry goes to every member, so a thousand cells that start two hundred containers each
/// would send a quarter of a million of them.
pub const REPORT_PAUSE: Duration = Duration::from_millis(100);
/// Proposals of reports that may follow one another at once before [`REPORT_PAUSE`] counts: the start
/// and the end of a task that stages an image, and the start of its app, which somebody waits for.
pub const REPORTS_UNPAUSED_MAX: u32 = 4;
/// After a report that could not be proposed.
pub const REPORT_RETRY: Duration = Duration::from_millis(500);
/// Between the entry that takes an instance's record away and its SIGTERM. Every router follows the
/// same log, so this is how far a node may be behind and its requests are answered still; Diego
/// sends SIGTERM at once, and has its apps finish what comes late.
pub const ROUTE_DRAIN: Duration = Duration::from_secs(1);
/// How long one request of a callback may take, in the cluster's time. Diego:
/// `communication_timeout`.
pub const CALLBACK_TIMEOUT: Millis = Millis::from_secs(10);
/// Requests of one callback before it is left for later. Diego: `task_callback` retries.
pub const CALLBACK_REQUESTS_MAX: u32 = 3;
/// Containers made at once on one cell. Diego: `create_work_pool_size`.
pub const CREATES_MAX: usize = 32;
