//! openraft's type configuration, generic over the runtime, and the way to and from our own
//! [`wire`] values. The only module, besides those implementing its traits, that knows how
//! openraft spells things.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftTypeConfig};

use crate::state::StateStore;
use crate::wire::{self, Blob, Node, NodeId};

/// openraft's types for a replica on runtime `RT`. Standard Raft: at most one leader a term.
pub(crate) struct Types<RT>(PhantomData<fn() -> RT>);

pub(crate) type LogId = openraft::LogId<CommittedLeaderId<u64>>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId<u64, NodeId>>;
pub(crate) type Membership = openraft::Membership<NodeId, Node>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId<u64>, NodeId, Node>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId<u64>, EntryPayload<Blob, NodeId, Node>>;
pub(crate) type SnapshotMeta =
    openraft::storage::SnapshotMeta<CommittedLeaderId<u64>, NodeId, Node>;
pub(crate) type Raft<RT, D> = openraft::Raft<Types<RT>, StateStore<RT, D>>;

impl<RT: AsyncRuntime> RaftTypeConfig for Types<RT> {
    type D = Blob;
    type R = model::Outcome;
    type NodeId = NodeId;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId<u64, NodeId>;
    type Vote = Vote;
    type Payload = EntryPayload<Blob, NodeId, Node>;
    type Entry = Entry;
    type AsyncRuntime = RT;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

// The derives would ask the same of `RT`, of which there is never a value here.
impl<RT> fmt::Debug for Types<RT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<RT> Clone for Types<RT> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<RT> Copy for Types<RT> {}
impl<RT> Default for Types<RT> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<RT> PartialEq for Types<RT> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<RT> Eq for Types<RT> {}
impl<RT> PartialOrd for Types<RT> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<RT> Ord for Types<RT> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

pub(crate) fn log_id(id: wire::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term), id.index)
}

pub(crate) fn wire_log_id(id: LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn vote(vote: wire::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    }
}

pub(crate) fn wire_vote(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

/// Fails on a membership that openraft would not have made, such as a voter without an address.
pub(crate) fn membership(membership: wire::Membership) -> Result<Membership, String> {
    Membership::new(membership.voters, membership.nodes).map_err(|error| error.to_string())
}

pub(crate) fn wire_membership(membership: &Membership) -> wire::Membership {
    wire::Membership {
        voters: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
    }
}

pub(crate) fn stored_membership(
    effective: wire::EffectiveMembership,
) -> Result<StoredMembership, String> {
    let empty = effective == wire::EffectiveMembership::default();
    if empty {
        return Ok(StoredMembership::default());
    }
    Ok(StoredMembership::new(effective.log_id.map(log_id), membership(effective.membership)?))
}

pub(crate) fn wire_stored_membership(stored: &StoredMembership) -> wire::EffectiveMembership {
    wire::EffectiveMembership {
        log_id: stored.log_id().map(wire_log_id),
        membership: wire_membership(stored.membership()),
    }
}

pub(crate) fn entry(entry: wire::Entry) -> Result<Entry, String> {
    let payload = match entry.body {
        wire::Body::Blank => EntryPayload::Blank,
        wire::Body::Proposal(payload) => EntryPayload::Normal(payload),
        wire::Body::Membership(changed) => EntryPayload::Membership(membership(changed)?),
    };
    Ok(Entry { log_id: log_id(entry.log_id), payload })
}

pub(crate) fn wire_entry(entry: &Entry) -> wire::Entry {
    let body = match &entry.payload {
        EntryPayload::Blank => wire::Body::Blank,
        EntryPayload::Normal(payload) => wire::Body::Proposal(payload.clone()),
        EntryPayload::Membership(membership) => wire::Body::Membership(wire_membership(membership)),
    };
    wire::Entry { log_id: wire_log_id(entry.log_id), body }
}

/// What an entry weighs in a message, on disk or in memory, roughly.
pub(crate) fn weight(entry: &Entry) -> usize {
    const FIXED: usize = 64;
    match &entry.payload {
        EntryPayload::Normal(payload) => FIXED + payload.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => FIXED,
    }
}
