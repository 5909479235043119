//! Takes turns while this node leads: what is due is decided by [`plan::turn`], agreed as one
//! proposal, and looked at again when anything has changed.

use std::time::Duration;

use model::{Millis, Proposal};
use plan::presence::Sightings;
use plan::turn::turn;
use replica::AsyncRuntime;
use replica::async_runtime::Select2;
use replica::status::{Standing, Watcher};

use crate::limits::{TURN_PAUSE, TURN_RETRY, TURN_SWEEP, TURN_SWEEP_MISSING};
use crate::node::Agent;
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
    let since = agent.world().now();
    agent.forget_sightings();
    tracing::info!(term, "this node leads");
    while standing.leads && standing.term == term {
        let wait = take_turn(agent, since).await;
        W::Runtime::sleep(TURN_PAUSE).await;
        let changed = watcher.changed();
        match W::Runtime::select2(changed, W::Runtime::sleep(wait)).await {
            Select2::First(changed) => standing = changed?,
            Select2::Second(()) => {}
        }
    }
    tracing::info!(term, "this node no longer leads");
    Some(())
}

/// Plans, and has the plan agreed. Returns how long the next turn can wait if nothing changes.
async fn take_turn<W: World>(agent: &Agent<W>, since: Millis) -> Duration {
    let now = agent.world().now();
    let state = agent.read_stale().state;
    let mut sightings = Sightings::new(since);
    for (cell_id, at) in agent.heard(|cell_id| state.cell(cell_id).is_some()) {
        sightings.hear(cell_id, at);
    }
    let plan = turn(&state, &sightings, now);
    agent.set_report(plan.report);
    if plan.commands.is_empty() {
        let due = plan.next_due.map_or(TURN_SWEEP, |due| Duration::from_millis((due - now).0));
        // A missing cell that is heard again changes no state that would wake this loop.
        let is_any_missing = state.cells().any(|cell| !cell.is_present());
        let sweep = if is_any_missing { TURN_SWEEP_MISSING } else { TURN_SWEEP };
        return due.clamp(TURN_PAUSE, sweep);
    }
    let commands = plan.commands.len();
    match agent.replica().propose(&Proposal { at: now, commands: plan.commands }).await {
        Ok(outcome) => {
            for refusal in outcome.0.iter().filter_map(|result| result.as_ref().err()) {
                tracing::info!(%refusal, "the state had moved on since the plan");
            }
            tracing::debug!(commands, "took a turn");
            TURN_PAUSE
        }
        // Every command is checked again when it is applied, so planning anew is safe.
        Err(error) => {
            tracing::warn!(%error, commands, "a turn was not agreed");
            TURN_RETRY
        }
    }
}
