//! Every bound of the wire, by name.

use std::time::Duration;

/// Largest message of the admin service, in bytes. A list of 250,000 actual LRPs fits.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// A connection that does not come about in this time is given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Most log lines that one answer carries.
pub const LOG_LINES_MAX: usize = 1000;
/// Longest that a call which waits for news is held open.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
