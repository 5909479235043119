//! A task: a process that runs to its end, at most once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::{Action, EnvironmentVariable, MountedFile};
use crate::dependency::{CachedDependency, ImageLayer};
use crate::desired_lrp::{CertificateProperties, LogRateLimit, Network};
use crate::egress::EgressRule;
use crate::id::{CellId, DomainName, TaskGuid};
use crate::image::Digest;
use crate::metric_tag::MetricTagValue;
use crate::time::Millis;
use crate::volume::VolumeMount;

/// Diego: `models.Task`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub task_guid: TaskGuid,
    pub domain: DomainName,
    pub definition: TaskDefinition,
    pub state: TaskState,
    pub created_at: Millis,
    pub updated_at: Millis,
    pub rejection_count: u32,
    pub rejection_reason: String,
}

/// Where a task has got to, with what is known there and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Not started. `placed_on` names the cell that should start it; nothing runs yet, and the
    /// cell may still be changed.
    Pending {
        placed_on: Option<CellId>,
    },
    /// The start is agreed: from here on the container may have run, so it never starts again.
    Running {
        cell_id: CellId,
    },
    Completed {
        result: TaskResult,
    },
    /// Somebody has taken it upon himself to tell the client and delete the task.
    Resolving {
        result: TaskResult,
    },
}

/// What is wrong with a task as a client desires it, if anything, in the words in which Diego
/// refuses it.
#[must_use]
pub fn complaint(
    task_guid: &TaskGuid,
    domain: &DomainName,
    definition: Option<&TaskDefinition>,
) -> Option<String> {
    let verdict = crate::validate::task(task_guid, domain, definition);
    verdict.err().map(|refusal| refusal.to_string())
}

/// Why a task failed that somebody has cancelled. Diego's words.
pub const CANCELLED: &str = "task was cancelled";

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    pub failed: bool,
    /// Empty unless it failed.
    pub failure_reason: String,
    /// The content of the result file, if one was asked for.
    pub result: String,
    pub first_completed_at: Millis,
}

/// Diego: `models.TaskDefinition`. Field names are those of its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskDefinition {
    /// The root file system's URL.
    pub rootfs: String,
    /// What the tag of `rootfs` meant when the task was desired.
    pub rootfs_digest: Option<Digest>,
    pub env: Vec<EnvironmentVariable>,
    pub action: Option<Action>,
    /// Mebibytes; 0 is unlimited.
    pub memory_mb: i32,
    /// Mebibytes; 0 is unlimited.
    pub disk_mb: i32,
    /// 0 is unlimited.
    pub max_pids: i32,
    /// 0 to 100, a share of the cell's CPU; 0 is the kernel's default.
    pub cpu_weight: u32,
    pub log_guid: String,
    pub log_source: String,
    pub annotation: String,
    pub placement_tags: Vec<String>,
    /// A path in the container; its content is the task's result.
    pub result_file: String,
    /// Where the end of the task is told by HTTP; nobody is told where empty.
    pub completion_callback_url: String,
    pub privileged: bool,
    /// Of old clients; `metric_tags` has it as `source_id`.
    pub metrics_guid: String,
    pub metric_tags: BTreeMap<String, MetricTagValue>,
    pub egress_rules: Vec<EgressRule>,
    pub cached_dependencies: Vec<CachedDependency>,
    pub image_layers: Vec<ImageLayer>,
    /// Who unpacks exclusive layers.
    pub legacy_download_user: String,
    pub trusted_system_certificates_path: String,
    pub volume_mounts: Vec<VolumeMount>,
    pub volume_mounted_files: Vec<MountedFile>,
    /// Of the container network's plug-in; opaque to Gavel.
    pub network: Option<Network>,
    pub certificate_properties: Option<CertificateProperties>,
    /// For the image's registry; with a password, or both empty.
    pub image_username: String,
    pub image_password: String,
    pub log_rate_limit: Option<LogRateLimit>,
    /// Of the request that desired it, for logs; empty where that had none.
    pub trace_id: String,
}

impl TaskState {
    /// The state's name in Diego's API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "Pending",
            Self::Running { .. } => "Running",
            Self::Completed { .. } => "Completed",
            Self::Resolving { .. } => "Resolving",
        }
    }
}

impl Task {
    /// The cell whose room the task takes: chosen for it, or running it.
    #[must_use]
    pub fn cell(&self) -> Option<&CellId> {
        match &self.state {
            TaskState::Pending { placed_on } => placed_on.as_ref(),
            TaskState::Running { cell_id } => Some(cell_id),
            TaskState::Completed { .. } | TaskState::Resolving { .. } => None,
        }
    }

    /// Whether somebody is to be told by HTTP that it has ended, and nobody has taken that upon
    /// himself (lifecycle.md section 1.7).
    #[must_use]
    pub fn awaits_callback(&self) -> bool {
        matches!(self.state, TaskState::Completed { .. })
            && !self.definition.completion_callback_url.is_empty()
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn result(&self) -> Option<&TaskResult> {
        match &self.state {
            TaskState::Completed { result } | TaskState::Resolving { result } => Some(result),
            TaskState::Pending { .. } | TaskState::Running { .. } => None,
        }
    }
}
