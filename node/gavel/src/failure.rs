//! Why a command ends with something other than 0, and with what.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// Closed: each kind has its exit status, which is part of the contract with scripts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments make no sense together, or a file that they name cannot be read.
    #[error("{0}")]
    Usage(String),
    /// The cluster said no; nothing has changed.
    #[error("{}: {_0}", _0.diego_type())]
    Refused(api::Error),
    /// What was asked for did not come about, though nobody refused it.
    #[error("{0}")]
    Failed(String),
    /// Nodes answered, but until the time was up none could serve the request.
    #[error(
        "UnknownError: the cluster could not serve this within {}; nothing has changed; \
         the last node asked said: {reason}",
        crate::units::duration(*waited)
    )]
    Busy { waited: Duration, reason: String },
    /// The change was sent, and the answer was lost.
    #[error(
        "UnknownError: the answer was lost on the way ({reason}): the outcome is unknown, the \
         change may have happened or not; see with: {look}"
    )]
    Unknown { reason: String, look: String },
    /// No endpoint could be spoken to.
    #[error("nobody could be reached{}", each(_0))]
    Unreachable(Vec<Unreached>),
    /// Standard output is gone or full.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// An endpoint, and why it was of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreached {
    pub(crate) endpoint: String,
    pub(crate) reason: String,
}

fn each(unreached: &[Unreached]) -> String {
    unreached.iter().map(|one| format!("\n  {}: {}", one.endpoint, one.reason)).collect()
}

impl Failure {
    /// 1 refused or failed, 2 wrong usage, 3 nobody reached. A reader who has seen enough and
    /// closed the pipe is no failure.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Refused(_)
            | Self::Failed(_)
            | Self::Busy { .. }
            | Self::Unknown { .. }
            | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }

    /// Tells the person, and gives the process its exit status.
    pub(crate) fn report(&self) -> ExitCode {
        let status = self.status();
        if status != 0 {
            eprintln!("error: {self}");
        }
        ExitCode::from(status)
    }

    /// Whether looking again later may do, so that somebody who waits goes on waiting.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable(_))
    }
}

impl From<api::Error> for Failure {
    fn from(error: api::Error) -> Self {
        Self::Refused(error)
    }
}
