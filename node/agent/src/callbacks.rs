//! Tells clients by HTTP that their tasks have ended, on behalf of the leader's turn, which has had
//! it agreed that this node does.
//!
//! What becomes of it is Diego's (lifecycle.md section 1.7): an answer deletes the task, whatever it
//! says; "unavailable" and silence are tried again at once; what cannot be reached is left
//! RESOLVING, and comes back when that has lasted too long. So a client is told at least once while
//! its task is kept, and may be told twice where a leader is lost.

use std::sync::Arc;

use model::{Command, Task, TaskGuid, TaskState};
use replica::AsyncRuntime;

use crate::limits::{CALLBACK_REQUESTS_MAX, CALLBACK_TIMEOUT};
use crate::node::Agent;
use crate::world::World;

/// Begins a callback for each of these tasks, which are RESOLVING by this node's own proposal.
pub(crate) fn begin<W: World>(agent: &Agent<W>, task_guids: Vec<TaskGuid>) {
    for task_guid in task_guids {
        let place = agent.take_callback_place();
        let agent = agent.clone();
        drop(W::Runtime::spawn(async move {
            resolve(&agent, task_guid).await;
            drop(place);
        }));
    }
}

async fn resolve<W: World>(agent: &Agent<W>, task_guid: TaskGuid) {
    let Some(task) = resolving(agent, &task_guid).await else { return };
    if !is_told(agent, &task).await {
        return;
    }
    if let Err(error) = agent.propose(Command::DeleteTask { task_guid }).await {
        tracing::warn!(task = %task.task_guid, %error, "its client was told and it is not deleted");
    }
}

/// The task as it was agreed to be resolved; none if that has been overtaken.
async fn resolving<W: World>(agent: &Agent<W>, task_guid: &TaskGuid) -> Option<Arc<Task>> {
    if let Err(error) = agent.read().await {
        tracing::debug!(%error, "acting on a state that may be old");
    }
    let state = agent.read_stale().state;
    let task = state.task(task_guid)?;
    matches!(task.state, TaskState::Resolving { .. }).then(|| Arc::clone(task))
}

/// Whether the client has answered.
async fn is_told<W: World>(agent: &Agent<W>, task: &Task) -> bool {
    let url = task.definition.completion_callback_url.as_str();
    let limit = agent.world().duration(CALLBACK_TIMEOUT);
    for request in 1..=CALLBACK_REQUESTS_MAX {
        match W::Runtime::timeout(limit, agent.world().call_back(task)).await {
            Ok(Ok(status @ (503 | 504))) => {
                tracing::info!(task = %task.task_guid, url, request, status, "not taken now");
            }
            Ok(Ok(status)) => {
                tracing::debug!(task = %task.task_guid, url, status, "its client was told");
                return true;
            }
            Ok(Err(error)) => {
                tracing::warn!(task = %task.task_guid, url, %error, "its client was not told");
                return false;
            }
            Err(_timeout) => {
                tracing::info!(task = %task.task_guid, url, request, "no answer in time");
            }
        }
    }
    tracing::warn!(task = %task.task_guid, url, "its client was not told: all requests in vain");
    false
}
