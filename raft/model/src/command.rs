//! Everything that can change the cluster. There is no other way.

use serde::{Deserialize, Serialize};

use crate::actual_lrp::{ActualLrpKey, InstanceKey, NetInfo};
use crate::cell::Cell;
use crate::desired_lrp::{DesiredLrp, DesiredLrpUpdate};
use crate::feature_flag::FeatureFlag;
use crate::id::{CellId, DomainName, LockKey, ProcessGuid, TaskGuid};
use crate::lock::LockKind;
use crate::refusal::Refusal;
use crate::task::TaskDefinition;
use crate::time::Millis;

/// One decision, by a face, by the leader's turn or by a cell.
///
/// The numbers are persisted: append variants, never reorder or reuse them. How to add one is
/// in `docs/add-a-command.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    // The cluster's birth.
    /// Gives a new cluster the salt of its ids. Refused the second time.
    InitCluster {
        salt: u32,
    },

    // Faces: what people and programs want.
    DesireLrp {
        desired_lrp: Box<DesiredLrp>,
    },
    UpdateDesiredLrp {
        process_guid: ProcessGuid,
        update: Box<DesiredLrpUpdate>,
    },
    RemoveDesiredLrp {
        process_guid: ProcessGuid,
    },
    /// Stops one instance; convergence makes a new one while it is still desired.
    RetireLrp {
        process_guid: ProcessGuid,
        index: u32,
    },
    DesireTask {
        task_guid: TaskGuid,
        domain: DomainName,
        definition: Box<TaskDefinition>,
    },
    CancelTask {
        task_guid: TaskGuid,
    },
    ResolvingTask {
        task_guid: TaskGuid,
    },
    DeleteTask {
        task_guid: TaskGuid,
    },
    /// `ttl` of `None` never expires.
    UpsertDomain {
        domain: DomainName,
        ttl: Option<Millis>,
    },
    SetFeatureFlag {
        flag: FeatureFlag,
        enabled: bool,
    },

    // The leader's turn.
    /// Makes the missing row of a desired index.
    CreateLrp {
        process_guid: ProcessGuid,
        index: u32,
    },
    /// Claims a cell for an unclaimed instance; apply mints the instance guid.
    PlaceLrp {
        process_guid: ProcessGuid,
        index: u32,
        cell_id: CellId,
    },
    /// Says why an unclaimed instance found no cell.
    FailLrp {
        process_guid: ProcessGuid,
        index: u32,
        placement_error: String,
    },
    /// Lets a crashed instance be placed again.
    RestartLrp {
        process_guid: ProcessGuid,
        index: u32,
    },
    PlaceTask {
        task_guid: TaskGuid,
        cell_id: CellId,
    },
    /// The task found no cell, or failed before its own code ran.
    RejectTask {
        task_guid: TaskGuid,
        reason: String,
    },
    /// Pending for too long.
    ExpirePendingTask {
        task_guid: TaskGuid,
    },
    /// Completed for too long, with nobody to resolve it.
    ExpireCompletedTask {
        task_guid: TaskGuid,
    },
    /// Resolving for too long: whoever resolved it is gone.
    DemoteResolvingTask {
        task_guid: TaskGuid,
    },
    ExpireDomain {
        domain: DomainName,
    },
    CellMissing {
        cell_id: CellId,
    },
    CellReturned {
        cell_id: CellId,
    },

    // Cells: what has happened there. All are fenced by the instance or the cell.
    RegisterCell {
        cell: Box<Cell>,
    },
    StartLrp {
        key: ActualLrpKey,
        instance: InstanceKey,
        net_info: NetInfo,
        /// Whether its readiness checks pass; true where it has none.
        routable: bool,
    },
    CrashLrp {
        key: ActualLrpKey,
        instance: InstanceKey,
        reason: String,
    },
    /// The container is gone, and nobody is to blame: it was stopped, or the node rebooted.
    RemoveLrp {
        key: ActualLrpKey,
        instance: InstanceKey,
    },
    /// Asks to start a task. Only the answer that says the state has changed allows it.
    StartTask {
        task_guid: TaskGuid,
        cell_id: CellId,
    },
    CompleteTask {
        task_guid: TaskGuid,
        cell_id: CellId,
        failed: bool,
        failure_reason: String,
        result: String,
    },
    /// As [`Command::RejectTask`], from the cell that holds it.
    RejectTaskOnCell {
        task_guid: TaskGuid,
        cell_id: CellId,
        reason: String,
    },

    // Evacuation: asked by a face, ended by the leader's turn.
    /// Gives a cell no more work, and moves what is there elsewhere within `timeout`.
    EvacuateCell {
        cell_id: CellId,
        timeout: Millis,
    },
    /// Gives a cell work again, whether its evacuation is over or not.
    OpenCell {
        cell_id: CellId,
    },
    /// Ends the running instance of an LRP that must not run twice, once all others run.
    RecreateLrp {
        process_guid: ProcessGuid,
        index: u32,
    },
    /// The time of an evacuation is up: what is left on the cell ends.
    CloseCell {
        cell_id: CellId,
    },

    // What only Diego's own API asks.
    /// Ends a task that has not ended, with a client's reason. Diego: deprecated.
    FailTask {
        task_guid: TaskGuid,
        reason: String,
    },
    /// Takes a lock that nobody else holds, or holds it longer.
    ClaimLock {
        key: LockKey,
        owner: String,
        value: String,
        kind: LockKind,
        ttl: Millis,
    },
    ReleaseLock {
        key: LockKey,
        owner: String,
    },
    /// By the leader's turn, once its owner has been silent for its time to live.
    ExpireLock {
        key: LockKey,
    },
    /// A cell of Diego's is emptied, container by container: this one goes elsewhere.
    EvacuateLrp {
        key: ActualLrpKey,
        instance: InstanceKey,
        /// Whether its container runs, and is to go on until its replacement does.
        runs: bool,
    },
}

/// When, and in what order: the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub log_index: u64,
    /// The command's place in its proposal.
    pub position: u32,
    /// The leader's time; apply never lets it go back.
    pub at: Millis,
}

/// One entry of the log: decisions that travel together. Each is accepted or refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The proposer's time.
    pub at: Millis,
    /// At most [`crate::limits::PROPOSAL_COMMANDS_MAX`].
    pub commands: Vec<Command>,
}

/// What became of each command of a proposal, in its order: whether it changed anything, or why
/// it was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome(pub Vec<Result<bool, Refusal>>);

impl std::fmt::Display for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} commands at {}", self.commands.len(), self.at)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let refused = self.0.iter().filter(|result| result.is_err()).count();
        write!(f, "{} commands, {refused} refused", self.0.len())
    }
}
