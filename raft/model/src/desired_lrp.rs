//! A desired LRP: what somebody wants to run, and how many of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::{Action, EnvironmentVariable, MountedFile};
use crate::check::CheckDefinition;
use crate::dependency::{CachedDependency, ImageLayer};
use crate::egress::EgressRule;
use crate::id::{DomainName, Epoch, ProcessGuid};
use crate::image::Digest;
use crate::metric_tag::MetricTagValue;
use crate::time::Millis;
use crate::volume::VolumeMount;

/// Diego: `models.DesiredLRP`. Field names are those of its JSON.
///
/// What is in a [`DesiredLrpUpdate`] can change; everything else is for the life of the process
/// guid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredLrp {
    pub process_guid: ProcessGuid,
    pub domain: DomainName,
    #[serde(default)]
    pub log_guid: String,
    #[serde(default)]
    pub log_source: String,
    /// The root file system's URL, for instance `docker:///library/nginx#1.27`.
    pub rootfs: String,
    /// What the tag of `rootfs` meant when it was desired. Every instance runs these bits.
    #[serde(default)]
    pub rootfs_digest: Option<Digest>,
    #[serde(default)]
    pub instances: i32,
    /// Mebibytes; 0 is unlimited.
    #[serde(default)]
    pub memory_mb: i32,
    /// Mebibytes; 0 is unlimited.
    #[serde(default)]
    pub disk_mb: i32,
    /// 0 is unlimited.
    #[serde(default)]
    pub max_pids: i32,
    /// 1 to 100, a share of the cell's CPU; 0 counts as 1. Diego: `cpu_weight`.
    #[serde(default)]
    pub cpu_weight: u32,
    #[serde(default)]
    pub env: Vec<EnvironmentVariable>,
    #[serde(default)]
    pub action: Option<Action>,
    /// Container ports that get a host port each.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// A JSON text for each router's name; opaque to Gavel.
    #[serde(default)]
    pub routes: BTreeMap<String, String>,
    #[serde(default)]
    pub annotation: String,
    #[serde(default)]
    pub placement_tags: Vec<String>,
    /// Minted by apply.
    #[serde(default)]
    pub modification_tag: ModificationTag,
    /// Runs before the action, and must succeed.
    #[serde(default)]
    pub setup: Option<Action>,
    /// Says whether the instance is healthy, where there is no check definition.
    #[serde(default)]
    pub monitor: Option<Action>,
    #[serde(default)]
    pub check_definition: Option<CheckDefinition>,
    /// Milliseconds until an instance that is not healthy yet has crashed; 0 is without end.
    #[serde(default)]
    pub start_timeout_ms: i64,
    #[serde(default)]
    pub privileged: bool,
    #[serde(default)]
    pub egress_rules: Vec<EgressRule>,
    #[serde(default)]
    pub cached_dependencies: Vec<CachedDependency>,
    #[serde(default)]
    pub image_layers: Vec<ImageLayer>,
    /// Who unpacks exclusive layers.
    #[serde(default)]
    pub legacy_download_user: String,
    #[serde(default)]
    pub trusted_system_certificates_path: String,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
    #[serde(default)]
    pub volume_mounted_files: Vec<MountedFile>,
    /// Of the container network's plug-in; opaque to Gavel.
    #[serde(default)]
    pub network: Option<Network>,
    #[serde(default)]
    pub certificate_properties: Option<CertificateProperties>,
    /// For the image's registry; with a password, or both empty.
    #[serde(default)]
    pub image_username: String,
    #[serde(default)]
    pub image_password: String,
    #[serde(default)]
    pub sidecars: Vec<Sidecar>,
    #[serde(default)]
    pub log_rate_limit: Option<LogRateLimit>,
    /// Of old clients; `metric_tags` has it as `source_id`.
    #[serde(default)]
    pub metrics_guid: String,
    #[serde(default)]
    pub metric_tags: BTreeMap<String, MetricTagValue>,
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// Set by apply.
    #[serde(default)]
    pub created_at: Millis,
    /// Of the request that desired it or changed it last, for logs and events; empty where that had
    /// none.
    #[serde(default)]
    pub trace_id: String,
}

/// What an evacuation does with a running instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UpdateStrategy {
    /// Its replacement runs before it ends.
    #[default]
    Rolling,
    /// It ends before its replacement starts: two never run at once.
    Recreate,
}

/// Diego: `models.Network`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    pub properties: BTreeMap<String, String>,
}

/// What an instance's identity certificate says besides its guid. Diego:
/// `models.CertificateProperties`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateProperties {
    pub organizational_unit: Vec<String>,
}

/// A process beside the app's own. Diego: `models.Sidecar`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sidecar {
    pub action: Option<Action>,
    /// Mebibytes; 0 is unlimited.
    pub disk_mb: i32,
    /// Mebibytes; 0 is unlimited.
    pub memory_mb: i32,
}

/// Diego: `models.LogRateLimit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogRateLimit {
    /// -1 is unlimited, 0 is nothing.
    pub bytes_per_second: i64,
}

/// Which of two versions of a record is the later one. Diego: `models.ModificationTag`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModificationTag {
    /// Distinct for each creation.
    pub epoch: Epoch,
    /// Rises by one with each change.
    pub index: u32,
}

impl ModificationTag {
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, index: 0 }
    }

    #[must_use]
    pub fn next(&self) -> Self {
        Self { epoch: self.epoch.clone(), index: self.index.wrapping_add(1) }
    }
}

/// A change of a desired LRP; what is absent stays. Diego: `models.DesiredLRPUpdate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DesiredLrpUpdate {
    pub instances: Option<i32>,
    pub routes: Option<BTreeMap<String, String>>,
    pub annotation: Option<String>,
    pub metric_tags: Option<BTreeMap<String, MetricTagValue>>,
    /// With a password, or neither.
    pub image_username: Option<String>,
    pub image_password: Option<String>,
    /// Of the request, see [`DesiredLrp::trace_id`].
    pub trace_id: String,
}

impl DesiredLrpUpdate {
    /// What is wrong with it, if anything, in the words in which Diego refuses it.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        crate::validate::desired_lrp_update(self).err().map(|refusal| refusal.to_string())
    }
}

impl DesiredLrp {
    /// What is wrong with it as a client of Diego's API desires it, if anything, in the words in
    /// which Diego refuses it. Unlike elsewhere it must have a metric tag.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        crate::validate::desired_lrp_of_diegos(self).err().map(|refusal| refusal.to_string())
    }

    /// The indices that should have an ordinary row each.
    #[must_use]
    pub fn indices(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.instances).unwrap_or(0)
    }
}
