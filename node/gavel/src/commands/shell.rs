//! `completion` and `version`: what needs no cluster.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::Screen;

/// Prints a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel completion bash > /etc/bash_completion.d/gavel")]
pub(crate) struct Completion {
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self, screen: Screen) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "gavel", &mut script);
        screen.line(String::from_utf8_lossy(&script).trim_end())
    }
}

/// Prints the version
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel version")]
pub(crate) struct Version {}

impl Version {
    pub(crate) fn run(self, screen: Screen) -> Result<(), Failure> {
        let version = env!("CARGO_PKG_VERSION");
        if screen.is_json() {
            return screen.line(json!({ "version": version }));
        }
        screen.line(format_args!("gavel {version}"))
    }
}
