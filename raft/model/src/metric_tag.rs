//! Metric tags: what the metrics and logs of an instance are labelled with.

use serde::{Deserialize, Serialize};

/// A fixed text, or one that each instance has of its own. Diego: `models.MetricTagValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricTagValue {
    #[serde(rename = "static")]
    pub fixed: String,
    pub dynamic: DynamicValue,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DynamicValue {
    /// None: the text is fixed.
    #[default]
    #[serde(rename = "DynamicValueInvalid")]
    Invalid,
    /// The instance's index.
    #[serde(rename = "INDEX")]
    Index,
    #[serde(rename = "INSTANCE_GUID")]
    InstanceGuid,
}
