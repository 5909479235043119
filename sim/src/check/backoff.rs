//! **An instance that keeps crashing is restarted when Diego would, and not before.**
//!
//! Counted here anew, from the crashes that were agreed: twice at once, then after 30 s, each time
//! twice as long up to 16 min, and never after the two hundredth; five minutes of health begin the
//! count again. Source: lifecycle.md section 3.3 (`restart_calculator.go`).

use std::collections::BTreeMap;

use model::desired_lrp::ModificationTag;
use model::{ActualLrp, ActualLrpId, ActualState, Command, Millis, Presence, RowKey, State};

use super::Verdict;
use super::state_machine::Step;

pub(super) const NAME: &str = "an instance that keeps crashing rests";

/// Crashes in a row, and when the last was.
#[derive(Debug, Default)]
struct Crashes {
    count: u32,
    at: Millis,
}

/// What is known of each index that has crashed.
#[derive(Debug, Default)]
pub(super) struct Backoff(BTreeMap<ActualLrpId, Crashes>);

impl Backoff {
    /// Judges one command by the states before and after it.
    pub(super) fn check(&mut self, step: &Step) -> Verdict {
        for row in step.before.differences(&step.after) {
            let RowKey::ActualLrp(id) = row else { continue };
            if id.presence == Presence::Ordinary {
                self.moved(step, &id)?;
            }
        }
        Ok(())
    }

    fn moved(&mut self, step: &Step, id: &ActualLrpId) -> Verdict {
        let (Some(was), Some(is)) = (row(&step.before, id), row(&step.after, id)) else {
            self.0.remove(id);
            return Ok(());
        };
        let epoch = |tag: &ModificationTag| tag.epoch.clone();
        if epoch(&was.modification_tag) != epoch(&is.modification_tag) {
            self.0.remove(id);
            return Ok(());
        }
        let now = step.after.now();
        if let Command::CrashLrp { instance, .. } = &step.command
            && was.instance() == Some(instance)
        {
            let crashes = self.0.entry(id.clone()).or_default();
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
        let Some(Crashes { count, at }) = self.0.get(id) else {
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
