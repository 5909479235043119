//! **Linearizable: what a client learns holds for whoever asks later.**
//!
//! Every operation has a point in the agreed log: a proposal its index, a read the last entry it
//! saw. One that begins after another has ended stands no lower (a proposal strictly higher). As
//! each state shown is checked against the log besides (`state_machine`), the order of points is
//! a linearization; read-your-writes and monotonic reads are special cases. Source: Herlihy and
//! Wing 1990; Raft thesis, section 6.4.

use std::collections::BTreeMap;

use crate::history::{End, History, Operation};

pub(super) const NAME: &str = "linearizable";

/// Where an operation stands in the log, if it took effect.
fn point(operation: &Operation) -> Option<u64> {
    if operation.writes {
        return operation.agreed.as_ref().map(|(index, _)| *index);
    }
    match operation.ended {
        Some((_, End::Saw(index))) => Some(index),
        _ => None,
    }
}

/// Judges a history whose log is known to the end.
pub(super) fn check(history: &History) -> Vec<String> {
    // Ends by their place: what everyone who begins later must have seen.
    let mut ends = BTreeMap::new();
    for operation in history.operations() {
        let told = matches!(operation.ended, Some((_, End::Applied(_) | End::Saw(_))));
        if let (Some((place, _)), Some(point), true) = (&operation.ended, point(operation), told) {
            ends.insert(*place, (point, operation));
        }
    }
    let mut ends = ends.into_iter().peekable();
    let mut newest: Option<(u64, &Operation)> = None;
    let mut violations = Vec::new();
    for operation in history.operations() {
        while let Some((_, ended)) = ends.next_if(|(place, _)| *place < operation.begun) {
            if newest.is_none_or(|(highest, _)| highest < ended.0) {
                newest = Some(ended);
            }
        }
        let (Some(point), Some((highest, earlier))) = (point(operation), newest) else {
            continue;
        };
        if point < highest || (operation.writes && point == highest) {
            let kind = if operation.writes { "proposal" } else { "read" };
            violations.push(format!(
                "the {kind} begun at {} ns stands at entry {point}, but the one begun at {} ns had \
                 ended before and stands at entry {highest}",
                operation.at_ns, earlier.at_ns
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use model::Outcome;

    use super::*;

    const DONE: Outcome = Outcome(Vec::new());

    fn write(history: &mut History, index: u64) {
        let bytes = index.to_be_bytes().to_vec();
        let id = history.begin_proposal(0, bytes.clone());
        history.agreed(index, &bytes, DONE).unwrap();
        history.end(id, End::Applied(DONE));
    }

    fn read(history: &mut History, index: u64) {
        let id = history.begin_read(0);
        history.end(id, End::Saw(index));
    }

    fn violations(story: impl FnOnce(&mut History)) -> usize {
        let mut history = History::default();
        story(&mut history);
        check(&history).len()
    }

    #[test]
    fn one_after_the_other_goes_up() {
        let ok = violations(|history| {
            write(history, 1);
            read(history, 1);
            read(history, 1);
            write(history, 5);
            read(history, 9);
        });
        assert_eq!(ok, 0);
    }

    #[test]
    fn a_read_sees_all_that_was_acknowledged_before_it() {
        let stale = violations(|history| {
            write(history, 5);
            read(history, 4);
        });
        assert_eq!(stale, 1);
    }

    #[test]
    fn reads_do_not_go_back() {
        let back = violations(|history| {
            read(history, 5);
            read(history, 4);
        });
        assert_eq!(back, 1);
    }

    #[test]
    fn a_write_stands_above_what_was_seen_before_it() {
        let below = violations(|history| {
            read(history, 5);
            write(history, 5);
        });
        assert_eq!(below, 1);
    }

    #[test]
    fn what_overlaps_may_go_either_way() {
        let either = violations(|history| {
            let slow = history.begin_read(0);
            write(history, 5);
            history.end(slow, End::Saw(3));
        });
        assert_eq!(either, 0);
    }

    #[test]
    fn an_unknown_proposal_binds_nobody_but_is_bound() {
        let free = violations(|history| {
            let unknown = history.begin_proposal(0, vec![1]);
            history.agreed(9, &[1], DONE).unwrap();
            history.end(unknown, End::Unknown);
            read(history, 3);
        });
        assert_eq!(free, 0);
        let bound = violations(|history| {
            read(history, 5);
            let unknown = history.begin_proposal(0, vec![1]);
            history.agreed(4, &[1], DONE).unwrap();
            history.end(unknown, End::Unknown);
        });
        assert_eq!(bound, 1);
    }
}
