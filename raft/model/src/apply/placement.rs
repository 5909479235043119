//! What the leader's turn decides about instances: create, place, fail, restart.
//!
//! Plans are optimistic: everything they assumed is checked again here.

use std::sync::Arc;

use super::Change;
use super::instance::describe;
use crate::actual_lrp::{ActualState, InstanceKey};
use crate::cell::Cell;
use crate::id::{CellId, ProcessGuid};
use crate::limits::truncate_reason;
use crate::mutant;
use crate::refusal::Refusal;
use crate::restart::{self, Restart};
use crate::validate;

/// What a container asks of a cell, in mebibytes.
pub(super) struct Need {
    pub(super) memory_mb: u64,
    pub(super) disk_mb: u64,
}

impl Change<'_> {
    pub(super) fn create_lrp(
        &mut self,
        process_guid: ProcessGuid,
        index: u32,
    ) -> Result<(), Refusal> {
        let desired = self.desired(&process_guid)?;
        validate::rootfs_allowed(self.state, &desired.rootfs)?;
        if !desired.indices().contains(&index) {
            return Err(Refusal::ActualLrpNotFound { process_guid, index });
        }
        if self.ordinary(&process_guid, index).is_ok() {
            return Ok(());
        }
        self.insert_unclaimed(&desired, index);
        Ok(())
    }

    pub(super) fn place_lrp(
        &mut self,
        process_guid: ProcessGuid,
        index: u32,
        cell_id: CellId,
    ) -> Result<(), Refusal> {
        let row = self.ordinary(&process_guid, index)?;
        if !row.is_unclaimed() {
            let state = describe(&row);
            return Err(Refusal::ActualLrpCannotBeClaimed { process_guid, index, state });
        }
        let need = Need { memory_mb: u64::from(row.memory_mb), disk_mb: u64::from(row.disk_mb) };
        let zone = Arc::clone(&self.check_room(&cell_id, &need)?.zone);
        let instance = InstanceKey { instance_guid: self.mint(), cell_id };
        self.move_row(&row, |after| {
            after.state = ActualState::Claimed { instance };
            after.availability_zone = zone;
        });
        Ok(())
    }

    pub(super) fn fail_lrp(
        &mut self,
        process_guid: ProcessGuid,
        index: u32,
        placement_error: &str,
    ) -> Result<(), Refusal> {
        let row = self.ordinary(&process_guid, index)?;
        let failed = ActualState::Unclaimed { placement_error: truncate_reason(placement_error) };
        if !row.is_unclaimed() {
            let state = describe(&row);
            return Err(Refusal::ActualLrpCannotBeFailed { process_guid, index, state });
        }
        if row.state != failed {
            self.move_row(&row, |after| after.state = failed);
        }
        Ok(())
    }

    pub(super) fn restart_lrp(
        &mut self,
        process_guid: ProcessGuid,
        index: u32,
    ) -> Result<(), Refusal> {
        let row = self.ordinary(&process_guid, index)?;
        if row.state != ActualState::Crashed {
            let state = describe(&row);
            return Err(Refusal::ActualLrpCannotBeUnclaimed { process_guid, index, state });
        }
        match restart::after_crash(row.crash_count, row.since) {
            Restart::Now => {}
            Restart::At(at) if at <= self.stamp.at => {}
            Restart::At(_) | Restart::Never => return Err(Refusal::NotDue),
        }
        self.move_row(&row, |after| {
            after.state = ActualState::Unclaimed { placement_error: String::new() };
        });
        Ok(())
    }

    /// The cell, if it is present and can hold one more container of this size.
    pub(super) fn check_room(&self, cell_id: &CellId, need: &Need) -> Result<&Arc<Cell>, Refusal> {
        let cell =
            self.state.cell(cell_id).ok_or_else(|| Refusal::CellNotFound(cell_id.clone()))?;
        if !cell.takes_work() {
            return Err(Refusal::CellNotPresent(cell_id.clone()));
        }
        let (memory, disk, containers) = self
            .state
            .load(cell_id)
            .map_or((0, 0, 0), |load| (load.memory_mb, load.disk_mb, load.containers));
        let refuse = |dimension: &str| {
            Err(Refusal::NoRoom { cell_id: cell_id.clone(), dimension: dimension.to_owned() })
        };
        if containers >= cell.capacity.containers {
            return refuse("containers");
        }
        if disk + need.disk_mb > u64::from(cell.capacity.disk_mb) {
            return refuse("disk");
        }
        let is_full = memory + need.memory_mb > u64::from(cell.capacity.memory_mb);
        if is_full && !mutant!("place-without-room") {
            return refuse("memory");
        }
        Ok(cell)
    }
}
