//! What people and programs ask of a node, whoever leads.

use model::{Command, Outcome, ProcessGuid, Proposal, Refusal, TaskGuid};
use plan::report::Wait;
use replica::replica::{ProposeError, ReadError};
use replica::state::Reading;

use crate::limits::SOFT_TIMEOUT;
use crate::node::Agent;
use crate::soft::{Answer, Message};
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

impl<W: World> Agent<W> {
    /// Has one command agreed and applied. Returns whether it changed anything, once a majority
    /// has it on disk.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. Dropping the future leaves the outcome unknown.
    pub async fn propose(&self, command: Command) -> Result<bool, RequestError> {
        let proposal = Proposal { at: self.world().now(), commands: vec![command] };
        let Outcome(mut results) = self.replica().propose(&proposal).await?;
        let result = results.pop().expect("an outcome has a result for each command");
        Ok(result?)
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
        match self.ask_leader(Message::WaitingLrps(process_guid)).await {
            Some(Answer::WaitingLrps(waiting)) => waiting,
            Some(Answer::Heard | Answer::WaitingTask(_) | Answer::Malformed) | None => Vec::new(),
        }
    }

    /// As [`Agent::waiting_lrps`], for a task.
    pub async fn waiting_task(&self, task_guid: TaskGuid) -> Option<Wait> {
        match self.ask_leader(Message::WaitingTask(task_guid)).await {
            Some(Answer::WaitingTask(waiting)) => waiting,
            Some(Answer::Heard | Answer::WaitingLrps(_) | Answer::Malformed) | None => None,
        }
    }

    /// `None` when nobody leads, or the leader does not answer.
    pub(crate) async fn ask_leader(&self, message: Message) -> Option<Answer> {
        let leader = self.replica().status().leader?;
        if leader == self.replica().id() {
            return Some(self.answer_here(message));
        }
        let answer = self.replica().call_soft(leader, message.encode(), SOFT_TIMEOUT).await;
        match answer {
            Ok(bytes) => Some(Answer::decode(&bytes)),
            Err(error) => {
                tracing::debug!(%error, "the leader did not answer");
                None
            }
        }
    }
}
