//! Who takes part: learners come, become voters, step back and leave, one change at a time and
//! only at the leader. A voter comes and goes by a joint change (Raft thesis, section 4.3), which
//! openraft carries through both of its steps.

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::TypeConfigExt;
use openraft::{AsyncRuntime, ChangeMembers};

use crate::disk::Disk;
use crate::limits;
use crate::peers::Peers;
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
    /// Nothing changed: the change is not possible now.
    #[error("the members cannot be changed so: {0}")]
    Refused(String),
    /// The change may or may not take effect: look before trying again.
    #[error("it is unknown whether the change took effect: {0}")]
    Unknown(String),
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> Replica<RT, D, P> {
    /// Adds many nodes that do not vote, as one change, and waits for none of them.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn add_learners(&self, nodes: BTreeMap<NodeId, Node>) -> Result<(), ChangeError> {
        changed(self.raft().change_membership(ChangeMembers::AddNodes(nodes), true).await)
    }

    /// Adds a member that follows and does not vote. Returns when the change is agreed; with
    /// `caught_up`, when the newcomer's log is about as long as the leader's.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_learner(
        &self,
        id: NodeId,
        node: Node,
        caught_up: bool,
    ) -> Result<(), ChangeError> {
        changed(self.raft().add_learner(id, node, caught_up).await)
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
