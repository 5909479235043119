//! The recipe language: what runs inside a container, and what it takes to get there.
//!
//! The enum is append-only, as its numbers are persisted. JSON has Diego's form:
//! `{"serial":{"actions":[{"download":{...}},{"run":{"path":"/bin/app", ...}}]}}`.

use std::cell::Cell;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::ACTION_DEPTH_MAX;

/// One step of a recipe. Diego: `models.Action`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Run(RunAction),
    Download(DownloadAction),
    Upload(UploadAction),
    Timeout(TimeoutAction),
    EmitProgress(EmitProgressAction),
    Try(TryAction),
    /// All at once; fails when one fails, after all have ended.
    Parallel(ManyActions),
    /// One after the other, until one fails.
    Serial(ManyActions),
    /// All at once; when one ends, however it does, the others are ended.
    Codependent(ManyActions),
}

/// Runs a process in the container. Diego: `models.RunAction`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunAction {
    /// The executable, absolute or found in the container's `PATH`.
    pub path: String,
    pub args: Vec<String>,
    /// Working directory; empty means the user's home.
    pub dir: String,
    /// A user name, uid, `uid:gid` or `name:group` of the image.
    pub user: String,
    pub env: Vec<EnvironmentVariable>,
    /// Where its output is said to come from, for instance `APP/PROC/WEB`.
    pub log_source: String,
    pub suppress_log_output: bool,
    pub resource_limits: ResourceLimits,
    pub volume_mounted_files: Vec<MountedFile>,
}

/// Unpacks an archive from a URL into the container. Diego: `models.DownloadAction`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DownloadAction {
    /// What the log calls it; nothing is logged where empty.
    pub artifact: String,
    pub from: String,
    /// A directory in the container.
    pub to: String,
    pub cache_key: String,
    pub user: String,
    pub log_source: String,
    /// `md5`, `sha1` or `sha256`, with a value; both or neither.
    pub checksum_algorithm: String,
    pub checksum_value: String,
}

/// Sends a file of the container to a URL. Diego: `models.UploadAction`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UploadAction {
    pub artifact: String,
    pub from: String,
    pub to: String,
    pub user: String,
    pub log_source: String,
}

/// Ends its action, and fails, when it takes too long. Diego: `models.TimeoutAction`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeoutAction {
    pub action: Option<Nested>,
    /// Milliseconds.
    pub timeout_ms: i64,
    pub log_source: String,
}

/// Logs how its action goes. Diego: `models.EmitProgressAction`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmitProgressAction {
    pub action: Option<Nested>,
    pub start_message: String,
    pub success_message: String,
    pub failure_message_prefix: String,
    pub log_source: String,
}

/// Succeeds whatever its action does. Diego: `models.TryAction`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TryAction {
    pub action: Option<Nested>,
    pub log_source: String,
}

/// Actions that belong together. Diego: `models.ParallelAction` and its like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManyActions {
    /// An entry may be missing on Diego's wire, which validation refuses.
    pub actions: Vec<Option<Nested>>,
    pub log_source: String,
}

/// An action within another: at most [`ACTION_DEPTH_MAX`] deep, so that no bytes from outside make
/// a reader recurse until its stack is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested(pub Box<Action>);

impl From<Action> for Nested {
    fn from(action: Action) -> Self {
        Self(Box::new(action))
    }
}

impl Serialize for Nested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Nested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        thread_local! {
            static DEPTH: Cell<usize> = const { Cell::new(0) };
        }
        /// Leaves the level also when reading fails.
        struct Level;
        impl Drop for Level {
            fn drop(&mut self) {
                DEPTH.set(DEPTH.get() - 1);
            }
        }
        DEPTH.set(DEPTH.get() + 1);
        let _level = Level;
        if DEPTH.get() > ACTION_DEPTH_MAX {
            let reason = format!("actions are nested more than {ACTION_DEPTH_MAX} deep");
            return Err(D::Error::custom(reason));
        }
        Action::deserialize(deserializer).map(Self::from)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVariable {
    pub name: String,
    pub value: String,
}

/// Diego: `models.ResourceLimits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// Most open files of the process.
    pub nofile: Option<u64>,
    /// Of old clients; `max_pids` is what counts.
    pub nproc: Option<u64>,
}

/// A file that is put into the container's volume of secrets. Diego: `models.File`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountedFile {
    pub path: String,
    pub content: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Action {
        let run = Action::Run(RunAction::default());
        (0..levels).fold(run, |action, _| {
            Action::Try(TryAction { action: Some(action.into()), log_source: String::new() })
        })
    }

    #[test]
    fn nesting_has_a_bound_on_reading() {
        let read = |levels| {
            let bytes = postcard::to_stdvec(&nested(levels)).unwrap();
            postcard::from_bytes::<Action>(&bytes)
        };
        assert_eq!(read(ACTION_DEPTH_MAX), Ok(nested(ACTION_DEPTH_MAX)));
        assert!(read(ACTION_DEPTH_MAX + 1).is_err());
        assert_eq!(
            read(ACTION_DEPTH_MAX),
            Ok(nested(ACTION_DEPTH_MAX)),
            "a refusal leaves no trace"
        );
    }
}
