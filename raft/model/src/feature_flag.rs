//! Feature flags: what an operator has turned on for the whole cluster.

use serde::{Deserialize, Serialize};

/// Closed and append-only, as its numbers are persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureFlag {
    /// Docker images may be run. Off by default: an image brings a stranger's whole root file
    /// system ("Docker support in CF + Diego").
    DiegoDocker,
}

impl FeatureFlag {
    pub const ALL: [Self; 1] = [Self::DiegoDocker];

    /// The flag's name on the command line, as Cloud Foundry's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DiegoDocker => "diego_docker",
        }
    }
}
