//! What becomes of a container's recipe, in Diego's words (executor.md section 2).

use serde::{Deserialize, Serialize};

use crate::failure::Ending;
use crate::limits::REASON_BYTES_MAX;

/// How far a recipe has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Setting up, or not healthy yet. Diego: `created`.
    Starting,
    /// Every member is ready. Diego: `running`.
    Running {
        /// Whether routers may send requests: readiness checks, where there are any, say so.
        routable: bool,
    },
}

/// How a recipe ended. Diego: the `RunResult` of a completed container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub failed: bool,
    /// Empty unless it failed; an LRP that ends without a failure has crashed without a reason.
    pub reason: String,
    /// Whether it was told to stop before it ended: then it has not crashed.
    pub stopped: bool,
    /// Whether a task may be started elsewhere instead: never, once its recipe has begun.
    pub retryable: bool,
}

impl Outcome {
    pub(crate) fn new(ending: &Ending, stopped: bool) -> Self {
        let reason = ending.as_ref().err().map(ToString::to_string).unwrap_or_default();
        // Diego: a failure of which nothing is told is none.
        Self { failed: !reason.is_empty(), reason: truncate(&reason), stopped, retryable: false }
    }

    /// It was told to stop before anything of it had run.
    pub(crate) fn stopped_before_running() -> Self {
        let reason = "stopped-before-running".to_owned();
        Self { failed: true, reason, stopped: true, retryable: false }
    }
}

/// Cuts the middle out of a reason that is too long: its first 4991 bytes and its last 4992 are
/// kept, less what would be half a character.
fn truncate(reason: &str) -> String {
    const CUT: &str = "\n... (truncated)\n";
    if reason.len() <= REASON_BYTES_MAX {
        return reason.to_owned();
    }
    let head = REASON_BYTES_MAX / 2 - 1 - CUT.len() / 2;
    let tail = reason.len() - (REASON_BYTES_MAX - head - CUT.len());
    let (head, tail) = (reason.floor_char_boundary(head), reason.ceil_char_boundary(tail));
    format!("{}{CUT}{}", &reason[..head], &reason[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn a_long_reason_loses_its_middle() {
        let whole = "x".repeat(REASON_BYTES_MAX);
        assert_eq!(truncate(&whole), whole);
        let long = format!("{}{}{}", "a".repeat(4991), "b".repeat(5000), "c".repeat(4992));
        let cut = truncate(&long);
        assert_eq!(cut.len(), REASON_BYTES_MAX);
        assert_eq!(&cut[4990..5009], "a\n... (truncated)\nc");
        let wide = truncate(&"ä".repeat(REASON_BYTES_MAX));
        assert!(wide.len() <= REASON_BYTES_MAX);
        assert!(wide.contains("ä\n... (truncated)\nä"));
    }

    #[test]
    fn a_failure_of_which_nothing_is_told_is_none() {
        let outcome = Outcome::new(&Failure::joined(vec![Failure::Cancelled]), true);
        assert_eq!(outcome, Outcome { stopped: true, ..Outcome::default() });
        let outcome = Outcome::new(&Err(Failure::Cancelled), false);
        assert_eq!((outcome.failed, outcome.reason.as_str()), (true, "cancelled"));
    }
}
