//! `ssh`: a shell in an instance's container, and its ports here.

use std::process::ExitCode;

use clap::Args;

use super::{Instance, parse_instance};
use crate::attached::{self, Forwarding, Rule, Wish, parse_rule};
use crate::cli::Caller;
use crate::failure::Failure;

/// Opens a shell in an instance's container, or brings its ports here
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gavel ssh hello                     a shell in the first instance
  gavel ssh hello/2 -c 'ps; df'       a line for the shell
  gavel ssh hello -N -L 9000:8080     its port 8080 is 127.0.0.1:9000 here, until Ctrl-C
  gavel ssh hello -N -L 5432:10.0.0.5:5432  what it reaches there is here

Without a HOST the port is the container's own, on its address or its loopback. The image needs a
shell (/bin/bash or /bin/sh) for a shell, and nothing for a port.")]
pub(crate) struct Ssh {
    /// The first instance where there is no index
    #[arg(value_name = "APP[/INDEX]", value_parser = parse_instance)]
    instance: Instance,
    /// Gives this line to a shell instead of opening one to type in
    #[arg(short, long, value_name = "LINE")]
    command: Option<String>,
    /// Who the shell belongs to, as an image's USER; the app's user where absent
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Brings a port of the container here
    #[arg(
        short = 'L',
        value_name = "[BIND:]PORT:[HOST:]CONTAINER_PORT",
        value_parser = parse_rule
    )]
    forwards: Vec<Rule>,
    /// Opens no shell: ports only
    #[arg(short = 'N', long, requires = "forwards", conflicts_with = "command")]
    no_shell: bool,
    /// Opens the shell without a terminal, even where there is one
    #[arg(short = 'T', long)]
    no_terminal: bool,
}

impl Ssh {
    pub(crate) async fn run(self, caller: Caller) -> Result<ExitCode, Failure> {
        let Self { instance, command, user, forwards, no_shell, no_terminal } = self;
        let _forwarding = Forwarding::start(&caller.client, &instance, &forwards).await?;
        if no_shell {
            // Being told to stop is how it ends.
            return match tokio::signal::ctrl_c().await {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(error) => Err(Failure::Failed(format!("signals: {error}"))),
            };
        }
        let line = command.map(|line| ["/bin/sh".to_owned(), "-c".to_owned(), line].to_vec());
        let wish =
            Wish { command: line.unwrap_or_default(), user, may_have_terminal: !no_terminal };
        attached::run(&caller.client, &instance, wish).await
    }
}
