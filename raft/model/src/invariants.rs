//! Truths about the whole state, each with its sentence. The simulator and the tests ask after
//! each command; a broken one is a bug of ours, never of a client.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::actual_lrp::{ActualState, Presence};
use crate::cell::Intake;
use crate::due::{self, Due};
use crate::id::{ActualLrpId, CellId, TaskGuid};
use crate::state::{CellLoad, State, mebibytes};
use crate::task::TaskState;
use crate::time::Millis;

/// Checks all of them.
///
/// # Errors
///
/// The sentence that is not true, and where.
pub fn check(state: &State) -> Result<(), String> {
    each_wanted_index_has_at_most_one_row_and_no_other_index_has_one(state)?;
    only_ordinary_rows_wait(state)?;
    nothing_that_runs_has_another_row(state)?;
    each_placement_names_a_known_cell(state)?;
    each_instance_guid_is_used_once(state)?;
    a_closed_cell_is_empty(state)?;
    derived_tables_follow_from_the_rows(state)
}

/// A row other than an evacuating one is of a wanted index: desired, and allowed to run.
fn each_wanted_index_has_at_most_one_row_and_no_other_index_has_one(
    state: &State,
) -> Result<(), String> {
    for lrp in state.actual_lrps().filter(|lrp| lrp.presence != Presence::Evacuating) {
        let desired = state
            .desired_lrp(&lrp.key.process_guid)
            .ok_or_else(|| format!("{:?} has no desired LRP", lrp.id()))?;
        if !state.wanted(desired).contains(&lrp.key.index) {
            return Err(format!("{:?} is not of a wanted index", lrp.id()));
        }
    }
    Ok(())
}

/// Unclaimed and crashed rows are ordinary (lifecycle.md section 3).
fn only_ordinary_rows_wait(state: &State) -> Result<(), String> {
    for lrp in state.actual_lrps() {
        let waits = matches!(lrp.state, ActualState::Unclaimed { .. } | ActualState::Crashed);
        if waits && lrp.presence != Presence::Ordinary {
            return Err(format!("{:?} is {} and not ordinary", lrp.id(), lrp.state.name()));
        }
    }
    Ok(())
}

/// Who runs has replaced the suspect and the copy; if the suspect's cell returned, or the copy's had
/// work again, they would take the place of who runs.
fn nothing_that_runs_has_another_row(state: &State) -> Result<(), String> {
    for lrp in state.actual_lrps().filter(|lrp| lrp.presence != Presence::Ordinary) {
        let id = ActualLrpId { presence: Presence::Ordinary, ..lrp.id() };
        if state.actual_lrp(&id).is_some_and(|ordinary| ordinary.is_running()) {
            return Err(format!("{id:?} runs, and so does {:?}", lrp.id()));
        }
    }
    Ok(())
}

/// Cells are never forgotten while something is placed on them.
fn each_placement_names_a_known_cell(state: &State) -> Result<(), String> {
    for (cell_id, _) in state.loads() {
        if state.cell(cell_id).is_none() {
            return Err(format!("something is placed on the unknown cell {cell_id}"));
        }
    }
    Ok(())
}

/// A container's name stands for one placement, for ever.
fn each_instance_guid_is_used_once(state: &State) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for instance in state.actual_lrps().filter_map(|lrp| lrp.instance()) {
        if !seen.insert(&instance.instance_guid) {
            return Err(format!("two rows have instance guid {}", instance.instance_guid));
        }
    }
    Ok(())
}

/// Nothing is left after an evacuation's end, and nothing comes (lifecycle.md section 4.2).
fn a_closed_cell_is_empty(state: &State) -> Result<(), String> {
    for (cell_id, load) in state.loads() {
        let is_closed = state.cell(cell_id).is_some_and(|cell| cell.intake == Intake::Closed);
        if is_closed && load.containers > 0 {
            return Err(format!("the closed cell {cell_id} has {} containers", load.containers));
        }
    }
    Ok(())
}

/// What is derived equals what would be derived anew.
fn derived_tables_follow_from_the_rows(state: &State) -> Result<(), String> {
    let mut loads: BTreeMap<CellId, CellLoad> = BTreeMap::new();
    let mut unclaimed = BTreeSet::new();
    let mut due: BTreeSet<(Millis, Due)> =
        state.domains().filter_map(|it| due::of_domain(it)).collect();
    let mut unplaced: BTreeSet<TaskGuid> = BTreeSet::new();
    let mut callbacks: BTreeSet<(Millis, TaskGuid)> = BTreeSet::new();
    for lrp in state.actual_lrps() {
        if let Some(instance) = lrp.instance() {
            let load = loads.entry(instance.cell_id.clone()).or_default();
            load.memory_mb += u64::from(lrp.memory_mb);
            load.disk_mb += u64::from(lrp.disk_mb);
            load.containers += 1;
            load.starting += u32::from(!lrp.is_running());
            load.lrps.insert(lrp.id());
        } else if lrp.is_unclaimed() {
            unclaimed.insert((lrp.key.index, Reverse(lrp.memory_mb), lrp.key.process_guid.clone()));
        }
    }
    due.extend(state.cells().filter_map(|it| due::of_cell(it)));
    due.extend(state.actual_lrps().filter_map(|it| due::of_actual_lrp(it)));
    due.extend(state.tasks().filter_map(|it| due::of_task(it)));
    due.extend(state.locks().map(|it| due::of_lock(it)));
    for task in state.tasks() {
        if task.awaits_callback() {
            callbacks.insert((task.updated_at, task.task_guid.clone()));
        }
        let is_pending = matches!(task.state, TaskState::Pending { .. });
        if let Some(cell) = task.cell() {
            let load = loads.entry(cell.clone()).or_default();
            load.memory_mb += mebibytes(task.definition.memory_mb);
            load.disk_mb += mebibytes(task.definition.disk_mb);
            load.containers += 1;
            load.starting += u32::from(is_pending);
            load.tasks.insert(task.task_guid.clone());
        } else if is_pending {
            unplaced.insert(task.task_guid.clone());
        }
    }
    if !state.loads().eq(loads.iter()) {
        return Err("the loads of cells do not follow from the rows".to_owned());
    }
    let waiting = unclaimed.iter().map(|(index, _, guid)| (guid, *index));
    if !state.unclaimed().eq(waiting) {
        return Err("the unclaimed instances do not follow from the rows".to_owned());
    }
    if !state.unplaced_tasks().eq(unplaced.iter()) {
        return Err("the unplaced tasks do not follow from the rows".to_owned());
    }
    if !state.callbacks().eq(callbacks.iter().map(|(_, guid)| guid)) {
        return Err("the callbacks to be made do not follow from the rows".to_owned());
    }
    if !state.all_due().eq(due.iter()) {
        return Err("what is due does not follow from the rows".to_owned());
    }
    let gaps = state.desired_lrps().flat_map(|desired| {
        let guid = &desired.process_guid;
        state.wanted(desired).map(|index| (guid.clone(), index)).filter(|(guid, index)| {
            state.actual_lrp(&ActualLrpId::ordinary(guid.clone(), *index)).is_none()
        })
    });
    if !state.gaps().cloned().eq(gaps) {
        return Err("the gaps do not follow from the rows".to_owned());
    }
    Ok(())
}
