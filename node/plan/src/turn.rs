//! The leader's turn: everything that should be decided now, as one proposal.
//!
//! A turn has steps: cells gone and back, convergence, evacuation, callbacks, auction. Each works on a clone of
//! the state to which [`model::apply()`] has applied the steps before, so that one round of Raft
//! carries all of them and planner and machine cannot disagree. The real state is never touched.

use model::{Command, Millis, Refusal, Stamp, State};

use crate::auction;
use crate::callbacks;
use crate::convergence;
use crate::evacuation;
use crate::limits::TURN_COMMANDS_MAX;
use crate::presence::{self, Sightings};
use crate::report::Report;
use crate::settings::Settings;

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
    /// How many of the commands only a look at everything found. Anything but 0 is a mistake of
    /// ours.
    pub overlooked: usize,
}

/// How hard a turn looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// At what the state knows to be waiting or due.
    AtWhatIsDue,
    /// At every row besides: the safety net.
    AtEverything,
}

/// Decides what should be done next. The same arguments give the same plan.
///
/// `now` is the leader's clock. Commands are planned for `now`, or for the state's own time where
/// that is later, as apply will have it.
#[must_use]
pub fn turn(
    state: &State,
    sightings: &Sightings,
    now: Millis,
    settings: &Settings,
    look: Look,
) -> Plan {
    let mut draft = Draft::new(state, now);
    let mut report = Report::default();

    let gone_and_back =
        presence::changes(state, sightings, now, settings.presence_ttl, &mut draft.due);
    draft.decide_all(gone_and_back);
    convergence::converge(&mut draft);
    evacuation::recreate(&mut draft);
    callbacks::resolve(&mut draft, settings.callbacks_max);
    let mut overlooked = 0;
    if look == Look::AtEverything && !draft.is_cut {
        let before = draft.commands.len();
        let mut found = convergence::overlooked(&draft.state, draft.at);
        found.extend(callbacks::overlooked(&draft.state));
        draft.decide_all(found);
        overlooked = draft.commands.len() - before;
    }
    let room = draft.room();
    let placed = auction::run(&draft.state, draft.at, settings, room, &mut report, &mut draft.due);
    draft.is_cut |= placed.is_cut;
    draft.decide_last(placed.commands);

    if draft.is_cut {
        draft.due.at(now);
    }
    Plan { commands: draft.commands, report, next_due: draft.due.0, overlooked }
}

/// The state as it will be once the plan so far is applied.
pub(crate) struct Draft {
    state: State,
    at: Millis,
    commands: Vec<Command>,
    /// There was more to decide than fits.
    is_cut: bool,
    pub(crate) due: Due,
}

impl Draft {
    fn new(state: &State, now: Millis) -> Self {
        let at = now.max(state.now());
        let (commands, due) = (Vec::new(), Due::default());
        Self { state: state.clone(), at, commands, is_cut: false, due }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The time at which the plan will be applied, or shortly before.
    pub(crate) fn at(&self) -> Millis {
        self.at
    }

    pub(crate) fn room(&self) -> usize {
        TURN_COMMANDS_MAX - self.commands.len()
    }

    /// Takes as many as there is room for, and applies them for the steps that follow.
    pub(crate) fn decide_all(&mut self, commands: Vec<Command>) {
        for command in commands {
            if !self.decide(command) && self.is_cut {
                return;
            }
        }
    }

    /// Takes one, if there is room for it. Returns whether it was taken.
    pub(crate) fn decide(&mut self, command: Command) -> bool {
        if self.room() == 0 {
            self.is_cut = true;
            return false;
        }
        let result = self.rehearse(command.clone());
        debug_assert!(result.is_ok(), "{command:?}: {result:?}");
        // A refusal would be a mistake of the planner, and harmless: it is left out.
        if result.is_ok() {
            self.commands.push(command);
        }
        result.is_ok()
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
