//! `sim`: runs simulated worlds, and says what did not hold.

#![expect(clippy::print_stdout, reason = "a program that answers on its standard output")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use clap::{ArgGroup, Parser};
use sim::coverage;
use sim::trace::Event;
use sim::world::{self, Report, Scope};

/// Whole clusters in one process, in virtual time, from one seed, under faults.
#[derive(Parser)]
#[command(name = "sim", after_help = EXAMPLES)]
#[command(group = ArgGroup::new("what").required(true).args(["seed", "seeds"]))]
struct Arguments {
    /// Run this seed, and say how often each event happened.
    #[arg(long)]
    seed: Option<u64>,
    /// Run from the first seed up to and without the last, until one fails.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Replicas alone, with commands of every kind, instead of whole nodes.
    #[arg(long)]
    replicas: bool,
    /// Tell the story: each event with its virtual time, after the hash of all up to it.
    #[arg(long, conflicts_with = "seeds")]
    story: bool,
    /// Run the seed in two processes, and require the same story to the last byte.
    #[arg(long, conflicts_with_all = ["seeds", "story"])]
    twice: bool,
    /// Go on after a seed has failed.
    #[arg(long, conflicts_with = "seed")]
    keep_going: bool,
}

const EXAMPLES: &str = "\
Examples:
  sim --seed 7              one cluster of whole nodes
  sim --seed 7 --story      the same, an event a line
  sim --seed 7 --twice      the same run, twice over?
  sim --seeds 1..200        as many clusters; stops at the first that fails
  sim --seeds 1..200 --replicas --keep-going";

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parse = || {
        let (first, last) = text.split_once("..")?;
        Some(first.parse().ok()?..last.parse().ok()?)
    };
    match parse() {
        Some(range) if !range.is_empty() => Ok(range),
        Some(_) | None => Err(format!("{text:?} is not a range of seeds such as 1..200")),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { seed, seeds, replicas, story, twice, keep_going } = Arguments::parse();
    let scope = if replicas { Scope::Replicas } else { Scope::Nodes };
    match (seed, seeds) {
        (Some(seed), _) if twice => run_twice(seed, scope),
        (Some(seed), _) => Ok(run(seed, scope, story)),
        (None, Some(seeds)) => Ok(sweep(seeds, scope, keep_going)),
        (None, None) => bail!("a seed or seeds are needed"),
    }
}

fn run(seed: u64, scope: Scope, story: bool) -> ExitCode {
    let tell = |event: &Event<'_>| println!("{:016x} {event}", event.hash);
    let report = world::run(seed, scope, story.then(|| Box::new(tell) as _));
    summarise(&report);
    for (name, count) in &report.counts {
        println!("{count:>9} {name}");
    }
    if report.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    tell_failure(&report, scope);
    ExitCode::FAILURE
}

fn summarise(report: &Report) {
    let Report { seed, hash, polls, elapsed, .. } = report;
    let healed = match report.healed_within {
        Some(took) => format!("came right within {:.1} s", took.as_secs_f64()),
        None => "did not come right".into(),
    };
    println!(
        "seed {seed}: trace {hash:016x}, {polls} polls, {:.1} s, {} entries agreed, {healed}",
        elapsed.as_secs_f64(),
        report.agreed.map_or(0, |index| index + 1),
    );
}

/// Prints what did not hold, and how to see it again.
fn tell_failure(report: &Report, scope: Scope) {
    println!("\nseed {} FAILED at commit {}", report.seed, commit());
    for violation in &report.violations {
        println!("  {violation}");
    }
    tell_again(report.seed, scope);
}

fn tell_again(seed: u64, scope: Scope) {
    let replicas = if scope == Scope::Replicas { " --replicas" } else { "" };
    println!("  again: cargo run -p gavel-sim --profile sim -- --seed {seed} --story{replicas}\n");
}

fn commit() -> String {
    let asked = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    match asked {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

fn sweep(seeds: Range<u64>, scope: Scope, keep_going: bool) -> ExitCode {
    let mut total = BTreeMap::new();
    let (mut ran, mut failed, mut virtual_s, mut polls) = (0_u64, Vec::new(), 0.0, 0);
    let mut slowest = std::time::Duration::ZERO;
    for seed in seeds {
        // A deadlock or a livelock ends its run with a panic of the executor.
        let Ok(report) = catch_unwind(AssertUnwindSafe(|| world::run(seed, scope, None))) else {
            println!("seed {seed} FAILED: the run panicked at commit {}", commit());
            tell_again(seed, scope);
            failed.push(seed);
            if keep_going {
                continue;
            }
            break;
        };
        summarise(&report);
        coverage::add(&mut total, &report.counts);
        ran += 1;
        virtual_s += report.elapsed.as_secs_f64();
        polls += report.polls;
        slowest = slowest.max(report.healed_within.unwrap_or_default());
        if !report.violations.is_empty() {
            tell_failure(&report, scope);
            failed.push(seed);
            if !keep_going {
                break;
            }
        }
    }
    println!("\n{ran} seeds, {virtual_s:.0} s of virtual time, {polls} polls");
    println!("slowest to come right: {:.1} s", slowest.as_secs_f64());
    for (name, meaning) in coverage::EVENTS {
        println!("{:>9} {name:<24} {meaning}", total.get(name).copied().unwrap_or(0));
    }
    let gaps = coverage::gaps(&total);
    if !gaps.is_empty() {
        println!("never happened: {}", gaps.join(", "));
    }
    if failed.is_empty() {
        println!("all held");
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}

/// Compares two processes line by line, so that the first step that differs is named.
fn run_twice(seed: u64, scope: Scope) -> anyhow::Result<ExitCode> {
    let (mut first, mut second) = (traced(seed, scope)?, traced(seed, scope)?);
    let mut lines = 0_u64;
    let mut before = String::new();
    loop {
        let (one, two) = (next_line(&mut first)?, next_line(&mut second)?);
        if one != two {
            bail!(
                "seed {seed} gave two different runs after {lines} lines\n  both:   {before}\n  \
                 first:  {}\n  second: {}",
                one.unwrap_or_default(),
                two.unwrap_or_default()
            );
        }
        let Some(line) = one else { break };
        before = line;
        lines += 1;
    }
    let statuses = [first.0.wait()?, second.0.wait()?];
    ensure!(statuses[0] == statuses[1], "two runs of seed {seed} ended differently: {statuses:?}");
    ensure!(lines > 0, "seed {seed} said nothing");
    println!("seed {seed}: two processes, the same {lines} lines; the last: {before}");
    Ok(ExitCode::SUCCESS)
}

type Traced = (Child, std::io::Lines<BufReader<std::process::ChildStdout>>);

fn traced(seed: u64, scope: Scope) -> anyhow::Result<Traced> {
    let program = std::env::current_exe().context("the program's own path is not known")?;
    let mut child = Command::new(program)
        .args(["--story", "--seed", &seed.to_string()])
        .args((scope == Scope::Replicas).then_some("--replicas"))
        .stdout(Stdio::piped())
        .spawn()
        .context("the program cannot start itself")?;
    let output = child.stdout.take().context("a child's output was asked for and is missing")?;
    Ok((child, BufReader::new(output).lines()))
}

fn next_line(traced: &mut Traced) -> anyhow::Result<Option<String>> {
    traced.1.next().transpose().context("a run's trace cannot be read")
}
