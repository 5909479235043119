//! The leader's turn: everything that should be decided now, as one proposal.
//!
//! A turn has three steps: cells gone and back, convergence, auction. Each works on a clone of
//! the state to which [`model::apply()`] has applied the steps before, so that one round of Raft
//! carries all of them and planner and machine cannot disagree. The real state is never touched.

use model::{Command, Millis, Refusal, Stamp, State};

use crate::auction;
use crate::convergence;
use crate::limits::TURN_COMMANDS_MAX;
use crate::presence::{self, Sightings};
use crate::report::Report;

/// What the leader should propose, and why it is not more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are to be applied; at most [`TURN_COMMANDS_MAX`].
    pub commands: Vec<Command>,
    pub report: Report,
    /// Once this plan is applied: the earliest moment at which a turn would find more to do if
    /// nothing else happened; now, when this turn had more to decide than fits. Every change of
    /// the state, and a missing cell that is heard, is a reason for a turn besides.
    pub next_due: Option<Millis>,
}

/// Decides what should be done next. The same arguments give the same plan.
///
/// `now` is the leader's clock. Commands are planned for `now`, or for the state's own time where
/// that is later, as apply will have it.
#[must_use]
pub fn turn(state: &State, sightings: &Sightings, now: Millis) -> Plan {
    let mut draft = Draft::new(state, now);
    let mut due = Due::default();
    let mut report = Report::default();

    draft.decide_all(presence::changes(state, sightings, now, &mut due));
    let converged = convergence::survey(&draft.state, draft.at, &mut report, &mut due);
    draft.decide_all(converged);
    let room = draft.room();
    let placed = auction::run(&draft.state, draft.at, room, &mut report, &mut due);
    draft.is_cut |= placed.is_cut;
    draft.decide_last(placed.commands);

    if draft.is_cut {
        due.at(now);
    }
    Plan { commands: draft.commands, report, next_due: due.0 }
}

/// The state as it will be once the plan so far is applied.
struct Draft {
    state: State,
    at: Millis,
    commands: Vec<Command>,
    is_cut: bool,
}

impl Draft {
    fn new(state: &State, now: Millis) -> Self {
        let at = now.max(state.now());
        Self { state: state.clone(), at, commands: Vec::new(), is_cut: false }
    }

    fn room(&self) -> usize {
        TURN_COMMANDS_MAX - self.commands.len()
    }

    /// Takes as many as there is room for, and applies them for the steps that follow.
    fn decide_all(&mut self, commands: Vec<Command>) {
        self.is_cut |= commands.len() > self.room();
        let room = self.room();
        for command in commands.into_iter().take(room) {
            let result = self.rehearse(command.clone());
            debug_assert!(result.is_ok(), "{command:?}: {result:?}");
            // A refusal would be a mistake of the planner, and harmless: it is left out.
            if result.is_ok() {
                self.commands.push(command);
            }
        }
    }

    /// As [`Self::decide_all`] for the last step. No step looks at the state after it, and the
    /// auction keeps its own account of the room, so only builds that check themselves (tests
    /// and the simulator) spend the time to apply thousands of placements.
    fn decide_last(&mut self, commands: Vec<Command>) {
        if cfg!(debug_assertions) {
            self.decide_all(commands);
        } else {
            self.commands.extend(commands);
        }
        assert!(self.commands.len() <= TURN_COMMANDS_MAX, "a turn fits one proposal");
    }

    /// Applies to the clone. The real log index is not known yet: ids that apply mints here are
    /// made up, from an index that no log reaches, and never leave this module.
    fn rehearse(&mut self, command: Command) -> Result<(), Refusal> {
        const LOG_INDEX: u64 = (1 << 48) - 1;
        let position = u32::try_from(self.commands.len()).expect("a turn is far below 2^32");
        let stamp = Stamp { log_index: LOG_INDEX, position, at: self.at };
        model::apply(&mut self.state, stamp, command).map(drop)
    }
}

/// The earliest of the moments that something waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due(Option<Millis>);

impl Due {
    pub(crate) fn at(&mut self, moment: Millis) {
        self.0 = Some(self.0.map_or(moment, |earliest| earliest.min(moment)));
    }
}
