//! How a replica stands: for the agent's loops, for people and for metrics.

use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{AsyncRuntime, RaftMetrics, ServerState};

use crate::disk::Disk;
use crate::peers::Peers;
use crate::raft::{LogId, Types};
use crate::replica::{Replica, either};
use crate::state::Published;
use crate::wire::{Node, NodeId};

/// What a loop needs to know to act: cheap to take and to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Who leads, as far as is known here.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The last entry applied here.
    pub applied: Option<u64>,
    /// Whether this replica leads and has applied an entry of its own term, and with it all that
    /// earlier leaders agreed: only then may it decide anything from its own state.
    pub leads: bool,
}

/// What a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Leads.
    Leader,
    /// Asks for votes.
    Candidate,
    /// Follows and votes.
    Follower,
    /// Follows.
    Learner,
    /// Stops.
    Stopping,
}

/// How one replica stands, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: NodeId,
    /// What it is for at the moment.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Who leads, as far as is known here.
    pub leader: Option<NodeId>,
    /// The last entry of its log.
    pub last_log: Option<u64>,
    /// The last entry known here to be agreed.
    pub committed: Option<u64>,
    /// The last entry applied.
    pub applied: Option<u64>,
    /// The last entry in its newest snapshot.
    pub snapshot: Option<u64>,
    /// The last entry purged from its log.
    pub purged: Option<u64>,
    /// Whether a change of voters is half-way.
    pub joint: bool,
    /// All members, by id.
    pub members: Vec<Member>,
    /// Why it has stopped, if it has.
    pub stopped: Option<String>,
}

/// A member as another sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name and address.
    pub node: Node,
    /// Whether it votes.
    pub voter: bool,
    /// The last entry known to be in its log; told by the leader only.
    pub matched: Option<u64>,
}

/// Waits for changes of a [`Standing`].
pub struct Watcher<RT: AsyncRuntime> {
    id: NodeId,
    metrics: WatchReceiverOf<Types<RT>, RaftMetrics<Types<RT>>>,
    published: Published<RT>,
    seen: Option<Standing>,
}

impl<RT: AsyncRuntime> std::fmt::Debug for Watcher<RT> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime> Watcher<RT> {
    /// Waits until the standing differs from the one last returned; the first call returns at
    /// once. `None` when the replica has stopped. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Option<Standing> {
        loop {
            if self.metrics.borrow_watched().running_state.is_err() {
                return None;
            }
            let now = self.standing();
            if self.seen != Some(now) {
                self.seen = Some(now);
                return Some(now);
            }
            if !either::<RT, _, _>(&mut self.metrics, &mut self.published).await {
                return None;
            }
        }
    }

    fn standing(&self) -> Standing {
        let applied = self.published.borrow_watched().applied;
        let metrics = self.metrics.borrow_watched();
        let own_term =
            metrics.last_applied.map(|id| id.leader_id.term) == Some(metrics.current_term);
        Standing {
            leader: metrics.current_leader,
            term: metrics.current_term,
            applied,
            leads: metrics.state == ServerState::Leader
                && metrics.current_leader == Some(self.id)
                && own_term,
        }
    }
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> Replica<RT, D, P> {
    /// Follows who leads, the term and how far the state has come.
    #[must_use]
    pub fn watch(&self) -> Watcher<RT> {
        Watcher { id: self.id(), metrics: self.metrics(), published: self.published(), seen: None }
    }

    /// Waits until the replica stops, and says why: a failed disk, or a shutdown. The host ends
    /// the process on the former, because a node without its disk promises nothing.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.metrics();
        // Gone without a word, when its core has panicked.
        let _gone = metrics.wait_until(|metrics| metrics.running_state.is_err()).await;
        self.stopped_by().unwrap_or_else(|| "raft stopped".to_owned())
    }

    /// How the replica stands, in full.
    #[must_use]
    pub fn status(&self) -> Status {
        let metrics = self.metrics().borrow_watched().clone();
        let members = metrics
            .membership_config
            .nodes()
            .map(|(id, node)| Member {
                id: *id,
                node: node.clone(),
                voter: metrics.membership_config.voter_ids().any(|voter| voter == *id),
                matched: matched(&metrics, *id),
            })
            .collect();
        Status {
            id: self.id(),
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Follower => Role::Follower,
                ServerState::Learner => Role::Learner,
                ServerState::Shutdown => Role::Stopping,
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log: metrics.last_log_index,
            committed: index(metrics.local_committed),
            applied: self.published().borrow_watched().applied,
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            joint: metrics.membership_config.get_joint_config().len() > 1,
            members,
            stopped: self.stopped_by(),
        }
    }
}

fn index(id: Option<LogId>) -> Option<u64> {
    id.map(|id| id.index)
}

/// The leader's own log matches itself.
fn matched<RT: AsyncRuntime>(metrics: &RaftMetrics<Types<RT>>, id: NodeId) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    if id == metrics.id {
        return metrics.last_log_index;
    }
    replication.get(&id).and_then(|id| index(*id))
}
