//! The door: start a replica, propose to it, read from it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{codec, mutant};
use openraft::async_runtime::{Select2, WatchReceiver};
use openraft::errors::{
    ClientWriteError, Fatal, InitializeError, LinearizableReadError, RaftError,
};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{AsyncRuntime, Instant, RaftMetrics, ReadPolicy, SnapshotPolicy};

use crate::disk::Disk;
use crate::events::{EventLog, Events};
use crate::identity;
use crate::limits;
use crate::log::LogStore;
use crate::memo::Memo;
use crate::network::{Network, call};
use crate::peers::{PeerError, PeerRequest, PeerResponse, Peers, Proposed};
use crate::raft::{Raft, Types};
use crate::snapshot::Staging;
use crate::state::{Published, Reading, StateStore};
use crate::wire::{Blob, DiskId, Node, NodeId};

/// What one replica is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// The name of the cluster, for logs.
    pub cluster: String,
    /// When to speak and when to lose patience.
    pub timing: Timing,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot.
    pub snapshot_entries_kept: u64,
    /// How far behind a follower is sent a snapshot.
    pub snapshot_lag_entries: u64,
    /// Entries purged at once at the least.
    pub purge_entries_min: u64,
    /// Bytes of rows in one chunk of a snapshot: one more row than fit.
    pub snapshot_chunk_bytes: usize,
    /// What it shares with other replicas of this process, if anything.
    pub memo: Option<Arc<Memo>>,
}

/// Raft's times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// The shortest time without a leader before an election.
    pub election_min_ms: u64,
    /// The longest such time, and the length of a leader's lease.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: limits::HEARTBEAT_MS,
            election_min_ms: limits::ELECTION_MIN_MS,
            election_max_ms: limits::ELECTION_MAX_MS,
        }
    }
}

impl Config {
    /// The ordinary configuration of member `id`.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            name: format!("node-{id}"),
            cluster: "gavel".to_owned(),
            timing: Timing::default(),
            snapshot_entries: limits::SNAPSHOT_ENTRIES,
            snapshot_entries_kept: limits::SNAPSHOT_ENTRIES_KEPT,
            snapshot_lag_entries: limits::SNAPSHOT_LAG_ENTRIES,
            purge_entries_min: limits::PURGE_ENTRIES_MIN,
            snapshot_chunk_bytes: limits::SNAPSHOT_CHUNK_BYTES_MAX,
            memo: None,
        }
    }

    fn openraft(&self) -> Result<openraft::Config, openraft::ConfigError> {
        openraft::Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: self.timing.heartbeat_ms,
            election_timeout_min: self.timing.election_min_ms,
            election_timeout_max: self.timing.election_max_ms,
            install_snapshot_timeout: millis(limits::SNAPSHOT_INSTALL_TIMEOUT),
            max_payload_entries: limits::APPEND_ENTRIES_MAX,
            max_append_entries: Some(limits::LOG_WRITE_ENTRIES_MAX),
            replication_lag_threshold: self.snapshot_lag_entries,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.snapshot_entries_kept,
            purge_batch_size: self.purge_entries_min,
            api_channel_size: Some(limits::CORE_QUEUE),
            notification_channel_size: Some(limits::CORE_QUEUE),
            state_machine_channel_size: Some(limits::STATE_QUEUE),
            api_batch_capacity: limits::WRITES_MERGED_MAX,
            backoff: limits::UNREACHABLE_BACKOFF.to_owned(),
            enable_pre_vote: Some(true),
            // A restarted leader asks for votes again: what it last applied may not be on disk.
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            ..openraft::Config::default()
        }
        .validate()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk failed, or what is on it cannot be right.
    #[error(
        "the replica's disk cannot be used: {0}; check the disk, and if it is lost let the cluster \
         replace this member: gavel cluster replace NAME"
    )]
    Disk(#[from] io::Error),
    /// The disk was first used by a node of another name.
    #[error("the disk is that of {theirs}, and this node is {mine}: give each its own directory")]
    OfAnother {
        /// Whose it is.
        theirs: String,
        /// Whose it is not.
        mine: String,
    },
    /// The disk is another member's.
    #[error("the disk is that of member {theirs}, and not of member {mine}")]
    OfAnotherMember {
        /// Whose it is.
        theirs: NodeId,
        /// Whose it is not.
        mine: NodeId,
    },
    /// The cluster knows the node by another disk: it was emptied or exchanged, or two machines
    /// have one name.
    #[error(
        "{name} is member {member} of its cluster with another disk than the one that is here: \
         that disk was emptied or exchanged, or two machines have this name. A member without its \
         votes and its log must not take part; if the disk is lost for good, let the cluster \
         replace the member: gavel cluster replace {name}"
    )]
    Forgotten {
        /// This node.
        name: String,
        /// The member that it was.
        member: NodeId,
    },
    /// The times or sizes contradict each other.
    #[error("the replica's configuration is not possible: {0}")]
    Config(#[from] openraft::ConfigError),
    /// Entries are gone that the state does not hold.
    #[error(
        "the log was purged through entry {purged} but the state has come only to {}: rows are \
         missing from the disk; let the cluster replace this member: gavel cluster replace NAME",
        applied.map_or_else(|| "nothing".to_owned(), |index| format!("entry {index}"))
    )]
    StateLost {
        /// The last purged entry.
        purged: u64,
        /// The last applied one.
        applied: Option<u64>,
    },
    /// openraft did not start.
    #[error("raft did not start: {0}")]
    Raft(String),
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not proposed and never will be: trying again is safe.
    #[error("not proposed: {reason}")]
    NotProposed {
        /// Why not.
        reason: String,
    },
    /// It may or may not take effect, now or later: look before trying again.
    #[error("it is unknown whether the proposal took effect: {reason}")]
    Unknown {
        /// Why it is not known.
        reason: String,
    },
    /// It is larger than [`limits::PROPOSAL_BYTES_MAX`].
    #[error("a proposal of {bytes} bytes is larger than {max} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

/// Why a linearizable read did not succeed. It has no effect, so trying again is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader could say how far the read must see.
    #[error("no leader answered within {} ms: {reason}", limits::READ_TIMEOUT.as_millis())]
    NoLeader {
        /// The last trouble met.
        reason: String,
    },
    /// This replica did not come as far in time.
    #[error("entry {index} was not applied here within {} ms", limits::READ_TIMEOUT.as_millis())]
    Behind {
        /// How far it had to come.
        index: u64,
    },
    /// The replica has stopped.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

/// Why a cluster was not initialised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitialiseFailed {
    /// This member is not among the first ones.
    #[error("node {id} is not among the cluster's first members")]
    NotAMember {
        /// This member.
        id: NodeId,
    },
    /// The replica has stopped.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

/// What became of one try at one replica.
pub(crate) enum Attempt<T> {
    Done(T),
    /// Nothing happened; another may lead, perhaps this one.
    Elsewhere(Option<NodeId>),
    /// It may have happened.
    Failed(String),
}

/// A running replica. Clones are handles of the same one.
pub struct Replica<RT: AsyncRuntime, D: Disk, P: Peers> {
    inner: Arc<Inner<RT, D, P>>,
}

struct Inner<RT: AsyncRuntime, D: Disk, P: Peers> {
    id: NodeId,
    name: String,
    disk_id: DiskId,
    raft: Raft<RT, D>,
    disk: Arc<D>,
    peers: Arc<P>,
    published: Published<RT>,
    events: Arc<EventLog>,
    log: LogStore<RT, D>,
    staging: Arc<Staging>,
    /// Why the disk is not to be trusted further, where openraft does not see it.
    failed: OnceLock<String>,
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> Clone for Replica<RT, D, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> fmt::Debug for Replica<RT, D, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> Replica<RT, D, P> {
    /// Starts a replica on what its disk holds. On a disk that holds nothing it waits, as a member
    /// of nothing, until [`Replica::initialize`] is called on it or a leader adds it; that it may
    /// do so as member `config.id`, its host has from [`crate::Newcomer::introduce`].
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn start(config: &Config, disk: Arc<D>, peers: Arc<P>) -> Result<Self, StartError> {
        let settings = Arc::new(config.openraft()?);
        let identity = identity::open::<RT, D>(&disk, &config.name).await?;
        match identity.member {
            None => identity::become_member::<RT, D>(&disk, &identity, config.id).await?,
            Some(member) if member == config.id => {}
            Some(theirs) => return Err(StartError::OfAnotherMember { theirs, mine: config.id }),
        }
        let log = LogStore::<RT, D>::open(disk.clone())?;
        let state = StateStore::<RT, D>::open(disk.clone()).await?.sharing(config.memo.clone());
        let applied = state.applied().map(|id| id.index);
        if let Some(purged) = log.purged().map(|id| id.index)
            && applied < Some(purged)
        {
            return Err(StartError::StateLost { purged, applied });
        }
        let published = state.published();
        let events = state.events();
        let staging = state.staging();
        let network = Network::<RT, P>::new(peers.clone(), config.snapshot_chunk_bytes);
        let raft = Raft::new(config.id, settings, network, log.clone(), state)
            .await
            .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
        let inner = Inner {
            id: config.id,
            name: identity.name,
            disk_id: identity.disk,
            raft,
            disk,
            peers,
            published,
            events,
            log,
            staging,
            failed: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a new cluster of `members`, of which this is one, each with the disk that it has. One
    /// of them does so, and no other: see [`crate::newcomer::Entrance::Founder`]. A replica that
    /// has a cluster keeps it.
    ///
    /// # Errors
    /// See [`InitialiseFailed`].
    pub async fn initialize(
        &self,
        members: BTreeMap<NodeId, Node>,
    ) -> Result<(), InitialiseFailed> {
        let has_my_disk = |node: &Node| node.disk == self.disk_id();
        assert!(members.get(&self.id()).is_none_or(has_my_disk), "this is the disk: {members:?}");
        match self.raft().initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                Err(InitialiseFailed::NotAMember { id: self.id() })
            }
            Err(RaftError::Fatal(fatal)) => Err(InitialiseFailed::Stopped(fatal.to_string())),
        }
    }

    /// This member's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    /// This member's disk.
    #[must_use]
    pub fn disk_id(&self) -> DiskId {
        self.inner.disk_id
    }

    pub(crate) fn name(&self) -> &str {
        &self.inner.name
    }

    /// Has a batch of commands agreed and applied, here or at whoever leads, and says what became
    /// of each. Right after an election, while nobody is sure to lead, it waits and tries again,
    /// for [`limits::PROPOSE_TIMEOUT`] in all.
    ///
    /// # Errors
    /// See [`ProposeError`]. Dropping the future leaves the outcome unknown.
    pub async fn propose(
        &self,
        proposal: &model::Proposal,
    ) -> Result<model::Outcome, ProposeError> {
        let bytes = Blob(codec::encode_proposal(proposal).into());
        if bytes.0.len() > limits::PROPOSAL_BYTES_MAX {
            let max = limits::PROPOSAL_BYTES_MAX;
            return Err(ProposeError::TooLarge { bytes: bytes.0.len(), max });
        }
        let deadline = Types::<RT>::now() + limits::PROPOSE_TIMEOUT;
        let mut hint = None;
        loop {
            let left = time_left::<RT>(deadline);
            let attempt = match self.leader_elsewhere(hint) {
                Some((leader, node)) => {
                    let timeout = left.min(limits::FORWARD_TIMEOUT);
                    self.propose_at(leader, &node, bytes.clone(), timeout).await
                }
                None => self.propose_here(bytes.clone(), left).await,
            };
            match attempt {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Failed(reason) if mutant!("unknown-called-not-made") => {
                    return Err(ProposeError::NotProposed { reason });
                }
                Attempt::Failed(_) if mutant!("unknown-proposed-again") => hint = None,
                Attempt::Failed(reason) => return Err(ProposeError::Unknown { reason }),
                Attempt::Elsewhere(leader) => hint = leader,
            }
            if let Some(reason) = self.stopped_by() {
                return Err(ProposeError::NotProposed { reason });
            }
            if time_left::<RT>(deadline) <= limits::RETRY_PAUSE {
                let waited = limits::PROPOSE_TIMEOUT.as_millis();
                let reason = format!("nobody was sure to lead for {waited} ms");
                return Err(ProposeError::NotProposed { reason });
            }
            RT::sleep(limits::RETRY_PAUSE).await;
        }
    }

    /// The state after everything that was acknowledged to anyone before this call: asks the
    /// leader how far that is, confirmed by a quorum, and waits to have applied it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_linearizable(&self) -> Result<Reading, ReadError> {
        if mutant!("read-stale") {
            return Ok(self.read_stale());
        }
        let deadline = Types::<RT>::now() + limits::READ_TIMEOUT;
        let index = self.read_index(deadline).await?;
        let mut published = self.inner.published.clone();
        let applied = published.wait_until(|reading| reading.applied >= Some(index));
        match RT::timeout(time_left::<RT>(deadline), applied).await {
            Ok(Ok(reading)) => Ok(reading),
            Ok(Err(_gone)) => Err(ReadError::Stopped("its state is gone".to_owned())),
            Err(_elapsed) => Err(ReadError::Behind { index }),
        }
    }

    /// The state as it is here, which may be behind what was acknowledged elsewhere. Never waits.
    #[must_use]
    pub fn read_stale(&self) -> Reading {
        self.inner.published.borrow_watched().clone()
    }

    /// What happened after entry `index`, about `max` events at most.
    #[must_use]
    pub fn events_after(&self, index: Option<u64>, max: usize) -> Events {
        self.inner.events.after_index(index, max)
    }

    /// Sends a message that is no affair of the replica's to another member.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn call_soft(
        &self,
        target: NodeId,
        message: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, PeerError> {
        let Some(node) = self.node(target) else {
            let reason = "it is not a member".to_owned();
            return Err(PeerError::Unreachable { target, reason });
        };
        let request = PeerRequest::Soft(Blob(message.into()));
        let answer = call::<RT, P>(&self.inner.peers, target, &node, request, timeout).await?;
        let PeerResponse::Soft(answer) = answer else {
            let reason = "it answered with something else".to_owned();
            return Err(PeerError::Lost { target, reason });
        };
        Ok(answer.0.to_vec())
    }

    /// Stops the replica. What it acknowledged is on disk already.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(id = self.id(), %error, "the replica did not stop in order");
        }
    }

    async fn read_index(&self, deadline: RT::Instant) -> Result<u64, ReadError> {
        let mut hint = None;
        loop {
            let left = time_left::<RT>(deadline);
            let (attempt, reason) = match self.leader_elsewhere(hint) {
                Some((leader, node)) => {
                    let timeout = left.min(limits::FORWARD_TIMEOUT);
                    (self.read_index_at(leader, &node, timeout).await, format!("node {leader}"))
                }
                None => (self.read_index_here(left).await, "this node".to_owned()),
            };
            let reason = match attempt {
                Attempt::Done(index) => return Ok(index),
                Attempt::Elsewhere(leader) => {
                    hint = leader;
                    format!("{reason} is not sure to lead")
                }
                Attempt::Failed(failure) => format!("{reason} did not answer: {failure}"),
            };
            if let Some(reason) = self.stopped_by() {
                return Err(ReadError::Stopped(reason));
            }
            if time_left::<RT>(deadline) <= limits::RETRY_PAUSE {
                return Err(ReadError::NoLeader { reason });
            }
            RT::sleep(limits::RETRY_PAUSE).await;
        }
    }

    /// One try to propose at this replica.
    pub(crate) async fn propose_here(
        &self,
        proposal: Blob,
        timeout: Duration,
    ) -> Attempt<model::Outcome> {
        let written = RT::timeout(timeout, self.raft().client_write(proposal)).await;
        match written {
            Ok(Ok(written)) => Attempt::Done(written.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Attempt::Elsewhere(forward.leader_id)
            }
            // The entry was in a log and is in doubt, or the core stopped with it in hand.
            Ok(Err(error)) => Attempt::Failed(error.to_string()),
            Err(_elapsed) => {
                Attempt::Failed(format!("not agreed within {} ms", timeout.as_millis()))
            }
        }
    }

    async fn propose_at(
        &self,
        leader: NodeId,
        node: &Node,
        proposal: Blob,
        timeout: Duration,
    ) -> Attempt<model::Outcome> {
        let request = PeerRequest::Propose(proposal);
        match call::<RT, P>(&self.inner.peers, leader, node, request, timeout).await {
            Ok(PeerResponse::Propose(Proposed::Applied(outcome))) => Attempt::Done(outcome),
            Ok(PeerResponse::Propose(Proposed::NotLeader(hint))) => Attempt::Elsewhere(hint.leader),
            Ok(PeerResponse::Propose(Proposed::Unknown(reason))) => Attempt::Failed(reason),
            Ok(_) => Attempt::Failed(format!("node {leader} answered with something else")),
            Err(PeerError::Unreachable { .. }) => Attempt::Elsewhere(None),
            Err(error @ PeerError::Lost { .. }) => Attempt::Failed(error.to_string()),
        }
    }

    /// One try to learn at this replica how far a read must see.
    pub(crate) async fn read_index_here(&self, timeout: Duration) -> Attempt<u64> {
        if mutant!("read-unconfirmed") && self.leader_elsewhere(None).is_none() {
            return Attempt::Done(self.read_stale().applied.unwrap_or_default());
        }
        let confirmed = self.raft().get_read_log_id(ReadPolicy::ReadIndex);
        match RT::timeout(timeout, confirmed).await {
            Ok(Ok((id, _applied))) => Attempt::Done(id.index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Attempt::Elsewhere(forward.leader_id)
            }
            Ok(Err(error)) => Attempt::Failed(error.to_string()),
            Err(_elapsed) => {
                Attempt::Failed(format!("no quorum answered within {} ms", timeout.as_millis()))
            }
        }
    }

    async fn read_index_at(&self, leader: NodeId, node: &Node, timeout: Duration) -> Attempt<u64> {
        let request = PeerRequest::ReadIndex;
        match call::<RT, P>(&self.inner.peers, leader, node, request, timeout).await {
            Ok(PeerResponse::ReadIndex(Ok(index))) => Attempt::Done(index),
            Ok(PeerResponse::ReadIndex(Err(hint))) => Attempt::Elsewhere(hint.leader),
            Ok(_) => Attempt::Failed(format!("node {leader} answered with something else")),
            Err(error) => Attempt::Failed(error.to_string()),
        }
    }

    /// Who leads and where, unless it is this replica or nobody known. A hint of another replica
    /// counts when this one knows of no leader.
    fn leader_elsewhere(&self, hint: Option<NodeId>) -> Option<(NodeId, Node)> {
        let leader = self.metrics().borrow_watched().current_leader.or(hint)?;
        if leader == self.id() {
            return None;
        }
        Some((leader, self.node(leader)?))
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<Node> {
        self.metrics().borrow_watched().membership_config.get_node(&id).cloned()
    }

    /// Why the replica has stopped, if it has.
    pub(crate) fn stopped_by(&self) -> Option<String> {
        let metrics = self.metrics();
        let metrics = metrics.borrow_watched();
        let stopped = metrics.running_state.as_ref().err().map(Fatal::to_string);
        self.inner.failed.get().cloned().or(stopped)
    }

    /// The disk failed while something was done that is not openraft's: the replica stops, as it
    /// does where openraft sees it. Returns the reason.
    pub(crate) async fn disk_failed(&self, error: &io::Error) -> String {
        let reason = self.inner.failed.get_or_init(|| format!("the disk failed: {error}")).clone();
        self.shutdown().await;
        reason
    }

    pub(crate) fn metrics(&self) -> WatchReceiverOf<Types<RT>, RaftMetrics<Types<RT>>> {
        self.raft().metrics()
    }

    pub(crate) fn published(&self) -> Published<RT> {
        self.inner.published.clone()
    }

    pub(crate) fn raft(&self) -> &Raft<RT, D> {
        &self.inner.raft
    }

    pub(crate) fn disk(&self) -> &D {
        &self.inner.disk
    }

    pub(crate) fn peers(&self) -> &P {
        &self.inner.peers
    }

    pub(crate) fn log(&self) -> &LogStore<RT, D> {
        &self.inner.log
    }

    pub(crate) fn staging(&self) -> &Staging {
        &self.inner.staging
    }
}

/// The time until `deadline`.
pub(crate) fn time_left<RT: AsyncRuntime>(deadline: RT::Instant) -> Duration {
    deadline.saturating_duration_since(Types::<RT>::now())
}

/// Waits for either of two changes.
pub(crate) async fn either<RT: AsyncRuntime, A: Send + Sync, B: Send + Sync>(
    a: &mut WatchReceiverOf<Types<RT>, A>,
    b: &mut WatchReceiverOf<Types<RT>, B>,
) -> bool {
    match RT::select2(a.changed(), b.changed()).await {
        Select2::First(changed) | Select2::Second(changed) => changed.is_ok(),
    }
}
