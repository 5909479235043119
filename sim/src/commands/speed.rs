//! How much virtual time a real second buys, on one core.

use std::process::ExitCode;

use sim::world::{Run, Scope};

use crate::pool::Job;

pub(crate) fn run(seeds: u64) -> anyhow::Result<ExitCode> {
    println!("{:<44} {:>8} {:>8} {:>10} {:>10}", "load", "virtual", "real", "a second", "polls/s");
    for (load, of_people, scope) in [
        ("people, five whole nodes, all faults", true, Scope::Nodes),
        ("the seeds' own mixes, whole nodes", false, Scope::Nodes),
        ("the seeds' own mixes, replicas", false, Scope::Replicas),
    ] {
        let (mut virtual_ms, mut real_ms, mut polls) = (0, 0, 0);
        for seed in 1..=seeds {
            let answer = Job::of(Run { of_people, ..Run::of(seed, scope) }).run(None)?;
            virtual_ms += answer.virtual_ms;
            real_ms += answer.real_ms;
            polls += answer.polls;
        }
        let real = real_ms.max(1);
        println!(
            "{load:<44} {:>7}s {:>6}ms {:>10} {:>10}",
            virtual_ms / 1000,
            real_ms,
            virtual_ms / real,
            polls * 1000 / real,
        );
    }
    Ok(ExitCode::SUCCESS)
}
