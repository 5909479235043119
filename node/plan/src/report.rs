//! Why each thing waits, and what would help: the plan's own explanation, shown to people.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Millis;
use model::{ProcessGuid, TaskGuid};
use serde::{Deserialize, Serialize};

/// What one turn could not bring further. Whatever is not named here either runs or is on its
/// way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Waiting instances, by process and index. Instances that wait for one reason share it.
    pub lrps: BTreeMap<ProcessGuid, BTreeMap<u32, Arc<Wait>>>,
    pub tasks: BTreeMap<TaskGuid, Arc<Wait>>,
}

/// One reason to wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The reason, in Diego's words where Diego has words for it.
    pub why: String,
    /// What would end the wait.
    pub help: String,
    /// When the wait ends by itself; `None` when something has to change first.
    pub until: Option<Millis>,
}

impl Report {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lrps.is_empty() && self.tasks.is_empty()
    }

    /// Why an instance waits, if it does.
    #[must_use]
    pub fn lrp(&self, process_guid: &ProcessGuid, index: u32) -> Option<&Wait> {
        self.lrps.get(process_guid)?.get(&index).map(AsRef::as_ref)
    }

    /// Why a task waits, if it does.
    #[must_use]
    pub fn task(&self, task_guid: &TaskGuid) -> Option<&Wait> {
        self.tasks.get(task_guid).map(AsRef::as_ref)
    }

    pub(crate) fn lrp_waits(&mut self, process_guid: &ProcessGuid, index: u32, wait: Arc<Wait>) {
        if let Some(indices) = self.lrps.get_mut(process_guid) {
            indices.insert(index, wait);
        } else {
            self.lrps.insert(process_guid.clone(), BTreeMap::from([(index, wait)]));
        }
    }

    pub(crate) fn task_waits(&mut self, task_guid: &TaskGuid, wait: Arc<Wait>) {
        self.tasks.insert(task_guid.clone(), wait);
    }
}
