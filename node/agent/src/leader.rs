//! Takes turns while this node leads: what is due is decided by [`plan::turn`], agreed as one
//! proposal, and looked at again when anything has changed.

use std::time::Duration;

use model::{Command, Millis, Outcome, Proposal, State, TaskGuid};
use plan::turn::{Look, Plan, turn};
use replica::AsyncRuntime;
use replica::async_runtime::{Instant as _, Select2};
use replica::status::{Standing, Watcher};

use crate::callbacks;
use crate::limits::{TURN_PAUSE, TURN_PAUSE_TIMES, TURN_RETRY, TURN_SWEEP, TURN_SWEEP_MISSING};
use crate::node::{Agent, InstantOf};
use crate::world::World;

/// Runs until the replica stops.
pub(crate) async fn run<W: World>(agent: Agent<W>) {
    let mut watcher = agent.replica().watch();
    while let Some(standing) = watcher.changed().await {
        if standing.leads && lead(&agent, &mut watcher, standing).await.is_none() {
            return;
        }
    }
}

/// Takes turns for one term. A new leader starts all sightings at now: it cannot know who spoke
/// to the last one. `None` when the replica has stopped.
async fn lead<W: World>(
    agent: &Agent<W>,
    watcher: &mut Watcher<W::Runtime>,
    mut standing: Standing,
) -> Option<()> {
    let term = standing.term;
    let mut turns = Turns { agent, looked_at_everything: None, next_due: None, pause: TURN_PAUSE };
    agent.forget_sightings();
    tracing::info!(term, "this node leads");
    let mut woken = Woken::Change;
    while standing.leads && standing.term == term {
        let (wait, by) = turns.take(woken).await;
        W::Runtime::sleep(turns.pause).await;
        let changed = watcher.changed();
        woken = match W::Runtime::select2(changed, W::Runtime::sleep(wait)).await {
            Select2::First(changed) => {
                standing = changed?;
                Woken::Change
            }
            Select2::Second(()) => by,
        };
    }
    tracing::info!(term, "this node no longer leads");
    Some(())
}

/// The tasks that this proposal has made RESOLVING.
fn resolved(proposal: &Proposal, outcome: &Outcome) -> Vec<TaskGuid> {
    let changed = proposal.commands.iter().zip(&outcome.0);
    let changed = changed.filter(|(_, result)| **result == Ok(true));
    let guids = changed.filter_map(|(command, _)| {
        if let Command::ResolvingTask { task_guid } = command {
            Some(task_guid.clone())
        } else {
            None
        }
    });
    guids.collect()
}

/// Why a turn is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    /// Something was applied, or a plan is to be made anew.
    Change,
    /// Something is due.
    Due,
    /// A missing cell may have been heard, which changes no state.
    Poll,
    /// Nothing happened for [`TURN_SWEEP`].
    Sweep,
}

/// The turns of one term.
struct Turns<'a, W: World> {
    agent: &'a Agent<W>,
    /// When a turn last looked at every row.
    looked_at_everything: Option<InstantOf<W>>,
    /// When the last turn wanted the next.
    next_due: Option<Millis>,
    /// Before the next at the least.
    pause: Duration,
}

/// How long to pause after a turn whose planning took so long. Where much waits that no cell has
/// room for, each turn looks at all of it again, and each change asks for a turn: the processor is
/// left to others for [`TURN_PAUSE_TIMES`] as long. One that left more to decide goes on.
fn pause_after(planning: Duration, is_cut: bool) -> Duration {
    if is_cut { TURN_PAUSE } else { TURN_PAUSE.max(planning * TURN_PAUSE_TIMES) }
}

/// Tells the log where that went whose client follows it by a trace id.
fn tell_placements(state: &State, proposal: &Proposal, outcome: &Outcome) {
    for (command, result) in proposal.commands.iter().zip(&outcome.0) {
        if !matches!(result, Ok(true)) {
            continue;
        }
        if let Command::PlaceLrp { process_guid, index, cell_id } = command {
            let trace_id = state.desired_lrp(process_guid).map_or("", |lrp| &lrp.trace_id);
            if !trace_id.is_empty() {
                tracing::info!(%process_guid, index, %cell_id, trace_id, "placed");
            }
        } else if let Command::PlaceTask { task_guid, cell_id } = command {
            let trace_id = state.task(task_guid).map_or("", |task| &task.definition.trace_id);
            if !trace_id.is_empty() {
                tracing::info!(%task_guid, %cell_id, trace_id, "placed");
            }
        }
    }
}

impl<W: World> Turns<'_, W> {
    /// Plans, and has the plan agreed. Returns how long the next turn can wait if nothing
    /// changes, and what it would wait for.
    async fn take(&mut self, woken: Woken) -> (Duration, Woken) {
        let agent = self.agent;
        let now = agent.world().now();
        let state = agent.read_stale().state;
        let look = self.look();
        let mut settings = agent.world().settings();
        let sightings = agent.sightings(&state, now, settings.presence_ttl);
        settings.callbacks_max = settings.callbacks_max.saturating_sub(agent.callbacks());
        let begun = InstantOf::<W>::now();
        let plan = turn(&state, &sightings, now, &settings, look);
        let is_cut = plan.next_due.is_some_and(|due| due <= now);
        self.pause = pause_after(begun.elapsed(), is_cut);
        self.count_overlooked(&plan, woken, now);
        self.next_due = plan.next_due;
        agent.set_report(plan.report);
        if plan.commands.is_empty() {
            return self.rest(&state, plan.next_due, now);
        }
        let commands = plan.commands.len();
        let proposal = Proposal { at: now, commands: plan.commands };
        match agent.replica().propose(&proposal).await {
            Ok(outcome) => {
                callbacks::begin(agent, resolved(&proposal, &outcome));
                for refusal in outcome.0.iter().filter_map(|result| result.as_ref().err()) {
                    tracing::info!(%refusal, "the state had moved on since the plan");
                }
                tell_placements(&state, &proposal, &outcome);
                tracing::debug!(commands, "took a turn");
                (TURN_PAUSE, Woken::Change)
            }
            // Every command is checked again when it is applied, so planning anew is safe.
            Err(error) => {
                tracing::warn!(%error, commands, "a turn was not agreed");
                (TURN_RETRY, Woken::Change)
            }
        }
    }

    /// Every row is looked at by the first turn, and then once a sweep.
    fn look(&mut self) -> Look {
        let now = InstantOf::<W>::now();
        let is_fresh = |at| now.saturating_duration_since(at) < TURN_SWEEP;
        if self.looked_at_everything.is_some_and(is_fresh) {
            return Look::AtWhatIsDue;
        }
        self.looked_at_everything = Some(now);
        Look::AtEverything
    }

    /// What only a sweep found should have been found by an event: it is done, and counted.
    fn count_overlooked(&self, plan: &Plan, woken: Woken, now: Millis) {
        // A missing cell is heard by looking for it, by whatever turn comes first.
        let is_return = |command: &&Command| matches!(command, Command::CellReturned { .. });
        // A clock that jumped makes things due before their time has passed.
        let is_early = self.next_due.is_none_or(|due| now < due);
        let overlooked = match woken {
            Woken::Sweep if is_early => {
                plan.commands.iter().filter(|command| !is_return(command)).count()
            }
            Woken::Change | Woken::Due | Woken::Poll | Woken::Sweep => plan.overlooked,
        };
        if overlooked > 0 {
            tracing::error!(overlooked, commands = ?plan.commands, "events missed what was due");
            self.agent.count_overlooked(overlooked);
        }
    }

    fn rest(&self, state: &State, next_due: Option<Millis>, now: Millis) -> (Duration, Woken) {
        let mut rest = (TURN_SWEEP, Woken::Sweep);
        if state.cells().any(|cell| !cell.is_present()) {
            rest = (TURN_SWEEP_MISSING, Woken::Poll);
        }
        if let Some(due) = next_due {
            let wait = self.agent.world().duration(due - now).max(TURN_PAUSE);
            if wait <= rest.0 {
                rest = (wait, Woken::Due);
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_turn_that_decided_all_is_followed_by_a_long_pause() {
        let millis = Duration::from_millis;
        assert_eq!(pause_after(millis(0), false), TURN_PAUSE);
        assert_eq!(pause_after(millis(40), false), millis(120));
        assert_eq!(pause_after(millis(40), true), TURN_PAUSE, "what is left is not to wait");
    }
}
