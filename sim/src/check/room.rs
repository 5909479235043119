//! **Nothing is placed where there is no room for it.**
//!
//! What the agreed records put on a cell is within what the cell offers. Source: auction.md, "fit";
//! design rule 2.

use model::State;

use super::Verdict;

pub(super) const NAME: &str = "nothing is placed where there is no room";

/// Judges the agreed state.
pub(super) fn check(state: &State) -> Verdict {
    for (cell_id, load) in state.loads() {
        let Some(cell) = state.cell(cell_id) else { continue };
        let offered = cell.capacity;
        if load.memory_mb > u64::from(offered.memory_mb)
            || load.disk_mb > u64::from(offered.disk_mb)
            || load.containers > offered.containers
        {
            return Err(format!(
                "{cell_id} offers {offered:?} and has {} MiB, {} MiB of disk, {} containers",
                load.memory_mb, load.disk_mb, load.containers
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{Capacity, Cell, Command, Millis, Proposal};

    use super::*;
    use crate::world::samples;

    #[test]
    fn a_cell_with_more_than_it_offers_is_seen() {
        let mut state = State::default();
        let mut apply = |command| {
            let proposal = Proposal { at: Millis(1), commands: vec![command] };
            let (outcome, _) = model::apply_proposal(&mut state, 1, proposal);
            assert_eq!(outcome.0, [Ok(true)]);
        };
        let cell = samples::cell(1);
        apply(Command::RegisterCell { cell: Box::new(cell.clone()) });
        let desired_lrp = Box::new(samples::desired_lrp("app", 1, "d".into(), "preloaded:busybox"));
        apply(Command::DesireLrp { desired_lrp });
        let (process_guid, cell_id) = ("app".into(), cell.cell_id.clone());
        apply(Command::PlaceLrp { process_guid, index: 0, cell_id });
        let small = Capacity { memory_mb: 31, ..cell.capacity };
        let smaller = Box::new(Cell { capacity: small, ..cell });
        let mut shrunk = state.clone();
        assert_eq!(check(&state), Ok(()));
        let commands = vec![Command::RegisterCell { cell: smaller }];
        model::apply_proposal(&mut shrunk, 2, Proposal { at: Millis(2), commands });
        assert!(check(&shrunk).is_err());
    }
}
