//! What one replica asks of another, as values with bytes of their own, and the one narrow trait
//! that carries them.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::snapshot::SnapshotChunk;
use crate::wire::{self, Blob, DiskId, Entry, LogId, Node, NodeId, Vote};

/// The version of the bytes between replicas: the first byte of each message.
const VERSION: u8 = 2;

/// A request, and for whom it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Nobody but this member opens it; none where it is not known yet who is there.
    pub to: Option<Addressee>,
    /// What is asked.
    pub request: PeerRequest,
}

/// A member, and the disk that the sender knows it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressee {
    /// The member.
    pub node: NodeId,
    /// Its disk. Another one has forgotten what the member has promised.
    pub disk: DiskId,
}

/// What a replica asks of another. Variants are numbered by their order: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// A leader's entries, or its heartbeat.
    AppendEntries(AppendEntries),
    /// A candidate's ask for a vote.
    Vote(Ballot),
    /// Whether a vote would be given (Raft thesis, section 9.6).
    PreVote(Ballot),
    /// A leader's word that another is to lead (Raft thesis, section 3.10).
    TransferLeader(TransferLeader),
    /// A piece of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// The bytes of a [`model::Proposal`], for the leader to propose.
    Propose(Blob),
    /// How far a read must see to be linearizable, asked of the leader.
    ReadIndex,
    /// A message that is no affair of the replica's: its host answers it and never hands it to
    /// [`crate::Replica::handle`].
    Soft(Blob),
    /// A disk that may be new says who it is, and asks who is there.
    Introduce(Introduction),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The number that its operator gave it, for a new cluster.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its disk.
    pub disk: DiskId,
}

/// Who is there, and what it knows of the one who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduced {
    /// The member that it is, or the number that its operator gave it.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its disk.
    pub disk: DiskId,
    /// The first members of the cluster that it would found, if it is a newcomer: its disk holds
    /// nothing that Raft promised.
    pub newcomer: Option<BTreeSet<NodeId>>,
    /// Who the one who asked is, by its record of the members.
    pub you: Acquaintance,
    /// Whether it leads, so that its record is the newest.
    pub leads: bool,
}

/// Who somebody is, by a record of the members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acquaintance {
    /// There is no record.
    NoRecord,
    /// This member.
    Member(NodeId),
    /// This member has the number or the name, and another disk.
    AnotherDisk(NodeId),
    /// Nobody.
    Stranger,
}

/// The answer to a [`PeerRequest`], of the variant of the same name. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerResponse {
    /// To [`PeerRequest::AppendEntries`].
    AppendEntries(Appended),
    /// To [`PeerRequest::Vote`] and [`PeerRequest::PreVote`].
    Vote(Voted),
    /// To [`PeerRequest::TransferLeader`].
    TransferLeader(Result<(), TransferRefused>),
    /// To [`PeerRequest::SnapshotChunk`].
    Snapshot(SnapshotReceived),
    /// To [`PeerRequest::Propose`].
    Propose(Proposed),
    /// To [`PeerRequest::ReadIndex`]: the index, or who else may know.
    ReadIndex(Result<u64, NotLeader>),
    /// To [`PeerRequest::Soft`].
    Soft(Blob),
    /// To any: the replica cannot answer, because it has stopped.
    Failed(String),
    /// To [`PeerRequest::Introduce`].
    Introduced(Introduced),
    /// To any: the one it was for is not here. Nobody looked at it.
    NotHere(String),
}

/// Entries to append after `previous`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendEntries {
    /// The leader's vote.
    pub vote: Vote,
    /// The entry before the first one.
    pub previous: Option<LogId>,
    /// The entries; none in a heartbeat.
    pub entries: Vec<Entry>,
    /// The last entry the leader knows to be committed.
    pub committed: Option<LogId>,
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    /// All entries are there and synced.
    All,
    /// Entries up to this one are.
    Through(Option<LogId>),
    /// `previous` is not in the log.
    Conflict,
    /// A higher vote was seen.
    HigherVote(Vote),
}

/// A candidate's ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The vote asked for.
    pub vote: Vote,
    /// The last entry of the candidate's log.
    pub last_log_id: Option<LogId>,
    /// Whether the leader itself asked for the election, which overrides its lease.
    pub leadership_transfer: bool,
}

/// The answer to a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voted {
    /// The vote of the one asked, after the ask.
    pub vote: Vote,
    /// Whether it is granted.
    pub granted: bool,
    /// The last entry of the log of the one asked.
    pub last_log_id: Option<LogId>,
}

/// A leader's word that `to` is to lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLeader {
    /// The vote of the leader that gives up.
    pub from: Vote,
    /// Who is to lead.
    pub to: NodeId,
    /// The entry that the next leader must have.
    pub last_log_id: Option<LogId>,
}

/// Why leadership was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferRefused {
    /// Another vote was seen meanwhile.
    VoteChanged(Vote),
    /// The log is not far enough.
    LogNotSynced(Option<LogId>),
}

/// What became of a chunk of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotReceived {
    /// The next one may come.
    More,
    /// It was the last one and the snapshot is installed, or no longer needed; with the vote of
    /// the receiver, which is higher than the sender's if the sender no longer leads.
    Installed(Vote),
    /// The transfer has to start again.
    Refused(String),
}

/// What became of a forwarded proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposed {
    /// It was agreed and applied.
    Applied(model::Outcome),
    /// It was not proposed: ask another.
    NotLeader(NotLeader),
    /// It may or may not be agreed in the end.
    Unknown(String),
}

/// The one asked does not lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLeader {
    /// Who it believes does.
    pub leader: Option<NodeId>,
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The request was not delivered: it had no effect.
    #[error("node {target} cannot be reached: {reason}")]
    Unreachable {
        /// The node called.
        target: NodeId,
        /// What went wrong.
        reason: String,
    },
    /// The request may have been delivered: its effect is unknown.
    #[error("the answer of node {target} was lost: {reason}")]
    Lost {
        /// The node called.
        target: NodeId,
        /// What went wrong.
        reason: String,
    },
}

/// Carries requests to other replicas.
pub trait Peers: Send + Sync + 'static {
    /// Sends a request to `target`, which is at `node`, and waits for its answer for no longer
    /// than `timeout`. Requests of one caller to one target should arrive in the order of the
    /// calls; Raft bears it if they do not, at a price.
    ///
    /// # Errors
    /// No answer came. When in doubt whether the request was delivered, [`PeerError::Lost`].
    fn call(
        &self,
        target: NodeId,
        node: &Node,
        envelope: Envelope,
        timeout: Duration,
    ) -> impl Future<Output = Result<PeerResponse, PeerError>> + Send;
}

/// Bytes that are no message of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a peer's message cannot be read: {0}")]
pub struct MalformedMessage(String);

impl Envelope {
    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The envelope of bytes that travelled.
    ///
    /// # Errors
    /// The bytes are no envelope, or one of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMessage> {
        decode(bytes)
    }
}

impl PeerRequest {
    /// What the request is called, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AppendEntries(_) => "append_entries",
            Self::Vote(_) => "vote",
            Self::PreVote(_) => "pre_vote",
            Self::TransferLeader(_) => "transfer_leader",
            Self::SnapshotChunk(_) => "snapshot_chunk",
            Self::Propose(_) => "propose",
            Self::ReadIndex => "read_index",
            Self::Soft(_) => "soft",
            Self::Introduce(_) => "introduce",
        }
    }
}

impl PeerResponse {
    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The response of bytes that travelled.
    ///
    /// # Errors
    /// The bytes are no response, or one of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMessage> {
        decode(bytes)
    }
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(message, vec![VERSION]).expect("plain values always encode into memory")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, MalformedMessage> {
    match bytes {
        [VERSION, message @ ..] => wire::decode(message).map_err(MalformedMessage),
        [version, ..] => Err(MalformedMessage(format!(
            "it is of version {version}, this program speaks version {VERSION}"
        ))),
        [] => Err(MalformedMessage("it is empty".to_owned())),
    }
}
