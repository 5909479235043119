//! **Nothing acknowledged is lost, nothing refused takes effect, and nothing happens twice.**
//!
//! A proposal whose client was told an outcome is in the agreed log once and came to that outcome
//! there; one of which the client was told that it was not made is not in the log at all. Of the
//! unknown ones either is true. Source: `replica::ProposeError`; Raft thesis, section 6.3.

use crate::history::{End, History, Operation};

pub(super) const NAME: &str = "acknowledged";

/// Judges a history whose log is known to the end.
pub(super) fn check(history: &History) -> Vec<String> {
    history.operations().iter().filter_map(|operation| judge(operation).err()).collect()
}

fn judge(operation: &Operation) -> Result<(), String> {
    let Some((_, end)) = &operation.ended else {
        return Ok(());
    };
    let begun = format!("the proposal begun at {} ns", operation.at_ns);
    match (end, &operation.agreed) {
        (End::Applied(told), Some((index, came_to))) if told != came_to => {
            Err(format!("{begun} was answered {told:?}, and entry {index} came to {came_to:?}"))
        }
        (End::Applied(_), None) => Err(format!("{begun} was acknowledged and is lost")),
        (End::NotProposed, Some((index, _))) => {
            Err(format!("{begun} was said not to be made, and is entry {index}"))
        }
        (End::Applied(_), Some(_))
        | (End::NotProposed, None)
        | (End::Unknown | End::Saw(_) | End::Failed, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use model::{Outcome, Refusal};

    use super::*;

    const DONE: Outcome = Outcome(Vec::new());

    fn refused() -> Outcome {
        Outcome(vec![Err(Refusal::NotDue)])
    }

    /// The number of violations when a client is told `end` and the log has `agreed`.
    fn violations(end: Option<End>, agreed: Option<Outcome>) -> usize {
        let mut history = History::default();
        let id = history.begin_proposal(0, vec![1]);
        if let Some(outcome) = agreed {
            history.agreed(7, &[1], outcome).unwrap();
        }
        if let Some(end) = end {
            history.end(id, end);
        }
        check(&history).len()
    }

    #[test]
    fn what_was_said_must_have_happened() {
        assert_eq!(violations(Some(End::Applied(DONE)), Some(DONE)), 0);
        assert_eq!(violations(Some(End::Applied(DONE)), Some(refused())), 1);
        assert_eq!(violations(Some(End::Applied(DONE)), None), 1);
        assert_eq!(violations(Some(End::NotProposed), None), 0);
        assert_eq!(violations(Some(End::NotProposed), Some(DONE)), 1);
    }

    #[test]
    fn the_unknown_may_go_either_way() {
        for end in [None, Some(End::Unknown)] {
            assert_eq!(violations(end.clone(), Some(DONE)), 0);
            assert_eq!(violations(end, None), 0);
        }
    }

    #[test]
    fn nothing_is_agreed_twice_or_out_of_nowhere() {
        let mut history = History::default();
        history.begin_proposal(0, vec![1]);
        assert!(history.agreed(7, &[1], DONE).is_ok());
        assert!(history.agreed(8, &[1], DONE).is_err());
        assert!(history.agreed(9, &[2], DONE).is_err());
    }

    #[test]
    fn what_nodes_propose_is_agreed_once_too() {
        let mut history = History::default();
        history.expect_nodes();
        assert!(history.agreed(7, &[1], DONE).is_ok());
        assert!(history.agreed(8, &[1], DONE).is_err());
    }
}
