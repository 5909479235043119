//! **A refused command changes nothing, and neither does one that says so.**
//!
//! Source: design rule 1.

use super::Verdict;
use super::state_machine::Step;

pub(super) const NAME: &str = "a refused command changes nothing";

/// Judges one command by the states before and after it.
pub(super) fn check(step: &Step) -> Verdict {
    if step.result == Ok(true) {
        return Ok(());
    }
    match step.before.differences(&step.after).next() {
        None => Ok(()),
        Some(row) => Err(format!("{:?} changed {row:?} by {:?}", step.result, step.command)),
    }
}

#[cfg(test)]
mod tests {
    use model::{Command, Millis, Proposal, Refusal, State};

    use super::*;

    #[test]
    fn a_change_in_spite_of_a_refusal_is_seen() {
        let command = Command::InitCluster { salt: 7 };
        let before = State::default();
        let mut after = before.clone();
        let commands = vec![command.clone()];
        model::apply_proposal(&mut after, 1, Proposal { at: Millis(0), commands });
        let refused = Err(Refusal::ClusterInitialised);
        let step = Step { before, after, command, result: refused };
        assert!(check(&step).is_err());
        assert_eq!(check(&Step { result: Ok(true), ..step }), Ok(()));
    }
}
