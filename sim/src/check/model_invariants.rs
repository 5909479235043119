//! **The model's invariants hold after every agreed entry, and in every state a replica shows.**
//!
//! The latter also for what is derived from rows: states count as equal when their rows are.
//! Source: `model::invariants`, where each has its sentence.

use super::Verdict;

pub(super) const NAME: &str = "model invariants";

/// `state` is what the agreed log amounts to after entry `index`, to us or to a replica.
pub(super) fn check(index: u64, state: &model::State) -> Verdict {
    model::invariants::check(state).map_err(|what| format!("after entry {index}: {what}"))
}

#[cfg(test)]
mod tests {
    use model::{Command, Millis, Proposal, State, codec};

    use super::*;
    use crate::world::samples;

    #[test]
    fn a_row_without_the_row_it_belongs_to_is_seen() {
        let desired_lrp = Box::new(samples::desired_lrp("app", 1, "d".into(), "preloaded:busybox"));
        let commands = vec![Command::DesireLrp { desired_lrp }];
        let mut whole = State::default();
        model::apply_proposal(&mut whole, 1, Proposal { at: Millis(1), commands });
        assert_eq!(check(1, &whole), Ok(()));
        let row = whole.actual_lrps().next().expect("one instance").id();
        let mut broken = State::default();
        for (key, value) in codec::rows(&whole) {
            if key == codec::row_key(&model::RowKey::ActualLrp(row.clone())) {
                codec::load_row(&mut broken, &key, &value).expect("it was just encoded");
            }
        }
        assert!(check(1, &broken).is_err());
    }
}
