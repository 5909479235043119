//! The commands, typed as a person types them, against a fake cluster: the built binary, its
//! arguments, what it prints and how it ends.

#![expect(clippy::unwrap_used, reason = "a test's helpers are tests, though not marked so")]

mod changes;
mod failures;
mod fake;
mod help;
mod lists;
mod logs;
mod pushes;
mod terminal;

use std::process::{Command, Output};

use fake::Fake;

/// How a command ended.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:#?}");
        self.out
    }

    /// Status and reason of one that did not do what was asked.
    #[track_caller]
    fn failed(self) -> String {
        assert_ne!(self.status, 0, "{self:#?}");
        format!("{}: {}", self.status, self.err)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().expect("gavel ends by itself"),
            out: String::from_utf8(output.stdout).expect("gavel prints text"),
            err: String::from_utf8(output.stderr).expect("gavel prints text"),
        }
    }
}

/// The binary, with nothing of the tester's own environment that it listens to.
fn gavel(endpoints: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gavel"));
    command.env_remove("NO_COLOR").env_remove("TERM").env("GAVEL_ENDPOINTS", endpoints);
    command
}

impl Fake {
    /// Runs `gavel ARGS` against this cluster.
    fn run<const N: usize>(&self, args: [&str; N]) -> Ran {
        gavel(self.endpoint()).args(args).output().expect("gavel starts").into()
    }

    /// Runs `gavel` with words that hold no spaces.
    fn type_in(&self, line: &str) -> Ran {
        let words = line.split_whitespace();
        gavel(self.endpoint()).args(words).output().expect("gavel starts").into()
    }
}
