//! Who takes part: what operators ask of any node, and the leader does.

use replica::NodeId;
use replica::membership::ChangeError;
use replica::peers::PeerError;
use serde::{Deserialize, Serialize};

use crate::limits::MEMBERS_TIMEOUT;
use crate::node::Agent;
use crate::soft::{Answer, Message};
use crate::world::World;

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// The node that waits at this address is let in, to follow and not to vote.
    Join(String),
    /// A member that does not run any more is taken off the record, for good.
    Leave(NodeId),
    /// A member votes from now on.
    Promote(NodeId),
    /// A member follows from now on, and does not vote.
    Demote(NodeId),
}

/// Why the members were not changed, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MemberChangeError {
    /// Nothing has changed, and will not by asking again.
    #[error("{0}")]
    Refused(String),
    /// Nothing has changed: nobody leads, or nobody waits to be let in. Another try may do.
    #[error("{0}")]
    NotNow(String),
    /// It may have happened, or not.
    #[error("{0}")]
    Unknown(String),
}

impl<W: World> Agent<W> {
    /// Has the leader change the members. Returns the member concerned, once the change is agreed.
    ///
    /// # Errors
    ///
    /// [`MemberChangeError`].
    pub async fn change_members(&self, change: MemberChange) -> Result<NodeId, MemberChangeError> {
        let leader = self.replica().status().leader;
        let Some(leader) = leader else {
            return Err(MemberChangeError::NotNow("nobody leads".to_owned()));
        };
        if leader == self.replica().id() {
            return self.change_members_here(change).await;
        }
        let message = Message::ChangeMembers(change).encode();
        let answer = match self.replica().call_soft(leader, message, MEMBERS_TIMEOUT).await {
            Ok(bytes) => Answer::decode(&bytes),
            Err(error @ PeerError::Unreachable { .. }) => {
                return Err(MemberChangeError::NotNow(error.to_string()));
            }
            Err(error @ PeerError::Lost { .. }) => {
                return Err(MemberChangeError::Unknown(error.to_string()));
            }
        };
        let Answer::MembersChanged(changed) = answer else {
            let reason = format!("node {leader} answered {answer:?}");
            return Err(MemberChangeError::Unknown(reason));
        };
        changed
    }

    /// As the leader, or as one who believes so.
    pub(crate) async fn change_members_here(
        &self,
        change: MemberChange,
    ) -> Result<NodeId, MemberChangeError> {
        let replica = self.replica();
        match change {
            MemberChange::Join(address) => replica.join(&address).await.map_err(explain),
            MemberChange::Leave(id) => {
                self.check_is_known(id)?;
                if self.progress_of(id).await.is_some() {
                    return Err(MemberChangeError::Refused(format!(
                        "member {id} runs; evacuate its cell and stop it first"
                    )));
                }
                replica.remove([id].into()).await.map_err(explain)?;
                Ok(id)
            }
            MemberChange::Promote(id) => {
                self.check_is_known(id)?;
                replica.promote([id].into()).await.map_err(explain)?;
                Ok(id)
            }
            MemberChange::Demote(id) => {
                self.check_is_known(id)?;
                replica.demote([id].into()).await.map_err(explain)?;
                Ok(id)
            }
        }
    }

    fn check_is_known(&self, id: NodeId) -> Result<(), MemberChangeError> {
        if self.replica().status().members.iter().any(|member| member.id == id) {
            return Ok(());
        }
        Err(MemberChangeError::Refused(format!("there is no member {id}")))
    }
}

fn explain(error: ChangeError) -> MemberChangeError {
    match error {
        ChangeError::NotLeader { .. } | ChangeError::NobodyThere { .. } => {
            MemberChangeError::NotNow(error.to_string())
        }
        ChangeError::Refused(_) => MemberChangeError::Refused(error.to_string()),
        ChangeError::Unknown(_) => MemberChangeError::Unknown(error.to_string()),
    }
}
