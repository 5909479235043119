//! Metric tags: what the metrics and logs of an instance are labelled with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::actual_lrp::ActualLrp;

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

/// The tags of one instance; without those that name its guid while it has none.
#[must_use]
pub fn resolve(
    tags: &BTreeMap<String, MetricTagValue>,
    lrp: &ActualLrp,
) -> BTreeMap<String, String> {
    let resolved = tags.iter().filter_map(|(name, value)| {
        let text = match value.dynamic {
            DynamicValue::Invalid => value.fixed.clone(),
            DynamicValue::Index => lrp.key.index.to_string(),
            DynamicValue::InstanceGuid => lrp.instance()?.instance_guid.to_string(),
        };
        Some((name.clone(), text))
    });
    resolved.collect()
}
