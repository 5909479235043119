//! **The model's invariants hold after every agreed entry.**
//!
//! Source: `model::invariants`, where each has its sentence.

use super::Verdict;

pub(super) const NAME: &str = "model invariants";

/// `state` is what the agreed log amounts to after entry `index`.
pub(super) fn check(index: u64, state: &model::State) -> Verdict {
    model::invariants::check(state).map_err(|what| format!("after entry {index}: {what}"))
}
