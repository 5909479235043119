//! Volumes that a cell's drivers mount into a container.

use serde::{Deserialize, Serialize};

/// Diego: `models.VolumeMount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    /// Placement asks for a cell that has it.
    pub driver: String,
    pub container_dir: String,
    /// `r` or `rw`.
    pub mode: String,
    pub shared: Option<SharedDevice>,
    pub dedicated: Option<DedicatedDevice>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharedDevice {
    pub volume_id: String,
    /// JSON, for the driver.
    pub mount_config: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DedicatedDevice {
    pub mounter_id: String,
    /// JSON, for the driver.
    pub mount_config: String,
    /// JSON, for the driver.
    pub device_config: String,
}
