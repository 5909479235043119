//! **A domain is fresh until its time is up, and no longer than until somebody looks.**
//!
//! It goes only when its TTL has passed, by the log's time. Source: lifecycle.md section 2.6.

use std::collections::BTreeMap;

use model::{Command, DomainName, Millis, RowKey};

use super::Verdict;
use super::state_machine::Step;

pub(super) const NAME: &str = "a domain is fresh until its time is up";

/// Until when each domain is fresh; for ever, if none.
#[derive(Debug, Default)]
pub(super) struct Domains(BTreeMap<DomainName, Option<Millis>>);

impl Domains {
    /// Judges one command by the states before and after it.
    pub(super) fn check(&mut self, step: &Step) -> Verdict {
        if let (Command::UpsertDomain { domain, ttl }, Ok(_)) = (&step.command, &step.result) {
            self.0.insert(domain.clone(), ttl.map(|ttl| step.after.now() + ttl));
        }
        for row in step.before.differences(&step.after) {
            let RowKey::Domain(name) = row else { continue };
            if step.after.domain(&name).is_some() {
                continue;
            }
            let now = step.after.now();
            match self.0.remove(&name) {
                Some(Some(until)) if until <= now => {}
                until => {
                    return Err(format!("{name} went at {now:?} and was fresh until {until:?}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::{Proposal, Stamp, State};

    use super::*;

    /// One command, as if it had been accepted.
    fn step(state: &mut State, at: u64, command: Command) -> Step {
        let before = state.clone();
        model::apply_proposal(state, at, Proposal { at: Millis(at), commands: Vec::new() });
        let stamp = Stamp { log_index: at, position: 0, at: Millis(at) };
        let result = model::apply(state, stamp, command.clone()).map(|applied| applied.changed());
        Step { before, after: state.clone(), command, result }
    }

    #[test]
    fn a_domain_that_goes_too_early_is_seen() {
        let (mut state, mut domains) = (State::default(), Domains::default());
        let upsert = |ttl| Command::UpsertDomain { domain: "d".into(), ttl: Some(Millis(ttl)) };
        assert_eq!(domains.check(&step(&mut state, 1, upsert(5))), Ok(()));
        let expire = step(&mut state, 6, Command::ExpireDomain { domain: "d".into() });
        assert_eq!(expire.result, Ok(true));
        assert_eq!(domains.check(&expire), Ok(()));
        assert!(domains.check(&expire).is_err(), "it was not there");
        assert_eq!(domains.check(&step(&mut state, 7, upsert(5))), Ok(()));
        assert!(domains.check(&expire).is_err(), "its time is 12");
    }
}
