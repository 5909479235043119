//! Every bound of this crate, with where its number comes from.

// --- containers -------------------------------------------------------------------------

/// Layers of one root file system.
/// Docker's images stop at 127; overlayfs takes 500.
pub const LAYERS_MAX: usize = 127;

/// Bytes of a container id: Diego's handles are `<process guid>-<instance guid>` cut to 63.
pub const CONTAINER_ID_BYTES_MAX: usize = 128;

/// Ports one container may publish.
pub const CONTAINER_PORTS_MAX: usize = 64;

/// State changes kept for a slow subscriber before it is told that it lagged.
pub const EVENTS_MAX: usize = 1024;

/// Requests waiting for one shim.
/// One start, one stop and one follower's wake-up are the ordinary load.
pub const SHIM_REQUESTS_MAX: usize = 16;

/// Nodes connected to one shim at a time: the owner, and a successor that overlaps it.
pub const SHIM_CLIENTS_MAX: usize = 4;

/// Bytes of one message between node, shim and init.
/// Linux caps a process's arguments and environment at 2 MiB by default; the larger part of
/// an honest environment is a few KiB, so 512 KiB is refused before the kernel would.
pub const SHIM_MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// How long a shim may take to set a container up, or to start a process in it.
/// Measured: 10 ms; the rest is for a machine that swaps.
pub const SHIM_REPLY_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// How long a killed container may take to be gone before its shim is killed as well.
pub const EXIT_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Tries to remove a cgroup whose last task is still being reaped, and the pause between two.
pub const CGROUP_REMOVE_TRIES_MAX: u32 = 400;
/// See [`CGROUP_REMOVE_TRIES_MAX`].
pub const CGROUP_REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// How long a runtime waits for its directory: what a killed node was just starting holds the
/// lock until it is executed.
pub const LOCK_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// Bytes of one log line; a longer one is split.
/// Diego's streamer: `MAX_MESSAGE_SIZE`, 61440.
pub const LOG_LINE_BYTES_MAX: usize = 61_440;

/// Files that one container's log is spread over; the oldest is dropped as a whole.
pub const LOG_SEGMENTS_MAX: u64 = 4;

/// Bytes read from a log at a time.
pub const LOG_BATCH_BYTES_MAX: usize = 256 * 1024;

/// Bytes read of the image's `/etc/passwd` or `/etc/group`.
pub const USER_DATABASE_BYTES_MAX: u64 = 1024 * 1024;

/// Groups of one process: the kernel's NGROUPS_MAX is 65536; nobody needs so many.
pub const GROUPS_MAX: usize = 1024;

/// Containers torn down or adopted at the same time when a runtime opens.
pub const RECOVER_AT_ONCE_MAX: usize = 8;
