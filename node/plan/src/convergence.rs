//! Convergence: what is due by time alone, and indices that have lost their row.
//!
//! Both are kept in order by the state itself, so that finding them costs what there is to do and
//! not the size of the cluster. [`overlooked`] is the safety net behind that: it looks at every
//! row, and finds nothing unless there is a mistake of ours. Source: lifecycle.md sections 1.8, 3.3
//! and 3.5.
//!
//! Diego's rules d, e and f, which retire what is not desired where the domain is fresh, have nothing
//! to find here: rows go in the same apply as their index (`model::invariants`). So nothing that
//! convergence decides ends an instance, and no domain need be fresh for it.

use std::collections::BTreeSet;

use model::due::{self, Due};
use model::limits::RESTARTS_MAX;
use model::restart::{self, Restart};
use model::{ActualLrp, ActualLrpId, ActualState, Command, Millis, State};

use crate::report::Wait;
use crate::turn::Draft;

/// Decides all that is due at the draft's time. What was applied may make more due: a task that
/// is demoted may have been completed for too long already.
pub(crate) fn converge(draft: &mut Draft) {
    let gaps = draft.state().gaps().map(|(process_guid, index)| Command::CreateLrp {
        process_guid: process_guid.clone(),
        index: *index,
    });
    let gaps = gaps.take(draft.room() + 1).collect();
    draft.decide_all(gaps);
    // A refusal is a mistake of the planner; it must not be one without end.
    let mut refused = BTreeSet::new();
    loop {
        let next = draft.state().all_due().find(|entry| !refused.contains(*entry)).cloned();
        let Some((moment, due)) = next else { return };
        if moment > draft.at() {
            return draft.due.at(moment);
        }
        if !draft.decide(due.command()) {
            if draft.room() == 0 {
                return;
            }
            refused.insert((moment, due));
        }
    }
}

/// What is due at `at` by a look at every row, whatever the state's own order says.
pub(crate) fn overlooked(state: &State, at: Millis) -> Vec<Command> {
    let lrps = state.actual_lrps().filter_map(|row| due::of_actual_lrp(row));
    let tasks = state.tasks().filter_map(|task| due::of_task(task));
    let domains = state.domains().filter_map(|domain| due::of_domain(domain));
    let cells = state.cells().filter_map(|cell| due::of_cell(cell));
    let all = lrps.chain(tasks).chain(domains).chain(cells);
    let due = all.filter(|(moment, _)| *moment <= at).map(|(_, due): (Millis, Due)| due.command());
    let missing = state.desired_lrps().flat_map(|desired| {
        let guid = &desired.process_guid;
        let has_row =
            |index: &u32| state.actual_lrp(&ActualLrpId::ordinary(guid.clone(), *index)).is_some();
        let missing = state.wanted(desired).filter(move |index| !has_row(index));
        missing.map(|index| Command::CreateLrp { process_guid: guid.clone(), index })
    });
    missing.chain(due).collect()
}

/// Why a crashed instance waits.
pub(crate) fn crash_wait(row: &ActualLrp) -> Option<Wait> {
    if row.state != ActualState::Crashed {
        return None;
    }
    // It rests from the third crash on, so there is no "1 times".
    let why = format!("crashed {} times: {}", row.crash_count, row.crash_reason);
    let (help, until) = match restart::after_crash(row.crash_count, row.since) {
        Restart::Now => ("it restarts now".to_owned(), Some(row.since)),
        Restart::At(moment) => {
            ("it restarts by itself; its logs say why it crashes".to_owned(), Some(moment))
        }
        Restart::Never => {
            let help = format!(
                "after {RESTARTS_MAX} crashes in a row nothing restarts by itself: restart the \
                 app, or push a version that does not crash"
            );
            (help, None)
        }
    };
    Some(Wait { why, help, until })
}
