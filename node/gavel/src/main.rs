//! The one binary: a node, a cluster on one machine, and every client command.
//!
//! - [`cli`]: what can be typed;
//! - [`commands`]: a file for each command or family of them, thin over [`client`];
//! - [`attached`]: processes in containers and their ports, as if they were here;
//! - [`authority`]: certificates of a small cluster;
//! - [`manifest`], [`routes`]: what people write of apps, and how these are reached;
//! - [`node`]: one node;
//! - [`dev`]: a whole cluster on this machine, in the foreground;
//! - [`output`], [`units`], [`failure`]: how results, sizes and reasons are told.

mod app;
mod attached;
mod authority;
mod cli;
mod client;
mod commands;
mod dev;
mod failure;
mod limits;
mod manifest;
mod node;
mod output;
mod recipe;
mod rollout;
mod routes;
mod units;

use std::process::ExitCode;

use clap::Parser;

/// A node makes and drops many small things on many threads, which glibc's malloc is slow at: a
/// quarter of a busy leader's time (benches/RESULTS.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: a shim has one thread and no files of ours.
    if std::env::args_os().nth(1).is_some_and(|word| word == container::container::shim::ARGUMENT) {
        container::container::shim::main();
    }
    let cli = cli::Cli::parse();
    match cli::run(cli) {
        Ok(status) => status,
        Err(failure) => failure.report(),
    }
}
