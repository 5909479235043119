//! The commands of `sim`, a file each, and what they have in common: how a failure is told.

pub(crate) mod draw;
pub(crate) mod meta;
pub(crate) mod mutants;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod shrink;
pub(crate) mod speed;
pub(crate) mod sweep;

use std::process::Command;

use crate::pool::{Answer, Job};

/// Prints what did not hold, and how to see it again.
fn tell_failure(job: &Job, answer: &Answer) {
    println!("\nseed {} FAILED at commit {}", job.run.seed, commit());
    for violation in &answer.violations {
        println!("  {violation}");
    }
    println!("  again:   {}", again(job, "run", " --story"));
    println!("  smaller: {}\n", again(job, "shrink", ""));
}

/// The command that does it again.
fn again(job: &Job, verb: &str, more: &str) -> String {
    let features = if job.mutant.is_some() { " --features mutants" } else { "" };
    format!("cargo run -p gavel-sim --profile sim{features} -- {verb} {}{more}", job.arguments())
}

fn commit() -> String {
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let is_good = output.status.success();
    is_good.then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
