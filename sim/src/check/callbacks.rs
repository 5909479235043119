//! **A task that is to be called back is deleted only once its client knows how it ended.**
//!
//! But for one that has been over for too long with a client that does not answer; when nothing goes
//! wrong there is no such client. What the client was told is what is on record. Source: lifecycle.md sections 1.7 and 1.8.

use std::collections::BTreeMap;

use model::limits::TASK_COMPLETED_MAX;
use model::task::TaskResult;
use model::{Millis, State, Task, TaskGuid};

use super::Verdict;

pub(super) const NAME: &str = "a task is deleted once its client knows how it ended";

/// What each client was told last.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    told: BTreeMap<TaskGuid, Option<TaskResult>>,
    /// Nothing goes wrong since then, if since ever: every client that asks for it is told.
    calm_since: Option<Millis>,
}

impl Callbacks {
    /// The client of a task was told how it ended.
    pub(super) fn told(&mut self, task: &Task) {
        self.told.insert(task.task_guid.clone(), task.result().cloned());
    }

    /// From this moment of the log on nothing goes wrong; or things do again.
    pub(super) fn calm(&mut self, since: Option<Millis>) {
        self.calm_since = since;
    }

    /// Judges one step of the agreed log.
    pub(super) fn check(&self, before: &State, after: &State) -> Verdict {
        let gone = before.tasks().filter(|task| after.task(&task.task_guid).is_none());
        for task in gone.filter(|task| !task.definition.completion_callback_url.is_empty()) {
            let guid = &task.task_guid;
            let Some(result) = task.result() else {
                return Err(format!("task {guid} is gone and had not ended: {:?}", task.state));
            };
            let is_over_for = after.now() - result.first_completed_at;
            let told = self.told.get(guid);
            let is_calm = self.calm_since.is_some_and(|since| result.first_completed_at > since);
            if told.is_none() && is_calm {
                return Err(format!(
                    "the client of task {guid} was never told, and nothing was wrong"
                ));
            }
            if told.is_none() && is_over_for <= TASK_COMPLETED_MAX {
                return Err(format!("task {guid} is gone, and its client was not told"));
            }
            if told.is_some_and(|told| told.as_ref() != Some(result)) {
                return Err(format!("the client of task {guid} was told {told:?}, not {result:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::{Command, Proposal, TaskDefinition};

    use super::*;
    use crate::world::samples;

    fn apply(state: &mut State, at: u64, command: Command) {
        let (outcome, _) =
            model::apply_proposal(state, at, Proposal { at: Millis(at), commands: vec![command] });
        assert_eq!(outcome.0, [Ok(true)]);
    }

    /// A task that was cancelled and is being resolved.
    fn resolving() -> (State, Task) {
        let mut state = State::default();
        let definition = Box::new(TaskDefinition {
            rootfs: "preloaded:busybox".into(),
            action: Some(samples::action()),
            completion_callback_url: "http://client/t".into(),
            ..TaskDefinition::default()
        });
        let guid = || TaskGuid::from("t");
        let desire = Command::DesireTask { task_guid: guid(), domain: "d".into(), definition };
        apply(&mut state, 1, desire);
        apply(&mut state, 2, Command::CancelTask { task_guid: guid() });
        apply(&mut state, 3, Command::ResolvingTask { task_guid: guid() });
        let task = Task::clone(state.task(&guid()).expect("it is there"));
        (state, task)
    }

    #[test]
    fn a_client_that_was_told_nothing_or_something_else_is_seen() {
        let (before, task) = resolving();
        let mut after = before.clone();
        apply(&mut after, 4, Command::DeleteTask { task_guid: task.task_guid.clone() });
        let mut callbacks = Callbacks::default();
        assert!(callbacks.check(&before, &after).is_err(), "nothing");
        assert_eq!(callbacks.check(&before, &before), Ok(()));
        callbacks.told(&task);
        assert_eq!(callbacks.check(&before, &after), Ok(()));
        let mut other = task;
        if let model::TaskState::Resolving { result } = &mut other.state {
            result.failed = false;
        }
        callbacks.told(&other);
        assert!(callbacks.check(&before, &after).is_err(), "something else");
    }

    #[test]
    fn a_client_that_does_not_answer_is_given_up() {
        let (mut before, task) = resolving();
        let guid = || task.task_guid.clone();
        let late = 4 + TASK_COMPLETED_MAX.0;
        apply(&mut before, late, Command::DemoteResolvingTask { task_guid: guid() });
        let mut after = before.clone();
        apply(&mut after, late, Command::ExpireCompletedTask { task_guid: guid() });
        let mut callbacks = Callbacks::default();
        assert_eq!(callbacks.check(&before, &after), Ok(()));
        callbacks.calm(Some(Millis(1)));
        assert!(callbacks.check(&before, &after).is_err(), "there was no reason not to tell it");
    }
}
