//! The recipe language: what runs inside a container.
//!
//! The enum is append-only, as its numbers are persisted. JSON has Diego's form:
//! `{"run":{"path":"/bin/app", ...}}`.

use serde::{Deserialize, Serialize};

/// One step of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Run(RunAction),
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
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVariable {
    pub name: String,
    pub value: String,
}
