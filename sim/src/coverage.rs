//! Every event that a run can tell of, so that what never happened is seen: a zero is a gap.

use std::collections::BTreeMap;

use model::{Command, Refusal};

use crate::check::edges::EDGES;
use crate::world::Scope;

/// All events, each with what it means.
pub const EVENTS: &[(&str, &str)] = &[
    ("started", "a node was started"),
    ("crashed", "a node lost power"),
    ("crash_of_all", "all nodes were crashed at once"),
    ("crash_of_leader", "the leader was crashed"),
    ("zone_lost", "all nodes of a zone were crashed"),
    ("burned", "a node and its disk were lost for good"),
    ("forgot", "a node's disk was emptied, and it started again"),
    ("forgetful_refused", "it was told that it is no member any more, and ended"),
    ("rotted", "a stored bit flipped for good"),
    ("rot_found", "a replica found it, and stopped"),
    ("not_here", "a message came for another disk than the one that is there"),
    ("stranger_stopped", "a node that is no member any more was stopped"),
    ("clock_jumped", "a node's date was set anew"),
    ("power_cut", "all nodes lost power after healing"),
    ("replica_stopped", "a replica stopped by itself"),
    ("disk_failed", "a sync failed"),
    ("write_failed", "a write failed"),
    ("disk_full", "a write found no room"),
    ("bit_flipped", "a read gave a bit that is not stored"),
    ("sync_slow", "a sync took long"),
    ("elected", "a leader was elected and had its first entry applied"),
    ("vote_granted", "a vote was given"),
    ("vote_refused", "a vote was refused"),
    ("pre_vote_granted", "a vote would have been given"),
    ("pre_vote_refused", "a vote would have been refused"),
    ("agreed", "a command became known to be agreed, and was accepted"),
    ("refused", "a command became known to be agreed, and was refused"),
    ("log_truncated", "a follower dropped entries that were not agreed"),
    ("log_purged", "a log was purged behind a snapshot"),
    ("snapshot_chunk", "a chunk of a snapshot was put down, with more to come"),
    ("snapshot_installed", "a snapshot was installed"),
    ("snapshot_refused", "a snapshot's transfer had to start again"),
    ("snapshot_of_old_leader", "a snapshot came from a leader deposed"),
    ("transfer_asked", "the leader was asked to hand over"),
    ("transfer_done", "it did"),
    ("transfer_refused", "it could not"),
    ("transfer_unknown", "nobody took over in time"),
    ("leadership_taken", "a node took over when told to"),
    ("leadership_declined", "a node did not"),
    ("member_joined", "a learner was added"),
    ("member_promoted", "a learner was made a voter"),
    ("member_demoted", "a voter was made a learner"),
    ("member_removed", "a member was removed"),
    ("member_change_refused", "a change of members was refused"),
    ("member_change_unknown", "a change of members was left in doubt"),
    ("split", "the nodes were cut into two halves"),
    ("isolated", "one node was cut off from all others"),
    ("deafened", "one node could send and not hear"),
    ("muted", "one node could hear and not send"),
    ("tangled", "single directions were cut at random"),
    ("flapping", "one link went and came back, over and over"),
    ("links_mended", "all cuts were mended"),
    ("weather_changed", "network and disks got another mix"),
    ("message_cut", "a message met a cut link"),
    ("message_lost", "a message was lost"),
    ("message_doubled", "a message arrived twice"),
    ("request_failed", "a replica could not answer"),
    ("proposal_applied", "a client was told an outcome"),
    ("proposal_not_made", "a client was told that nothing was proposed"),
    ("proposal_unknown", "a client was told that nobody knows"),
    ("client_gave_up", "a client stopped waiting"),
    ("read_done", "a linearizable read was answered"),
    ("read_failed", "a linearizable read failed"),
    ("container_started", "a container's process was started"),
    ("registry_away", "the registry of images was away for a while"),
    ("container_not_made", "a container could not be made"),
    ("image_slow", "an image took long to come"),
    ("container_hung", "a container hung while it was made"),
    ("health_slow", "an instance took its time to be healthy"),
    ("never_healthy", "an instance was not healthy in its time"),
    ("readiness_turned", "an instance became ready, or unready"),
    ("sigterm_ignored", "a process ignored SIGTERM"),
    ("container_killed", "a container's process was killed"),
    ("process_ended", "a process ended by itself"),
    ("container_stopped", "a container was stopped"),
    ("container_destroyed", "a container was removed"),
    ("container_not_destroyed", "a container could not be removed yet"),
    ("callback_answered", "the client of a task was told that it has ended, and answered"),
    ("callback_failed", "the client of a task did not answer, or asked for another try"),
    ("instance_without_room", "an instance waited after healing, for a true reason"),
    ("containers_lost", "a machine lost power, and its containers their processes"),
    ("upgrade_began", "an operator began to upgrade all nodes, one after the other"),
    ("upgrade_done", "all were"),
    ("mended", "everything was mended"),
    ("came_right", "the cluster came right"),
];

/// Events that are wrong by themselves, and so no gap when they do not happen.
pub const WRONG: &[&str] = &["violated", "panicked"];

/// Every command, by the name that [`command`] counts it under.
pub const COMMANDS: &[&str] = &[
    "InitCluster",
    "DesireLrp",
    "UpdateDesiredLrp",
    "RemoveDesiredLrp",
    "RetireLrp",
    "DesireTask",
    "CancelTask",
    "ResolvingTask",
    "DeleteTask",
    "UpsertDomain",
    "SetFeatureFlag",
    "CreateLrp",
    "PlaceLrp",
    "FailLrp",
    "RestartLrp",
    "PlaceTask",
    "RejectTask",
    "ExpirePendingTask",
    "ExpireCompletedTask",
    "DemoteResolvingTask",
    "ExpireDomain",
    "CellMissing",
    "CellReturned",
    "RegisterCell",
    "StartLrp",
    "CrashLrp",
    "RemoveLrp",
    "StartTask",
    "CompleteTask",
    "RejectTaskOnCell",
    "EvacuateCell",
    "OpenCell",
    "RecreateLrp",
    "CloseCell",
    "FailTask",
    "ClaimLock",
    "ReleaseLock",
    "ExpireLock",
    "EvacuateLrp",
];

/// Every refusal, by the name that [`refusal`] counts it under. But for `ActualLrpCannotBeRemoved`,
/// which no command of ours comes to: it is of a route that only Diego's own cells use.
pub const REFUSALS: &[&str] = &[
    "refused: InvalidRequest",
    "refused: DesiredLrpExists",
    "refused: DesiredLrpNotFound",
    "refused: ActualLrpNotFound",
    "refused: TaskExists",
    "refused: TaskNotFound",
    "refused: CellNotFound",
    "refused: InvalidTaskTransition",
    "refused: RunningOnDifferentCell",
    "refused: ActualLrpCannotBeClaimed",
    "refused: ActualLrpCannotBeStarted",
    "refused: ActualLrpCannotBeCrashed",
    "refused: ActualLrpCannotBeFailed",
    "refused: ActualLrpCannotBeUnclaimed",
    "refused: CellNotPresent",
    "refused: NoRoom",
    "refused: FeatureDisabled",
    "refused: ClusterInitialised",
    "refused: NotDue",
    "refused: LockHeld",
];

/// A command's name.
pub(crate) fn command(command: &Command) -> &'static str {
    match command {
        Command::InitCluster { .. } => "InitCluster",
        Command::DesireLrp { .. } => "DesireLrp",
        Command::UpdateDesiredLrp { .. } => "UpdateDesiredLrp",
        Command::RemoveDesiredLrp { .. } => "RemoveDesiredLrp",
        Command::RetireLrp { .. } => "RetireLrp",
        Command::DesireTask { .. } => "DesireTask",
        Command::CancelTask { .. } => "CancelTask",
        Command::ResolvingTask { .. } => "ResolvingTask",
        Command::DeleteTask { .. } => "DeleteTask",
        Command::UpsertDomain { .. } => "UpsertDomain",
        Command::SetFeatureFlag { .. } => "SetFeatureFlag",
        Command::CreateLrp { .. } => "CreateLrp",
        Command::PlaceLrp { .. } => "PlaceLrp",
        Command::FailLrp { .. } => "FailLrp",
        Command::RestartLrp { .. } => "RestartLrp",
        Command::PlaceTask { .. } => "PlaceTask",
        Command::RejectTask { .. } => "RejectTask",
        Command::ExpirePendingTask { .. } => "ExpirePendingTask",
        Command::ExpireCompletedTask { .. } => "ExpireCompletedTask",
        Command::DemoteResolvingTask { .. } => "DemoteResolvingTask",
        Command::ExpireDomain { .. } => "ExpireDomain",
        Command::CellMissing { .. } => "CellMissing",
        Command::CellReturned { .. } => "CellReturned",
        Command::RegisterCell { .. } => "RegisterCell",
        Command::StartLrp { .. } => "StartLrp",
        Command::CrashLrp { .. } => "CrashLrp",
        Command::RemoveLrp { .. } => "RemoveLrp",
        Command::StartTask { .. } => "StartTask",
        Command::CompleteTask { .. } => "CompleteTask",
        Command::RejectTaskOnCell { .. } => "RejectTaskOnCell",
        Command::EvacuateCell { .. } => "EvacuateCell",
        Command::OpenCell { .. } => "OpenCell",
        Command::RecreateLrp { .. } => "RecreateLrp",
        Command::CloseCell { .. } => "CloseCell",
        Command::FailTask { .. } => "FailTask",
        Command::ClaimLock { .. } => "ClaimLock",
        Command::ReleaseLock { .. } => "ReleaseLock",
        Command::ExpireLock { .. } => "ExpireLock",
        Command::EvacuateLrp { .. } => "EvacuateLrp",
    }
}

/// A refusal's name.
pub(crate) fn refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::InvalidRequest(_) => "refused: InvalidRequest",
        Refusal::DesiredLrpExists(_) => "refused: DesiredLrpExists",
        Refusal::DesiredLrpNotFound(_) => "refused: DesiredLrpNotFound",
        Refusal::ActualLrpNotFound { .. } => "refused: ActualLrpNotFound",
        Refusal::TaskExists(_) => "refused: TaskExists",
        Refusal::TaskNotFound(_) => "refused: TaskNotFound",
        Refusal::CellNotFound(_) => "refused: CellNotFound",
        Refusal::InvalidTaskTransition { .. } => "refused: InvalidTaskTransition",
        Refusal::RunningOnDifferentCell { .. } => "refused: RunningOnDifferentCell",
        Refusal::ActualLrpCannotBeClaimed { .. } => "refused: ActualLrpCannotBeClaimed",
        Refusal::ActualLrpCannotBeStarted { .. } => "refused: ActualLrpCannotBeStarted",
        Refusal::ActualLrpCannotBeCrashed { .. } => "refused: ActualLrpCannotBeCrashed",
        Refusal::ActualLrpCannotBeFailed { .. } => "refused: ActualLrpCannotBeFailed",
        Refusal::ActualLrpCannotBeRemoved { .. } => "refused: ActualLrpCannotBeRemoved",
        Refusal::ActualLrpCannotBeUnclaimed { .. } => "refused: ActualLrpCannotBeUnclaimed",
        Refusal::CellNotPresent(_) => "refused: CellNotPresent",
        Refusal::NoRoom { .. } => "refused: NoRoom",
        Refusal::FeatureDisabled(_) => "refused: FeatureDisabled",
        Refusal::ClusterInitialised => "refused: ClusterInitialised",
        Refusal::NotDue => "refused: NotDue",
        Refusal::LockHeld(_) => "refused: LockHeld",
    }
}

/// Everything that is counted, in groups, each with its heading.
pub fn groups() -> [(&'static str, Vec<&'static str>); 4] {
    let events = EVENTS.iter().map(|(name, _)| *name).collect();
    [
        ("events", events),
        ("commands agreed", COMMANDS.to_vec()),
        ("refusals", REFUSALS.to_vec()),
        ("transitions", EDGES.to_vec()),
    ]
}

/// Adds the counts of one run to those of others.
pub fn add(total: &mut BTreeMap<&'static str, u64>, run: &BTreeMap<&'static str, u64>) {
    for (name, count) in run {
        *total.entry(name).or_default() += count;
    }
}

/// What cannot happen where there are replicas alone.
const OF_NODES: &[&str] = &[
    "container_started",
    "registry_away",
    "container_not_made",
    "image_slow",
    "container_hung",
    "health_slow",
    "never_healthy",
    "readiness_turned",
    "sigterm_ignored",
    "container_killed",
    "process_ended",
    "container_stopped",
    "container_destroyed",
    "container_not_destroyed",
    "callback_answered",
    "callback_failed",
    "containers_lost",
    "upgrade_began",
    "upgrade_done",
    "instance_without_room",
];

/// What never happened in runs of these scopes, and could have.
pub fn gaps(counts: &BTreeMap<&'static str, u64>, scopes: &[Scope]) -> Vec<&'static str> {
    let can = |name: &&str| scopes.contains(&Scope::Nodes) || !OF_NODES.contains(name);
    let names = groups().into_iter().flat_map(|(_, names)| names);
    names.filter(|name| !counts.contains_key(name)).filter(can).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_happen_is_a_gap() {
        let mut counts = BTreeMap::new();
        let all = groups().into_iter().flat_map(|(_, names)| names);
        add(&mut counts, &all.skip(1).map(|name| (name, 1)).collect());
        assert_eq!(gaps(&counts, &[Scope::Nodes, Scope::Replicas]), [EVENTS[0].0]);
        counts.remove(OF_NODES[0]);
        assert_eq!(gaps(&counts, &[Scope::Replicas]), [EVENTS[0].0]);
        assert_eq!(gaps(&counts, &[Scope::Nodes]), [EVENTS[0].0, OF_NODES[0]]);
    }

    #[test]
    fn commands_and_refusals_are_counted_under_names_that_are_listed() {
        assert!(COMMANDS.contains(&command(&Command::InitCluster { salt: 1 })));
        assert!(REFUSALS.contains(&refusal(&Refusal::NotDue)));
    }
}
