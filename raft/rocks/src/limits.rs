//! Every bound of the crate, with the reason for its value.

/// The version of the layout: which column families there are and how their keys are made.
pub const FORMAT_VERSION: u32 = 1;

/// Syncs waiting for the flush thread: beyond it, whoever asks waits. openraft merges appends, so
/// a handful is usual.
pub const SYNC_QUEUE_MAX: usize = 4_096;

/// Reads waiting for the reading thread: one for each follower that is behind, and one for
/// applying.
pub const READ_QUEUE_MAX: usize = 1_024;

/// Bytes of the log in memory before RocksDB writes them to a file of their own. With purges in
/// step with snapshots, much of the log dies here and is never written a second time.
pub const LOG_BUFFER_BYTES: usize = 32 << 20;

/// Bytes of rows in memory before RocksDB writes them to a file of their own.
pub const STATE_BUFFER_BYTES: usize = 16 << 20;

/// Bytes of the write-ahead log: bounds what a start has to replay, and the disk it takes.
pub const WAL_BYTES_MAX: u64 = 128 << 20;

/// Files RocksDB keeps open. Well under the usual limit of a process, which containers need too.
pub const OPEN_FILES_MAX: i32 = 256;

/// RocksDB's own diary, in files of this size.
pub const INFO_LOG_BYTES: usize = 1 << 20;

/// How many of those are kept.
pub const INFO_LOGS_KEPT: usize = 2;

/// Threads of RocksDB's that flush and compact.
pub const BACKGROUND_JOBS: i32 = 2;
