//! Why each thing waits, and what would help: the plan's own explanation, shown to people.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Millis, Presence, ProcessGuid, State, TaskGuid};
use serde::{Deserialize, Serialize};

use crate::convergence::crash_wait;
use crate::limits::TURN_COMMANDS_MAX;

/// What one turn tried and could not bring further. What it did not come to, and what waits by
/// its own record alone, is told by [`Report::explain_lrps`].
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

    /// Why the instances of a process wait, by index, according to this turn and the records.
    /// What is not named either runs or is on its way.
    #[must_use]
    pub fn explain_lrps(&self, state: &State, process_guid: &ProcessGuid) -> Vec<(u32, Wait)> {
        let ordinary =
            state.actual_lrps_of(process_guid).filter(|row| row.presence == Presence::Ordinary);
        let explained = ordinary.filter_map(|row| {
            let index = row.key.index;
            let wait = match crash_wait(row) {
                Some(wait) => wait,
                None if row.is_unclaimed() => self
                    .lrp(process_guid, index)
                    .cloned()
                    .unwrap_or_else(|| waiting_for_turn(row.since)),
                None => return None,
            };
            Some((index, wait))
        });
        explained.collect()
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

/// What waits since `since` and no turn has come to yet.
fn waiting_for_turn(since: Millis) -> Wait {
    Wait {
        why: "waiting for the next turn".to_owned(),
        help: format!("a turn decides at most {TURN_COMMANDS_MAX} things, in the auction's order"),
        until: Some(since),
    }
}
