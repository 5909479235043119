//! Less of a failing run that fails in the same way: fewer nodes, clients, kinds of faults, faults
//! and seconds. Each step is kept if the same property still does not hold.

use std::process::ExitCode;

use sim::world::{Ingredient, Less};

use super::{again, tell_failure};
use crate::pool::{Answer, Job};

pub(crate) fn run(job: Job, runs: u64) -> anyhow::Result<ExitCode> {
    let answer = job.run(None)?;
    let Some(property) = property(&answer) else {
        println!("seed {} does not fail", job.run.seed);
        return Ok(ExitCode::SUCCESS);
    };
    println!("{property}: {} faults, {} polls", answer.faults, answer.polls);
    let mut shrinking = Shrinking { job, answer, property, left: runs };
    while shrinking.left > 0 && shrinking.pass()? {}
    let Shrinking { job, answer, .. } = shrinking;
    tell_failure(&job, &answer);
    println!("{}", again(&job, "run", " --story"));
    Ok(ExitCode::FAILURE)
}

fn property(answer: &Answer) -> Option<String> {
    answer.violations.first().map(|violation| violation.property.clone())
}

struct Shrinking {
    /// The smallest that fails, so far.
    job: Job,
    /// What came of it.
    answer: Answer,
    property: String,
    left: u64,
}

impl Shrinking {
    /// Tries everything once. Returns whether anything helped.
    fn pass(&mut self) -> anyhow::Result<bool> {
        let before = self.job.run.less.clone();
        // The end of a run is cheapest to leave out: nothing fails after its first violation.
        let mut break_s = self.answer.break_s;
        while break_s > 1 {
            let less = break_s / 2;
            if !self.attempt(|it| it.break_s = Some(less))? {
                break;
            }
            break_s = less;
        }
        for ingredient in Ingredient::all() {
            self.attempt(|it| {
                it.without.insert(ingredient);
            })?;
        }
        for voters in [3, 1] {
            self.attempt(|it| it.voters = Some(it.voters.map_or(voters, |was| was.min(voters))))?;
        }
        let mut clients = self.answer.clients;
        while clients > 1 && self.attempt(|it| it.clients = Some(clients - 1))? {
            clients -= 1;
        }
        self.skip_faults()?;
        Ok(self.job.run.less != before)
    }

    /// Leaves out faults, halves of them first (delta debugging; Zeller 2002).
    fn skip_faults(&mut self) -> anyhow::Result<()> {
        let mut size = self.answer.faults.div_ceil(2).max(1);
        loop {
            let mut from = 1;
            while from <= self.answer.faults && self.left > 0 {
                let range = from..from + size;
                self.attempt(|it| it.skip.extend(range))?;
                from += size;
            }
            if size == 1 || self.left == 0 {
                return Ok(());
            }
            size = size.div_ceil(2);
        }
    }

    /// Runs with less, and keeps it if that fails as well.
    fn attempt(&mut self, change: impl FnOnce(&mut Less)) -> anyhow::Result<bool> {
        let mut smaller = self.job.clone();
        change(&mut smaller.run.less);
        if self.left == 0 || smaller.run.less == self.job.run.less {
            return Ok(false);
        }
        self.left -= 1;
        let answer = smaller.run(None)?;
        let fails = property(&answer).is_some_and(|property| property == self.property);
        if fails {
            println!("  {} faults, {} polls:{}", answer.faults, answer.polls, smaller.run.less);
            self.job = smaller;
            self.answer = answer;
        }
        Ok(fails)
    }
}
