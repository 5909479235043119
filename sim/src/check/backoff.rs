//! **An instance that keeps crashing is restarted when Diego would, and not before.**
//!
//! Counted here anew, from the crashes that were agreed: twice at once, then after 30 s, each time
//! twice as long up to 16 min, and never after the two hundredth; five minutes of health begin the
//! count again. Source: lifecycle.md section 3.3 (`restart_calculator.go`).

use std::collections::BTreeMap;

use model::id::Epoch;
use model::{
    ActualLrp, ActualLrpId, ActualState, Command, Millis, Presence, ProcessGuid, RowKey, State,
};

use super::Verdict;
use super::state_machine::Step;

pub(super) const NAME: &str = "an instance that keeps crashing rests";

/// Crashes in a row, and when the last was.
#[derive(Clone, Copy, Debug, Default)]
struct Crashes {
    count: u32,
    at: Millis,
}

/// What is known of each row that has crashed. A row keeps its epoch when it becomes a suspect and
/// returns; a copy that is made of it has one of its own, and its crashes.
#[derive(Debug, Default)]
pub(super) struct Backoff(BTreeMap<Life, Crashes>);

/// What a row keeps for as long as there is one: its index and its epoch.
type Life = (ProcessGuid, u32, Epoch);

fn life(row: &ActualLrp) -> Life {
    (row.key.process_guid.clone(), row.key.index, row.modification_tag.epoch.clone())
}

impl Backoff {
    /// Judges one command by the states before and after it.
    pub(super) fn check(&mut self, step: &Step) -> Verdict {
        let rows = step.before.differences(&step.after);
        let ids = rows.filter_map(|row| match row {
            RowKey::ActualLrp(id) => Some(id),
            RowKey::Cluster
            | RowKey::DesiredLrp(_)
            | RowKey::Task(_)
            | RowKey::Cell(_)
            | RowKey::Domain(_)
            | RowKey::Lock(_)
            | RowKey::FeatureFlag(_) => None,
        });
        for id in ids {
            match id.presence {
                Presence::Ordinary => self.moved(step, &id)?,
                Presence::Evacuating => self.copied(step, &id),
                Presence::Suspect => {}
            }
        }
        Ok(())
    }

    fn copied(&mut self, step: &Step, id: &ActualLrpId) {
        let original = ActualLrpId { presence: Presence::Ordinary, ..id.clone() };
        if let (Some(original), Some(copy)) = (row(&step.before, &original), row(&step.after, id))
            && let Some(crashes) = self.0.get(&life(original))
        {
            self.0.insert(life(copy), *crashes);
        }
    }

    fn moved(&mut self, step: &Step, id: &ActualLrpId) -> Verdict {
        let (Some(was), Some(is)) = (row(&step.before, id), row(&step.after, id)) else {
            return Ok(());
        };
        if life(was) != life(is) {
            return Ok(());
        }
        let now = step.after.now();
        if let Command::CrashLrp { instance, .. } = &step.command
            && was.instance() == Some(instance)
        {
            let crashes = self.0.entry(life(was)).or_default();
            let was_healthy = was.is_running() && now - was.since > Millis::from_secs(300);
            crashes.count = if was_healthy { 1 } else { crashes.count + 1 };
            crashes.at = now;
            let rests = is.state == ActualState::Crashed;
            if rests != (crashes.count >= 3) {
                return Err(format!("{id:?} is {} after crash {}", is.state.name(), crashes.count));
            }
            return Ok(());
        }
        if was.state != ActualState::Crashed || is.state == ActualState::Crashed {
            return Ok(());
        }
        let Some(Crashes { count, at }) = self.0.get(&life(was)) else {
            return Err(format!("{id:?} left {} and had not crashed", was.state.name()));
        };
        match rest(*count) {
            Some(rest) if now >= *at + rest => Ok(()),
            rest => {
                let rested = now - *at;
                Err(format!("{id:?} rested {rested:?} after crash {count}, not {rest:?}"))
            }
        }
    }
}

fn row<'a>(state: &'a State, id: &ActualLrpId) -> Option<&'a ActualLrp> {
    state.actual_lrp(id).map(AsRef::as_ref)
}

/// How long an instance rests after its `count`th crash in a row; for ever, if none.
fn rest(count: u32) -> Option<Millis> {
    match count {
        0..=2 => Some(Millis(0)),
        3..=7 => Some(Millis::from_secs(30 << (count - 3))),
        8..=199 => Some(Millis::from_secs(16 * 60)),
        200.. => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rests_are_diegos() {
        let secs = |count| rest(count).map(|rest| rest.0 / 1000);
        let table = [(2, Some(0)), (3, Some(30)), (7, Some(480)), (8, Some(960)), (200, None)];
        for (count, expected) in table {
            assert_eq!(secs(count), expected, "after crash {count}");
        }
    }
}
