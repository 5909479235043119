//! Callbacks: whose client is told now that the task has ended.
//!
//! A task is RESOLVING from here on; the leader that has this agreed makes the request, and
//! deletes the task once it is answered. Where the leader is lost on the way, the task is demoted
//! when it has been RESOLVING for too long, and its turn comes again. Source: lifecycle.md section
//! 1.7; Diego waits 30 s with tasks that convergence ended, here they are told at once.

use model::{Command, State, TaskGuid};

use crate::limits::CALLBACKS_LOOK;
use crate::turn::Draft;

/// Decides for at most `callbacks_max`, those first that wait longest.
pub(crate) fn resolve(draft: &mut Draft, callbacks_max: usize) {
    if model::mutant!("callbacks-forgotten") {
        return;
    }
    let most = callbacks_max.min(draft.room());
    let mut waiting: Vec<Command> = draft.state().callbacks().take(most + 1).map(command).collect();
    if waiting.len() > most {
        waiting.truncate(most);
        let later = draft.at() + CALLBACKS_LOOK;
        draft.due.at(later);
    }
    draft.decide_all(waiting);
}

/// Those that a look at every row finds, and the state's own order does not.
pub(crate) fn overlooked(state: &State) -> Vec<Command> {
    let known: std::collections::BTreeSet<&TaskGuid> = state.callbacks().collect();
    let waiting = state.tasks().filter(|task| task.awaits_callback());
    waiting.map(|task| &task.task_guid).filter(|guid| !known.contains(guid)).map(command).collect()
}

fn command(task_guid: &TaskGuid) -> Command {
    Command::ResolvingTask { task_guid: task_guid.clone() }
}
