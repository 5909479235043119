//! Evacuation: a cell is given nothing new, and what is there goes elsewhere.
//!
//! One command does at once what Diego's rep asks for container by container (lifecycle.md section
//! 4.2), and another does it for one of them: what runs becomes an EVACUATING copy beside a new row
//! that waits for a cell, and the start of the replacement removes the copy. Tasks run on.

use std::sync::Arc;

use super::Change;
use super::instance::describe;
use crate::actual_lrp::{ActualLrp, ActualLrpKey, ActualState, InstanceKey, Presence};
use crate::cell::{Cell, Intake};
use crate::desired_lrp::{DesiredLrp, ModificationTag, UpdateStrategy};
use crate::event::Event;
use crate::id::{ActualLrpId, CellId, ProcessGuid};
use crate::mutant;
use crate::refusal::Refusal;
use crate::time::Millis;
use crate::validate;

impl Change<'_> {
    /// Asked again, it only moves the end.
    pub(super) fn evacuate_cell(
        &mut self,
        cell_id: &CellId,
        timeout: Millis,
    ) -> Result<(), Refusal> {
        let cell = self.known_cell(cell_id)?;
        if !cell.is_present() {
            if mutant!("refusal-half-done") {
                self.set_intake(&cell, Intake::Evacuating { until: self.stamp.at + timeout });
            }
            return Err(Refusal::CellNotPresent(cell_id.clone()));
        }
        self.set_intake(&cell, Intake::Evacuating { until: self.stamp.at + timeout });
        for row in self.rows_on(cell_id) {
            if row.presence == Presence::Ordinary {
                self.evacuate_row(&row)?;
            }
        }
        for task_guid in self.tasks_on(cell_id) {
            self.take_back_task(&task_guid);
        }
        Ok(())
    }

    /// What was moved away stays away; a copy whose replacement does not run yet is the instance
    /// again.
    pub(super) fn open_cell(&mut self, cell_id: &CellId) -> Result<(), Refusal> {
        let cell = self.known_cell(cell_id)?;
        if cell.intake == Intake::Open {
            return Ok(());
        }
        self.set_intake(&cell, Intake::Open);
        for row in self.rows_on(cell_id) {
            if row.presence == Presence::Evacuating {
                // Its start would have removed the copy, so the replacement does not run.
                self.remove_row(&ActualLrpId { presence: Presence::Ordinary, ..row.id() });
                self.change_presence(&row, Presence::Ordinary);
                // The replacement's cell may have been lost meanwhile.
                self.settle(&row.id());
            }
        }
        Ok(())
    }

    /// One instance, whatever its cell is given: what runs is copied as by [`Self::evacuate_cell`],
    /// or ends where it must not run twice and all others run. A copy stays until its replacement
    /// runs, and of a suspect nobody knows; both change nothing.
    pub(super) fn evacuate_lrp(
        &mut self,
        key: &ActualLrpKey,
        instance: &InstanceKey,
        runs: bool,
    ) -> Result<(), Refusal> {
        validate::placement(key, instance)?;
        let row = self.placed(key, instance)?;
        match row.presence {
            Presence::Evacuating | Presence::Suspect => Ok(()),
            Presence::Ordinary if runs && row.is_running() => {
                let desired = self.desired(&key.process_guid)?;
                match desired.update_strategy {
                    UpdateStrategy::Rolling => self.copy_and_unclaim(&row),
                    UpdateStrategy::Recreate => self.recreate(&row, &desired)?,
                }
                Ok(())
            }
            // Routers do not know it yet, or it does not run.
            Presence::Ordinary => {
                self.unclaim(&row);
                Ok(())
            }
        }
    }

    /// RECREATE (lifecycle.md section 4.2): refused while fewer run than are desired.
    pub(super) fn recreate_lrp(
        &mut self,
        process_guid: ProcessGuid,
        index: u32,
    ) -> Result<(), Refusal> {
        let row = self.ordinary(&process_guid, index)?;
        let desired = self.desired(&process_guid)?;
        let on = row.instance().and_then(|on| self.state.cell(&on.cell_id));
        let is_evacuated = on.is_some_and(|cell| cell.intake != Intake::Open);
        if !row.is_running() || !is_evacuated {
            let state = describe(&row);
            return Err(Refusal::ActualLrpCannotBeUnclaimed { process_guid, index, state });
        }
        self.recreate(&row, &desired)
    }

    fn recreate(&mut self, row: &Arc<ActualLrp>, desired: &DesiredLrp) -> Result<(), Refusal> {
        let rows = self.state.actual_lrps_of(&desired.process_guid);
        let runs = |row: &&Arc<ActualLrp>| row.presence == Presence::Ordinary && row.is_running();
        if rows.filter(runs).count() < self.state.wanted(desired).len() {
            return Err(Refusal::NotDue);
        }
        self.unclaim(row);
        Ok(())
    }

    pub(super) fn close_cell(&mut self, cell_id: &CellId) -> Result<(), Refusal> {
        let cell = self.known_cell(cell_id)?;
        match cell.intake {
            Intake::Evacuating { until }
                if until <= self.stamp.at || mutant!("cell-closes-early") => {}
            Intake::Evacuating { .. } | Intake::Open => return Err(Refusal::NotDue),
            Intake::Closed => return Ok(()),
        }
        self.set_intake(&cell, Intake::Closed);
        for row in self.rows_on(cell_id) {
            match row.presence {
                Presence::Evacuating | Presence::Suspect => self.remove_row(&row.id()),
                Presence::Ordinary => self.unclaim(&row),
            }
        }
        for task_guid in self.tasks_on(cell_id) {
            self.lose_task(&task_guid);
        }
        Ok(())
    }

    /// It runs on until its replacement, which is on its way, runs (lifecycle.md section 4.2); what
    /// must not run twice takes the replacement's place, and waits for its turn again.
    pub(super) fn evacuate_suspect(&mut self, row: &Arc<ActualLrp>) {
        let desired = self.state.desired_lrp(&row.key.process_guid);
        let rolls = desired.is_some_and(|lrp| lrp.update_strategy == UpdateStrategy::Rolling);
        let copy = ActualLrpId { presence: Presence::Evacuating, ..row.id() };
        let has_copy = self.state.actual_lrp(&copy).is_some();
        if !row.is_running() || rolls && has_copy {
            self.remove_row(&row.id());
        } else if rolls {
            self.change_presence(row, Presence::Evacuating);
        } else {
            self.return_suspect(row);
        }
    }

    fn evacuate_row(&mut self, row: &Arc<ActualLrp>) -> Result<(), Refusal> {
        if !row.is_running() {
            self.unclaim(row);
            return Ok(());
        }
        match self.desired(&row.key.process_guid)?.update_strategy {
            // Waits for its turn; see `recreate_lrp`.
            UpdateStrategy::Recreate => {}
            UpdateStrategy::Rolling => self.copy_and_unclaim(row),
        }
        Ok(())
    }

    /// The instance becomes a copy, and its row waits for a cell again. There is no other copy: its
    /// start removed the one that it replaced.
    fn copy_and_unclaim(&mut self, row: &Arc<ActualLrp>) {
        let copy = Arc::new(ActualLrp {
            presence: Presence::Evacuating,
            since: self.stamp.at,
            modification_tag: ModificationTag::new(self.mint_epoch()),
            ..ActualLrp::clone(row)
        });
        if !mutant!("evacuation-without-copy") {
            self.state.put_actual_lrp(Arc::clone(&copy));
        }
        self.events.push(Event::ActualLrpChanged { before: Arc::clone(row), after: copy });
        let waiting = Arc::new(ActualLrp {
            state: ActualState::Unclaimed { placement_error: String::new() },
            since: self.stamp.at,
            modification_tag: row.modification_tag.next(),
            ..ActualLrp::clone(row)
        });
        self.state.put_actual_lrp(Arc::clone(&waiting));
        self.events.push(Event::ActualLrpCreated(waiting));
    }

    fn unclaim(&mut self, row: &Arc<ActualLrp>) {
        self.move_row(row, |after| {
            after.state = ActualState::Unclaimed { placement_error: String::new() };
        });
    }

    fn set_intake(&mut self, cell: &Cell, intake: Intake) {
        let cell = Arc::new(Cell { intake, ..cell.clone() });
        self.state.put_cell(Arc::clone(&cell));
        self.events.push(Event::CellChanged(cell));
    }
}
