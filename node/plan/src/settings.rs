//! What an operator may set about planning. Diego's properties of the same names.

use model::Millis;

use crate::limits::{CALLBACKS_MAX, PRESENCE_TTL};

/// Weights are thousandths, so that planning needs no floats: Diego's 0.25 is 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A cell that is silent for longer is missing.
    pub presence_ttl: Millis,
    /// What one starting container on a cell counts against it, in thousandths of a full cell.
    pub starting_container_weight: u32,
    /// Most containers that start at once in the whole cluster; 0 is unlimited.
    pub starting_container_count_maximum: u32,
    /// What a cell's place in its zone counts against it, in thousandths of a full cell for each
    /// cell before it; above 0, the first cells are filled first.
    pub bin_pack_first_fit_weight: u32,
    /// Most callbacks of tasks that one turn begins: those that the leader has room for now.
    pub callbacks_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            presence_ttl: PRESENCE_TTL,
            starting_container_weight: 250,
            starting_container_count_maximum: 0,
            bin_pack_first_fit_weight: 0,
            callbacks_max: CALLBACKS_MAX,
        }
    }
}
