//! What carries requests between replicas: the simulated network, in the bytes that really travel.

use std::sync::Arc;
use std::time::Duration;

use replica::peers::{Envelope, PeerError, PeerRequest, PeerResponse, Peers};
use replica::{Node, NodeId};

use super::World;
use crate::network::{CallError, Delivery};

/// A replica's way to its peers.
pub(super) struct SimPeers {
    me: NodeId,
    world: Arc<World>,
}

impl SimPeers {
    /// The way of node `me`.
    pub(super) fn new(me: NodeId, world: Arc<World>) -> Self {
        Self { me, world }
    }
}

impl std::fmt::Debug for SimPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimPeers").field("me", &self.me).finish_non_exhaustive()
    }
}

/// What Raft bears to be carried out twice, and what only a broken transport would repeat.
fn delivery(request: &PeerRequest) -> Delivery {
    match request {
        PeerRequest::AppendEntries(_)
        | PeerRequest::Vote(_)
        | PeerRequest::PreVote(_)
        | PeerRequest::SnapshotChunk(_)
        | PeerRequest::ReadIndex
        | PeerRequest::Introduce(_) => Delivery::PerhapsTwice,
        PeerRequest::TransferLeader(_) | PeerRequest::Propose(_) | PeerRequest::Soft(_) => {
            Delivery::Once
        }
    }
}

impl Peers for SimPeers {
    async fn call(
        &self,
        target: NodeId,
        _node: &Node,
        envelope: Envelope,
        _timeout: Duration, // the caller gives up by itself
    ) -> Result<PeerResponse, PeerError> {
        let request = &envelope.request;
        self.world.check(|checker, at_ns| checker.sent(at_ns, self.me, request));
        let bytes: Arc<[u8]> = envelope.encode().into();
        let answer = self.world.network.call(self.me, target, bytes, delivery(request)).await;
        match answer {
            Ok(bytes) => Ok(PeerResponse::decode(&bytes).expect("a replica encoded these bytes")),
            Err(error @ CallError::Unreachable(_)) => {
                Err(PeerError::Unreachable { target, reason: error.to_string() })
            }
            Err(error @ CallError::Reset(_)) => {
                Err(PeerError::Lost { target, reason: error.to_string() })
            }
        }
    }
}
