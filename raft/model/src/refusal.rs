//! Why the cluster says no. A refusal changes nothing and is a normal answer.

use serde::{Deserialize, Serialize};

use crate::feature_flag::FeatureFlag;
use crate::id::{CellId, LockKey, ProcessGuid, TaskGuid};

/// Closed and append-only: the codes are part of the contract, and are mapped once to Diego's
/// error types (lifecycle.md section 7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// All of the request's bad fields, joined as Diego joins them.
    #[error("{0}")]
    InvalidRequest(String),
    #[error("desired LRP {0} already exists")]
    DesiredLrpExists(ProcessGuid),
    #[error("desired LRP {0} could not be found")]
    DesiredLrpNotFound(ProcessGuid),
    #[error("actual LRP {process_guid}/{index} could not be found")]
    ActualLrpNotFound { process_guid: ProcessGuid, index: u32 },
    #[error("task {0} already exists")]
    TaskExists(TaskGuid),
    #[error("task {0} could not be found")]
    TaskNotFound(TaskGuid),
    #[error("cell {0} could not be found")]
    CellNotFound(CellId),
    #[error("Cannot transition from {from} to {to}")]
    InvalidTaskTransition { from: TaskStateName, to: TaskStateName },
    #[error("Running on cell {recorded} not {caller}")]
    RunningOnDifferentCell { recorded: CellId, caller: CellId },
    #[error("cannot claim actual LRP {process_guid}/{index}: it is {state}")]
    ActualLrpCannotBeClaimed { process_guid: ProcessGuid, index: u32, state: String },
    #[error("cannot start actual LRP {process_guid}/{index}: it is {state}")]
    ActualLrpCannotBeStarted { process_guid: ProcessGuid, index: u32, state: String },
    #[error("cannot crash actual LRP {process_guid}/{index}: it is {state}")]
    ActualLrpCannotBeCrashed { process_guid: ProcessGuid, index: u32, state: String },
    #[error("cannot fail actual LRP {process_guid}/{index}: it is {state}")]
    ActualLrpCannotBeFailed { process_guid: ProcessGuid, index: u32, state: String },
    #[error("cannot remove actual LRP {process_guid}/{index}: it is {state}")]
    ActualLrpCannotBeRemoved { process_guid: ProcessGuid, index: u32, state: String },
    #[error("cannot unclaim actual LRP {process_guid}/{index}: it is {state}")]
    ActualLrpCannotBeUnclaimed { process_guid: ProcessGuid, index: u32, state: String },
    /// A plan met a state that has moved on; the next turn plans anew.
    #[error("cell {0} is not taking work")]
    CellNotPresent(CellId),
    #[error("cell {cell_id} has no room: {dimension}")]
    NoRoom { cell_id: CellId, dimension: String },
    #[error(
        "feature flag {} is disabled; an operator can enable it with: gavel enable-feature-flag {}",
        .0.name(), .0.name()
    )]
    FeatureDisabled(FeatureFlag),
    #[error("the cluster has been initialised already")]
    ClusterInitialised,
    #[error("it is not time yet")]
    NotDue,
    #[error("the lock {0} is held by another owner")]
    LockHeld(LockKey),
}

/// A task state's name, as Diego writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskStateName {
    Pending,
    Running,
    Completed,
    Resolving,
}

impl std::fmt::Display for TaskStateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

impl Refusal {
    /// The name of Diego's error type (`models.Error_Type`) that clients know this by.
    #[must_use]
    pub fn diego_type(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) | Self::FeatureDisabled(_) => "InvalidRequest",
            Self::DesiredLrpExists(_) | Self::TaskExists(_) | Self::ClusterInitialised => {
                "ResourceExists"
            }
            Self::DesiredLrpNotFound(_)
            | Self::ActualLrpNotFound { .. }
            | Self::TaskNotFound(_)
            | Self::CellNotFound(_) => "ResourceNotFound",
            Self::InvalidTaskTransition { .. } => "InvalidStateTransition",
            Self::RunningOnDifferentCell { .. } => "RunningOnDifferentCell",
            Self::ActualLrpCannotBeClaimed { .. } => "ActualLRPCannotBeClaimed",
            Self::ActualLrpCannotBeStarted { .. } => "ActualLRPCannotBeStarted",
            Self::ActualLrpCannotBeCrashed { .. } => "ActualLRPCannotBeCrashed",
            Self::ActualLrpCannotBeFailed { .. } => "ActualLRPCannotBeFailed",
            Self::ActualLrpCannotBeRemoved { .. } => "ActualLRPCannotBeRemoved",
            Self::ActualLrpCannotBeUnclaimed { .. } => "ActualLRPCannotBeUnclaimed",
            Self::LockHeld(_) => "LockCollision",
            Self::CellNotPresent(_) | Self::NoRoom { .. } | Self::NotDue => "ResourceConflict",
        }
    }
}
