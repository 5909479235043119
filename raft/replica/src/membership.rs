//! Who takes part: learners come, become voters, step back and leave, one change at a time and
//! only at the leader. A voter comes and goes by a joint change (Raft thesis, section 4.3), which
//! openraft carries through both of its steps.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::TypeConfigExt;
use openraft::{AsyncRuntime, ChangeMembers};

use crate::disk::Disk;
use crate::limits;
use crate::network::ask_who;
use crate::peers::{Introduced, Introduction, Peers};
use crate::raft::Types;
use crate::replica::{Replica, time_left};
use crate::wire::{Node, NodeId};

/// Why a change of members or leader was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing changed: ask the leader.
    #[error("this node does not lead{}", leader.map(|id| format!(", node {id} does")).unwrap_or_default())]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// Nothing changed: nobody waits to be let in where somebody should.
    #[error("nobody waits at {address}: {reason}")]
    NobodyThere {
        /// Where.
        address: String,
        /// What went wrong there.
        reason: String,
    },
    /// Nothing changed: the change is not possible now.
    #[error("the members cannot be changed so: {0}")]
    Refused(String),
    /// The change may or may not take effect: look before trying again.
    #[error("it is unknown whether the change took effect: {0}")]
    Unknown(String),
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> Replica<RT, D, P> {
    /// Lets a node in that waits for it at `address`, to follow and not to vote, as a member whose
    /// number nobody ever had. Returns the number once the change is agreed.
    ///
    /// # Errors
    /// See [`ChangeError`]; also refused where a member answers, or one that was a member before.
    pub async fn join(&self, address: &str) -> Result<NodeId, ChangeError> {
        // As no index is given to two entries, no number is given to two members: letting one in
        // takes an entry.
        let index = self.metrics().borrow_watched().last_log_index.unwrap_or_default();
        let id = limits::GIVEN_ID_MAX + 1 + index;
        self.add_learner(id, address, false).await.map(|()| id)
    }

    /// Adds the node that waits at `address` as member `id`, which nobody ever was, to follow and
    /// not to vote. Returns when the change is agreed; with `caught_up`, when the newcomer's log is
    /// about as long as the leader's.
    ///
    /// # Errors
    /// See [`Replica::join`].
    pub async fn add_learner(
        &self,
        id: NodeId,
        address: &str,
        caught_up: bool,
    ) -> Result<(), ChangeError> {
        let node = self.meet(id, address).await?;
        changed(self.raft().add_learner(id, node.clone(), caught_up).await)?;
        self.is_member(id, &node)
    }

    /// The same for many at once, as one change. Waits for none of them.
    ///
    /// # Errors
    /// See [`Replica::join`].
    pub async fn add_learners(
        &self,
        addresses: BTreeMap<NodeId, String>,
    ) -> Result<(), ChangeError> {
        let met = addresses.iter().map(async |(id, address)| {
            let node = self.meet(*id, address).await?;
            Ok((*id, node))
        });
        let nodes: BTreeMap<NodeId, Node> = try_join_all(met).await?.into_iter().collect();
        changed(self.raft().change_membership(ChangeMembers::AddNodes(nodes), true).await)
    }

    /// Learns the name and the disk of a node that is to be member `id`.
    async fn meet(&self, id: NodeId, address: &str) -> Result<Node, ChangeError> {
        let refused = |reason: String| Err(ChangeError::Refused(reason));
        if let Some(leader) = self.metrics().borrow_watched().current_leader
            && leader != self.id()
        {
            return Err(ChangeError::NotLeader { leader: Some(leader) });
        }
        let unmet = Node { address: address.to_owned(), ..Node::default() };
        let me =
            Introduction { node: self.id(), name: self.name().to_owned(), disk: self.disk_id() };
        let introduced = match ask_who::<RT, P>(self.peers(), id, &unmet, me).await {
            Ok(introduced) => introduced,
            Err(error) => {
                let reason = error.to_string();
                return Err(ChangeError::NobodyThere { address: address.to_owned(), reason });
            }
        };
        let Introduced { name, disk, newcomer, node: theirs, .. } = introduced;
        let node = Node { name, disk, ..unmet };
        if newcomer.is_none() && self.node(id).as_ref() != Some(&node) {
            return refused(format!(
                "{} at {address} is, or was, member {theirs}; only one whose disk holds nothing \
                 can be let in",
                node.name
            ));
        }
        let namesake = {
            let metrics = self.metrics();
            let metrics = metrics.borrow_watched();
            let mut others = metrics.membership_config.nodes();
            others.find(|(other, it)| **other != id && it.name == node.name).map(|(id, _)| *id)
        };
        match namesake {
            Some(member) => refused(format!("{} is the name of member {member}", node.name)),
            None => Ok(node),
        }
    }

    /// Whether a change brought in this very node, and not another under its number.
    fn is_member(&self, id: NodeId, node: &Node) -> Result<(), ChangeError> {
        match self.node(id) {
            Some(known) if known.disk == node.disk => Ok(()),
            Some(_) => Err(ChangeError::Refused(format!("another became member {id}"))),
            None => Err(ChangeError::Unknown(format!("member {id} is not on record any more"))),
        }
    }

    /// Lets learners vote.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn promote(&self, ids: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        changed(self.raft().change_membership(ChangeMembers::AddVoterIds(ids), true).await)
    }

    /// Makes voters learners.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn demote(&self, ids: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        changed(self.raft().change_membership(ChangeMembers::RemoveVoters(ids), true).await)
    }

    /// Removes members, voters and learners alike. Their ids must never be used again.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove(&self, ids: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let voters: BTreeSet<NodeId> = {
            let metrics = self.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.voter_ids().filter(|id| ids.contains(id)).collect()
        };
        if !voters.is_empty() {
            self.demote(voters).await?;
        }
        changed(self.raft().change_membership(ChangeMembers::RemoveNodes(ids), false).await)
    }

    /// Hands leadership to the voter `to` and returns once this replica no longer leads.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), ChangeError> {
        {
            let metrics = self.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.current_leader != Some(self.id()) {
                return Err(ChangeError::NotLeader { leader: metrics.current_leader });
            }
            if !metrics.membership_config.voter_ids().any(|id| id == to) {
                return Err(ChangeError::Refused(format!("node {to} is not a voter")));
            }
        }
        if to == self.id() {
            return Ok(());
        }
        let deadline = Types::<RT>::now() + limits::TRANSFER_TIMEOUT;
        self.raft()
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|fatal| ChangeError::Unknown(fatal.to_string()))?;
        let mut metrics = self.metrics();
        let me = self.id();
        let given_up =
            metrics.wait_until(|metrics| metrics.current_leader.is_some_and(|leader| leader != me));
        match RT::timeout(time_left::<RT>(deadline), given_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_gone)) => Err(ChangeError::Unknown("the replica has stopped".to_owned())),
            Err(_elapsed) => {
                let waited = limits::TRANSFER_TIMEOUT.as_millis();
                Err(ChangeError::Unknown(format!("node {to} did not take over within {waited} ms")))
            }
        }
    }
}

fn changed<RT: AsyncRuntime, T>(
    result: Result<T, RaftError<Types<RT>, ClientWriteError<Types<RT>>>>,
) -> Result<(), ChangeError> {
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Err(ChangeError::NotLeader { leader: forward.leader_id })
        }
        Err(RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_))) => {
            Err(ChangeError::Unknown(error.to_string()))
        }
        Err(RaftError::APIError(
            error @ (ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        )) => Err(ChangeError::Refused(error.to_string())),
        Err(RaftError::Fatal(fatal)) => Err(ChangeError::Unknown(fatal.to_string())),
    }
}
