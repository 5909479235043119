//! What people and programs ask of a node, whoever leads.

use model::{Command, Outcome, ProcessGuid, Proposal, Refusal, TaskGuid};
use plan::report::Wait;
use replica::replica::{ProposeError, ReadError};
use replica::state::Reading;

use crate::limits::SOFT_TIMEOUT;
use crate::node::Agent;
use crate::soft::{Answer, Message, Progress};
use crate::world::World;

/// Why a change was not made, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The cluster said no; nothing has changed.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It was not agreed, or may not have been.
    #[error("{0}")]
    NotAgreed(#[from] ProposeError),
}

/// Nobody leads, or the leader does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no leader answers; try again")]
pub struct LeaderUnknown;

impl<W: World> Agent<W> {
    /// Has one command agreed and applied. Returns whether it changed anything, once a majority
    /// has it on disk.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. Dropping the future leaves the outcome unknown.
    pub async fn propose(&self, command: Command) -> Result<bool, RequestError> {
        let mut results = self.propose_all(vec![command]).await?;
        let result = results.pop().expect("an outcome has a result for each command");
        Ok(result?)
    }

    /// Has commands agreed as one proposal. Each is accepted or refused by itself, in order.
    ///
    /// # Errors
    ///
    /// [`ProposeError`]. Dropping the future leaves the outcome unknown.
    pub async fn propose_all(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<bool, Refusal>>, ProposeError> {
        let proposal = Proposal { at: self.world().now(), commands };
        let Outcome(results) = self.replica().propose(&proposal).await?;
        Ok(results)
    }

    /// The state after every change acknowledged before this call, by whichever node.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; trying again is safe.
    pub async fn read(&self) -> Result<Reading, ReadError> {
        self.replica().read_linearizable().await
    }

    /// The state as far as this node has applied it.
    #[must_use]
    pub fn read_stale(&self) -> Reading {
        self.replica().read_stale()
    }

    /// Why the unplaced instances of a process wait, by index, as the leader's last turn saw it;
    /// nothing while nobody leads.
    pub async fn waiting_lrps(&self, process_guid: ProcessGuid) -> Vec<(u32, Wait)> {
        if let Some(Answer::WaitingLrps(waiting)) =
            self.ask_leader(Message::WaitingLrps(process_guid)).await
        {
            waiting
        } else {
            Vec::new()
        }
    }

    /// As [`Agent::waiting_lrps`], for a task.
    pub async fn waiting_task(&self, task_guid: TaskGuid) -> Option<Wait> {
        if let Some(Answer::WaitingTask(waiting)) =
            self.ask_leader(Message::WaitingTask(task_guid)).await
        {
            waiting
        } else {
            None
        }
    }

    /// How far a node has come; `None` when it does not answer.
    pub async fn progress_of(&self, node_id: u64) -> Option<Progress> {
        if let Some(Answer::Applied(progress)) = self.ask(node_id, Message::Applied).await {
            Some(progress)
        } else {
            None
        }
    }

    /// Asks the leader to hand leadership to another voter. Whether that one takes it shows in
    /// who leads.
    ///
    /// # Errors
    ///
    /// Nobody leads, or the leader does not answer.
    pub async fn transfer_leadership(&self, to: u64) -> Result<(), LeaderUnknown> {
        match self.ask_leader(Message::TransferLeadership(to)).await {
            Some(Answer::Heard) => Ok(()),
            Some(_) | None => Err(LeaderUnknown),
        }
    }

    /// `None` when nobody leads, or the leader does not answer.
    pub(crate) async fn ask_leader(&self, message: Message) -> Option<Answer> {
        let leader = self.replica().status().leader?;
        self.ask(leader, message).await
    }

    /// `None` when the node does not answer.
    async fn ask(&self, node_id: u64, message: Message) -> Option<Answer> {
        if node_id == self.replica().id() {
            return Some(self.answer_here(message));
        }
        let answer = self.replica().call_soft(node_id, message.encode(), SOFT_TIMEOUT).await;
        match answer {
            Ok(bytes) => Some(Answer::decode(&bytes)),
            Err(error) => {
                tracing::debug!(node_id, %error, "a node did not answer");
                None
            }
        }
    }
}
