//! `sim`: runs simulated worlds, and says what did not hold.

#![expect(clippy::print_stdout, reason = "a program that answers on its standard output")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use sim::coverage;
use sim::trace::Event;
use sim::world::{self, Report};

/// Whole clusters in one process, in virtual time, from one seed, under faults.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run one seed and report.
    Run {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Print every event, each with the hash of all that happened up to it.
        #[arg(long)]
        trace: bool,
    },
    /// Run many seeds; report what failed, and how often each event happened.
    Sweep {
        /// From the first up to and without the last: `1..200`.
        #[arg(long, value_parser = seeds)]
        seeds: Range<u64>,
        /// Go on after a seed has failed.
        #[arg(long)]
        keep_going: bool,
    },
    /// Run a seed twice, in two processes, and require the same trace to the last byte.
    Meta {
        /// The seed.
        seed: u64,
    },
    /// Run one seed again and tell its story, a line for each event, virtual time first.
    Replay {
        /// The seed.
        seed: u64,
    },
}

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
    match Arguments::parse().verb {
        Verb::Run { seed, trace } => {
            let listener =
                trace.then_some(|event: &Event<'_>| println!("{:016x} {event}", event.hash));
            run(seed, listener)
        }
        Verb::Replay { seed } => run(seed, Some(|event: &Event<'_>| println!("{event}"))),
        Verb::Sweep { seeds, keep_going } => sweep(seeds, keep_going),
        Verb::Meta { seed } => meta(seed),
    }
}

fn run(seed: u64, listener: Option<impl FnMut(&Event<'_>) + 'static>) -> anyhow::Result<ExitCode> {
    let report =
        world::run(seed, world::Scope::Nodes, listener.map(|listener| Box::new(listener) as _));
    summarise(&report);
    for (name, count) in &report.counts {
        println!("{count:>9} {name}");
    }
    Ok(verdict(&report))
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
fn verdict(report: &Report) -> ExitCode {
    if report.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nseed {} FAILED at commit {}", report.seed, commit());
    for violation in &report.violations {
        println!("  {violation}");
    }
    println!("  again: cargo run -p gavel-sim --profile sim -- replay {}\n", report.seed);
    ExitCode::FAILURE
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

fn sweep(seeds: Range<u64>, keep_going: bool) -> anyhow::Result<ExitCode> {
    let mut total = BTreeMap::new();
    let (mut ran, mut failed, mut virtual_s, mut polls) = (0_u64, Vec::new(), 0.0, 0);
    let mut slowest = std::time::Duration::ZERO;
    for seed in seeds {
        // A deadlock or a livelock ends its run with a panic of the executor.
        let Ok(report) =
            catch_unwind(AssertUnwindSafe(|| world::run(seed, world::Scope::Nodes, None)))
        else {
            println!("seed {seed} FAILED: the run panicked at commit {}", commit());
            println!("  again: cargo run -p gavel-sim --profile sim -- replay {seed}\n");
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
            verdict(&report);
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
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed: {failed:?}");
    Ok(ExitCode::FAILURE)
}

/// Compares two processes line by line, so that the first step that differs is named.
fn meta(seed: u64) -> anyhow::Result<ExitCode> {
    let (mut first, mut second) = (traced(seed)?, traced(seed)?);
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

fn traced(seed: u64) -> anyhow::Result<Traced> {
    let program = std::env::current_exe().context("the program's own path is not known")?;
    let mut child = Command::new(program)
        .args(["run", "--trace", "--seed", &seed.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("the program cannot start itself")?;
    let output = child.stdout.take().context("a child's output was asked for and is missing")?;
    Ok((child, BufReader::new(output).lines()))
}

fn next_line(traced: &mut Traced) -> anyhow::Result<Option<String>> {
    traced.1.next().transpose().context("a run's trace cannot be read")
}
