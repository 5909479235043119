//! Every event that a run can tell of, so that what never happened is seen: a zero is a gap.

use std::collections::BTreeMap;

/// All events, each with what it means.
pub const EVENTS: &[(&str, &str)] = &[
    ("started", "a node was started"),
    ("crashed", "a node lost power"),
    ("crash_of_all", "all nodes were crashed at once"),
    ("crash_of_leader", "the leader was crashed"),
    ("power_cut", "all nodes lost power after healing"),
    ("replica_stopped", "a replica stopped by itself"),
    ("disk_failed", "a sync failed"),
    ("sync_slow", "a sync took long"),
    ("elected", "a leader was elected and had its first entry applied"),
    ("vote_granted", "a vote was given"),
    ("vote_refused", "a vote was refused"),
    ("pre_vote_granted", "a vote would have been given"),
    ("pre_vote_refused", "a vote would have been refused"),
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
    ("container_not_made", "a container could not be made"),
    ("container_killed", "a container's process was killed"),
    ("process_ended", "a process ended by itself"),
    ("container_stopped", "a container was stopped"),
    ("container_destroyed", "a container was removed"),
    ("container_not_destroyed", "a container could not be removed yet"),
    ("callback_answered", "the client of a task was told that it has ended, and answered"),
    ("callback_failed", "the client of a task did not answer, or asked for another try"),
    ("containers_lost", "a machine lost power, and its containers their processes"),
    ("upgrade_began", "an operator began to upgrade all nodes, one after the other"),
    ("upgrade_done", "all were"),
    ("mended", "everything was mended"),
    ("came_right", "the cluster came right"),
    ("joint_left", "a change of voters was still half-way after healing"),
];

/// Events that are wrong by themselves, and so no gap when they do not happen.
pub const WRONG: &[&str] = &["violated", "panicked"];

/// Adds the counts of one run to those of others.
pub fn add(total: &mut BTreeMap<&'static str, u64>, run: &BTreeMap<&'static str, u64>) {
    for (name, count) in run {
        *total.entry(name).or_default() += count;
    }
}

/// The events that never happened.
pub fn gaps(counts: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let names = EVENTS.iter().map(|(name, _)| *name);
    names.filter(|name| !counts.contains_key(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_happen_is_a_gap() {
        let mut counts = BTreeMap::new();
        add(&mut counts, &EVENTS.iter().skip(1).map(|(name, _)| (*name, 1)).collect());
        assert_eq!(gaps(&counts), [EVENTS[0].0]);
    }
}
