//! Evacuation: what is left on the cells that are being emptied, and may go now.
//!
//! What rolls has been moved by the command that began the evacuation; what must not run twice
//! waits here until all the others of its process run (lifecycle.md section 4.2, RECREATE).

use model::desired_lrp::UpdateStrategy;
use model::{Command, Intake, Presence, State};

use crate::turn::Draft;

/// Ends instances one after the other, so that of each process at most one is away.
pub(crate) fn recreate(draft: &mut Draft) {
    for command in waiting(draft.state()) {
        // Each is decided on what the ones before it have left.
        let Command::RecreateLrp { process_guid, .. } = &command else { continue };
        if all_run(draft.state(), process_guid) && !draft.decide(command) {
            return;
        }
    }
}

fn waiting(state: &State) -> Vec<Command> {
    let evacuated = state.cells().filter(|cell| cell.is_present() && cell.intake != Intake::Open);
    let rows = evacuated
        .filter_map(|cell| state.load(&cell.cell_id))
        .flat_map(|load| load.lrps.iter())
        .filter(|id| id.presence == Presence::Ordinary)
        .filter(|id| {
            let desired = state.desired_lrp(&id.process_guid);
            desired.is_some_and(|lrp| lrp.update_strategy == UpdateStrategy::Recreate)
        });
    rows.map(|id| Command::RecreateLrp { process_guid: id.process_guid.clone(), index: id.index })
        .collect()
}

fn all_run(state: &State, process_guid: &model::ProcessGuid) -> bool {
    let desired = state.desired_lrp(process_guid).map_or(0, |desired| state.wanted(desired).len());
    let rows = state.actual_lrps_of(process_guid);
    let running = rows.filter(|row| row.presence == Presence::Ordinary && row.is_running()).count();
    running >= desired || model::mutant!("recreate-at-once")
}
