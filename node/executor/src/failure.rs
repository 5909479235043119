//! How a step fails, and how failures are told (executor.md section 5).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a step ended.
pub(crate) type Ending = Result<(), Failure>;

/// A step that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// In words for users: `timeout` and `emit_progress` repeat them.
    Emittable(String),
    /// It was told to end, and did.
    Cancelled,
    /// It was told to end, and had to be killed.
    KilledAfterGrace,
    /// It was killed, and is still there.
    DidNotExit,
    /// In words that only a reason shows.
    Other(String),
    /// What several steps said, in the order in which it is told.
    Many(Vec<Failure>),
}

impl Failure {
    /// The failure of steps that belong together, if any of them failed.
    pub(crate) fn joined(failures: Vec<Self>) -> Ending {
        if failures.is_empty() { Ok(()) } else { Err(Self::Many(failures)) }
    }

    /// Whether it is told beside others: nobody asks why something ended that was told to.
    fn is_told(&self) -> bool {
        !matches!(self, Self::Cancelled | Self::KilledAfterGrace)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emittable(text) | Self::Other(text) => f.write_str(text),
            Self::Cancelled => f.write_str("cancelled"),
            Self::KilledAfterGrace => f.write_str("exceeded graceful shutdown interval"),
            Self::DidNotExit => f.write_str("process did not exit"),
            Self::Many(failures) => {
                let told = failures.iter().filter(|failure| failure.is_told());
                let texts = told.map(Self::to_string).filter(|text| !text.is_empty());
                f.write_str(&texts.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Failure {
        Failure::Emittable(text.to_owned())
    }

    #[test]
    fn each_kind_has_its_words() {
        assert_eq!(said("A: Exited with status 1").to_string(), "A: Exited with status 1");
        assert_eq!(Failure::Cancelled.to_string(), "cancelled");
        let killed = Failure::KilledAfterGrace.to_string();
        assert_eq!(killed, "exceeded graceful shutdown interval");
        assert_eq!(Failure::DidNotExit.to_string(), "process did not exit");
    }

    #[test]
    fn joined_failures_hide_what_was_told_to_end() {
        let joined = Failure::Many(vec![
            Failure::Cancelled,
            said("one"),
            Failure::KilledAfterGrace,
            said(""),
            Failure::Many(vec![Failure::Cancelled]),
            Failure::Many(vec![said("two"), Failure::DidNotExit]),
        ]);
        assert_eq!(joined.to_string(), "one; two; process did not exit");
        assert_eq!(Failure::joined(vec![]), Ok(()));
        let hidden = Failure::joined(vec![Failure::Cancelled]).unwrap_err();
        assert_eq!(hidden.to_string(), "", "it failed, and nothing is told");
    }
}
