//! Runs on all cores: a process each, which is given one run at a time.
//!
//! Processes, because a run is one thread's and may end in any way: one that overflows its stack or
//! is killed is a failed run and no more.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use serde::{Deserialize, Serialize};
use sim::trace::Listener;
use sim::world::{self, Run, Scope};

use crate::Which;

/// One run that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Which.
    pub(crate) run: Run,
    /// The deliberate bug that lives meanwhile.
    pub(crate) mutant: Option<String>,
}

/// What came of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) seed: u64,
    pub(crate) hash: u64,
    pub(crate) polls: u64,
    pub(crate) faults: u64,
    pub(crate) clients: u64,
    pub(crate) break_s: u64,
    pub(crate) entries: u64,
    pub(crate) virtual_ms: u64,
    pub(crate) real_ms: u64,
    pub(crate) healed_ms: Option<u64>,
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) violations: Vec<Violation>,
}

/// A property that did not hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Violation {
    pub(crate) property: String,
    text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Job {
    pub(crate) fn of(run: Run) -> Self {
        Self { run, mutant: None }
    }

    /// From what `sim run` takes.
    pub(crate) fn from_arguments(text: &str) -> anyhow::Result<Self> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Arguments {
            #[command(flatten)]
            which: Which,
        }
        let Arguments { which } = Arguments::try_parse_from(text.split_whitespace())?;
        Ok(which.job())
    }

    /// As `sim run` takes it.
    pub(crate) fn arguments(&self) -> String {
        let Run { seed, scope, of_people, less, .. } = &self.run;
        let replicas = if *scope == Scope::Replicas { " --replicas" } else { "" };
        let people = if *of_people { " --people" } else { "" };
        let mutant = self.mutant.as_ref().map(|name| format!(" --mutant {name}"));
        format!("{seed}{replicas}{people}{}{less}", mutant.unwrap_or_default())
    }

    /// Runs it here. A deadlock or a livelock, which ends a run by a panic of the executor, is a
    /// failed run.
    #[expect(clippy::disallowed_methods, reason = "how long a run takes is real time")]
    pub(crate) fn run(&self, listener: Option<Listener>) -> anyhow::Result<Answer> {
        enliven(self.mutant.as_deref())?;
        let began = Instant::now();
        // A task's panic is a violation that is told with the others.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let ran = catch_unwind(AssertUnwindSafe(|| world::run(&self.run, listener)));
        panic::set_hook(hook);
        let real_ms = millis(began.elapsed());
        let report = match ran {
            Ok(report) => report,
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.unwrap_or_else(|| "it panicked".to_owned());
                return Ok(Answer::failed(self, "a run ends", text));
            }
        };
        let violations = report.violations.iter().map(|violation| Violation {
            property: violation.property.to_owned(),
            text: violation.to_string(),
        });
        Ok(Answer {
            seed: report.seed,
            hash: report.hash,
            polls: report.polls,
            faults: report.faults,
            clients: report.clients,
            break_s: report.break_for.as_secs(),
            entries: report.agreed.map_or(0, |index| index + 1),
            virtual_ms: millis(report.elapsed),
            real_ms,
            healed_ms: report.healed_within.map(millis),
            counts: report.counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            violations: violations.collect(),
        })
    }
}

impl Answer {
    fn failed(job: &Job, property: &str, text: String) -> Self {
        let violation = Violation { property: property.to_owned(), text };
        Self { seed: job.run.seed, violations: vec![violation], ..Self::default() }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(feature = "mutants")]
fn enliven(mutant: Option<&str>) -> anyhow::Result<()> {
    let find = |name| sim::mutants::MUTANTS.iter().find(|it| it.name == name);
    let mutant = mutant.map(|name| find(name).with_context(|| format!("no mutant is {name:?}")));
    model::mutant::enliven(mutant.transpose()?.map(|it| it.name));
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn enliven(mutant: Option<&str>) -> anyhow::Result<()> {
    anyhow::ensure!(
        mutant.is_none(),
        "this sim has no mutants in it; build it with --features mutants"
    );
    Ok(())
}

/// A worker: runs what it is asked, and answers in a line each.
pub(crate) fn work() -> anyhow::Result<ExitCode> {
    for line in std::io::stdin().lock().lines() {
        let job = Job::from_arguments(&line?)?;
        let answer = serde_json::to_string(&job.run(None)?)?;
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Jobs that a worker is given ahead: it goes on while another's answer is waited for.
const AHEAD: usize = 8;

/// Runs the jobs on all cores, and tells of each when it is over, until it is told to stop. The
/// workers are heard in turn, so the order is the same each time.
pub(crate) fn each(
    mut jobs: impl Iterator<Item = Job>,
    mut tell: impl FnMut(Job, Answer) -> bool,
) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let mut workers = Vec::new();
    for _ in 0..cores {
        workers.push(Worker::start()?);
    }
    for _ in 0..AHEAD {
        for worker in &mut workers {
            if let Some(job) = jobs.next() {
                worker.ask(job)?;
            }
        }
    }
    loop {
        let mut is_idle = true;
        for worker in &mut workers {
            let Some((job, answer)) = worker.hear()? else { continue };
            is_idle = false;
            if !tell(job, answer) {
                return Ok(());
            }
            if let Some(job) = jobs.next() {
                worker.ask(job)?;
            }
        }
        if is_idle {
            return Ok(());
        }
    }
}

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: VecDeque<Job>,
}

impl Worker {
    fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the program's own path is not known")?;
        let mut child = Command::new(program)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the program cannot start itself")?;
        let input = child.stdin.take().context("a child's input was asked for and is missing")?;
        let output =
            child.stdout.take().context("a child's output was asked for and is missing")?;
        Ok(Self { child, input, output: BufReader::new(output), asked: VecDeque::new() })
    }

    fn ask(&mut self, job: Job) -> anyhow::Result<()> {
        self.asked.push_back(job);
        let job = self.asked.back().context("it was just put there")?;
        writeln!(self.input, "{}", job.arguments()).context("asking for a run")
    }

    /// The answer to what was asked first. A worker that has ended instead is replaced.
    fn hear(&mut self) -> anyhow::Result<Option<(Job, Answer)>> {
        let Some(job) = self.asked.pop_front() else { return Ok(None) };
        let mut line = String::new();
        self.output.read_line(&mut line).context("hearing of a run")?;
        if line.ends_with('\n') {
            return Ok(Some((job, serde_json::from_str(&line)?)));
        }
        let status = self.child.wait()?;
        let asked = std::mem::take(&mut self.asked);
        *self = Self::start()?;
        for job in asked {
            self.ask(job)?;
        }
        let answer = Answer::failed(&job, "a run ends", format!("its process: {status}"));
        Ok(Some((job, answer)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends by itself when its input does; one in the middle of a run is not waited for.
        let _is_over = self.child.kill();
        let _is_reaped = self.child.wait();
    }
}
