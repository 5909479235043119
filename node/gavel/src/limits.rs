//! Every bound of the command line, by name.

use std::time::Duration;

/// How long a command keeps trying where `--timeout` is not given.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long `push` and `start` wait for instances where `-t` is not given. Cloud Foundry: the
/// default health check timeout, 60 s.
pub(crate) const START_TIMEOUT_DEFAULT: &str = "60s";
/// How long `evacuate` gives a cell where `--timeout` is not given. Diego: the rep's
/// `evacuation_timeout`, 600 s.
pub(crate) const EVACUATION_TIMEOUT_DEFAULT: Duration = Duration::from_mins(10);
/// How long `cluster replace` waits for the node to be started where `--timeout` is not given.
pub(crate) const REPLACE_TIMEOUT_DEFAULT: Duration = Duration::from_mins(5);
/// A node that does not answer the question whether it is there in this time is passed over.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// The first pause before a request is tried again, and the longest.
pub(crate) const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
pub(crate) const RETRY_WAIT_MAX: Duration = Duration::from_secs(1);
/// What a long poll's answer may take beyond the time that the node holds it open.
pub(crate) const POLL_SLACK: Duration = Duration::from_secs(5);
/// Between two looks at something that no long poll tells of.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Lines of several instances that arrive within this time are put in order of their stamps.
pub(crate) const LOG_MERGE_WINDOW: Duration = Duration::from_millis(100);
/// Chunks of log lines, 1000 lines at most each, that wait to be printed.
pub(crate) const LOG_CHUNKS_MAX: usize = 64;
/// How often `logs` looks whether the app has more or fewer instances.
pub(crate) const LOG_SCALE_LOOK: Duration = Duration::from_secs(2);

/// Most routes shown in one row of `apps`.
pub(crate) const ROUTES_SHOWN_MAX: usize = 3;

/// Most nodes of one `gavel dev`: they share the machine, and the host ports.
pub(crate) const DEV_NODES_MAX: u16 = 9;
/// How long `gavel dev` waits until a leader leads and all cells have registered.
pub(crate) const DEV_READY_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to stop its containers and itself before it is killed.
pub(crate) const DEV_STOP_MAX: Duration = Duration::from_secs(25);
/// The first pause before a node that ended is started again, and the longest.
pub(crate) const DEV_RESTART_WAIT_MIN: Duration = Duration::from_secs(1);
pub(crate) const DEV_RESTART_WAIT_MAX: Duration = Duration::from_secs(30);
/// A node that ran this long starts its pauses anew.
pub(crate) const DEV_RESTART_RESET: Duration = Duration::from_secs(60);
/// Last lines of a node's log that are shown when it ends, out of so many bytes.
pub(crate) const LOG_TAIL_LINES: usize = 10;
pub(crate) const LOG_TAIL_BYTES: u64 = 8 << 10;

/// Pieces of input, and messages to the node, that wait at once on this side of an attached stream.
pub(crate) const ATTACHED_WAITING_MAX: usize = 4;
/// Connections through forwarded ports at once; the next waits to be accepted.
pub(crate) const FORWARDS_MAX: usize = 64;
