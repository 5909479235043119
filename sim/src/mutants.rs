//! The catalogue of deliberate bugs: each is one that a change could bring, and that some checker
//! must find. Their places in the code ask `model::mutant!`.

use crate::world::Scope;

/// A deliberate bug.
#[derive(Debug)]
pub struct Mutant {
    /// The name that its place asks for.
    pub name: &'static str,
    /// The world in which it is looked for.
    pub scope: Scope,
    /// What it does.
    pub what: &'static str,
}

const fn nodes(name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, scope: Scope::Nodes, what }
}

const fn replicas(name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, scope: Scope::Replicas, what }
}

/// All of them: in apply, the turn, the cell, the log, snapshots, membership, proposals and reads.
pub const MUTANTS: &[Mutant] = &[
    replicas("start-unfenced", "a start is accepted of an instance that is not on record"),
    replicas("crash-unfenced", "a crash is accepted of an instance that is not on record"),
    nodes("start-keeps-copy", "an evacuating copy stays when its replacement runs"),
    replicas("place-without-room", "an instance is placed on a cell whose memory is taken"),
    nodes("restart-early", "an instance that keeps crashing rests half as long"),
    replicas("task-starts-anywhere", "a task starts on a cell that it was not placed on"),
    replicas("task-ends-anywhere", "a task is completed by a cell that does not run it"),
    nodes("cancel-after-end", "a task that has ended is cancelled"),
    replicas(
        "reject-unfenced",
        "the leader's rejection takes back a task that was placed meanwhile",
    ),
    nodes("removal-keeps-instances", "the instances of what is desired no more stay"),
    replicas("ids-differ", "instance guids depend on where something lies in memory"),
    nodes("evacuation-without-copy", "what runs on an evacuated cell is ended at once"),
    replicas("refusal-half-done", "the evacuation of a missing cell is refused, and begins"),
    replicas("cell-closes-early", "an evacuated cell is closed before its time is up"),
    replicas("domain-expires-early", "a domain goes before its time is up"),
    replicas("lock-expires-early", "a lock goes before its time is up"),
    replicas("lock-stolen", "a lock is taken from its owner"),
    nodes("lost-cell-keeps-tasks", "tasks of a missing cell wait for it"),
    replicas("journal-forgets-tasks", "rows of tasks are not written to the disk"),
    nodes("crashes-not-due", "a crashed instance is not listed as due to restart"),
    nodes("flag-keeps-apps", "apps of Docker run on when the flag is turned off"),
    nodes("flag-ignored", "images of Docker are taken whatever the flag says"),
    nodes("callbacks-forgotten", "tasks' clients are never told"),
    nodes("cells-missing-too-soon", "a cell is missing after an eighth of the TTL"),
    nodes("cells-never-missing", "a silent cell is never missing"),
    nodes("recreate-at-once", "what must not run twice is moved before the others run"),
    nodes("auction-ignores-intake", "cells that take no work are offered it"),
    nodes("orphans-stay", "a container that no record names is left alone"),
    nodes("drain-skipped", "an instance is told to end as soon as its record is gone"),
    nodes("crash-unreported", "an instance whose process ended is left alone"),
    nodes("task-runs-again", "a task that runs on record and has no container is made again"),
    nodes("task-runs-unasked", "a task is made before its start is agreed"),
    nodes("cell-trusts-old-state", "a cell begins with what its disk held, however old"),
    replicas(
        "disk-unchecked",
        "whoever is at a member's address answers for it, whatever its disk",
    ),
    replicas("disks-by-name", "an emptied disk is given the identity that it had"),
    replicas(
        "founds-beside-a-cluster",
        "a first member with an empty disk founds a second cluster",
    ),
    replicas("checksum-ignored", "what is read off a disk is taken as it is"),
    replicas("vote-unsynced", "a vote is given before it is synced"),
    replicas("append-unsynced", "an append is acknowledged before it is synced"),
    replicas("truncate-in-memory-only", "what a follower drops of its log stays on its disk"),
    replicas("purge-too-far", "two entries more are purged than a snapshot covers"),
    replicas(
        "rows-after-applied",
        "the applied index is written before the rows that belong to it",
    ),
    nodes("failed-disk-goes-on", "a replica goes on whose disk failed under an arriving snapshot"),
    replicas("snapshot-drops-rows", "a snapshot lacks some of its rows"),
    replicas("snapshot-without-membership", "a snapshot is installed without its membership"),
    replicas("membership-not-applied", "a change of members is not kept with the state"),
    replicas("unknown-called-not-made", "a proposal in doubt is said not to be made"),
    replicas("unknown-proposed-again", "a proposal in doubt is made again"),
    replicas("read-stale", "a read shows the node's own state at once"),
    replicas("read-unconfirmed", "a leader answers reads without asking whether it still leads"),
];
