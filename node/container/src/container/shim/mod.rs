//! The program between node and container: one small process per container, re-executed from
//! the node's own binary, that outlives the node.
//!
//! It builds the container's namespaces, is the parent of the container's [`init`], writes the
//! app's output to the log, and keeps how the app ended.
//! It has one thread and no async runtime, so that it may fork, and waits in poll(2) only.
//! If it dies, the kernel kills the container; if the node dies, it goes on and listens for
//! the next one.
//!
//! Its life: [`build`] one container, [`pump`] until its main process has ended, write
//! `exit.json`, end.

mod build;
mod eth;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod init;
mod layers;
mod mounts;
pub(super) mod packet;
mod privileges;
mod processes;
mod programs;
pub(super) mod protocol;
mod pump;
mod rootfs;
mod seccomp;
mod start;
mod syscalls;
mod terminal;
mod user;

use std::io;

pub(super) use build::whole_file_lock;
pub(super) use syscalls::pidfd;

/// The name by which a binary knows that it is to be a shim: its first argument.
pub const ARGUMENT: &str = "container-shim";

/// A step that failed, and the kernel's answer.
#[derive(Debug)]
struct Failure {
    step: String,
    source: io::Error,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.step.as_str() {
            "" => write!(f, "{}", self.source),
            step => write!(f, "{step}: {}", self.source),
        }
    }
}

type Result<T> = std::result::Result<T, Failure>;

trait Context<T> {
    fn context(self, step: &str) -> Result<T>;
    fn with_context(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, step: &str) -> Result<T> {
        self.with_context(|| step.to_owned())
    }
    fn with_context(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Failure { step: step(), source: e.into() })
    }
}

/// The whole program: call it first thing when `argv[1]` is [`ARGUMENT`], before any thread is
/// started and any file is opened.
/// Standard input must be the socket that [`Runtime`](super::Runtime) gave it.
pub fn main() -> ! {
    let built = match build::build() {
        Ok(built) => built,
        Err(_told_the_node) => std::process::exit(1),
    };
    match pump::run(built) {
        Ok(()) => std::process::exit(0),
        Err(failure) => {
            // To `shim.err`; the node sees us end without an exit record.
            eprintln!("{failure}");
            std::process::exit(1)
        }
    }
}
