//! **A report of what is no longer on record is refused.**
//!
//! A cell's word counts only for the instance, or the placement of the task, that it names. And
//! what the leader places must still be waiting for it. Source: lifecycle.md sections 1.5 and 3.3;
//! design rule 11.

use model::{ActualLrpKey, CellId, Command, InstanceKey, State, TaskGuid, TaskState};

use super::Verdict;
use super::state_machine::Step;

pub(super) const NAME: &str = "a report of what is no longer on record is refused";

/// Judges one command by the state that it met.
#[expect(clippy::wildcard_enum_match_arm, reason = "of all commands only these are fenced")]
pub(super) fn check(step: &Step) -> Verdict {
    if step.result != Ok(true) {
        return Ok(());
    }
    let before = &step.before;
    let is_right = match &step.command {
        Command::StartLrp { key, instance, .. }
        | Command::CrashLrp { key, instance, .. }
        | Command::EvacuateLrp { key, instance, .. }
        | Command::RemoveLrp { key, instance } => is_on_record(before, key, instance),
        Command::PlaceLrp { process_guid, index, .. } => {
            let mut rows = before.actual_lrps_of(process_guid);
            rows.any(|row| row.key.index == *index && row.is_unclaimed())
        }
        Command::PlaceTask { task_guid, .. } | Command::RejectTask { task_guid, .. } => {
            state(before, task_guid) == Some(&TaskState::Pending { placed_on: None })
        }
        Command::StartTask { task_guid, cell_id } => {
            let placed = TaskState::Pending { placed_on: Some(cell_id.clone()) };
            state(before, task_guid) == Some(&placed)
        }
        Command::CompleteTask { task_guid, cell_id, .. } => {
            state(before, task_guid) == Some(&TaskState::Running { cell_id: cell_id.clone() })
        }
        Command::RejectTaskOnCell { task_guid, cell_id, .. } => is_at(before, task_guid, cell_id),
        _ => true,
    };
    if is_right { Ok(()) } else { Err(format!("accepted, and not on record: {:?}", step.command)) }
}

fn is_on_record(state: &State, key: &ActualLrpKey, instance: &InstanceKey) -> bool {
    let mut rows = state.actual_lrps_of(&key.process_guid);
    rows.any(|row| row.key.index == key.index && row.instance() == Some(instance))
}

fn state<'a>(state: &'a State, guid: &TaskGuid) -> Option<&'a TaskState> {
    state.task(guid).map(|task| &task.state)
}

fn is_at(state: &State, guid: &TaskGuid, cell_id: &CellId) -> bool {
    state.task(guid).is_some_and(|task| task.cell() == Some(cell_id))
}

#[cfg(test)]
mod tests {
    use model::InstanceGuid;

    use super::*;

    #[test]
    fn a_crash_of_an_instance_that_is_not_there_is_seen() {
        let key = ActualLrpKey { process_guid: "app".into(), index: 0, domain: "d".into() };
        let instance_guid = InstanceGuid::from("gone");
        let instance = InstanceKey { instance_guid, cell_id: "cell-1".into() };
        let command = Command::CrashLrp { key, instance, reason: String::new() };
        let step = |result| Step {
            before: State::default(),
            after: State::default(),
            command: command.clone(),
            result,
        };
        assert_eq!(check(&step(Ok(false))), Ok(()));
        assert!(check(&step(Ok(true))).is_err());
    }

    #[test]
    fn a_task_that_starts_where_it_was_not_placed_is_seen() {
        let command = Command::StartTask { task_guid: "t".into(), cell_id: "cell-1".into() };
        let (before, after) = (State::default(), State::default());
        assert!(check(&Step { before, after, command, result: Ok(true) }).is_err());
    }
}
