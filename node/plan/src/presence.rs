//! Which cells are there: the leader's own sightings against what the state says.
//!
//! Heartbeats are soft and never enter the log; only silence and return do. Source: lifecycle.md
//! section 5 for the TTL.

use std::collections::BTreeMap;

use model::{CellId, Command, Millis, State, mutant};

use crate::turn::Due;

/// When the leader last heard each cell.
///
/// It is the leader's memory, begun anew by each leader: a cell that has not been heard since
/// then counts as heard when the leader began, so that a change of leaders loses no cell. The
/// moment in which a registration is applied counts as hearing the cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    since: Millis,
    heard: BTreeMap<CellId, Millis>,
}

impl Sightings {
    /// Nothing heard yet, by a leader that begins at `since`.
    #[must_use]
    pub fn new(since: Millis) -> Self {
        Self { since, heard: BTreeMap::new() }
    }

    /// Notes that a cell was heard. An older moment than the one known is ignored.
    pub fn hear(&mut self, cell_id: CellId, at: Millis) {
        let last = self.heard.entry(cell_id).or_insert(at);
        *last = at.max(*last);
    }

    /// When the cell was heard; `since` if it never was.
    #[must_use]
    pub fn last_heard(&self, cell_id: &CellId) -> Millis {
        self.heard.get(cell_id).copied().unwrap_or(self.since).max(self.since)
    }

    /// Whether the cell itself was heard, and not longer ago than the TTL.
    fn is_heard(&self, cell_id: &CellId, now: Millis, ttl: Millis) -> bool {
        self.heard.get(cell_id).is_some_and(|at| now - *at <= ttl)
    }
}

/// The cells that have gone or come back, and when the next one will have been silent for too
/// long.
pub(crate) fn changes(
    state: &State,
    sightings: &Sightings,
    now: Millis,
    ttl: Millis,
    due: &mut Due,
) -> Vec<Command> {
    let mut commands = Vec::new();
    for cell in state.cells() {
        let cell_id = &cell.cell_id;
        let ttl_of_cell = if mutant!("cells-missing-too-soon") { Millis(ttl.0 / 8) } else { ttl };
        let silent_after = sightings.last_heard(cell_id) + ttl_of_cell;
        let is_silent = now > silent_after && !mutant!("cells-never-missing");
        if cell.is_present() && is_silent {
            commands.push(Command::CellMissing { cell_id: cell_id.clone() });
        } else if cell.is_present() {
            due.at(silent_after + Millis(1));
        } else if sightings.is_heard(cell_id, now, ttl) {
            commands.push(Command::CellReturned { cell_id: cell_id.clone() });
            due.at(silent_after + Millis(1));
        }
    }
    commands
}
