//! `node`: one node, as its configuration says.

use std::path::PathBuf;

use clap::Args;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use server::Config;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::failure::Failure;

/// Log lines where RUST_LOG does not say: openraft tells at INFO what only its authors need.
const LOG_DEFAULT: &str = "info,openraft=warn";

/// Runs one node
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gavel node --config /etc/gavel/node.toml

The log goes to standard error; RUST_LOG says how much of it, for instance RUST_LOG=debug.")]
pub(crate) struct Node {
    /// The node's configuration, in TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The process that this one must not outlive
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<i32>,
}

impl Node {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if let Some(parent) = self.parent {
            end_with(Pid::from_raw(parent))?;
        }
        let config =
            Config::load(&self.config).map_err(|error| Failure::Failed(error.to_string()))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        tracing_subscriber::registry().with(lines.with_filter(filter()?)).init();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Failed(format!("the runtime does not start: {error}")))?;
        // On a worker: whoever wakes this thread asks the kernel to, several times for each change.
        let served = runtime.block_on(runtime.spawn(server::run(config)));
        served
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
            .map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// Which log lines are written. Levels by module and no more: filters on fields would bring a
/// regular expression compiler into the binary.
fn filter() -> Result<Targets, Failure> {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    wanted.parse().map_err(|error| {
        Failure::Failed(format!("RUST_LOG={wanted}: {error}; for instance RUST_LOG={LOG_DEFAULT}"))
    })
}

/// Asks the kernel for SIGTERM when the parent dies, however it dies (prctl(2),
/// `PR_SET_PDEATHSIG`), so that no node is left behind by a killed `gavel dev`.
fn end_with(parent: Pid) -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)
        .map_err(|error| Failure::Failed(format!("the parent's death cannot be told: {error}")))?;
    // It may have died before it was asked for.
    if getppid() == parent {
        Ok(())
    } else {
        Err(Failure::Failed(format!("{parent}, which started this node, is gone")))
    }
}
