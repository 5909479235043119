//! The sending side: openraft's network traits over [`Peers`].
//!
//! Appends go to a follower one at a time, each with all that gathered meanwhile: openraft's own
//! order of things. Several in flight would need a transport that keeps the order of requests up
//! to the replica, and three members in one process were bound by the processor, not by waiting
//! (83 us of it a write at 256 writers, November 2026).

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::Select2;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt;
use openraft::{AsyncRuntime, OptionalSend};

use crate::limits;
use crate::peers::{
    Addressee, AppendEntries, Appended, Ballot, Envelope, Introduced, Introduction, PeerError,
    PeerRequest, PeerResponse, Peers, SnapshotReceived, TransferLeader, TransferRefused,
};
use crate::raft::{self, Types, Vote};
use crate::snapshot::{Chunks, SnapshotData};
use crate::state::Snapshot;
use crate::wire::{Node, NodeId};

type Result<RT, T> = std::result::Result<T, RPCError<Types<RT>>>;

/// Makes a [`PeerClient`] for each peer.
pub(crate) struct Network<RT, P> {
    peers: Arc<P>,
    /// Numbers the transfers of snapshots of this process.
    transfers: Arc<AtomicU64>,
    snapshot_chunk_bytes: usize,
    runtime: PhantomData<fn() -> RT>,
}

impl<RT, P> Network<RT, P> {
    pub(crate) fn new(peers: Arc<P>, snapshot_chunk_bytes: usize) -> Self {
        let transfers = Arc::default();
        Self { peers, transfers, snapshot_chunk_bytes, runtime: PhantomData }
    }
}

impl<RT, P> fmt::Debug for Network<RT, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

/// Speaks to one peer.
pub(crate) struct PeerClient<RT, P> {
    peers: Arc<P>,
    transfers: Arc<AtomicU64>,
    snapshot_chunk_bytes: usize,
    target: NodeId,
    node: Node,
    runtime: PhantomData<fn() -> RT>,
}

impl<RT: AsyncRuntime, P: Peers> RaftNetworkFactory<Types<RT>> for Network<RT, P> {
    type Network = PeerClient<RT, P>;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> PeerClient<RT, P> {
        PeerClient {
            peers: self.peers.clone(),
            transfers: self.transfers.clone(),
            snapshot_chunk_bytes: self.snapshot_chunk_bytes,
            target,
            node: node.clone(),
            runtime: PhantomData,
        }
    }
}

/// Calls a peer, and nobody but the disk that is known as its own, and gives up after `timeout`,
/// whatever the transport does.
pub(crate) async fn call<RT: AsyncRuntime, P: Peers>(
    peers: &P,
    target: NodeId,
    node: &Node,
    request: PeerRequest,
    timeout: Duration,
) -> std::result::Result<PeerResponse, PeerError> {
    let to = Some(Addressee { node: target, disk: node.disk });
    deliver::<RT, P>(peers, target, node, Envelope { to, request }, timeout).await
}

/// Asks whoever is at an address who it is.
pub(crate) async fn ask_who<RT: AsyncRuntime, P: Peers>(
    peers: &P,
    target: NodeId,
    node: &Node,
    me: Introduction,
) -> std::result::Result<Introduced, PeerError> {
    let envelope = Envelope { to: None, request: PeerRequest::Introduce(me) };
    let timeout = limits::INTRODUCE_TIMEOUT;
    let answer = deliver::<RT, P>(peers, target, node, envelope, timeout).await?;
    let PeerResponse::Introduced(introduced) = answer else {
        let reason = format!("it answered {answer:?} to the question who it is");
        return Err(PeerError::Lost { target, reason });
    };
    Ok(introduced)
}

async fn deliver<RT: AsyncRuntime, P: Peers>(
    peers: &P,
    target: NodeId,
    node: &Node,
    envelope: Envelope,
    timeout: Duration,
) -> std::result::Result<PeerResponse, PeerError> {
    match RT::timeout(timeout, peers.call(target, node, envelope, timeout)).await {
        Ok(Ok(PeerResponse::NotHere(reason))) => Err(PeerError::Unreachable { target, reason }),
        Ok(answer) => answer,
        Err(_elapsed) => Err(PeerError::Lost {
            target,
            reason: format!("no answer within {} ms", timeout.as_millis()),
        }),
    }
}

impl<RT: AsyncRuntime, P: Peers> PeerClient<RT, P> {
    async fn call(&self, request: PeerRequest, timeout: Duration) -> Result<RT, PeerResponse> {
        let answer = call::<RT, P>(&self.peers, self.target, &self.node, request, timeout).await;
        match answer {
            Ok(PeerResponse::Failed(reason)) => {
                let error = PeerError::Unreachable { target: self.target, reason };
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
            Ok(response) => Ok(response),
            Err(error @ PeerError::Unreachable { .. }) => {
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
            Err(error @ PeerError::Lost { .. }) => {
                Err(RPCError::Network(NetworkError::new(&error)))
            }
        }
    }

    fn unexpected(&self, to: &str) -> RPCError<Types<RT>> {
        let message = format!("node {} answered {to} with something else", self.target);
        RPCError::Unreachable(Unreachable::from_string(message))
    }

    async fn ask(
        &self,
        request: PeerRequest,
        option: &RPCOption,
    ) -> Result<RT, VoteResponse<Types<RT>>> {
        let answer = self.call(request, option.soft_ttl()).await?;
        let PeerResponse::Vote(voted) = answer else {
            return Err(self.unexpected("a ballot"));
        };
        Ok(VoteResponse {
            vote: raft::vote(voted.vote),
            vote_granted: voted.granted,
            last_log_id: voted.last_log_id.map(raft::log_id),
        })
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: &Snapshot,
    ) -> Result<RT, SnapshotResponse<Types<RT>>> {
        let transfer = self.transfers.fetch_add(1, Ordering::Relaxed);
        let state = snapshot.snapshot.state();
        let bytes_max = self.snapshot_chunk_bytes;
        let vote = raft::wire_vote(&vote);
        for chunk in Chunks::new(vote, transfer, &snapshot.meta, state, bytes_max) {
            let timeout = if chunk.last {
                limits::SNAPSHOT_INSTALL_TIMEOUT
            } else {
                limits::SNAPSHOT_CHUNK_TIMEOUT
            };
            let answer = self.call(PeerRequest::SnapshotChunk(chunk), timeout).await?;
            let PeerResponse::Snapshot(received) = answer else {
                return Err(self.unexpected("a snapshot"));
            };
            match received {
                SnapshotReceived::More => {}
                SnapshotReceived::Installed(vote) => {
                    return Ok(SnapshotResponse::new(raft::vote(vote)));
                }
                SnapshotReceived::Refused(reason) => {
                    let message = format!("node {} refused a snapshot: {reason}", self.target);
                    return Err(RPCError::Unreachable(Unreachable::from_string(message)));
                }
            }
        }
        Err(self.unexpected("the last chunk of a snapshot"))
    }
}

impl<RT: AsyncRuntime, P: Peers> RaftNetworkV2<Types<RT>> for PeerClient<RT, P> {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<RT>>,
        option: RPCOption,
    ) -> Result<RT, AppendEntriesResponse<Types<RT>>> {
        let timeout =
            if rpc.entries.is_empty() { option.soft_ttl() } else { limits::APPEND_TIMEOUT };
        let request = PeerRequest::AppendEntries(AppendEntries {
            vote: raft::wire_vote(&rpc.vote),
            previous: rpc.prev_log_id.map(raft::wire_log_id),
            entries: rpc.entries.iter().map(raft::wire_entry).collect(),
            committed: rpc.leader_commit.map(raft::wire_log_id),
        });
        let PeerResponse::AppendEntries(appended) = self.call(request, timeout).await? else {
            return Err(self.unexpected("an append"));
        };
        Ok(match appended {
            Appended::All => AppendEntriesResponse::Success,
            Appended::Through(id) => AppendEntriesResponse::PartialSuccess(id.map(raft::log_id)),
            Appended::Conflict => AppendEntriesResponse::Conflict,
            Appended::HigherVote(vote) => AppendEntriesResponse::HigherVote(raft::vote(vote)),
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<RT>>,
        option: RPCOption,
    ) -> Result<RT, VoteResponse<Types<RT>>> {
        self.ask(PeerRequest::Vote(ballot(&rpc)), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<RT>>,
        option: RPCOption,
    ) -> Result<RT, VoteResponse<Types<RT>>> {
        self.ask(PeerRequest::PreVote(ballot(&rpc)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> std::result::Result<SnapshotResponse<Types<RT>>, StreamingError<Types<RT>>> {
        let cancel = pin!(cancel);
        let sent = pin!(self.send_snapshot(vote, &snapshot));
        match Types::<RT>::select2(cancel, sent).await {
            Select2::First(closed) => Err(StreamingError::Closed(closed)),
            Select2::Second(sent) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types<RT>>,
        option: RPCOption,
    ) -> Result<RT, TransferLeaderResponse<Types<RT>>> {
        let last_log_id = req.last_log_id().copied();
        let from = *req.from_leader();
        let request = PeerRequest::TransferLeader(TransferLeader {
            from: raft::wire_vote(&from),
            to: *req.to_node_id(),
            last_log_id: last_log_id.map(raft::wire_log_id),
        });
        let answer = self.call(request, option.soft_ttl()).await?;
        let PeerResponse::TransferLeader(answer) = answer else {
            return Err(self.unexpected("a transfer of leadership"));
        };
        Ok(answer.map_err(|refused| match refused {
            TransferRefused::VoteChanged(vote) => {
                TransferLeaderError::VoteChanged { expected: from, actual: raft::vote(vote) }
            }
            TransferRefused::LogNotSynced(actual) => TransferLeaderError::LogNotFlushed {
                expected: last_log_id,
                actual: actual.map(raft::log_id),
            },
        }))
    }
}

fn ballot<RT: AsyncRuntime>(rpc: &VoteRequest<Types<RT>>) -> Ballot {
    Ballot {
        vote: raft::wire_vote(&rpc.vote),
        last_log_id: rpc.last_log_id.map(raft::wire_log_id),
        leadership_transfer: rpc.leadership_transfer,
    }
}
