//! What someone who means harm would run in a container: each attempt is named on standard
//! output, with what the kernel answered.
//!
//! A program of its own because busybox has no applet for most of it.

#![expect(unsafe_code, reason = "raw system calls are what it is for")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "it is part of a test")]

mod calls;
mod exhaust;
mod packets;

use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["calls"] => calls::try_all(),
        ["inotify"] => exhaust::inotify(),
        ["signals"] => exhaust::signals(),
        ["storm"] => exhaust::storm(),
        ["files"] => exhaust::files(),
        ["memory"] => exhaust::memory(),
        ["processes"] => exhaust::processes(),
        ["ordinary"] => exhaust::ordinary(),
        ["forge", address, gateway] => packets::forge(address, gateway),
        ["write", root] => calls::open_for_writing(Path::new(root)),
        ["reach", pid] => calls::reach(pid.parse().unwrap()),
        unknown => panic!("no attack {unknown:?}"),
    }
}

/// Does something in a process of its own and tells how that went: its error, the signal that
/// ended it, or "done".
fn attempt(name: &str, body: impl FnOnce() -> libc::c_long) {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let code = if body() < 0 { Errno::last_raw() } else { 0 };
            // SAFETY: nothing of this process is left to be done.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            let answer = match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, 0) => "done".to_owned(),
                WaitStatus::Exited(_, code) => format!("{:?}", Errno::from_raw(code)),
                WaitStatus::Signaled(_, signal, _) => signal.to_string(),
                WaitStatus::Stopped(..)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(_)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive => unreachable!("only its end was waited for"),
            };
            println!("{name} {answer}");
        }
    }
}
