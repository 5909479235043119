//! Every bound of the wire, by name.

use std::time::Duration;

/// Largest message of the admin service, in bytes. A list of 250,000 actual LRPs fits.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// A connection that does not come about in this time is given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Most log lines that one answer carries.
pub const LOG_LINES_MAX: usize = 1000;
/// Most containers that one cell is asked about in one call.
pub const USAGE_CONTAINERS_MAX: usize = 256;
/// Longest that a call which waits for news is held open.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// Longest that an image's staging takes, the wait for a cell among it.
pub const STAGING_MAX: Duration = Duration::from_secs(120);

/// Largest frame of an attached stream, in bytes: a command with its arguments. A container takes
/// as much of them.
pub const ATTACH_FRAME_BYTES_MAX: usize = 256 << 10;
/// Most bytes of input or output in one frame of an attached stream.
pub const ATTACH_CHUNK_BYTES_MAX: usize = 32 << 10;
/// Input on its way to a process that has not taken it yet, in bytes; the client waits.
pub const ATTACH_WINDOW_BYTES: usize = 256 << 10;
/// Until a node that was reached says that it may be asked, which it does at once.
pub const ATTACH_READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Until a node, and the one that it asks, have begun what a stream was opened for.
pub const ATTACH_OPEN_TIMEOUT: Duration = Duration::from_secs(40);
/// Silence on a connection before the other side is asked whether it is there, between two such
/// questions, and how many may stay without an answer: a machine that has vanished is noticed
/// within a minute (tcp(7)).
pub const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(15);
/// See [`KEEP_ALIVE_IDLE`].
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// See [`KEEP_ALIVE_IDLE`].
pub const KEEP_ALIVE_PROBES: u32 = 4;
/// Most bytes of the name of who came, as another node passes it on.
pub const ATTACH_WHO_BYTES_MAX: usize = 256;
