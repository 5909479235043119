//! **A cell that is heard is not declared missing.**
//!
//! Whoever decides that a cell is missing has not heard of it for the TTL, by a clock that may
//! drift but does not jump. Source: lifecycle.md section 5 (the presence's TTL).

use std::collections::BTreeMap;
use std::time::Duration;

use model::{CellId, Millis};
use plan::limits::PRESENCE_TTL;
use replica::NodeId;

use super::Verdict;
use crate::limits::DRIFT_PERCENT_MAX;

pub(super) const NAME: &str = "a cell that is heard is not declared missing";

/// The TTL by the fastest clock there is, less the look at the clock that comes before the decision.
const SILENT_MIN: Duration =
    Duration::from_millis(PRESENCE_TTL.0 / 100 * (100 - DRIFT_PERCENT_MAX) - 10);

/// When each node heard each cell last, in nanoseconds since the run began.
#[derive(Debug, Default)]
pub(super) struct Heard {
    at_ns: BTreeMap<(NodeId, CellId), u64>,
    /// Who looked at its clock for which date, and when that was.
    dates: BTreeMap<Millis, (NodeId, u64)>,
}

impl Heard {
    /// A node was told that a cell is there.
    pub(super) fn heard(&mut self, at_ns: u64, by: NodeId, cell_id: CellId) {
        self.at_ns.insert((by, cell_id), at_ns);
    }

    /// A node's clock showed a date, which no node's ever shows again.
    pub(super) fn dated(&mut self, at_ns: u64, by: NodeId, date: Millis) {
        self.dates.insert(date, (by, at_ns));
    }

    /// A cell was declared missing by a proposal of this date.
    pub(super) fn missing(&self, date: Millis, cell_id: &CellId) -> Verdict {
        let Some((by, decided_ns)) = self.dates.get(&date) else { return Ok(()) };
        let Some(heard_ns) = self.at_ns.get(&(*by, cell_id.clone())) else { return Ok(()) };
        // What was heard since the decision does not count against it.
        let Some(silent_ns) = decided_ns.checked_sub(*heard_ns) else { return Ok(()) };
        let silent = Duration::from_nanos(silent_ns);
        if silent < SILENT_MIN {
            return Err(format!(
                "node {by} heard {cell_id} {silent:?} before it declared it missing"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_was_just_heard_is_not_missing() {
        let mut heard = Heard::default();
        let second = |n: u64| n * 1_000_000_000;
        heard.heard(second(10), 1, "cell-2".into());
        heard.dated(second(20), 1, Millis(77));
        heard.dated(second(30), 1, Millis(78));
        heard.dated(second(9), 1, Millis(79));
        assert!(heard.missing(Millis(77), &"cell-2".into()).is_err());
        assert_eq!(heard.missing(Millis(78), &"cell-2".into()), Ok(()));
        assert_eq!(heard.missing(Millis(79), &"cell-2".into()), Ok(()), "heard since");
        assert_eq!(heard.missing(Millis(77), &"cell-3".into()), Ok(()));
    }
}
