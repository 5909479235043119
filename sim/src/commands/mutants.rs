//! Deliberate bugs, each of which must be found.

use std::process::ExitCode;

#[cfg(feature = "mutants")]
pub(crate) fn run(names: &[String], seeds: u64, list: bool) -> anyhow::Result<ExitCode> {
    use anyhow::ensure;
    use sim::mutants::MUTANTS;
    use sim::world::Run;

    use super::sweep::bar;
    use crate::pool::{self, Job};

    for name in names {
        ensure!(MUTANTS.iter().any(|it| it.name == name), "there is no mutant {name:?}");
    }
    let chosen = |name: &str| names.is_empty() || names.iter().any(|it| it == name);
    let mutants: Vec<_> = MUTANTS.iter().filter(|mutant| chosen(mutant.name)).collect();
    if list {
        for mutant in mutants {
            println!("{:<32} {}", mutant.name, mutant.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bar = bar(mutants.len() as u64);
    let mut survived = Vec::new();
    for mutant in mutants {
        let jobs = (1..=seeds).map(|seed| Job {
            run: Run::of(seed, mutant.scope),
            mutant: Some(mutant.name.to_owned()),
        });
        let mut found = None;
        pool::each(jobs, |job, answer| {
            if let Some(first) = answer.violations.first() {
                found.get_or_insert_with(|| (job.run.seed, first.to_string()));
            }
            found.is_none()
        })?;
        bar.inc(1);
        bar.suspend(|| match &found {
            Some((seed, by)) => {
                let by: String = by.chars().take(110).collect();
                println!("{:<32} seed {seed:>3}: {by}", mutant.name);
            }
            None => {
                survived.push(mutant.name);
                println!("{:<32} SURVIVED {seeds} seeds: {}", mutant.name, mutant.what);
            }
        });
    }
    bar.finish_and_clear();
    if survived.is_empty() {
        println!("all were found");
        return Ok(ExitCode::SUCCESS);
    }
    println!("survived, so a checker is missing: {}", survived.join(", "));
    Ok(ExitCode::FAILURE)
}

#[cfg(not(feature = "mutants"))]
pub(crate) fn run(_names: &[String], _seeds: u64, _list: bool) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "this sim has no mutants in it; build one that has: \
         cargo run -p gavel-sim --profile sim --features mutants -- mutants"
    )
}
