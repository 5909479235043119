//! An actual LRP: one instance of a desired LRP, and where it has got to.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::desired_lrp::ModificationTag;
use crate::id::{ActualLrpId, CellId, DomainName, InstanceGuid, ProcessGuid};
use crate::time::Millis;

/// One row. Diego: `models.ActualLRP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActualLrp {
    pub key: ActualLrpKey,
    pub presence: Presence,
    pub state: ActualState,
    pub crash_count: u32,
    /// Why it crashed last; kept after the restart.
    pub crash_reason: String,
    /// When the state last changed.
    pub since: Millis,
    /// What the instance takes from its cell, in mebibytes; as desired when it was created.
    pub memory_mb: u32,
    pub disk_mb: u32,
    pub modification_tag: ModificationTag,
    /// Whether routers may send requests there: false until it first runs.
    pub routable: bool,
    /// Of the cell that was chosen for it last; empty before. Diego tells it from the start on.
    pub availability_zone: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActualLrpKey {
    pub process_guid: ProcessGuid,
    pub index: u32,
    pub domain: DomainName,
}

/// Which of the rows of one index this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Presence {
    /// The row that counts towards the desired instances.
    Ordinary,
    /// A copy on a cell that is being emptied, kept until its replacement runs.
    Evacuating,
    /// A copy on a cell that is missing, kept until its replacement runs or the cell returns.
    Suspect,
}

/// Where an instance has got to, with what is known there and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActualState {
    /// Waits for a cell. `placement_error` says why the last auction found none; empty before.
    Unclaimed { placement_error: String },
    /// A cell has been chosen and makes the container.
    Claimed { instance: InstanceKey },
    /// The container runs.
    Running { instance: InstanceKey, net_info: NetInfo },
    /// Waits for its restart, see [`crate::restart`].
    Crashed,
}

/// One placement of an instance: the container, and the cell that holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceKey {
    pub instance_guid: InstanceGuid,
    pub cell_id: CellId,
}

/// Where a running instance is reached. Diego: `models.ActualLRPNetInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetInfo {
    /// The cell's address, where the host ports are.
    pub address: Ipv4Addr,
    /// The container's own address, behind its cell's bridge.
    pub instance_address: Ipv4Addr,
    pub ports: Vec<PortMapping>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    pub container_port: u16,
    pub host_port: u16,
}

impl ActualLrp {
    #[must_use]
    pub fn id(&self) -> ActualLrpId {
        ActualLrpId {
            process_guid: self.key.process_guid.clone(),
            index: self.key.index,
            presence: self.presence,
        }
    }

    /// The placement, while there is one.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceKey> {
        match &self.state {
            ActualState::Claimed { instance } | ActualState::Running { instance, .. } => {
                Some(instance)
            }
            ActualState::Unclaimed { .. } | ActualState::Crashed => None,
        }
    }

    #[must_use]
    pub fn is_unclaimed(&self) -> bool {
        matches!(self.state, ActualState::Unclaimed { .. })
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.state, ActualState::Running { .. })
    }
}

impl ActualState {
    /// The state's name in Diego's API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unclaimed { .. } => "UNCLAIMED",
            Self::Claimed { .. } => "CLAIMED",
            Self::Running { .. } => "RUNNING",
            Self::Crashed => "CRASHED",
        }
    }
}

impl Presence {
    /// The presence's name in Diego's API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "ORDINARY",
            Self::Evacuating => "EVACUATING",
            Self::Suspect => "SUSPECT",
        }
    }
}
