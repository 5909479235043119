//! One run, told as asked.

use std::io::Write as _;
use std::process::ExitCode;

use sim::coverage;
use sim::trace::Event;

use super::tell_failure;
use crate::pool::{Answer, Job};

pub(crate) fn run(job: &Job, story: bool, hashes: bool) -> anyhow::Result<ExitCode> {
    let tell = move |event: &Event<'_>| {
        let mut out = std::io::stdout().lock();
        let told = match hashes {
            true => writeln!(out, "{:016x} {event}", event.hash),
            false => writeln!(out, "{event}"),
        };
        if told.is_err() {
            // Whoever listened has heard enough: `sim run 7 --story | head`.
            std::process::exit(0);
        }
    };
    let answer = job.run(story.then(|| Box::new(tell) as _))?;
    summarise(&answer);
    if !story {
        tell_counts(&answer);
    }
    if answer.violations.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    tell_failure(job, &answer);
    Ok(ExitCode::FAILURE)
}

/// A run in a line.
pub(super) fn summarise(answer: &Answer) {
    let healed = match answer.healed_ms {
        Some(ms) => format!("came right within {}.{} s", ms / 1000, ms / 100 % 10),
        None => "did not come right".into(),
    };
    println!(
        "seed {}: trace {:016x}, {} polls, {} faults, {}.{} s, {} entries agreed, {healed}",
        answer.seed,
        answer.hash,
        answer.polls,
        answer.faults,
        answer.virtual_ms / 1000,
        answer.virtual_ms / 100 % 10,
        answer.entries,
    );
}

fn tell_counts(answer: &Answer) {
    for (heading, names) in coverage::groups() {
        println!("\n{heading}");
        for name in names {
            if let Some(count) = answer.counts.get(name) {
                println!("{count:>9} {name}");
            }
        }
    }
}
