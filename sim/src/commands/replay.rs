//! The seeds that ever failed, and those that a commit draws.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use sim::rng::Rng;
use sim::world::{Run, Scope};

use super::git;
use super::sweep::{Results, bar};
use crate::pool::{self, Job};

/// A line for each kept seed: the arguments of `sim run`, then `#` and its story.
const KEPT: &str = include_str!("../../seeds/kept.txt");

pub(crate) fn run(drawn: u64) -> anyhow::Result<ExitCode> {
    let mut jobs = kept()?;
    println!("{} kept seeds, and {drawn} drawn from commit {}", jobs.len(), super::commit());
    if drawn > 0 {
        let commit = git(&["rev-parse", "HEAD"]).context("seeds are drawn from a commit's hash")?;
        let mut rng = Rng::stream(0, &commit);
        let mut draw = |scope| Job::of(Run::of(rng.below(1 << 32), scope));
        jobs.extend((0..drawn).map(|_| draw(Scope::Nodes)));
        jobs.extend((0..drawn.div_ceil(4)).map(|_| draw(Scope::Replicas)));
    }
    let bar = bar(jobs.len() as u64);
    let mut results = Results::default();
    pool::each(jobs.into_iter(), |job, answer| {
        bar.inc(1);
        bar.suspend(|| results.add(&job, &answer));
        true
    })?;
    bar.finish_and_clear();
    results.tell_in_a_line();
    Ok(if results.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The seeds that ever failed.
fn kept() -> anyhow::Result<Vec<Job>> {
    let lines = KEPT.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let jobs = lines
        .filter(|line| !line.is_empty())
        .map(|line| Job::from_arguments(line).with_context(|| format!("kept seed {line:?}")));
    let jobs: Vec<Job> = jobs.collect::<anyhow::Result<_>>()?;
    ensure!(!jobs.is_empty(), "no seed is kept");
    Ok(jobs)
}
