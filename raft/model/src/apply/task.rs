//! Tasks: at most once, so every step from the start on is fenced by the cell.
//!
//! Source: lifecycle.md sections 1.2 to 1.8.

use std::sync::Arc;

use super::Change;
use super::placement::Need;
use crate::event::Event;
use crate::id::{CellId, DomainName, TaskGuid};
use crate::limits::{
    TASK_COMPLETED_MAX, TASK_PENDING_MAX, TASK_REJECTIONS_MAX, TASK_RESOLVING_MAX, truncate_reason,
};
use crate::mutant;
use crate::refusal::{Refusal, TaskStateName};
use crate::state::mebibytes;
use crate::task::{CANCELLED, Task, TaskDefinition, TaskResult, TaskState};
use crate::validate;

/// How a task's container ended.
pub(super) struct End {
    pub(super) failed: bool,
    pub(super) failure_reason: String,
    pub(super) result: String,
}

impl End {
    fn failed(reason: &str) -> Self {
        Self { failed: true, failure_reason: reason.to_owned(), result: String::new() }
    }
}

impl Change<'_> {
    pub(super) fn desire_task(
        &mut self,
        task_guid: TaskGuid,
        domain: DomainName,
        definition: TaskDefinition,
    ) -> Result<(), Refusal> {
        validate::task(&task_guid, &domain, Some(&definition))?;
        if self.state.task(&task_guid).is_some() {
            return Err(Refusal::TaskExists(task_guid));
        }
        validate::rootfs_allowed(self.state, &definition.rootfs)?;
        let task = Arc::new(Task {
            task_guid,
            domain,
            definition,
            state: TaskState::Pending { placed_on: None },
            created_at: self.stamp.at,
            updated_at: self.stamp.at,
            rejection_count: 0,
            rejection_reason: String::new(),
        });
        self.state.put_task(Arc::clone(&task));
        self.events.push(Event::TaskCreated(task));
        Ok(())
    }

    pub(super) fn place_task(
        &mut self,
        task_guid: &TaskGuid,
        cell_id: CellId,
    ) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        if task.state != (TaskState::Pending { placed_on: None }) {
            return Err(refuse_transition(&task, TaskStateName::Pending));
        }
        let need = Need {
            memory_mb: mebibytes(task.definition.memory_mb),
            disk_mb: mebibytes(task.definition.disk_mb),
        };
        self.check_room(&cell_id, &need)?;
        self.move_task(&task, TaskState::Pending { placed_on: Some(cell_id) });
        Ok(())
    }

    pub(super) fn start_task(
        &mut self,
        task_guid: &TaskGuid,
        cell_id: CellId,
    ) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        match &task.state {
            TaskState::Running { cell_id: running } if *running == cell_id => Ok(()),
            TaskState::Pending { placed_on: Some(placed) }
                if *placed == cell_id || mutant!("task-starts-anywhere") =>
            {
                self.move_task(&task, TaskState::Running { cell_id });
                Ok(())
            }
            TaskState::Pending { .. }
            | TaskState::Running { .. }
            | TaskState::Completed { .. }
            | TaskState::Resolving { .. } => Err(refuse_transition(&task, TaskStateName::Running)),
        }
    }

    pub(super) fn complete_task(
        &mut self,
        task_guid: &TaskGuid,
        cell_id: CellId,
        end: End,
    ) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        let TaskState::Running { cell_id: recorded } = &task.state else {
            return Err(refuse_transition(&task, TaskStateName::Completed));
        };
        if *recorded != cell_id && !mutant!("task-ends-anywhere") {
            let recorded = recorded.clone();
            return Err(Refusal::RunningOnDifferentCell { recorded, caller: cell_id });
        }
        self.end_task(&task, end);
        Ok(())
    }

    pub(super) fn cancel_task(&mut self, task_guid: &TaskGuid) -> Result<(), Refusal> {
        self.end_unended_task(task_guid, CANCELLED)
    }

    pub(super) fn fail_unended_task(
        &mut self,
        task_guid: &TaskGuid,
        reason: &str,
    ) -> Result<(), Refusal> {
        if reason.is_empty() {
            return Err(Refusal::InvalidRequest("Invalid field: failure_reason".to_owned()));
        }
        self.end_unended_task(task_guid, reason)
    }

    fn end_unended_task(&mut self, task_guid: &TaskGuid, reason: &str) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        if task.result().is_some() && !mutant!("cancel-after-end") {
            return Err(refuse_transition(&task, TaskStateName::Completed));
        }
        self.fail_task(&task, reason);
        Ok(())
    }

    /// The leader found no cell for it. That was decided on a state that may be old: a task that
    /// was placed since may have started, and is its cell's to reject.
    pub(super) fn reject_task(
        &mut self,
        task_guid: &TaskGuid,
        reason: &str,
    ) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        match task.state {
            TaskState::Pending { placed_on: None }
            | TaskState::Completed { .. }
            | TaskState::Resolving { .. } => self.reject(&task, reason),
            TaskState::Pending { .. } | TaskState::Running { .. } if mutant!("reject-unfenced") => {
                self.reject(&task, reason)
            }
            TaskState::Pending { .. } | TaskState::Running { .. } => {
                Err(refuse_transition(&task, TaskStateName::Pending))
            }
        }
    }

    fn reject(&mut self, task: &Arc<Task>, reason: &str) -> Result<(), Refusal> {
        if reason.is_empty() {
            return Err(Refusal::InvalidRequest("Invalid field: failure_reason".to_owned()));
        }
        if task.result().is_some() {
            return Err(Refusal::InvalidRequest("the request received is invalid".to_owned()));
        }
        let mut after = Task::clone(task);
        after.state = if task.rejection_count >= TASK_REJECTIONS_MAX {
            TaskState::Completed { result: self.result(End::failed(reason)) }
        } else {
            TaskState::Pending { placed_on: None }
        };
        after.rejection_count += 1;
        after.rejection_reason = truncate_reason(reason);
        self.replace_task(task, after);
        Ok(())
    }

    pub(super) fn reject_task_on_cell(
        &mut self,
        task_guid: &TaskGuid,
        cell_id: CellId,
        reason: &str,
    ) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        match task.cell() {
            Some(recorded) if *recorded == cell_id => self.reject(&task, reason),
            Some(recorded) => {
                let recorded = recorded.clone();
                Err(Refusal::RunningOnDifferentCell { recorded, caller: cell_id })
            }
            None => Err(refuse_transition(&task, TaskStateName::Pending)),
        }
    }

    pub(super) fn resolving_task(&mut self, task_guid: &TaskGuid) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        let TaskState::Completed { result } = &task.state else {
            return Err(refuse_transition(&task, TaskStateName::Resolving));
        };
        let result = result.clone();
        self.move_task(&task, TaskState::Resolving { result });
        Ok(())
    }

    pub(super) fn delete_task(&mut self, task_guid: &TaskGuid) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        let TaskState::Resolving { .. } = task.state else {
            return Err(refuse_transition(&task, TaskStateName::Resolving));
        };
        self.remove_task(&task);
        Ok(())
    }

    pub(super) fn expire_pending_task(&mut self, task_guid: &TaskGuid) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        let TaskState::Pending { .. } = task.state else {
            return Err(refuse_transition(&task, TaskStateName::Completed));
        };
        if self.stamp.at - task.created_at <= TASK_PENDING_MAX {
            return Err(Refusal::NotDue);
        }
        self.fail_task(&task, "not started within time limit");
        Ok(())
    }

    pub(super) fn expire_completed_task(&mut self, task_guid: &TaskGuid) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        let TaskState::Completed { result } = &task.state else {
            return Err(refuse_transition(&task, TaskStateName::Completed));
        };
        if self.stamp.at - result.first_completed_at <= TASK_COMPLETED_MAX {
            return Err(Refusal::NotDue);
        }
        self.remove_task(&task);
        Ok(())
    }

    pub(super) fn demote_resolving_task(&mut self, task_guid: &TaskGuid) -> Result<(), Refusal> {
        let task = self.task(task_guid)?;
        let TaskState::Resolving { result } = &task.state else {
            return Err(refuse_transition(&task, TaskStateName::Completed));
        };
        if self.stamp.at - task.updated_at <= TASK_RESOLVING_MAX {
            return Err(Refusal::NotDue);
        }
        let mut after = Task::clone(&task);
        after.state = TaskState::Completed { result: result.clone() };
        self.replace_task_keeping_updated_at(&task, after);
        Ok(())
    }

    /// Its cell is missing: what had started is over, what had not goes elsewhere.
    pub(super) fn lose_task(&mut self, task_guid: &TaskGuid) {
        let task = self.task(task_guid).expect("a cell's load names tasks that exist");
        if let TaskState::Running { .. } = task.state {
            self.fail_task(&task, "cell disappeared before completion");
        } else {
            self.move_task(&task, TaskState::Pending { placed_on: None });
        }
    }

    /// What had not started goes elsewhere; what had runs on.
    pub(super) fn take_back_task(&mut self, task_guid: &TaskGuid) {
        let task = self.task(task_guid).expect("a cell's load names tasks that exist");
        if let TaskState::Pending { .. } = task.state {
            self.move_task(&task, TaskState::Pending { placed_on: None });
        }
    }

    fn task(&self, task_guid: &TaskGuid) -> Result<Arc<Task>, Refusal> {
        self.state.task(task_guid).cloned().ok_or_else(|| Refusal::TaskNotFound(task_guid.clone()))
    }

    fn fail_task(&mut self, task: &Arc<Task>, reason: &str) {
        self.end_task(task, End::failed(reason));
    }

    fn end_task(&mut self, task: &Arc<Task>, end: End) {
        let result = self.result(end);
        self.move_task(task, TaskState::Completed { result });
    }

    fn result(&self, end: End) -> TaskResult {
        TaskResult {
            failed: end.failed,
            failure_reason: truncate_reason(&end.failure_reason),
            result: end.result,
            first_completed_at: self.stamp.at,
        }
    }

    fn move_task(&mut self, before: &Arc<Task>, state: TaskState) {
        let after = Task { state, ..Task::clone(before) };
        self.replace_task(before, after);
    }

    fn replace_task(&mut self, before: &Arc<Task>, after: Task) {
        let after = Task { updated_at: self.stamp.at, ..after };
        self.replace_task_keeping_updated_at(before, after);
    }

    fn replace_task_keeping_updated_at(&mut self, before: &Arc<Task>, after: Task) {
        let after = Arc::new(after);
        self.state.put_task(Arc::clone(&after));
        self.events.push(Event::TaskChanged { before: Arc::clone(before), after });
    }

    fn remove_task(&mut self, task: &Arc<Task>) {
        self.state.remove_task(&task.task_guid);
        self.events.push(Event::TaskRemoved(Arc::clone(task)));
    }
}

fn refuse_transition(task: &Task, to: TaskStateName) -> Refusal {
    let from = match task.state {
        TaskState::Pending { .. } => TaskStateName::Pending,
        TaskState::Running { .. } => TaskStateName::Running,
        TaskState::Completed { .. } => TaskStateName::Completed,
        TaskState::Resolving { .. } => TaskStateName::Resolving,
    };
    Refusal::InvalidTaskTransition { from, to }
}
