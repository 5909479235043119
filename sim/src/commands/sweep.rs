//! Many seeds on all cores, and what never happened in any of them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use sim::coverage;
use sim::world::{Run, Scope};

use super::tell_failure;
use crate::Sweep;
use crate::pool::{self, Answer, Job};

pub(crate) fn run(sweep: &Sweep) -> anyhow::Result<ExitCode> {
    let (first, last, deadline) = match (&sweep.seeds, sweep.minutes) {
        (Some(seeds), _) => (seeds.start, Some(seeds.end), None),
        (None, minutes) => {
            let minutes = Duration::from_secs(60 * minutes.unwrap_or(10));
            (seed_of_the_clock()?, None, Some(now() + minutes))
        }
    };
    let scopes: Vec<Scope> = [(Scope::Nodes, sweep.replicas), (Scope::Replicas, sweep.nodes)]
        .into_iter()
        .filter_map(|(scope, others_only)| (!others_only).then_some(scope))
        .collect();
    let bar = match last {
        Some(last) => bar((last - first) * scopes.len() as u64),
        None => ProgressBar::new_spinner(),
    };
    let mut results = Results::default();
    let jobs = (first..last.unwrap_or(u64::MAX))
        .flat_map(|seed| scopes.iter().map(move |scope| Job::of(Run::of(seed, *scope))));
    let is_time = || deadline.is_none_or(|deadline| now() < deadline);
    let mut failed = false;
    pool::each(jobs, |job, answer| {
        bar.inc(1);
        bar.set_message(format!("{} failed", results.failed.len()));
        failed |= !answer.violations.is_empty();
        bar.suspend(|| results.add(&job, &answer));
        is_time() && (sweep.keep_going || !failed)
    })?;
    bar.finish_and_clear();
    results.tell(&scopes);
    Ok(if results.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::disallowed_methods, reason = "how long a sweep takes is real time")]
fn now() -> Instant {
    Instant::now()
}

/// Where a sweep begins that is given a time and no seeds: each at another place.
#[expect(clippy::disallowed_methods, reason = "a sweep is to begin where none has before")]
fn seed_of_the_clock() -> anyhow::Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is not set")?;
    Ok(now.as_secs() << 16)
}

/// A bar for so many runs.
pub(super) fn bar(length: u64) -> ProgressBar {
    let style = "{elapsed_precise} [{bar:40}] {pos}/{len} {msg} ({eta} left)";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}

/// What came of many runs.
#[derive(Default)]
pub(super) struct Results {
    of_nodes: BTreeMap<&'static str, u64>,
    of_replicas: BTreeMap<&'static str, u64>,
    ran: u64,
    virtual_ms: u64,
    real_ms: u64,
    polls: u64,
    slowest_ms: u64,
    pub(super) failed: Vec<String>,
}

impl Results {
    /// Takes in one, and tells it if it failed.
    pub(super) fn add(&mut self, job: &Job, answer: &Answer) {
        self.ran += 1;
        self.virtual_ms += answer.virtual_ms;
        self.real_ms += answer.real_ms;
        self.polls += answer.polls;
        self.slowest_ms = self.slowest_ms.max(answer.healed_ms.unwrap_or_default());
        let names = coverage::groups().into_iter().flat_map(|(_, names)| names);
        let counts = names.filter_map(|name| Some((name, *answer.counts.get(name)?))).collect();
        coverage::add(
            match job.run.scope {
                Scope::Nodes => &mut self.of_nodes,
                Scope::Replicas => &mut self.of_replicas,
            },
            &counts,
        );
        if !answer.violations.is_empty() {
            self.failed.push(job.arguments());
            tell_failure(job, answer);
        }
    }

    /// The table of what happened, and the list of what did not.
    pub(super) fn tell(&self, scopes: &[Scope]) {
        for (heading, names) in coverage::groups() {
            println!("\n{:>9} {:>9} {heading}", "nodes", "replicas");
            for name in names {
                let [nodes, replicas] = [&self.of_nodes, &self.of_replicas]
                    .map(|counts| counts.get(name).copied().unwrap_or(0));
                let meaning = coverage::EVENTS.iter().find(|(event, _)| *event == name);
                let meaning = meaning.map_or("", |(_, meaning)| meaning);
                println!("{nodes:>9} {replicas:>9} {name:<24} {meaning}");
            }
        }
        let mut all = self.of_nodes.clone();
        coverage::add(&mut all, &self.of_replicas);
        let gaps = coverage::gaps(&all, scopes);
        if !gaps.is_empty() {
            println!("\ngaps, never seen: {}", gaps.join(", "));
        }
        self.tell_in_a_line();
    }

    /// How much was run.
    pub(super) fn tell_in_a_line(&self) {
        let Self { ran, virtual_ms, real_ms, polls, slowest_ms, failed, .. } = self;
        println!(
            "\n{ran} runs, {} s of virtual time, {} a real second on one core, {polls} polls; \
             slowest to come right: {} s",
            virtual_ms / 1000,
            virtual_ms / real_ms.max(&1),
            slowest_ms / 1000,
        );
        match &failed[..] {
            [] => println!("all held"),
            failed => println!("failed: {}", failed.join("; ")),
        }
    }
}
