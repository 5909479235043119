//! `sim`: runs simulated worlds, and says what did not hold.

#![expect(clippy::print_stdout, reason = "a program that answers on its standard output")]

mod commands;
mod pool;

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sim::world::{Ingredient, Less, Run, Scope};

/// A quarter less time than with the system's (`sim speed`, November 2026).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whole clusters in one process, in virtual time, from one seed, under faults.
#[derive(Parser)]
#[command(name = "sim", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed, and say how often each thing happened.
    Run {
        #[command(flatten)]
        which: Which,
        /// Tell the story: an event a line, virtual time first.
        #[arg(long)]
        story: bool,
        /// Put the hash of everything up to it before each event.
        #[arg(long, requires = "story")]
        hashes: bool,
    },
    /// Run one seed in two processes, and require the same story to the last byte.
    Meta {
        #[command(flatten)]
        which: Which,
    },
    /// Run many seeds on all cores, and say what never happened.
    Sweep(Sweep),
    /// Run every seed that ever failed, and those drawn from a commit's hash.
    Replay {
        /// As many seeds of whole nodes, and a quarter as many of replicas, drawn from the hash of
        /// the commit that is checked out.
        #[arg(long, default_value_t = 0)]
        drawn: u64,
    },
    /// Let each deliberate bug live, and require that it is found.
    Mutants {
        /// Only these.
        names: Vec<String>,
        /// How many seeds each may live through.
        #[arg(long, default_value_t = 300)]
        seeds: u64,
        /// Name them, and what each does, and run nothing.
        #[arg(long)]
        list: bool,
    },
    /// Find less of a failing seed that fails in the same way.
    Shrink {
        #[command(flatten)]
        which: Which,
        /// How many runs to try.
        #[arg(long, default_value_t = 300)]
        runs: u64,
    },
    /// Measure how much virtual time a real second buys, on one core.
    Speed {
        /// How many seeds of each load.
        #[arg(long, default_value_t = 10)]
        seeds: u64,
    },
    /// Measure what things cost in clusters of these sizes.
    Scale {
        /// Members, each with a cell.
        #[arg(value_delimiter = ',', default_value = "50,125,250,625,1250")]
        members: Vec<u64>,
        /// Of these, those that vote.
        #[arg(long, default_value_t = 5)]
        voters: u64,
        /// Instances for each cell.
        #[arg(long, default_value_t = 200)]
        instances_per_cell: u64,
    },
    /// Draw how cost grows, by the tables in a document, as an SVG file.
    Draw {
        /// Where the tables are, as `sim scale` prints them.
        #[arg(default_value = "docs/scale.md")]
        tables: PathBuf,
        /// The drawing.
        #[arg(default_value = "docs/scale.svg")]
        drawing: PathBuf,
    },
    /// Run what is asked on standard input, a line each: for `sim` itself.
    #[command(hide = true)]
    Worker,
}

/// Which run.
#[derive(Args, Clone)]
struct Which {
    /// The seed of everything.
    seed: u64,
    /// Replicas alone, with commands of every kind, instead of whole nodes.
    #[arg(long)]
    replicas: bool,
    /// Five nodes and people who take their time, instead of the seed's own mix.
    #[arg(long)]
    people: bool,
    /// A deliberate bug that is to live meanwhile.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// So many voters.
    #[arg(long)]
    voters: Option<u64>,
    /// So many clients.
    #[arg(long)]
    clients: Option<u64>,
    /// So many seconds of faults.
    #[arg(long, value_name = "SECONDS")]
    break_for: Option<u64>,
    /// None of these: kinds of faults, weather, wear, habits, clocks.
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    without: Vec<Ingredient>,
    /// Not these faults, counted from 1: 2,5-9.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", value_parser = numbers)]
    skip: Vec<RangeInclusive<u64>>,
}

#[derive(Args)]
struct Sweep {
    /// From the first seed up to and without the last.
    #[arg(value_name = "A..B", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Go on for so long, instead of up to a last seed.
    #[arg(long, conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// Only whole nodes.
    #[arg(long, conflicts_with = "replicas")]
    nodes: bool,
    /// Only replicas, with commands of every kind.
    #[arg(long)]
    replicas: bool,
    /// Go on after a seed has failed.
    #[arg(long)]
    keep_going: bool,
}

const EXAMPLES: &str = "\
Examples:
  sim run 7                     one cluster of whole nodes
  sim run 7 --story             the same, an event a line
  sim meta 7                    the same run, twice over?
  sim sweep 1..200              as many clusters of whole nodes, and of replicas, on all cores
  sim sweep --minutes 60        for an hour, from a seed of the clock's
  sim sweep 1..200 --replicas --keep-going
  sim shrink 7                  less of a seed that fails
  sim replay --drawn 200        what CI runs
  sim mutants                   (built with --features mutants)
  sim scale 50,250,1250         what things cost in clusters of these sizes
  sim draw docs/scale.md docs/scale.svg";

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

fn numbers(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok(number(first)?..=number(last)?)
}

fn scope(replicas: bool) -> Scope {
    if replicas { Scope::Replicas } else { Scope::Nodes }
}

impl Which {
    fn job(self) -> pool::Job {
        let less = Less {
            voters: self.voters,
            clients: self.clients,
            break_s: self.break_for,
            without: self.without.into_iter().collect(),
            skip: self.skip.into_iter().flatten().collect(),
        };
        let run = Run { less, of_people: self.people, ..Run::of(self.seed, scope(self.replicas)) };
        pool::Job { run, mutant: self.mutant }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { which, story, hashes } => commands::run::run(&which.job(), story, hashes),
        Command::Meta { which } => commands::meta::run(&which.job()),
        Command::Sweep(sweep) => commands::sweep::run(&sweep),
        Command::Replay { drawn } => commands::replay::run(drawn),
        Command::Mutants { names, seeds, list } => commands::mutants::run(&names, seeds, list),
        Command::Shrink { which, runs } => commands::shrink::run(which.job(), runs),
        Command::Speed { seeds } => commands::speed::run(seeds),
        Command::Scale { members, voters, instances_per_cell } => {
            commands::scale::run(&members, voters, instances_per_cell)
        }
        Command::Draw { tables, drawing } => commands::draw::run(&tables, &drawing),
        Command::Worker => pool::work(),
    }
}
