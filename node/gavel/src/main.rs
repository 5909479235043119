//! The one binary: a node, a cluster on one machine, and every client command.
//!
//! - [`cli`]: what can be typed;
//! - [`commands`]: a file for each command or family of them, thin over [`client`];
//! - [`dev`]: a whole cluster on this machine, in the foreground;
//! - [`output`], [`units`], [`failure`]: how results, sizes and reasons are told.

mod app;
mod cli;
mod client;
mod commands;
mod failure;
mod limits;
mod output;
mod recipe;
mod rollout;
mod units;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
