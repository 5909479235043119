//! Every bound of the model, by name, with its source.

use crate::time::Millis;

/// Longest stored reason text (failure, rejection, crash, placement), in bytes.
/// Diego: `bbs/db/sqldb` truncates at 1024, keeping 1013 bytes and `(truncated)`.
pub const REASON_BYTES_MAX: usize = 1024;
/// Longest annotation, in bytes. Diego: `models.maximumAnnotationLength`.
pub const ANNOTATION_BYTES_MAX: usize = 10_240;
/// Largest sum of route values, in bytes. Diego: `models.maximumRouteLength`.
pub const ROUTES_BYTES_MAX: usize = 131_072;
/// Largest task result, in bytes. Diego: the rep's `MaxResultSize`, 50 KiB.
pub const RESULT_BYTES_MAX: usize = 51_200;
/// Longest guid, domain or cell id. Diego: `VARCHAR(255)` columns.
pub const NAME_BYTES_MAX: usize = 255;
/// Most instances of one LRP. Ours: an index row each must fit one batch of the log.
pub const INSTANCES_MAX: u32 = 100_000;
/// Most ports of one LRP. Ours: each takes a host port from the cell's range.
pub const PORTS_MAX: usize = 64;
/// Largest encoded desired LRP or task definition, in bytes. Ours: it travels to every member.
pub const DEFINITION_BYTES_MAX: usize = 1 << 20;
/// Largest value of a lock, in bytes. Ours; a cell's presence in Diego is some hundred bytes.
pub const LOCK_VALUE_BYTES_MAX: usize = 65_536;
/// Most levels of actions within actions. Ours: reading and dropping them recurses.
pub const ACTION_DEPTH_MAX: usize = 64;
/// Largest sum of mounted files' contents, in bytes. Diego: `models.maximumVolumeMountedFilesSize`.
pub const MOUNTED_FILES_BYTES_MAX: usize = 1 << 20;
/// Most commands of one proposal. Ours: one entry of the log stays small enough to copy quickly.
pub const PROPOSAL_COMMANDS_MAX: usize = 8192;

/// Rejections a task tolerates; the next one fails it. Diego: `tasks.max_retries`.
pub const TASK_REJECTIONS_MAX: u32 = 3;
/// A task not started after this long fails. Diego: `expire_pending_task_duration`.
pub const TASK_PENDING_MAX: Millis = Millis::from_secs(1800);
/// A completed task is forgotten after this long. Diego: `expire_completed_task_duration`.
pub const TASK_COMPLETED_MAX: Millis = Millis::from_secs(120);
/// A task resolving for this long is completed again. Diego: `kick_task_duration`.
pub const TASK_RESOLVING_MAX: Millis = Millis::from_secs(30);

/// Crashes that are restarted at once. Diego: `models.DefaultImmediateRestarts`.
pub const RESTARTS_IMMEDIATE: u32 = 3;
/// First wait of the back-off. Diego: `models.CrashBackoffMinDuration`.
pub const RESTART_WAIT_MIN: Millis = Millis::from_secs(30);
/// Longest wait of the back-off. Diego: `models.DefaultMaxBackoffDuration`.
pub const RESTART_WAIT_MAX: Millis = Millis::from_secs(16 * 60);
/// Crashes after which nothing restarts by itself. Diego: `models.DefaultMaxRestarts`.
pub const RESTARTS_MAX: u32 = 200;
/// An instance that ran longer than this starts its count anew. Diego: `CrashResetTimeout`.
pub const CRASH_RESET: Millis = Millis::from_secs(5 * 60);

/// Cuts a reason as Diego does: 1013 bytes and `(truncated)`, at a character boundary.
#[must_use]
pub fn truncate_reason(reason: &str) -> String {
    const MARK: &str = "(truncated)";
    if reason.len() < REASON_BYTES_MAX {
        return reason.to_owned();
    }
    let mut end = REASON_BYTES_MAX - MARK.len();
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &reason[..end])
}
