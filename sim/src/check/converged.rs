//! **When nothing goes wrong any more, what runs is what is desired.**
//!
//! Every desired index has one row, which is Running and whose container runs on the cell that
//! the row names; no container is without such a row; no task waits or runs, and no
//! client waits to be told of one. Source: design,
//! "The routes"; Diego's promise to its users.

use std::collections::{BTreeMap, BTreeSet};

use model::{ActualState, CellId, Presence, State, TaskState};
use plan::cell::{Container, Handle};

use super::Verdict;

pub(crate) const NAME: &str = "what runs is what is desired";

/// The containers of each cell.
pub(crate) type Cells = BTreeMap<CellId, BTreeMap<Handle, Container>>;

/// Judges the agreed state against what is on the cells.
pub(crate) fn check(state: &State, cells: &Cells) -> Verdict {
    let mut named = BTreeSet::new();
    let mut indices = BTreeSet::new();
    for row in state.actual_lrps() {
        let id = row.id();
        let (ActualState::Running { instance, net_info }, Presence::Ordinary) =
            (&row.state, row.presence)
        else {
            return Err(format!("{id:?} is {}: {row:?}", row.state.name()));
        };
        let handle = Handle::Lrp(instance.instance_guid.clone());
        let container = cells.get(&instance.cell_id).and_then(|cell| cell.get(&handle));
        if container != Some(&Container::Running { net_info: net_info.clone() }) {
            return Err(format!("{id:?} runs on {}, where is {container:?}", instance.cell_id));
        }
        named.insert((&instance.cell_id, handle));
        indices.insert((row.key.process_guid.clone(), row.key.index));
    }
    for desired in state.desired_lrps() {
        for index in desired.indices() {
            if !indices.contains(&(desired.process_guid.clone(), index)) {
                return Err(format!("{} misses instance {index}", desired.process_guid));
            }
        }
    }
    let is_over = |state: &TaskState| {
        matches!(state, TaskState::Completed { .. } | TaskState::Resolving { .. })
    };
    if let Some(task) = state.tasks().find(|task| !is_over(&task.state)) {
        return Err(format!("task {} is {:?}", task.task_guid, task.state));
    }
    if let Some(guid) = state.callbacks().next() {
        return Err(format!("the client of task {guid} is still to be told"));
    }
    for (cell_id, containers) in cells {
        for (handle, container) in containers {
            if !named.contains(&(cell_id, handle.clone())) {
                return Err(format!("no record names {handle} on {cell_id}: {container:?}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use model::{Command, InstanceGuid, Millis, NetInfo, Proposal, TaskDefinition};

    use super::*;
    use crate::world::samples;

    const NET: NetInfo = NetInfo {
        address: Ipv4Addr::LOCALHOST,
        instance_address: Ipv4Addr::LOCALHOST,
        ports: Vec::new(),
    };

    fn apply(state: &mut State, log_index: u64, command: Command) {
        let proposal = Proposal { at: Millis(log_index), commands: vec![command] };
        let (outcome, _) = model::apply_proposal(state, log_index, proposal);
        assert_eq!(outcome.0, [Ok(true)]);
    }

    /// One instance that runs as it should.
    fn right() -> (State, Cells, InstanceGuid) {
        let mut state = State::default();
        let cell = samples::cell(1);
        let cell_id = cell.cell_id.clone();
        apply(&mut state, 1, Command::RegisterCell { cell: Box::new(cell) });
        let desired_lrp = Box::new(samples::desired_lrp("app", 1, "d".into(), "preloaded:busybox"));
        apply(&mut state, 2, Command::DesireLrp { desired_lrp });
        let process_guid = "app".into();
        let place = Command::PlaceLrp { process_guid, index: 0, cell_id: cell_id.clone() };
        apply(&mut state, 3, place);
        let row = state.actual_lrps().next().expect("one row").clone();
        let instance = row.instance().expect("it was placed").clone();
        let guid = instance.instance_guid.clone();
        apply(&mut state, 4, Command::StartLrp { key: row.key.clone(), instance, net_info: NET });
        let running = Container::Running { net_info: NET };
        let containers = BTreeMap::from([(Handle::Lrp(guid.clone()), running)]);
        (state, BTreeMap::from([(cell_id, containers)]), guid)
    }

    #[test]
    fn what_is_right_is_right() {
        let (state, cells, _) = right();
        assert_eq!(check(&state, &cells), Ok(()));
    }

    #[test]
    fn a_container_that_is_missing_over_or_elsewhere_is_seen() {
        let (state, mut cells, guid) = right();
        let first = cells.keys().next().expect("one cell").clone();
        let containers = cells.remove(&first).expect("it is there");
        assert!(check(&state, &cells).is_err(), "missing");
        cells.insert("cell-2".into(), containers);
        assert!(check(&state, &cells).is_err(), "elsewhere");
        let over = BTreeMap::from([(Handle::Lrp(guid), Container::Stopping)]);
        assert!(check(&state, &BTreeMap::from([(first, over)])).is_err(), "over");
    }

    #[test]
    fn a_container_without_a_record_is_seen() {
        let (state, mut cells, _) = right();
        let containers = cells.values_mut().next().expect("one cell");
        containers.insert(Handle::Task("gone".into()), Container::Preparing);
        assert!(check(&state, &cells).is_err());
    }

    #[test]
    fn an_instance_that_does_not_run_is_seen() {
        let (mut state, cells, _) = right();
        let update = Box::new(model::DesiredLrpUpdate {
            instances: Some(2),
            ..model::DesiredLrpUpdate::default()
        });
        apply(&mut state, 5, Command::UpdateDesiredLrp { process_guid: "app".into(), update });
        assert!(check(&state, &cells).is_err(), "a second one waits");
        let (mut state, _, _) = right();
        apply(&mut state, 5, Command::RetireLrp { process_guid: "app".into(), index: 0 });
        assert!(check(&state, &Cells::new()).is_err(), "it has no row");
    }

    #[test]
    fn a_task_that_waits_is_seen() {
        let (mut state, cells, _) = right();
        let definition = Box::new(TaskDefinition {
            rootfs: "preloaded:busybox".into(),
            action: Some(samples::action()),
            ..TaskDefinition::default()
        });
        let (task_guid, domain) = ("t".into(), "d".into());
        apply(&mut state, 5, Command::DesireTask { task_guid, domain, definition });
        assert!(check(&state, &cells).is_err());
    }
}
