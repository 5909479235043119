//! Every bound of the real world, by name.

use std::time::Duration;

/// Connections open at once, of clients and of other nodes together.
pub const CONNECTIONS_MAX: usize = 4096;
/// Calls in progress at once on one client's connection; the next waits.
pub const CALLS_PER_CONNECTION_MAX: usize = 1024;
/// A connection that has not said what it is by then is closed.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message between nodes, in bytes: an append's entries, or a snapshot's chunk.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Requests of other nodes in progress at once on one connection; the next waits.
pub const PEER_CALLS_MAX: usize = 256;
/// Requests waiting to be sent to one other node; one more is refused.
pub const PEER_QUEUE_MAX: usize = 1024;
/// A connection to another node that does not come about in this time is given up.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between a container's SIGTERM and its SIGKILL. Diego: `graceful_shutdown_interval`.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// Between the two for what a recipe leaves behind when it has ended: it had its time.
pub const STOP_NOW: Duration = Duration::ZERO;
/// Between SIGTERM and SIGKILL where the node ends its containers with itself.
pub const EXIT_GRACE: Duration = Duration::from_secs(5);
/// Inodes that one container may make. Diego: `inode_limit`.
pub const INODES_MAX: u64 = 200_000;
/// What is kept of one container's output on disk, in bytes.
pub const LOG_BYTES_MAX: u64 = 8 << 20;
/// How often a follower of output that has ended looks whether its container was replaced.
pub const LOG_POLL: Duration = Duration::from_millis(250);

/// Redirections that a callback follows. Go's HTTP client, and so Diego's, follows 10.
pub const CALLBACK_REDIRECTS_MAX: usize = 10;
/// Longest result file of a task, in bytes; a longer one fails the task. Diego: the same, 50 KiB.
pub const RESULT_BYTES_MAX: usize = 51_200;
/// What is kept of a process's output where it is not for the log, in bytes: a monitor's words, an
/// error's. Diego cuts the reason of a failure to 10,000 bytes.
pub const CAPTURED_BYTES_MAX: usize = 16 << 10;
/// How long the output of a process that has ended may be held open by its children.
pub const CAPTURE_WAIT_MAX: Duration = Duration::from_millis(500);
