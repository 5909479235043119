//! Cells: registered, missing, returned.
//!
//! Source: lifecycle.md section 3.5, rules g, h and i, done at once for all of a cell's rows.

use std::sync::Arc;

use super::Change;
use crate::actual_lrp::{ActualLrp, ActualState, Presence};
use crate::cell::{Cell, CellHealth, Intake};
use crate::event::Event;
use crate::id::{ActualLrpId, CellId, TaskGuid};
use crate::mutant;
use crate::refusal::Refusal;
use crate::validate;

impl Change<'_> {
    pub(super) fn register_cell(&mut self, cell: Cell) -> Result<(), Refusal> {
        validate::cell(&cell)?;
        let intake = self.state.cell(&cell.cell_id).map_or(Intake::Open, |known| known.intake);
        let cell = Cell { health: CellHealth::Present, intake, ..cell };
        let was_missing = match self.state.cell(&cell.cell_id) {
            Some(known) if **known == cell => return Ok(()),
            Some(known) => !known.is_present(),
            None => false,
        };
        let cell = Arc::new(cell);
        self.state.put_cell(Arc::clone(&cell));
        self.events.push(Event::CellChanged(Arc::clone(&cell)));
        if was_missing {
            self.promote_suspects(&cell.cell_id);
        }
        Ok(())
    }

    pub(super) fn cell_missing(&mut self, cell_id: CellId) -> Result<(), Refusal> {
        let cell = self.known_cell(&cell_id)?;
        if !cell.is_present() {
            return Ok(());
        }
        self.set_health(&cell, CellHealth::Missing { since: self.stamp.at });
        for row in self.rows_on(&cell_id) {
            match row.presence {
                Presence::Ordinary => self.replace_lost(&row),
                Presence::Evacuating => self.remove_row(&row.id()),
                Presence::Suspect => {}
            }
        }
        for task_guid in self.tasks_on(&cell_id) {
            if !mutant!("lost-cell-keeps-tasks") {
                self.lose_task(&task_guid);
            }
        }
        Ok(())
    }

    pub(super) fn cell_returned(&mut self, cell_id: CellId) -> Result<(), Refusal> {
        let cell = self.known_cell(&cell_id)?;
        if cell.is_present() {
            return Ok(());
        }
        self.set_health(&cell, CellHealth::Present);
        self.promote_suspects(&cell_id);
        Ok(())
    }

    /// An ordinary row on a lost cell: it becomes the suspect, and a new row takes its place.
    /// Where a suspect already stands, this row was the replacement, and waits for a cell again.
    fn replace_lost(&mut self, row: &Arc<ActualLrp>) {
        let desired = self
            .desired(&row.key.process_guid)
            .expect("an ordinary row has its desired LRP: both are removed in one apply");
        if self.suspect(&row.key.process_guid, row.key.index).is_some() {
            self.move_row(row, |after| {
                after.state = ActualState::Unclaimed { placement_error: String::new() };
            });
            return;
        }
        let suspect = ActualLrp { presence: Presence::Suspect, ..ActualLrp::clone(row) };
        let suspect = Arc::new(suspect);
        self.state.put_actual_lrp(Arc::clone(&suspect));
        self.events.push(Event::ActualLrpChanged { before: Arc::clone(row), after: suspect });
        self.put_unclaimed(&desired, row.key.index);
    }

    /// The suspects of a returned cell were alive all along; their replacements are not needed,
    /// unless the cell is being emptied.
    fn promote_suspects(&mut self, cell_id: &CellId) {
        let intake = self.state.cell(cell_id).map_or(Intake::Open, |cell| cell.intake);
        for row in self.rows_on(cell_id) {
            match intake {
                _ if row.presence != Presence::Suspect => {}
                Intake::Open => self.return_suspect(&row),
                Intake::Evacuating { .. } => self.evacuate_suspect(&row),
                Intake::Closed => self.remove_row(&row.id()),
            }
        }
    }

    /// A suspect takes its place again, and its replacement goes.
    pub(super) fn return_suspect(&mut self, row: &Arc<ActualLrp>) {
        self.remove_row(&ActualLrpId { presence: Presence::Ordinary, ..row.id() });
        self.change_presence(row, Presence::Ordinary);
        if row.is_running() {
            self.settle(&row.id());
        }
    }

    pub(super) fn change_presence(&mut self, before: &Arc<ActualLrp>, presence: Presence) {
        let after = Arc::new(ActualLrp { presence, ..ActualLrp::clone(before) });
        self.state.remove_actual_lrp(&before.id());
        self.state.put_actual_lrp(Arc::clone(&after));
        self.events.push(Event::ActualLrpChanged { before: Arc::clone(before), after });
    }

    fn set_health(&mut self, cell: &Cell, health: CellHealth) {
        let cell = Arc::new(Cell { health, ..cell.clone() });
        self.state.put_cell(Arc::clone(&cell));
        self.events.push(Event::CellChanged(cell));
    }

    pub(super) fn known_cell(&self, cell_id: &CellId) -> Result<Arc<Cell>, Refusal> {
        self.state.cell(cell_id).cloned().ok_or_else(|| Refusal::CellNotFound(cell_id.clone()))
    }

    pub(super) fn rows_on(&self, cell_id: &CellId) -> Vec<Arc<ActualLrp>> {
        let Some(load) = self.state.load(cell_id) else { return Vec::new() };
        load.lrps.iter().filter_map(|id| self.state.actual_lrp(id).cloned()).collect()
    }

    pub(super) fn tasks_on(&self, cell_id: &CellId) -> Vec<TaskGuid> {
        let Some(load) = self.state.load(cell_id) else { return Vec::new() };
        load.tasks.iter().cloned().collect()
    }
}
