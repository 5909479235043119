//! The one door: how a command changes the state, or why it does not.
//!
//! Never reads a clock, never draws a number, never waits, never fails half-way: a refused
//! command changes nothing.

mod cell;
mod cluster;
mod desired_lrp;
mod evacuation;
mod instance;
mod lock;
mod placement;
mod task;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Outcome, Proposal, Stamp};
use crate::event::Event;
use crate::refusal::Refusal;
use crate::state::State;

/// What an accepted command changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// In the order in which watchers are told. Empty when the state already was as asked.
    pub events: Vec<Event>,
}

impl Applied {
    /// Whether the command changed anything. A task may start only on a `true`.
    #[must_use]
    pub fn changed(&self) -> bool {
        !self.events.is_empty()
    }
}

/// Applies one command.
///
/// # Errors
///
/// A [`Refusal`], and then the state is as it was.
pub fn apply(state: &mut State, stamp: Stamp, command: Command) -> Result<Applied, Refusal> {
    let mut change = Change { stamp: clamp(state, stamp), state, events: Vec::new() };
    change.dispatch(command)?;
    let events = change.events;
    Ok(Applied { events })
}

/// Applies the commands of one log entry, each by itself, and moves the state's time on.
pub fn apply_proposal(
    state: &mut State,
    log_index: u64,
    proposal: Proposal,
) -> (Outcome, Vec<Event>) {
    let mut outcome = Outcome(Vec::with_capacity(proposal.commands.len()));
    let mut events = Vec::new();
    if proposal.at > state.now() {
        let cluster = crate::state::Cluster { now: proposal.at, ..state.cluster() };
        state.set_cluster(cluster);
    }
    for (position, command) in (0..).zip(proposal.commands) {
        let stamp = Stamp { log_index, position, at: proposal.at };
        let result = apply(state, stamp, command).map(|applied| {
            let changed = applied.changed();
            events.extend(applied.events);
            changed
        });
        outcome.0.push(result);
    }
    (outcome, events)
}

/// Time never goes back, whatever the clocks of successive leaders say.
fn clamp(state: &State, stamp: Stamp) -> Stamp {
    Stamp { at: stamp.at.max(state.now()), ..stamp }
}

/// A command being applied: the state it changes and the events so far.
struct Change<'a> {
    stamp: Stamp,
    state: &'a mut State,
    events: Vec<Event>,
}

impl Change<'_> {
    fn dispatch(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::InitCluster { salt } => self.init_cluster(salt),
            Command::DesireLrp { desired_lrp } => self.desire_lrp(*desired_lrp),
            Command::UpdateDesiredLrp { process_guid, update } => {
                self.update_desired_lrp(&process_guid, *update)
            }
            Command::RemoveDesiredLrp { process_guid } => self.remove_desired_lrp(&process_guid),
            Command::RetireLrp { process_guid, index } => self.retire_lrp(process_guid, index),
            Command::DesireTask { task_guid, domain, definition } => {
                self.desire_task(task_guid, domain, *definition)
            }
            Command::CancelTask { task_guid } => self.cancel_task(&task_guid),
            Command::ResolvingTask { task_guid } => self.resolving_task(&task_guid),
            Command::DeleteTask { task_guid } => self.delete_task(&task_guid),
            Command::UpsertDomain { domain, ttl } => self.upsert_domain(domain, ttl),
            Command::SetFeatureFlag { flag, enabled } => {
                self.set_feature_flag(flag, enabled);
                Ok(())
            }
            Command::CreateLrp { process_guid, index } => self.create_lrp(process_guid, index),
            Command::PlaceLrp { process_guid, index, cell_id } => {
                self.place_lrp(process_guid, index, cell_id)
            }
            Command::FailLrp { process_guid, index, placement_error } => {
                self.fail_lrp(process_guid, index, &placement_error)
            }
            Command::RestartLrp { process_guid, index } => self.restart_lrp(process_guid, index),
            Command::PlaceTask { task_guid, cell_id } => self.place_task(&task_guid, cell_id),
            Command::RejectTask { task_guid, reason } => self.reject_task(&task_guid, &reason),
            Command::ExpirePendingTask { task_guid } => self.expire_pending_task(&task_guid),
            Command::ExpireCompletedTask { task_guid } => self.expire_completed_task(&task_guid),
            Command::DemoteResolvingTask { task_guid } => self.demote_resolving_task(&task_guid),
            Command::ExpireDomain { domain } => self.expire_domain(&domain),
            Command::CellMissing { cell_id } => self.cell_missing(cell_id),
            Command::CellReturned { cell_id } => self.cell_returned(cell_id),
            Command::RegisterCell { cell } => self.register_cell(*cell),
            Command::StartLrp { key, instance, net_info, routable } => {
                self.start_lrp(&key, &instance, net_info, routable)
            }
            Command::CrashLrp { key, instance, reason } => self.crash_lrp(&key, &instance, &reason),
            Command::RemoveLrp { key, instance } => self.remove_lrp(&key, &instance),
            Command::StartTask { task_guid, cell_id } => self.start_task(&task_guid, cell_id),
            Command::CompleteTask { task_guid, cell_id, failed, failure_reason, result } => {
                let end = task::End { failed, failure_reason, result };
                self.complete_task(&task_guid, cell_id, end)
            }
            Command::RejectTaskOnCell { task_guid, cell_id, reason } => {
                self.reject_task_on_cell(&task_guid, cell_id, &reason)
            }
            Command::EvacuateCell { cell_id, timeout } => self.evacuate_cell(&cell_id, timeout),
            Command::OpenCell { cell_id } => self.open_cell(&cell_id),
            Command::RecreateLrp { process_guid, index } => self.recreate_lrp(process_guid, index),
            Command::CloseCell { cell_id } => self.close_cell(&cell_id),
            Command::FailTask { task_guid, reason } => self.fail_unended_task(&task_guid, &reason),
            Command::ClaimLock { key, owner, value, kind, ttl } => {
                self.claim_lock(lock::Claim { key, owner, value, kind, ttl })
            }
            Command::ReleaseLock { key, owner } => self.release_lock(&key, &owner),
            Command::ExpireLock { key } => self.expire_lock(&key),
            Command::EvacuateLrp { key, instance, runs } => {
                self.evacuate_lrp(&key, &instance, runs)
            }
        }
    }
}
