//! The checkers: one property a file, each with its sentence and its source.
//!
//! They watch from outside: the messages that replicas send, the answers they give, the states
//! they show, and what clients were told. From the messages they rebuild the one log that was
//! agreed and apply it themselves; every state that a replica ever shows must be a state of that
//! log. They never look into a replica and never change what happens.

mod acknowledged;
mod backoff;
mod callbacks;
pub(crate) mod converged;
mod domains;
mod drained;
mod durable_answers;
pub(crate) mod edges;
mod election_safety;
mod ends;
mod fenced;
mod flags;
mod forgetful;
mod leader_completeness;
mod linearizable;
mod locks;
mod log_matching;
mod model_invariants;
mod one_vote;
mod presence;
mod refusals;
mod replacement;
mod room;
mod rot;
mod state_machine;
mod stops;
mod tasks_once;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use model::{CellId, Command, Millis, Refusal, Task, TaskGuid};
use replica::NodeId;
use replica::peers::{AppendEntries, PeerRequest, PeerResponse};

use self::backoff::Backoff;
use self::callbacks::Callbacks;
use self::domains::Domains;
use self::drained::Drained;
pub use self::drained::ToldToEnd;
use self::election_safety::ElectionSafety;
pub use self::ends::Ended;
use self::ends::Ends;
use self::flags::Flags;
use self::forgetful::Forgetful;
use self::leader_completeness::LeaderCompleteness;
use self::locks::Locks;
use self::log_matching::LogMatching;
use self::one_vote::OneVote;
use self::presence::Heard;
use self::state_machine::{StateMachine, Step, Steps};
use self::tasks_once::TasksOnce;
use crate::coverage;
use crate::history::History;
use crate::limits;

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Nanoseconds of true time since the run began.
    pub at_ns: u64,
    /// Which one.
    pub property: &'static str,
    /// What was seen instead.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.at_ns / 1_000_000_000, self.at_ns / 1_000_000 % 1000);
        write!(f, "{seconds}.{millis:03} s: {}: {}", self.property, self.what)
    }
}

/// How a replica came by a state that it showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// It came off the disk, at a start.
    Disk,
    /// It is the newest.
    Newest,
    /// It answers a read, and there may be a newer one by now.
    Read,
}

/// A state that a replica showed.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Who.
    pub node: NodeId,
    /// How it came by it.
    pub whence: Whence,
    /// The last entry in it.
    pub applied: u64,
    /// The state.
    pub state: model::State,
}

/// What a look into a disk shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskState {
    /// The highest entry that it has ever synced, or holds as rows.
    pub durable_log: Option<u64>,
    /// How long ago it failed, in this life.
    pub failed_for: Option<Duration>,
}

/// All checkers of one run.
#[derive(Debug, Default)]
pub struct Checker {
    election_safety: ElectionSafety,
    one_vote: OneVote,
    log_matching: LogMatching,
    leader_completeness: LeaderCompleteness,
    state_machine: StateMachine,
    tasks_once: TasksOnce,
    callbacks: Callbacks,
    backoff: Backoff,
    domains: Domains,
    locks: Locks,
    drained: Drained,
    flags: Flags,
    ends: Ends,
    heard: Heard,
    forgetful: Forgetful,
    history: History,
    idle: u64,
    counts: BTreeMap<&'static str, u64>,
    /// Commands that have become known to be agreed and are not told yet.
    news: Vec<News>,
    violations: Vec<Violation>,
}

/// A command that has become known to be agreed.
#[derive(Debug)]
pub struct News {
    /// The entry that it is in.
    pub index: u64,
    /// The command.
    pub command: Command,
    /// Whether it changed anything, or why it was refused.
    pub result: Result<bool, Refusal>,
}

/// What one property says of one observation.
type Verdict = Result<(), String>;

impl Checker {
    /// What was violated so far, the first [`limits::VIOLATIONS_KEPT_MAX`].
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The last entry known to be agreed.
    pub fn agreed(&self) -> Option<u64> {
        self.state_machine.agreed()
    }

    /// How often each command was agreed, each refusal given and each edge taken.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The commands that have become known to be agreed since this was last asked.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// How many entries were agreed that changed nothing.
    pub fn idle(&self) -> u64 {
        self.idle
    }

    /// The state after everything known to be agreed.
    pub fn agreed_state(&self) -> model::State {
        self.state_machine.state()
    }

    /// Takes in a verdict of somebody else.
    pub fn violated(&mut self, at_ns: u64, property: &'static str, what: String) {
        if self.violations.len() < limits::VIOLATIONS_KEPT_MAX {
            self.violations.push(Violation { at_ns, property, what });
        }
    }

    fn rule(&mut self, at_ns: u64, property: &'static str, verdict: Verdict) {
        if let Err(what) = verdict {
            self.violated(at_ns, property, what);
        }
    }

    /// A replica sent a request to another.
    pub fn sent(&mut self, at_ns: u64, from: NodeId, request: &PeerRequest) {
        let verdict = self.forgetful.sent(from, request);
        self.rule(at_ns, forgetful::NAME, verdict);
        match request {
            PeerRequest::AppendEntries(append) => self.append_sent(at_ns, from, append),
            PeerRequest::Vote(ballot) => {
                let verdict = self.one_vote.voted(from, ballot.vote);
                self.rule(at_ns, one_vote::NAME, verdict);
            }
            PeerRequest::SnapshotChunk(chunk) => {
                let verdict = self.election_safety.leads(from, chunk.vote);
                self.rule(at_ns, election_safety::NAME, verdict);
                if let Some(id) = chunk.last_log_id {
                    self.commit(at_ns, id);
                }
            }
            PeerRequest::PreVote(_)
            | PeerRequest::TransferLeader(_)
            | PeerRequest::Propose(_)
            | PeerRequest::ReadIndex
            | PeerRequest::Soft(_)
            | PeerRequest::Introduce(_) => {}
        }
    }

    fn append_sent(&mut self, at_ns: u64, from: NodeId, append: &AppendEntries) {
        let verdict = self.election_safety.leads(from, append.vote);
        self.rule(at_ns, election_safety::NAME, verdict);
        self.drained.sent(at_ns, append);
        let verdict = self.log_matching.sent(append);
        self.rule(at_ns, log_matching::NAME, verdict);
        let agreed = self.state_machine.agreed_before(append.vote.term);
        let verdict = self.leader_completeness.sent(append, agreed);
        self.rule(at_ns, leader_completeness::NAME, verdict);
        if let Some(id) = append.committed {
            self.commit(at_ns, id);
        }
    }

    /// Somebody claims that an entry is agreed.
    fn commit(&mut self, at_ns: u64, id: replica::wire::LogId) {
        let chain = match self.state_machine.chain(&self.log_matching, id) {
            Ok(chain) => chain,
            Err(what) => return self.violated(at_ns, state_machine::NAME, what),
        };
        for (id, entry) in chain {
            let before = self.state_machine.state();
            let steps = self.state_machine.apply(id, entry.proposal.as_ref());
            let after = self.state_machine.state();
            if let (Some(bytes), Some(steps)) = (&entry.proposal, steps) {
                self.check_steps(at_ns, &steps);
                self.news.extend(steps.steps.iter().map(|step| News {
                    index: id.index,
                    command: step.command.clone(),
                    result: step.result.clone(),
                }));
                let commands: Vec<&Command> = steps.steps.iter().map(|it| &it.command).collect();
                let replaced = replacement::check(&before, &after, &commands);
                self.rule(at_ns, replacement::NAME, replaced);
                let told = self.callbacks.check(&before, &after);
                self.rule(at_ns, callbacks::NAME, told);
                let outcome = steps.outcome();
                if outcome.0.iter().all(|result| *result != Ok(true)) {
                    self.idle += 1;
                }
                let verdict = self.history.agreed(id.index, &bytes.0, outcome);
                self.rule(at_ns, acknowledged::NAME, verdict);
            }
            self.rule(at_ns, room::NAME, room::check(&after));
            let verdict = self.ends.check(id.index, &after);
            self.rule(at_ns, ends::NAME, verdict);
            let verdict = self.drained.agreed(id, &before, &after);
            self.rule(at_ns, drained::NAME, verdict);
            self.rule(at_ns, model_invariants::NAME, model_invariants::check(id.index, &after));
        }
        for verdict in self.state_machine.check_waiting() {
            self.rule(at_ns, state_machine::NAME, Err(verdict));
        }
    }

    /// Judges an entry's commands, one by one.
    fn check_steps(&mut self, at_ns: u64, Steps { at, steps }: &Steps) {
        for step in steps {
            self.count(step);
            self.rule(at_ns, fenced::NAME, fenced::check(step));
            self.rule(at_ns, refusals::NAME, refusals::check(step));
            let verdict = self.backoff.check(step);
            self.rule(at_ns, backoff::NAME, verdict);
            let verdict = self.domains.check(step);
            self.rule(at_ns, domains::NAME, verdict);
            let verdict = self.locks.check(step);
            self.rule(at_ns, locks::NAME, verdict);
            let verdict = self.flags.check(step);
            self.rule(at_ns, flags::NAME, verdict);
            match edges::check(step) {
                Ok(edges) => edges.into_iter().for_each(|edge| self.tell(edge)),
                Err(what) => self.violated(at_ns, edges::NAME, what),
            }
            if let (Command::CellMissing { cell_id }, Ok(true)) = (&step.command, &step.result) {
                self.rule(at_ns, presence::NAME, self.heard.missing(*at, cell_id));
            }
        }
    }

    fn count(&mut self, step: &Step) {
        match &step.result {
            Ok(true) => self.tell(coverage::command(&step.command)),
            Ok(false) => self.tell("a command that changed nothing"),
            Err(refusal) => self.tell(coverage::refusal(refusal)),
        }
    }

    fn tell(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// A replica answered a request, on a disk that is in this state.
    pub fn answered(
        &mut self,
        at_ns: u64,
        by: NodeId,
        request: &PeerRequest,
        response: &PeerResponse,
        on: DiskState,
    ) {
        let DiskState { durable_log, failed_for } = on;
        self.rule(at_ns, stops::NAME, stops::answered(by, response, failed_for));
        if let (PeerRequest::Vote(ballot), PeerResponse::Vote(voted)) = (request, response)
            && voted.granted
        {
            let verdict = self.one_vote.voted(by, ballot.vote);
            self.rule(at_ns, one_vote::NAME, verdict);
        }
        let verdict = self.forgetful.answered(by, response);
        self.rule(at_ns, forgetful::NAME, verdict);
        let verdict = durable_answers::answered(by, request, response, durable_log);
        self.rule(at_ns, durable_answers::NAME, verdict);
    }

    /// A replica showed a state.
    pub fn shown(&mut self, at_ns: u64, shown: Shown) {
        let verdict = model_invariants::check(shown.applied, &shown.state);
        self.rule(at_ns, model_invariants::NAME, verdict);
        let verdict = self.state_machine.shown(shown);
        self.rule(at_ns, state_machine::NAME, verdict);
    }

    /// The process of a task began on a node.
    pub fn task_started(&mut self, at_ns: u64, guid: &TaskGuid, node: NodeId) {
        let verdict = self.tasks_once.started(guid, node);
        self.rule(at_ns, tasks_once::NAME, verdict);
    }

    /// The client of a task was told how it ended.
    pub fn told(&mut self, task: &Task) {
        self.callbacks.told(task);
    }

    /// A cell ends a container.
    pub fn ended(&mut self, at_ns: u64, ended: Ended) {
        let agreed = self.state_machine.agreed();
        let verdict = self.ends.ended(ended, agreed, self.state_machine.latest());
        self.rule(at_ns, ends::NAME, verdict);
    }

    /// An instance's process gets SIGTERM.
    pub fn told_to_end(&mut self, at_ns: u64, told: ToldToEnd) {
        let verdict = self.drained.told(at_ns, told, self.state_machine.agreed());
        self.rule(at_ns, drained::NAME, verdict);
    }

    /// A node was told that a cell is there.
    pub fn heard(&mut self, at_ns: u64, by: NodeId, cell_id: CellId) {
        self.heard.heard(at_ns, by, cell_id);
    }

    /// A node's clock showed a date.
    pub fn dated(&mut self, at_ns: u64, by: NodeId, date: Millis) {
        self.heard.dated(at_ns, by, date);
    }

    /// Nothing goes wrong from here on; or things do again.
    pub fn calm(&mut self, is_calm: bool) {
        let now = self.state_machine.latest().now();
        self.callbacks.calm(is_calm.then_some(now));
    }

    /// A node's disk was emptied: under its number nobody takes part any more.
    pub fn forgot(&mut self, node: NodeId) {
        self.forgetful.forgot(node);
    }

    /// A replica has started, on a disk of which this had rotted that a start reads.
    pub fn started(&mut self, at_ns: u64, node: NodeId, rotten: Option<&str>) {
        self.rule(at_ns, rot::NAME, rot::started(node, rotten));
    }

    /// A replica began a new life: its earlier states bind it no longer.
    pub fn restarted(&mut self, node: NodeId) {
        self.state_machine.restarted(node);
    }

    /// What clients do, for them to write down.
    pub fn history(&mut self) -> &mut History {
        &mut self.history
    }

    /// How many terms had a leader.
    pub fn terms(&self) -> usize {
        self.election_safety.terms()
    }

    /// The properties that can be judged only when all is quiet.
    pub fn finish(&mut self, at_ns: u64) {
        let verdict = self.state_machine.finish();
        self.rule(at_ns, state_machine::NAME, verdict);
        for what in acknowledged::check(&self.history) {
            self.violated(at_ns, acknowledged::NAME, what);
        }
        for what in linearizable::check(&self.history) {
            self.violated(at_ns, linearizable::NAME, what);
        }
    }
}
