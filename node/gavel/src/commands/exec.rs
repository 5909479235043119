//! `exec`: a command in an instance's container.

use std::process::ExitCode;

use clap::Args;

use super::{Instance, parse_instance};
use crate::attached::{self, Wish};
use crate::cli::Caller;
use crate::failure::Failure;

/// Runs a command in an instance's container, beside the app
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gavel exec hello -- ls -l /          in the first instance
  gavel exec hello/2 -- sh             in the third, with a terminal if there is one
  tar c . | gavel exec hello -- tar x  its input and output are a pipe's

The command has the app's environment. Its exit status is this program's; 128 and the signal's
number where it was killed. Ctrl-C reaches it; asked twice, this program ends, and it with it.")]
pub(crate) struct Exec {
    /// The first instance where there is no index
    #[arg(value_name = "APP[/INDEX]", value_parser = parse_instance)]
    instance: Instance,
    /// Who runs it, as an image's USER; the app's user where absent
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Runs it without a terminal, even where there is one
    #[arg(short = 'T', long)]
    no_terminal: bool,
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, caller: Caller) -> Result<ExitCode, Failure> {
        let Self { instance, user, no_terminal, command } = self;
        let wish = Wish { command, user, may_have_terminal: !no_terminal };
        attached::run(&caller.client, &instance, wish).await
    }
}
