//! Determinism: a seed is one run, in whichever process.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};

use crate::pool::Job;

/// Compares two processes line by line, so that the first step that differs is named.
pub(crate) fn run(job: &Job) -> anyhow::Result<ExitCode> {
    let seed = job.run.seed;
    let (mut first, mut second) = (Story::begin(job)?, Story::begin(job)?);
    let mut lines = 0_u64;
    let mut before = String::new();
    loop {
        let (one, two) = (first.line()?, second.line()?);
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
    let statuses = [first.child.wait()?, second.child.wait()?];
    ensure!(statuses[0] == statuses[1], "two runs of seed {seed} ended differently: {statuses:?}");
    ensure!(lines > 0, "seed {seed} said nothing");
    println!("seed {seed}: two processes, the same {lines} lines; the last: {before}");
    Ok(ExitCode::SUCCESS)
}

/// A run in a process of its own.
struct Story {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Story {
    fn begin(job: &Job) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the program's own path is not known")?;
        let mut child = Command::new(program)
            .args(["run", "--story", "--hashes"])
            .args(job.arguments().split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .context("the program cannot start itself")?;
        let output =
            child.stdout.take().context("a child's output was asked for and is missing")?;
        Ok(Self { child, lines: BufReader::new(output).lines() })
    }

    fn line(&mut self) -> anyhow::Result<Option<String>> {
        self.lines.next().transpose().context("a run's trace cannot be read")
    }
}
