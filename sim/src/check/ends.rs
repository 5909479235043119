//! **A cell ends only what no record names.**
//!
//! Told by the machines, which see every container stopped and removed. A record that is gone never
//! comes back, so whatever the cell had applied by then, the newest agreed state must not name the
//! container either: a cell that acts on an old state ends what it has not heard of yet. Source:
//! lifecycle.md sections 1.5 and 3.4; ARCHITECTURE.md, "Containers outlive the node".

use model::{CellId, State, TaskState};
use plan::cell::Handle;

use super::Verdict;

pub(super) const NAME: &str = "a cell ends only what no record names";

/// A container that a cell ends.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The cell.
    pub cell_id: CellId,
    /// The container.
    pub handle: Handle,
    /// The last entry that the cell's node has applied.
    pub applied: Option<u64>,
}

/// What cannot be judged yet: its node was ahead of what is known to be agreed.
#[derive(Debug, Default)]
pub(super) struct Ends(Vec<Ended>);

impl Ends {
    /// A cell ends a container, while everything through `agreed` is known to be agreed.
    pub(super) fn ended(&mut self, ended: Ended, agreed: Option<u64>, state: &State) -> Verdict {
        if ended.applied > agreed {
            self.0.push(ended);
            return Ok(());
        }
        judge(&ended, state)
    }

    /// Judges what has become known.
    pub(super) fn check(&mut self, index: u64, state: &State) -> Verdict {
        let is_known = |ended: &mut Ended| ended.applied <= Some(index);
        let known: Vec<Ended> = self.0.extract_if(.., is_known).collect();
        known.iter().try_for_each(|ended| judge(ended, state))
    }
}

fn judge(ended: &Ended, state: &State) -> Verdict {
    let Ended { cell_id, handle, applied } = ended;
    let is_named = match handle {
        Handle::Lrp(guid) => state.load(cell_id).is_some_and(|load| {
            let rows = load.lrps.iter().filter_map(|id| state.actual_lrp(id));
            rows.filter_map(|row| row.instance()).any(|on| on.instance_guid == *guid)
        }),
        Handle::Task(guid) => state
            .task(guid)
            .is_some_and(|task| task.state == TaskState::Running { cell_id: cell_id.clone() }),
    };
    if is_named {
        return Err(format!("{cell_id}, at entry {applied:?}, ends {handle}, which is on record"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{Command, Millis, Proposal};

    use super::*;
    use crate::world::samples;

    #[test]
    fn the_end_of_what_is_on_record_is_seen_once_it_is_known() {
        let mut state = State::default();
        let desired_lrp = Box::new(samples::desired_lrp("app", 1, "d".into(), "preloaded:busybox"));
        let cell = Box::new(samples::cell(1));
        let cell_id = cell.cell_id.clone();
        let commands = vec![
            Command::RegisterCell { cell },
            Command::DesireLrp { desired_lrp },
            Command::PlaceLrp { process_guid: "app".into(), index: 0, cell_id: cell_id.clone() },
        ];
        model::apply_proposal(&mut state, 7, Proposal { at: Millis(1), commands });
        let guid = state.actual_lrps().next().and_then(|row| row.instance().cloned());
        let handle = Handle::Lrp(guid.expect("it was placed").instance_guid);
        let ended = Ended { cell_id, handle, applied: Some(7) };
        let mut ends = Ends::default();
        assert_eq!(ends.ended(ended.clone(), Some(6), &State::default()), Ok(()), "not known yet");
        assert!(ends.check(7, &state).is_err());
        assert_eq!(ends.check(8, &state), Ok(()), "judged once");
        assert!(ends.ended(ended.clone(), Some(7), &state).is_err());
        assert_eq!(ends.ended(ended, Some(8), &State::default()), Ok(()));
    }
}
