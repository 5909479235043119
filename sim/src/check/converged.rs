//! **When nothing goes wrong any more, what runs is what is desired.**
//!
//! Every desired index has one row, which is Running and whose container runs on the cell that
//! the row names; no container is without such a row; no task waits or runs, and no
//! client waits to be told of one. An instance may wait only where no cell has room for it, and
//! then the planner's report says so. Source: design, "The routes"; Diego's promise to its users.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    ActualLrp, ActualLrpId, ActualState, Cell, CellId, Presence, ProcessGuid, State, TaskState,
};
use plan::cell::{Container, Handle};
use plan::report::Wait;

use super::Verdict;

pub(crate) const NAME: &str = "what runs is what is desired";

/// The containers of each cell.
pub(crate) type Cells = BTreeMap<CellId, BTreeMap<Handle, Container>>;

/// Why the leader says that instances wait.
pub(crate) type Reasons = BTreeMap<(ProcessGuid, u32), Wait>;

/// Judges the agreed state against what is on the cells, and what waits against the reasons that
/// people are given.
pub(crate) fn check(state: &State, cells: &Cells, reasons: &Reasons) -> Verdict {
    let mut named = BTreeSet::new();
    let mut indices = BTreeSet::new();
    for row in state.actual_lrps() {
        let id = row.id();
        if row.presence == Presence::Suspect && !is_present(state, row) {
            // It may be there or not; who waits to replace it is judged by itself.
            let id = ActualLrpId { presence: Presence::Ordinary, ..row.id() };
            if state.actual_lrp(&id).is_some_and(|row| waits_truly(state, row, reasons)) {
                continue;
            }
        }
        if waits_truly(state, row, reasons) {
            indices.insert((row.key.process_guid.clone(), row.key.index));
            continue;
        }
        let (ActualState::Running { instance, net_info }, Presence::Ordinary) =
            (&row.state, row.presence)
        else {
            return Err(format!("{id:?} is {}: {row:?}", row.state.name()));
        };
        let handle = Handle::Lrp(instance.instance_guid.clone());
        let container = cells.get(&instance.cell_id).and_then(|cell| cell.get(&handle));
        let running = Container::Running { net_info: net_info.clone(), routable: row.routable };
        if container != Some(&running) {
            return Err(format!("{id:?} runs on {}, where is {container:?}", instance.cell_id));
        }
        named.insert((&instance.cell_id, handle));
        indices.insert((row.key.process_guid.clone(), row.key.index));
    }
    for desired in state.desired_lrps() {
        for index in state.wanted(desired) {
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

/// Whether the cell of a row is there.
fn is_present(state: &State, row: &ActualLrp) -> bool {
    let cell = row.instance().and_then(|on| state.cell(&on.cell_id));
    cell.is_some_and(|cell| cell.is_present())
}

/// Whether an instance waits because no cell has room for it, and people are told so.
fn waits_truly(state: &State, row: &ActualLrp, reasons: &Reasons) -> bool {
    let ActualState::Unclaimed { placement_error } = &row.state else { return false };
    let has_room = |cell: &Arc<Cell>| {
        let (memory_mb, disk_mb, containers) = state
            .load(&cell.cell_id)
            .map_or((0, 0, 0), |load| (load.memory_mb, load.disk_mb, load.containers));
        cell.takes_work()
            && memory_mb + u64::from(row.memory_mb) <= u64::from(cell.capacity.memory_mb)
            && disk_mb + u64::from(row.disk_mb) <= u64::from(cell.capacity.disk_mb)
            && containers < cell.capacity.containers
    };
    let told = reasons.get(&(row.key.process_guid.clone(), row.key.index));
    told.is_some_and(|wait| wait.why == *placement_error && wait.why.contains("insufficient"))
        && !state.cells().any(has_room)
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
        apply(
            &mut state,
            4,
            Command::StartLrp { key: row.key.clone(), instance, net_info: NET, routable: true },
        );
        let running = Container::Running { net_info: NET, routable: true };
        let containers = BTreeMap::from([(Handle::Lrp(guid.clone()), running)]);
        (state, BTreeMap::from([(cell_id, containers)]), guid)
    }

    #[test]
    fn what_is_right_is_right() {
        let (state, cells, _) = right();
        assert_eq!(check(&state, &cells, &Reasons::new()), Ok(()));
    }

    #[test]
    fn a_container_that_is_missing_over_or_elsewhere_is_seen() {
        let (state, mut cells, guid) = right();
        let first = cells.keys().next().expect("one cell").clone();
        let containers = cells.remove(&first).expect("it is there");
        assert!(check(&state, &cells, &Reasons::new()).is_err(), "missing");
        cells.insert("cell-2".into(), containers);
        assert!(check(&state, &cells, &Reasons::new()).is_err(), "elsewhere");
        let over = BTreeMap::from([(Handle::Lrp(guid), Container::Stopping)]);
        assert!(check(&state, &BTreeMap::from([(first, over)]), &Reasons::new()).is_err(), "over");
    }

    #[test]
    fn a_container_without_a_record_is_seen() {
        let (state, mut cells, _) = right();
        let containers = cells.values_mut().next().expect("one cell");
        containers.insert(Handle::Task("gone".into()), Container::Preparing);
        assert!(check(&state, &cells, &Reasons::new()).is_err());
    }

    #[test]
    fn an_instance_that_does_not_run_is_seen() {
        let (mut state, cells, _) = right();
        let update = Box::new(model::DesiredLrpUpdate {
            instances: Some(2),
            ..model::DesiredLrpUpdate::default()
        });
        apply(&mut state, 5, Command::UpdateDesiredLrp { process_guid: "app".into(), update });
        assert!(check(&state, &cells, &Reasons::new()).is_err(), "a second one waits");
        let (mut state, _, _) = right();
        apply(&mut state, 5, Command::RetireLrp { process_guid: "app".into(), index: 0 });
        assert!(check(&state, &Cells::new(), &Reasons::new()).is_err(), "it has no row");
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
        assert!(check(&state, &cells, &Reasons::new()).is_err());
    }
}
