//! Tasks.

use std::sync::Arc;

use api::bbs::error::{Malformed, not_found};
use api::bbs::messages as bbs;
use api::bbs::{downgrade, task, task_from};
use model::{CellId, Command, Task, TaskGuid};

use super::Call;
use crate::faces::seal;
use crate::secrets::Owner;

type Changed = Result<bbs::TaskLifecycleResponse, bbs::Error>;

const CHANGED: bbs::TaskLifecycleResponse = bbs::TaskLifecycleResponse { error: None };

pub(super) async fn list(
    call: Call,
    request: bbs::TasksRequest,
) -> Result<bbs::TasksResponse, bbs::Error> {
    let state = call.read().await?;
    let bbs::TasksRequest { domain, cell_id } = request;
    let of_domain =
        state.tasks().filter(|it| domain.is_empty() || it.domain.as_str() == domain.as_str());
    let tasks = of_domain
        .map(|it| task(it))
        .filter(|it| cell_id.is_empty() || it.cell_id == cell_id)
        .collect();
    Ok(bbs::TasksResponse { error: None, tasks })
}

/// For clients that know no image layers.
pub(super) async fn list_r2(
    call: Call,
    request: bbs::TasksRequest,
) -> Result<bbs::TasksResponse, bbs::Error> {
    let mut answer = list(call, request).await?;
    answer.tasks = answer.tasks.into_iter().map(downgrade::task).collect();
    Ok(answer)
}

pub(super) async fn get(
    call: Call,
    request: bbs::TaskByGuidRequest,
) -> Result<bbs::TaskResponse, bbs::Error> {
    let found = find(&call, &guid(request.task_guid)?).await?;
    Ok(bbs::TaskResponse { error: None, task: Some(task(&found)) })
}

/// For clients that know no image layers.
pub(super) async fn get_r2(
    call: Call,
    request: bbs::TaskByGuidRequest,
) -> Result<bbs::TaskResponse, bbs::Error> {
    let mut answer = get(call, request).await?;
    answer.task = answer.task.map(downgrade::task);
    Ok(answer)
}

pub(super) async fn desire(call: Call, request: bbs::DesireTaskRequest) -> Changed {
    let (task_guid, domain, mut definition) = task_from(request, &call.trace_id)?;
    let owner = Owner::Task(&task_guid);
    seal(&call.face.agent, owner, &definition.image_username, &mut definition.image_password)
        .map_err(Malformed)?;
    tracing::info!(task_guid = %task_guid, trace_id = call.trace_id, "a task is asked for");
    let definition = Box::new(definition);
    call.change(Command::DesireTask { task_guid, domain, definition }).await?;
    Ok(CHANGED)
}

/// Only the answer that says so allows the task to run.
pub(super) async fn start(
    call: Call,
    request: bbs::StartTaskRequest,
) -> Result<bbs::StartTaskResponse, bbs::Error> {
    let (task_guid, cell_id) = Malformed::both(legal(request.task_guid), cell(request.cell_id))?;
    let should_start = call.change(Command::StartTask { task_guid, cell_id }).await?;
    Ok(bbs::StartTaskResponse { error: None, should_start })
}

pub(super) async fn cancel(call: Call, request: bbs::TaskGuidRequest) -> Changed {
    call.change(Command::CancelTask { task_guid: guid(request.task_guid)? }).await?;
    Ok(CHANGED)
}

pub(super) async fn fail(call: Call, request: bbs::FailTaskRequest) -> Changed {
    let (task_guid, reason) =
        Malformed::both(legal(request.task_guid), reason(request.failure_reason))?;
    call.change(Command::FailTask { task_guid, reason }).await?;
    Ok(CHANGED)
}

/// Diego's cells do not say which they are: it is the one on record, and another's answer is
/// refused if that changes meanwhile.
pub(super) async fn reject(call: Call, request: bbs::RejectTaskRequest) -> Changed {
    let (task_guid, reason) =
        Malformed::both(legal(request.task_guid), reason(request.rejection_reason))?;
    let found = find(&call, &task_guid).await?;
    let command = match found.cell() {
        Some(cell_id) => Command::RejectTaskOnCell { task_guid, cell_id: cell_id.clone(), reason },
        None => Command::RejectTask { task_guid, reason },
    };
    call.change(command).await?;
    Ok(CHANGED)
}

pub(super) async fn complete(call: Call, request: bbs::CompleteTaskRequest) -> Changed {
    let (task_guid, cell_id) = Malformed::both(legal(request.task_guid), cell(request.cell_id))?;
    let bbs::CompleteTaskRequest { failed, failure_reason, result, .. } = request;
    call.change(Command::CompleteTask { task_guid, cell_id, failed, failure_reason, result })
        .await?;
    Ok(CHANGED)
}

pub(super) async fn resolving(call: Call, request: bbs::TaskGuidRequest) -> Changed {
    call.change(Command::ResolvingTask { task_guid: guid(request.task_guid)? }).await?;
    Ok(CHANGED)
}

pub(super) async fn delete(call: Call, request: bbs::TaskGuidRequest) -> Changed {
    call.change(Command::DeleteTask { task_guid: guid(request.task_guid)? }).await?;
    Ok(CHANGED)
}

async fn find(call: &Call, guid: &TaskGuid) -> Result<Arc<Task>, bbs::Error> {
    call.read().await?.task(guid).cloned().ok_or_else(not_found)
}

fn guid(guid: String) -> Result<TaskGuid, Malformed> {
    if guid.is_empty() { Err(Malformed::field("task_guid")) } else { Ok(guid.into()) }
}

/// One that a task can have; where Diego looks closer (lifecycle.md section 8).
fn legal(guid: String) -> Result<TaskGuid, Malformed> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if guid.is_empty() || !guid.bytes().all(is_legal) {
        return Err(Malformed::field("task_guid"));
    }
    Ok(guid.into())
}

/// Diego calls a rejection's reason so as well.
fn reason(reason: String) -> Result<String, Malformed> {
    if reason.is_empty() { Err(Malformed::field("failure_reason")) } else { Ok(reason) }
}

fn cell(cell_id: String) -> Result<CellId, Malformed> {
    if cell_id.is_empty() { Err(Malformed::field("cell_id")) } else { Ok(cell_id.into()) }
}
