//! Every bound of this crate, by name, with the reason for its figure (executor.md sections 1, 5,
//! 6 and 14; "ours" where Diego has none).

use std::time::Duration;

// --- what is told ------------------------------------------------------------------------

/// Longest failure reason, in bytes; a longer one loses its middle.
pub const REASON_BYTES_MAX: usize = 10_000;
/// Longest line that tells of a failed download, in bytes.
pub const DOWNLOAD_ERROR_LINE_BYTES_MAX: usize = 1024;
/// What is kept of the output of one run of a monitor, in bytes. Ours: it becomes a reason.
pub const MONITOR_OUTPUT_BYTES_MAX: usize = 16 << 10;

/// Longest source of a line, in bytes: what containers keep of it.
pub const LOG_SOURCE_BYTES_MAX: usize = 255;

// --- processes ---------------------------------------------------------------------------

/// Longest key of a process, in bytes; a longer one is replaced by its checksum. Ours: containers
/// take names of 256 bytes, and actions may be 64 deep.
pub const KEY_BYTES_MAX: usize = 200;

/// From SIGTERM to SIGKILL.
pub const GRACEFUL_INTERVAL: Duration = Duration::from_secs(10);
/// From SIGKILL until the process is given up.
pub const EXIT_WAIT: Duration = Duration::from_secs(1);
/// What a recipe that is taken up again waits at least before a time that has run out meanwhile
/// counts. Ours: what ended in time while nobody watched is heard first.
pub const RESUME_GRACE: Duration = Duration::from_secs(1);

// --- health ------------------------------------------------------------------------------

/// Between two checks of a healthy instance.
pub const HEALTHY_INTERVAL: Duration = Duration::from_secs(30);
/// Between two checks of an instance that is not healthy yet, or not ready.
pub const UNHEALTHY_INTERVAL: Duration = Duration::from_secs(2);
/// Between the first two declared checks of an instance that is not healthy yet, or not ready; each
/// further pause is twice as long, up to [`UNHEALTHY_INTERVAL`]. Ours: Diego's second check comes
/// after 2 s, and a program listens some milliseconds after its start. On two cores `gavel push` took
/// 2,038 ms to the first answer, of which 1,997 were that pause (25 November 2026).
pub const UNHEALTHY_PAUSE_FIRST: Duration = Duration::from_millis(10);
/// One declared check, where it says nothing itself.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// What is read of a checked page's body, in bytes. Ours: the head has answered already.
pub const PROBE_BODY_BYTES_MAX: usize = 1 << 20;
/// Runs of monitors at the same time on one cell.
pub const MONITOR_RUNS_AT_ONCE_MAX: usize = 64;

// --- downloads and uploads ---------------------------------------------------------------

/// Downloads at the same time on one cell, cached dependencies among them.
pub const DOWNLOADS_AT_ONCE_MAX: usize = 5;
/// Uploads at the same time on one cell.
pub const UPLOADS_AT_ONCE_MAX: usize = 5;
/// To a TCP connection.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Redirects followed for one request: what Go's HTTP client follows.
pub const REDIRECTS_MAX: usize = 10;
/// Silence of a server that is downloaded from.
pub const DOWNLOAD_STALL_MAX: Duration = Duration::from_secs(10);
/// One try of a download.
pub const DOWNLOAD_MAX: Duration = Duration::from_secs(600);
/// Tries of one download.
pub const DOWNLOAD_TRIES_MAX: u32 = 4;
/// The pause before the second try; doubled for each further one.
pub const DOWNLOAD_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause between two tries, without what chance adds.
pub const DOWNLOAD_PAUSE_MAX: Duration = Duration::from_secs(5);
/// What chance may add to a pause.
pub const DOWNLOAD_JITTER_MAX: Duration = Duration::from_millis(200);
/// One try of an upload.
pub const UPLOAD_MAX: Duration = Duration::from_secs(600);
/// Tries of one upload.
pub const UPLOAD_TRIES_MAX: u32 = 3;
/// Largest file that is uploaded, in bytes. Ours: it lies on the cell's disk meanwhile.
pub const UPLOAD_BYTES_MAX: u64 = 8 << 30;

// --- the cache ---------------------------------------------------------------------------

/// What the cache may take of the disk, in bytes, with what is just being downloaded.
pub const CACHE_BYTES_MAX: u64 = 10_000_000_000;
/// Room is taken in steps of this many bytes. Ours: one look at the index for many writes.
pub const CACHE_ROOM_STEP_BYTES: u64 = 1 << 20;
/// What a thing in the cache takes of the disk however small it is, in bytes: a block for itself
/// and one for the record of it. Ours: it bounds how many there are.
pub const CACHE_ENTRY_BYTES: u64 = 8 << 10;
/// Largest archive once it is a plain tar, in bytes: the stop for a decompression bomb. Ours;
/// Diego trusts the container's quota, which the tar has not reached yet.
pub const ARCHIVE_BYTES_MAX: u64 = 8 << 30;
/// Largest list of contents of a zip, in bytes: it is read into memory, some ten times as large.
/// Ours; 100,000 files of a Node.js app have 12 MiB.
pub const ZIP_DIRECTORY_BYTES_MAX: u64 = 32 << 20;
/// Longest target of a symlink in a zip: the kernel's PATH_MAX.
pub const ZIP_LINK_BYTES_MAX: u64 = 4096;
/// Longest ETag or Last-Modified that is kept, in bytes. Ours: it is sent back with each request.
pub const VALIDATOR_BYTES_MAX: usize = 1024;
