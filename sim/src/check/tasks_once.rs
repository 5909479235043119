//! **A task starts at most once, whatever crashes.**
//!
//! Told by the machines, which see every process begin. Source: design rule 11.

use std::collections::BTreeMap;

use model::TaskGuid;
use replica::NodeId;

use super::Verdict;

pub(super) const NAME: &str = "a task starts at most once";

/// Where each task has started.
#[derive(Debug, Default)]
pub(super) struct TasksOnce(BTreeMap<TaskGuid, NodeId>);

impl TasksOnce {
    /// The process of a task begins on a node.
    pub(super) fn started(&mut self, guid: &TaskGuid, node: NodeId) -> Verdict {
        match self.0.insert(guid.clone(), node) {
            None => Ok(()),
            Some(first) => Err(format!("task {guid} started on node {first}, then on {node}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_is_seen_wherever_it_is() {
        let mut tasks = TasksOnce::default();
        assert!(tasks.started(&"a".into(), 1).is_ok());
        assert!(tasks.started(&"b".into(), 1).is_ok());
        assert!(tasks.started(&"a".into(), 1).is_err());
        assert!(tasks.started(&"b".into(), 2).is_err());
    }
}
