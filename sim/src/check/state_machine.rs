//! **State machine safety: every state that a replica shows is the state of the one agreed log.**
//!
//! The log is put together from the entries that leaders send, backwards from each one that is
//! said to be agreed, and applied here with the model's own `apply`. A state shown for an index
//! must equal the state here at that index, whether it was applied, came in a snapshot or off the
//! disk: so memory and rows agree on each node, and all nodes with each other. Within one life a
//! replica never goes back. Source: Raft thesis, figure 3.2; design rule 7.

use std::collections::{BTreeMap, BTreeSet};

use model::{Command, Millis, Outcome, Proposal, Refusal, RowKey, Stamp, State, codec};
use replica::NodeId;
use replica::wire::{Blob, LogId};

use super::log_matching::LogMatching;
use super::{Shown, Verdict, Whence};

pub(super) const NAME: &str = "state machine safety";

/// An agreed entry on its way into the log.
#[derive(Debug)]
pub(super) struct Agreed {
    /// The bytes of the proposal, if it is one.
    pub(super) proposal: Option<Blob>,
}

/// The agreed log and what it amounts to.
#[derive(Debug, Default)]
pub(super) struct StateMachine {
    log: Vec<LogId>,
    /// The state after each entry: clones that share their rows.
    states: Vec<State>,
    /// Shown before the entry was known to be agreed.
    waiting: Vec<Shown>,
    /// How far each replica has come in its present life.
    shown: BTreeMap<NodeId, u64>,
    /// The last state of each replica that was found right, and its place in `states`.
    right: BTreeMap<NodeId, (usize, State)>,
}

impl StateMachine {
    /// The last entry known to be agreed.
    pub(super) fn agreed(&self) -> Option<u64> {
        self.log.last().map(|id| id.index)
    }

    /// The last entry known to be agreed of terms before this one.
    pub(super) fn agreed_before(&self, term: u64) -> Option<u64> {
        let earlier = self.log.partition_point(|id| id.term < term);
        Some(self.log.get(earlier.checked_sub(1)?)?.index)
    }

    /// The state after it.
    pub(super) fn latest(&self) -> &State {
        static EMPTY: std::sync::OnceLock<State> = std::sync::OnceLock::new();
        self.states.last().unwrap_or_else(|| EMPTY.get_or_init(State::default))
    }

    /// The state after it.
    pub(super) fn state(&self) -> State {
        self.latest().clone()
    }

    /// The entries that become agreed when `id` is, in their order.
    pub(super) fn chain(
        &self,
        sent: &LogMatching,
        id: LogId,
    ) -> Result<Vec<(LogId, Agreed)>, String> {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            if let Some(known) = self.known(id.index) {
                if known != id {
                    return Err(format!("entries {known} and {id} are both agreed"));
                }
                break;
            }
            let Some(entry) = sent.get(id) else {
                // The first entry is the membership that each first member gives itself.
                if id.index > 0 {
                    return Err(format!("entry {id} is agreed and was never sent"));
                }
                chain.push((id, Agreed { proposal: None }));
                break;
            };
            chain.push((id, Agreed { proposal: entry.proposal().cloned() }));
            next = entry.previous;
        }
        chain.reverse();
        let starts_at = chain.first().map_or(self.log.len() as u64, |(id, _)| id.index);
        if starts_at != self.log.len() as u64 {
            return Err(format!("entry {id} is agreed and does not reach back to the agreed log"));
        }
        Ok(chain)
    }

    fn known(&self, index: u64) -> Option<LogId> {
        usize::try_from(index).ok().and_then(|index| self.log.get(index)).copied()
    }

    /// Applies the next entry, a command at a time. Returns the steps, if it is a proposal.
    pub(super) fn apply(&mut self, id: LogId, proposal: Option<&Blob>) -> Option<Steps> {
        assert_eq!(id.index, self.log.len() as u64, "the agreed log grows one by one");
        let mut state = self.state();
        let steps = proposal.map(|bytes| {
            let proposal = codec::decode_proposal(&bytes.0).expect("a replica checked the bytes");
            steps(&mut state, id.index, proposal)
        });
        state.take_journal();
        self.log.push(id);
        self.states.push(state);
        steps
    }

    /// A replica showed a state.
    pub(super) fn shown(&mut self, shown: Shown) -> Verdict {
        // An answer may be of an earlier life, and a later state may have been shown since.
        if shown.whence != Whence::Read {
            let before = self.shown.entry(shown.node).or_default();
            if *before > shown.applied {
                let Shown { node, applied, .. } = shown;
                return Err(format!("node {node} showed entry {applied} after entry {before}"));
            }
            *before = shown.applied;
        }
        if self.known(shown.applied).is_none() {
            self.waiting.push(shown);
            return Ok(());
        }
        self.compare(&shown)
    }

    /// Compares what had to wait. Returns what is wrong.
    pub(super) fn check_waiting(&mut self) -> Vec<String> {
        let agreed = self.agreed();
        let ready = |shown: &mut Shown| Some(shown.applied) <= agreed;
        let ready: Vec<Shown> = self.waiting.extract_if(.., ready).collect();
        let mut wrong = Vec::new();
        for shown in ready {
            wrong.extend(self.compare(&shown).err());
        }
        wrong
    }

    fn compare(&mut self, shown: &Shown) -> Verdict {
        let index = usize::try_from(shown.applied).expect("an index that is known fits");
        if self.is_right(index, shown) {
            self.right.insert(shown.node, (index, shown.state.clone()));
            return Ok(());
        }
        let whence = match shown.whence {
            Whence::Disk => "read from its disk",
            Whence::Newest => "shows",
            Whence::Read => "answered a read with",
        };
        Err(format!(
            "node {} {whence} a state {:016x} at entry {}, where the log amounts to {:016x}: {}",
            shown.node,
            codec::digest(&shown.state),
            self.log[index],
            codec::digest(&self.states[index]),
            first_difference(&shown.state, &self.states[index]),
        ))
    }

    /// Whether a shown state is that of the log. From a state that was right it is enough to look
    /// at what has changed since, there or here.
    fn is_right(&self, index: usize, shown: &Shown) -> bool {
        let agreed = &self.states[index];
        let Some((then, right)) = self.right.get(&shown.node) else {
            return *agreed == shown.state;
        };
        let there = right.differences(&shown.state);
        let changed: BTreeSet<RowKey> =
            there.chain(self.states[*then].differences(agreed)).collect();
        let is_same = |row| codec::row_value(&shown.state, row) == codec::row_value(agreed, row);
        changed.iter().all(is_same)
    }

    /// A replica begins a new life, which may begin further back.
    pub(super) fn restarted(&mut self, node: NodeId) {
        self.shown.remove(&node);
    }

    /// Everything shown must have been agreed in the end.
    pub(super) fn finish(&self) -> Verdict {
        match self.waiting.first() {
            None => Ok(()),
            Some(shown) => Err(format!(
                "node {} showed entry {}, which never was agreed",
                shown.node, shown.applied
            )),
        }
    }
}

/// One command of an agreed entry: what it was given and what came of it.
#[derive(Debug)]
pub(super) struct Step {
    /// The state before it.
    pub(super) before: State,
    /// The state after it.
    pub(super) after: State,
    /// The command.
    pub(super) command: Command,
    /// Whether it changed anything, or why it was refused.
    pub(super) result: Result<bool, Refusal>,
}

/// The commands of one agreed entry.
#[derive(Debug)]
pub(super) struct Steps {
    /// The date of the proposal, by the clock of who made it.
    pub(super) at: Millis,
    /// Its commands, in order.
    pub(super) steps: Vec<Step>,
}

impl Steps {
    /// What the entry came to.
    pub(super) fn outcome(&self) -> Outcome {
        Outcome(self.steps.iter().map(|step| step.result.clone()).collect())
    }
}

/// What [`model::apply_proposal`] does, seen at each command.
fn steps(state: &mut State, log_index: u64, proposal: Proposal) -> Steps {
    let at = proposal.at;
    let none = Proposal { at, commands: Vec::new() };
    model::apply_proposal(state, log_index, none);
    let steps = (0..).zip(proposal.commands).map(|(position, command)| {
        let before = state.clone();
        let stamp = Stamp { log_index, position, at };
        let result = model::apply(state, stamp, command.clone()).map(|applied| applied.changed());
        Step { before, after: state.clone(), command, result }
    });
    Steps { at, steps: steps.collect() }
}

/// The first row in which two states differ.
fn first_difference(shown: &State, agreed: &State) -> String {
    let Some(row) = shown.differences(agreed).next() else {
        return "all rows are the same, what is derived differs".into();
    };
    let side = match (codec::row_value(shown, &row), codec::row_value(agreed, &row)) {
        (Some(_), None) => "is there and should not be",
        (None, _) => "is missing",
        (Some(_), Some(_)) => "has other content",
    };
    format!("row {row:?} {side}")
}

#[cfg(test)]
mod tests {
    use replica::peers::AppendEntries;
    use replica::wire::{Body, Entry, Vote};

    use super::*;

    fn id(index: u64) -> LogId {
        LogId { term: 1, index }
    }

    /// A log of 4 entries, of which `agreed` are known to be.
    fn machine(agreed: u64) -> (StateMachine, LogMatching) {
        let entry = |index: u64| {
            let flag = model::FeatureFlag::DiegoDocker;
            let commands = vec![Command::SetFeatureFlag { flag, enabled: index.is_multiple_of(2) }];
            let bytes = codec::encode_proposal(&Proposal { at: Millis(index), commands });
            Entry { log_id: id(index), body: Body::Proposal(Blob(bytes.into())) }
        };
        let mut sent = LogMatching::default();
        let vote = Vote { term: 1, node: 1, committed: true };
        let entries = (1..=4).map(entry).collect();
        let append = AppendEntries { vote, previous: Some(id(0)), entries, committed: None };
        sent.sent(&append).unwrap();
        let mut machine = StateMachine::default();
        for (id, entry) in machine.chain(&sent, id(agreed)).unwrap() {
            machine.apply(id, entry.proposal.as_ref());
        }
        (machine, sent)
    }

    fn shown(applied: u64, like: u64) -> Shown {
        let state = machine(like).0.state();
        Shown { node: 1, whence: Whence::Newest, applied, state }
    }

    #[test]
    fn a_state_of_the_log_is_right_and_another_is_not() {
        let (mut machine, _) = machine(4);
        assert!(machine.shown(shown(3, 3)).is_ok());
        assert!(machine.shown(shown(4, 4)).is_ok());
        assert!(machine.shown(shown(4, 3)).is_err());
    }

    #[test]
    fn a_state_ahead_of_the_log_waits_for_its_judgement() {
        for (like, wrong) in [(4, 0), (3, 1)] {
            let (mut machine, sent) = machine(2);
            assert!(machine.shown(shown(4, like)).is_ok());
            assert!(machine.finish().is_err());
            for (id, entry) in machine.chain(&sent, id(4)).unwrap() {
                machine.apply(id, entry.proposal.as_ref());
            }
            assert_eq!(machine.check_waiting().len(), wrong);
            assert!(machine.finish().is_ok());
        }
    }

    #[test]
    fn a_replica_goes_back_only_in_a_new_life() {
        let (mut machine, _) = machine(4);
        assert!(machine.shown(shown(4, 4)).is_ok());
        assert!(machine.shown(shown(2, 2)).is_err());
        machine.restarted(1);
        assert!(machine.shown(shown(1, 1)).is_ok());
    }

    #[test]
    fn what_was_agreed_in_later_terms_is_told_apart() {
        let (machine, _) = machine(4);
        assert_eq!(machine.agreed_before(1), None);
        assert_eq!(machine.agreed_before(2), Some(4));
    }

    #[test]
    fn two_agreed_entries_at_one_index_are_seen() {
        let (machine, sent) = machine(4);
        assert!(machine.chain(&sent, id(2)).unwrap().is_empty());
        assert!(machine.chain(&sent, LogId { term: 2, index: 2 }).is_err());
        assert!(machine.chain(&sent, LogId { term: 2, index: 9 }).is_err());
    }
}
