//! **A lock has one owner: it goes to another only when it was released, or its time was up.**
//!
//! By the log's time. Source: bbs-wire.md section 8.

use std::collections::BTreeMap;

use model::{Command, LockKey, Millis, RowKey};

use super::Verdict;
use super::state_machine::Step;

pub(super) const NAME: &str = "a lock has one owner until it is released or its time is up";

/// Who holds each lock, and until when.
#[derive(Debug, Default)]
pub(super) struct Locks(BTreeMap<LockKey, (String, Millis)>);

impl Locks {
    /// Judges one command by the states before and after it.
    pub(super) fn check(&mut self, step: &Step) -> Verdict {
        let now = step.after.now();
        let holds = |locks: &Self, key: &LockKey, owner: &str| match locks.0.get(key) {
            Some((held, until)) if held != owner && *until > now => {
                Err(format!("{key} was {held}'s until {until:?}, and is {owner}'s at {now:?}"))
            }
            Some(_) | None => Ok(()),
        };
        if let Ok(true) = step.result {
            if let Command::ClaimLock { key, owner, ttl, .. } = &step.command {
                holds(self, key, owner)?;
                self.0.insert(key.clone(), (owner.clone(), now + *ttl));
            } else if let Command::ReleaseLock { key, owner } = &step.command {
                holds(self, key, owner)?;
                self.0.remove(key);
            }
        }
        for row in step.before.differences(&step.after) {
            let RowKey::Lock(key) = row else { continue };
            if step.after.lock(&key).is_some() {
                continue;
            }
            if let Some((owner, until)) = self.0.remove(&key).filter(|(_, until)| *until > now) {
                return Err(format!("{key} went at {now:?} and was {owner}'s until {until:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::lock::LockKind;
    use model::{Proposal, Stamp, State};

    use super::*;

    fn step(state: &mut State, at: u64, command: Command) -> Step {
        let before = state.clone();
        model::apply_proposal(state, at, Proposal { at: Millis(at), commands: Vec::new() });
        let stamp = Stamp { log_index: at, position: 0, at: Millis(at) };
        let result = model::apply(state, stamp, command.clone()).map(|applied| applied.changed());
        Step { before, after: state.clone(), command, result }
    }

    fn claim(owner: &str) -> Command {
        Command::ClaimLock {
            key: "k".into(),
            owner: owner.to_owned(),
            value: String::new(),
            kind: LockKind::Lock,
            ttl: Millis(5),
        }
    }

    #[test]
    fn a_lock_that_is_stolen_or_goes_too_early_is_seen() {
        let (mut state, mut locks) = (State::default(), Locks::default());
        assert_eq!(locks.check(&step(&mut state, 1, claim("a"))), Ok(()));
        let mut stolen = step(&mut state, 2, claim("b"));
        assert!(stolen.result.is_err());
        assert_eq!(locks.check(&stolen), Ok(()));
        stolen.result = Ok(true);
        assert!(locks.check(&stolen).is_err());
        let expire = step(&mut state, 6, Command::ExpireLock { key: "k".into() });
        assert_eq!(expire.result, Ok(true));
        assert_eq!(locks.check(&expire), Ok(()));
        assert_eq!(locks.check(&step(&mut state, 7, claim("b"))), Ok(()));
        let released = Command::ReleaseLock { key: "k".into(), owner: "a".to_owned() };
        let mut released = step(&mut state, 8, released);
        assert!(released.result.is_err());
        released.result = Ok(true);
        assert!(locks.check(&released).is_err());
        let mut early = expire;
        early.after = State::default();
        assert!(locks.check(&early).is_err(), "its time is 12");
    }
}
