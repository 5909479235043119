//! A desired LRP: what somebody wants to run, and how many of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::{Action, EnvironmentVariable};
use crate::id::{DomainName, ProcessGuid};
use crate::image::Digest;

/// Diego: `models.DesiredLRP`. Field names are those of its JSON.
///
/// Instances, routes and annotation change by [`DesiredLrpUpdate`]; everything else is for the
/// life of the process guid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Which of two versions of a record is the later one. Diego: `models.ModificationTag`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModificationTag {
    /// Distinct for each creation.
    pub epoch: String,
    /// Rises by one with each change.
    pub index: u32,
}

impl ModificationTag {
    #[must_use]
    pub fn new(epoch: String) -> Self {
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
}

impl DesiredLrp {
    /// The indices that should have an ordinary row each.
    #[must_use]
    pub fn indices(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.instances).unwrap_or(0)
    }
}
