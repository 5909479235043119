//! This side's terminal, which is raw while a process in a container has it: every key is that
//! process's, Ctrl-C too.

use std::io::{self, IsTerminal};

use api::attach::{Size, Terminal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::Failure;

/// The terminal that this program was started at.
#[derive(Clone, Debug)]
pub(crate) struct RawTerminal {
    size: Size,
}

/// Raw until it is dropped.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl RawTerminal {
    /// Nothing where input or output is no terminal: a file would have its lines' ends changed.
    pub(crate) fn here() -> Option<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        // One that does not know its size has the usual one, as a serial line.
        let size = tcgetwinsize(io::stdin()).ok().filter(|size| size.ws_row > 0);
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
        Some(Self { size: Size { rows, columns } })
    }

    pub(crate) fn described(&self) -> Terminal {
        let kind = std::env::var("TERM").ok().filter(|kind| !kind.is_empty());
        Terminal { kind: kind.unwrap_or_else(|| "dumb".to_owned()), size: self.size }
    }

    pub(crate) fn make_raw(self) -> Result<Raw, Failure> {
        let failed = |error| Failure::Failed(format!("the terminal: {error}"));
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw).map_err(failed)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
