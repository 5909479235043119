//! **Instances and tasks move along the edges of the specification, and along no others.**
//!
//! Each edge is counted as well: one that no run ever takes is a gap. Source: lifecycle.md sections
//! 1.2, 3.1 and 4.2; "away" is where there is no row.

use model::{ActualLrp, ActualLrpId, ActualState, Presence, RowKey, Task, TaskState};

use super::state_machine::Step;

pub(super) const NAME: &str = "instances and tasks move along the edges of the specification";

/// Every edge that there is.
pub(crate) const EDGES: &[&str] = &[
    "ordinary: away -> UNCLAIMED",
    // A suspect that returns, or a copy that is not replaced after all.
    "ordinary: away -> CLAIMED",
    "ordinary: away -> RUNNING",
    "ordinary: UNCLAIMED -> UNCLAIMED",
    "ordinary: UNCLAIMED -> CLAIMED",
    "ordinary: UNCLAIMED -> RUNNING",
    "ordinary: UNCLAIMED -> away",
    "ordinary: CLAIMED -> UNCLAIMED",
    "ordinary: CLAIMED -> CLAIMED",
    "ordinary: CLAIMED -> RUNNING",
    "ordinary: CLAIMED -> CRASHED",
    "ordinary: CLAIMED -> away",
    "ordinary: RUNNING -> UNCLAIMED",
    "ordinary: RUNNING -> RUNNING",
    "ordinary: RUNNING -> CRASHED",
    "ordinary: RUNNING -> away",
    "ordinary: CRASHED -> UNCLAIMED",
    "ordinary: CRASHED -> CLAIMED",
    "ordinary: CRASHED -> RUNNING",
    "ordinary: CRASHED -> away",
    "suspect: away -> CLAIMED",
    "suspect: away -> RUNNING",
    "suspect: CLAIMED -> away",
    "suspect: RUNNING -> away",
    "evacuating: away -> RUNNING",
    "evacuating: RUNNING -> away",
    "task: away -> PENDING",
    "task: PENDING -> PENDING",
    "task: PENDING -> RUNNING",
    "task: PENDING -> COMPLETED",
    "task: RUNNING -> PENDING",
    "task: RUNNING -> COMPLETED",
    "task: COMPLETED -> RESOLVING",
    "task: COMPLETED -> away",
    "task: RESOLVING -> COMPLETED",
    "task: RESOLVING -> away",
];

/// The edges that a command took.
pub(super) fn check(step: &Step) -> Result<Vec<&'static str>, String> {
    let mut taken = Vec::new();
    for row in step.before.differences(&step.after) {
        let edge = match &row {
            RowKey::ActualLrp(id) => {
                let [was, is] = [&step.before, &step.after].map(|state| lrp(state.actual_lrp(id)));
                format!("{}: {was} -> {is}", presence(id))
            }
            RowKey::Task(guid) => {
                let [was, is] = [&step.before, &step.after].map(|state| task(state.task(guid)));
                format!("task: {was} -> {is}")
            }
            RowKey::Cluster
            | RowKey::DesiredLrp(_)
            | RowKey::Cell(_)
            | RowKey::Domain(_)
            | RowKey::Lock(_)
            | RowKey::FeatureFlag(_) => continue,
        };
        match EDGES.iter().find(|known| **known == edge) {
            Some(known) => taken.push(*known),
            None => return Err(format!("{row:?}: {edge} by {:?}", step.command)),
        }
    }
    Ok(taken)
}

fn presence(id: &ActualLrpId) -> &'static str {
    match id.presence {
        Presence::Ordinary => "ordinary",
        Presence::Suspect => "suspect",
        Presence::Evacuating => "evacuating",
    }
}

fn lrp(row: Option<&std::sync::Arc<ActualLrp>>) -> &'static str {
    match row.map(|row| &row.state) {
        None => "away",
        Some(ActualState::Unclaimed { .. }) => "UNCLAIMED",
        Some(ActualState::Claimed { .. }) => "CLAIMED",
        Some(ActualState::Running { .. }) => "RUNNING",
        Some(ActualState::Crashed) => "CRASHED",
    }
}

fn task(row: Option<&std::sync::Arc<Task>>) -> &'static str {
    match row.map(|row| &row.state) {
        None => "away",
        Some(TaskState::Pending { .. }) => "PENDING",
        Some(TaskState::Running { .. }) => "RUNNING",
        Some(TaskState::Completed { .. }) => "COMPLETED",
        Some(TaskState::Resolving { .. }) => "RESOLVING",
    }
}

#[cfg(test)]
mod tests {
    use model::{Command, Millis, Proposal, State};

    use super::*;
    use crate::world::samples;

    #[test]
    fn an_edge_that_is_not_there_is_seen() {
        let desired = samples::desired_lrp("app", 1, "d".into(), "preloaded:busybox");
        let command = Command::DesireLrp { desired_lrp: Box::new(desired) };
        let mut waits = State::default();
        let commands = vec![command.clone()];
        model::apply_proposal(&mut waits, 1, Proposal { at: Millis(1), commands });
        let mut crashed = waits.clone();
        let cell = samples::cell(1);
        let (process_guid, cell_id) = ("app".into(), cell.cell_id.clone());
        let commands = vec![
            Command::RegisterCell { cell: Box::new(cell) },
            Command::PlaceLrp { process_guid, index: 0, cell_id },
        ];
        model::apply_proposal(&mut crashed, 2, Proposal { at: Millis(2), commands });
        for _ in 0..3 {
            let row = crashed.actual_lrps().next().expect("one row").clone();
            let reason = String::new();
            let Some(instance) = row.instance().cloned() else { break };
            let crash = Command::CrashLrp { key: row.key.clone(), instance, reason };
            let place = Command::PlaceLrp {
                process_guid: "app".into(),
                index: 0,
                cell_id: samples::cell(1).cell_id,
            };
            let commands = vec![crash, place];
            model::apply_proposal(&mut crashed, 3, Proposal { at: Millis(3), commands });
        }
        let step = |before: &State, after: &State| Step {
            before: before.clone(),
            after: after.clone(),
            command: command.clone(),
            result: Ok(true),
        };
        let none = State::default();
        assert_eq!(check(&step(&none, &waits)), Ok(vec!["ordinary: away -> UNCLAIMED"]));
        assert!(check(&step(&none, &crashed)).is_err(), "nothing begins crashed");
    }
}
