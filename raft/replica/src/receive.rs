//! The receiving side: a peer's request in, an answer out.

use std::io;

use model::mutant;
use openraft::AsyncRuntime;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use crate::disk::Disk;
use crate::peers::{
    Acquaintance, Addressee, AppendEntries, Appended, Ballot, Envelope, Introduced, Introduction,
    NotLeader, PeerRequest, PeerResponse, Peers, Proposed, SnapshotChunk, SnapshotReceived,
    TransferLeader, TransferRefused, Voted,
};
use crate::raft::{self, Types};
use crate::replica::{Attempt, Replica};
use crate::snapshot::{SnapshotData, Step};
use crate::state::{Snapshot, remove_generation};
use crate::wire::{Node, NodeId};
use crate::{limits, wire};

impl<RT: AsyncRuntime, D: Disk, P: Peers> Replica<RT, D, P> {
    /// What is in an envelope, if it is for this member and this disk. What is not gets the answer
    /// that says so, from a host too that answers by itself what is in it.
    ///
    /// # Errors
    /// The answer.
    pub fn open(&self, envelope: Envelope) -> Result<PeerRequest, PeerResponse> {
        let me = Addressee { node: self.id(), disk: self.disk_id() };
        let Envelope { to, request } = envelope;
        let is_for_anybody = matches!(request, PeerRequest::Introduce(_));
        if to == Some(me) || is_for_anybody || mutant!("disk-unchecked") {
            return Ok(request);
        }
        let Addressee { node, disk } = me;
        Err(PeerResponse::NotHere(format!("here is member {node} with disk {disk}")))
    }

    /// Answers a peer. Requests of one peer are best handled in the order they came; several may
    /// be handled at once. [`PeerRequest::Soft`] is the host's to answer.
    pub async fn handle(&self, request: PeerRequest) -> PeerResponse {
        let answer = match request {
            PeerRequest::AppendEntries(append) => self.append(append).await,
            PeerRequest::Vote(ballot) => self
                .raft()
                .vote(vote_request(&ballot))
                .await
                .map(voted)
                .map_err(|error| error.to_string()),
            PeerRequest::PreVote(ballot) => self
                .raft()
                .pre_vote(vote_request(&ballot))
                .await
                .map(voted)
                .map_err(|error| error.to_string()),
            PeerRequest::TransferLeader(transfer) => self.take_over(&transfer).await,
            PeerRequest::SnapshotChunk(chunk) => self.receive_snapshot(chunk).await,
            PeerRequest::Propose(proposal) => Ok(self.propose_for_peer(proposal).await),
            PeerRequest::ReadIndex => Ok(self.read_index_for_peer().await),
            PeerRequest::Introduce(asker) => Ok(PeerResponse::Introduced(self.introduced(&asker))),
            PeerRequest::Soft(_) => Err("a soft message is not for the replica".to_owned()),
        };
        answer.unwrap_or_else(PeerResponse::Failed)
    }

    /// Who this is, and who the one who asks is by the record of the members.
    fn introduced(&self, asker: &Introduction) -> Introduced {
        let metrics = self.metrics();
        let metrics = metrics.borrow_watched();
        let members = &metrics.membership_config;
        let by_disk = members.nodes().find(|(_, node)| node.disk == asker.disk);
        let is_namesake = |id: NodeId, node: &Node| id == asker.node || node.name == asker.name;
        let namesake = members.nodes().find(|(id, node)| is_namesake(**id, node));
        let you = match (by_disk, namesake) {
            (Some((id, _)), _) => Acquaintance::Member(*id),
            (None, Some((id, _))) => Acquaintance::AnotherDisk(*id),
            (None, None) if members.nodes().next().is_none() => Acquaintance::NoRecord,
            (None, None) => Acquaintance::Stranger,
        };
        Introduced {
            node: self.id(),
            name: self.name().to_owned(),
            disk: self.disk_id(),
            newcomer: None,
            you,
            leads: metrics.current_leader == Some(self.id()),
        }
    }

    async fn append(&self, append: AppendEntries) -> Result<PeerResponse, String> {
        let entries = append.entries.into_iter().map(raft::entry).collect::<Result<Vec<_>, _>>()?;
        let request = AppendEntriesRequest {
            vote: raft::vote(append.vote),
            prev_log_id: append.previous.map(raft::log_id),
            entries,
            leader_commit: append.committed.map(raft::log_id),
        };
        let answer =
            self.raft().append_entries(request).await.map_err(|error| error.to_string())?;
        Ok(PeerResponse::AppendEntries(match answer {
            AppendEntriesResponse::Success => Appended::All,
            AppendEntriesResponse::PartialSuccess(id) => {
                Appended::Through(id.map(raft::wire_log_id))
            }
            AppendEntriesResponse::Conflict => Appended::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(raft::wire_vote(&vote)),
        }))
    }

    async fn take_over(&self, transfer: &TransferLeader) -> Result<PeerResponse, String> {
        let request = TransferLeaderRequest::new(
            raft::vote(transfer.from),
            transfer.to,
            transfer.last_log_id.map(raft::log_id),
        );
        let answer =
            self.raft().handle_transfer_leader(request).await.map_err(|error| error.to_string())?;
        Ok(PeerResponse::TransferLeader(answer.map_err(|refused| match refused {
            TransferLeaderError::VoteChanged { actual, .. } => {
                TransferRefused::VoteChanged(raft::wire_vote(&actual))
            }
            TransferLeaderError::LogNotFlushed { actual, .. } => {
                TransferRefused::LogNotSynced(actual.map(raft::wire_log_id))
            }
        })))
    }

    async fn receive_snapshot(&self, chunk: SnapshotChunk) -> Result<PeerResponse, String> {
        let vote = raft::vote(chunk.vote);
        let mine = self.raft().metrics().borrow_watched().vote;
        // Votes are ordered in part only: "not greater or equal" is what a refusal needs.
        if vote.partial_cmp(&mine).is_none_or(std::cmp::Ordering::is_lt) {
            return Ok(PeerResponse::Snapshot(SnapshotReceived::Installed(raft::wire_vote(&mine))));
        }
        let step = self.or_stop(self.staging().accept(self.disk(), chunk)).await?;
        Ok(PeerResponse::Snapshot(match step {
            Step::More => SnapshotReceived::More,
            Step::Refused(reason) => SnapshotReceived::Refused(reason),
            Step::Complete(snapshot) => {
                let installed = self.install(vote, *snapshot).await?;
                // What says that it is installed is as good as an answer to an append.
                self.or_stop(self.log().synced().await).await?;
                SnapshotReceived::Installed(raft::wire_vote(&installed))
            }
        }))
    }

    /// Installs a snapshot of the leader that has this vote. Returns the vote in force.
    async fn install(&self, vote: raft::Vote, snapshot: Snapshot) -> Result<raft::Vote, String> {
        let mine = self.raft().metrics().borrow_watched().vote;
        // A leader that has not heard how far this log is sends one that ends within it. Installing
        // it would take openraft's account of the log back to where it ends.
        if vote == mine && self.or_stop(self.log_contains(&snapshot).await).await? {
            if let SnapshotData::Staged { generation, .. } = snapshot.snapshot {
                self.or_stop(self.disk().write(remove_generation(generation))).await?;
            }
            return Ok(mine);
        }
        let installed = self.raft().install_full_snapshot(vote, snapshot).await;
        Ok(installed.map_err(|error| error.to_string())?.vote)
    }

    /// Whether this node's log has the last entry of a snapshot, and so all before it.
    async fn log_contains(&self, snapshot: &Snapshot) -> io::Result<bool> {
        match snapshot.meta.last_log_id {
            Some(last) => self.log().has(last).await,
            None => Ok(true),
        }
    }

    /// What the disk answered. After an error the replica stops: a node that went on without its
    /// disk would be counted on for what it can never have (the simulator's seed 55).
    async fn or_stop<T>(&self, answer: io::Result<T>) -> Result<T, String> {
        match answer {
            Ok(value) => Ok(value),
            Err(error) if mutant!("failed-disk-goes-on") => Err(error.to_string()),
            Err(error) => Err(self.disk_failed(&error).await),
        }
    }

    async fn propose_for_peer(&self, proposal: wire::Blob) -> PeerResponse {
        PeerResponse::Propose(match self.propose_here(proposal, limits::FORWARD_TIMEOUT).await {
            Attempt::Done(outcome) => Proposed::Applied(outcome),
            Attempt::Elsewhere(leader) => Proposed::NotLeader(NotLeader { leader }),
            Attempt::Failed(reason) => Proposed::Unknown(reason),
        })
    }

    async fn read_index_for_peer(&self) -> PeerResponse {
        PeerResponse::ReadIndex(match self.read_index_here(limits::FORWARD_TIMEOUT).await {
            Attempt::Done(index) => Ok(index),
            Attempt::Elsewhere(leader) => Err(NotLeader { leader }),
            Attempt::Failed(_) => Err(NotLeader { leader: None }),
        })
    }
}

fn vote_request<RT: AsyncRuntime>(ballot: &Ballot) -> VoteRequest<Types<RT>> {
    VoteRequest {
        vote: raft::vote(ballot.vote),
        last_log_id: ballot.last_log_id.map(raft::log_id),
        leadership_transfer: ballot.leadership_transfer,
    }
}

fn voted<RT: AsyncRuntime>(response: VoteResponse<Types<RT>>) -> PeerResponse {
    PeerResponse::Vote(Voted {
        vote: raft::wire_vote(&response.vote),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.map(raft::wire_log_id),
    })
}
