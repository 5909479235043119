//! A cell's own routes (bbs-wire.md section 7), as far as clients outside a cell ask them: what it
//! has and holds, its containers' figures, and the three things that an operator may tell it.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use model::{
    ActualLrp, ActualLrpKey, Cell, CellLoad, Command, DesiredLrp, InstanceGuid, InstanceKey,
    Intake, Millis, ProcessGuid, RootfsProvider, Task, TaskGuid,
};
use plan::cell::Handle;
use serde_json::{Map, Value, json};

use crate::faces::usage;
use crate::world::NodeAgent;

/// Diego: the rep's `evacuation_timeout`.
const EVACUATION: Millis = Millis::from_secs(600);

pub(crate) fn routes(agent: NodeAgent) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/container_metrics", get(container_metrics))
        .route("/ping", get(async || StatusCode::OK))
        .route("/evacuate", post(evacuate))
        .route("/v1/lrps/{process_guid}/instances/{instance_guid}/stop", post(stop))
        .route("/v1/tasks/{task_guid}/cancel", post(cancel))
        .with_state(agent)
}

/// By this node's own state, which is what its containers follow.
async fn state(State(agent): State<NodeAgent>) -> Json<Value> {
    let state = agent.read_stale().state;
    // As agreed; as it offers itself while that has not happened.
    let agreed = state.cell(&agent.cell().cell_id);
    let cell = if let Some(agreed) = agreed { agreed } else { agent.cell() };
    let load = state.load(&cell.cell_id).cloned().unwrap_or_default();
    let rows = load.lrps.iter().filter_map(|id| state.actual_lrp(id));
    let lrps: Vec<_> =
        rows.filter_map(|row| Some(lrp(row, state.desired_lrp(&row.key.process_guid)?))).collect();
    let tasks: Vec<_> =
        load.tasks.iter().filter_map(|guid| state.task(guid)).map(|it| task(it)).collect();
    Json(cell_state(cell, &load, lrps, tasks))
}

fn cell_state(cell: &Cell, load: &CellLoad, lrps: Vec<Value>, tasks: Vec<Value>) -> Value {
    let total = cell.capacity;
    let left = |total: u32, taken: u64| i64::from(total) - i64::try_from(taken).unwrap_or(i64::MAX);
    json!({
        "rep_url": cell.rep_url,
        "cell_id": cell.cell_id,
        "cell_index": cell.node_id,
        "RootFSProviders": providers(&cell.rootfs_providers),
        "AvailableResources": {
            "MemoryMB": left(total.memory_mb, load.memory_mb),
            "DiskMB": left(total.disk_mb, load.disk_mb),
            "Containers": left(total.containers, load.containers.into()),
        },
        "TotalResources": {
            "MemoryMB": total.memory_mb,
            "DiskMB": total.disk_mb,
            "Containers": total.containers,
        },
        "LRPs": lrps,
        "Tasks": tasks,
        "StartingContainerCount": load.starting,
        "Zone": cell.zone,
        "Evacuating": cell.intake != Intake::Open,
        "VolumeDrivers": cell.volume_drivers,
        "PlacementTags": cell.placement_tags,
        "OptionalPlacementTags": cell.optional_placement_tags,
        "ProxyMemoryAllocationMB": 0,
    })
}

fn providers(providers: &[RootfsProvider]) -> Value {
    let provider = |provider: &RootfsProvider| match provider {
        RootfsProvider::Arbitrary { scheme } => (scheme.clone(), json!({"type": "arbitrary"})),
        RootfsProvider::FixedSet { scheme, stacks } => {
            let set: Map<_, _> = stacks.iter().map(|stack| (stack.clone(), json!({}))).collect();
            (scheme.clone(), json!({"type": "fixed_set", "set": set}))
        }
    };
    Value::Object(providers.iter().map(provider).collect())
}

fn lrp(row: &ActualLrp, desired: &DesiredLrp) -> Value {
    let drivers: Vec<_> = desired.volume_mounts.iter().map(|mount| &mount.driver).collect();
    json!({
        "instance_guid": row.instance().map(|instance| &instance.instance_guid),
        "process_guid": row.key.process_guid,
        "index": row.key.index,
        "domain": row.key.domain,
        "PlacementTags": desired.placement_tags,
        "VolumeDrivers": drivers,
        "RootFs": desired.rootfs,
        "MemoryMB": desired.memory_mb,
        "DiskMB": desired.disk_mb,
        "MaxPids": desired.max_pids,
        "state": row.state.name(),
    })
}

/// One that is placed and has not started counts as running, as a reserved container does in Diego.
fn task(task: &Task) -> Value {
    let definition = &task.definition;
    let drivers: Vec<_> = definition.volume_mounts.iter().map(|mount| &mount.driver).collect();
    json!({
        "TaskGuid": task.task_guid,
        "Domain": task.domain,
        "PlacementTags": definition.placement_tags,
        "VolumeDrivers": drivers,
        "RootFs": definition.rootfs,
        "MemoryMB": definition.memory_mb,
        "DiskMB": definition.disk_mb,
        "MaxPids": definition.max_pids,
        "state": "Running",
        "failed": false,
    })
}

/// Under what its metrics are known. Diego's cells read LRPs from lists, where the tag stands for a
/// guid that is missing (`PopulateMetricsGuid`).
fn metric_guid(desired: &DesiredLrp) -> &str {
    let tag = || desired.metric_tags.get("source_id").map_or("", |tag| &tag.fixed);
    if desired.metrics_guid.is_empty() { tag() } else { &desired.metrics_guid }
}

async fn container_metrics(State(agent): State<NodeAgent>) -> Response {
    let state = agent.read_stale().state;
    let cell_id = agent.cell().cell_id.clone();
    let load = state.load(&cell_id).cloned().unwrap_or_default();
    let rows: Vec<_> = load.lrps.iter().filter_map(|id| state.actual_lrp(id)).collect();
    let tasks: Vec<_> = load.tasks.iter().filter_map(|guid| state.task(guid)).collect();
    let handles = rows
        .iter()
        .filter_map(|row| Some(Handle::Lrp(row.instance()?.instance_guid.clone())))
        .chain(tasks.iter().map(|task| Handle::Task(task.task_guid.clone())));
    let containers: Vec<String> =
        handles.map(|handle| crate::containers::id_text(&handle)).collect();
    let used = match usage::of_containers(&agent, &cell_id, &containers).await {
        Ok(used) => used,
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    let used: BTreeMap<_, _> = containers.iter().zip(used).collect();
    let metrics = |handle: &Handle, metric_guid: &str, memory_mb: i32, disk_mb: i32| {
        let used = used.get(&crate::containers::id_text(handle)).copied().flatten()?;
        let mebibytes = |mb: i32| u64::try_from(mb).unwrap_or(0) << 20;
        Some(json!({
            "metric_guid": metric_guid,
            "cpu_usage_fraction": Value::from(thousandths(used.cpu_millicores)),
            "disk_usage_bytes": used.disk_bytes,
            "disk_quota_bytes": mebibytes(disk_mb),
            "memory_usage_bytes": used.memory_bytes,
            "memory_quota_bytes": mebibytes(memory_mb),
        }))
    };
    let of_lrp = |row: &&std::sync::Arc<ActualLrp>| {
        let guid = &row.instance()?.instance_guid;
        let desired = state.desired_lrp(&row.key.process_guid)?;
        let handle = Handle::Lrp(guid.clone());
        let mut told = metrics(&handle, metric_guid(desired), desired.memory_mb, desired.disk_mb)?;
        told["instance_guid"] = guid.as_str().into();
        told["process_guid"] = row.key.process_guid.as_str().into();
        told["index"] = row.key.index.into();
        Some(told)
    };
    let of_task = |task: &&std::sync::Arc<Task>| {
        let definition = &task.definition;
        let handle = Handle::Task(task.task_guid.clone());
        let guid = &definition.metrics_guid;
        let mut told = metrics(&handle, guid, definition.memory_mb, definition.disk_mb)?;
        told["task_guid"] = task.task_guid.as_str().into();
        Some(told)
    };
    let lrps: Vec<_> = rows.iter().filter_map(of_lrp).collect();
    let tasks: Vec<_> = tasks.iter().filter_map(of_task).collect();
    Json(json!({"cell_id": cell_id, "lrps": lrps, "tasks": tasks})).into_response()
}

fn thousandths(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 1000.0
}

/// This cell, as `gavel evacuate` does it; asked again, the time begins anew.
async fn evacuate(State(agent): State<NodeAgent>) -> Response {
    let cell_id = agent.cell().cell_id.clone();
    match agent.propose(Command::EvacuateCell { cell_id, timeout: EVACUATION }).await {
        Ok(_changed) => (StatusCode::ACCEPTED, Json(json!({"ping_path": "/ping"}))).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Its record goes, and its container with it; another one is made while it is desired.
async fn stop(
    State(agent): State<NodeAgent>,
    Path((process_guid, instance_guid)): Path<(String, String)>,
) -> Response {
    let (process_guid, instance_guid) =
        (ProcessGuid::from(process_guid), InstanceGuid::from(instance_guid));
    let instance = InstanceKey { instance_guid, cell_id: agent.cell().cell_id.clone() };
    let state = agent.read_stale().state;
    let key: Option<ActualLrpKey> = state
        .actual_lrps_of(&process_guid)
        .find(|row| row.instance() == Some(&instance))
        .map(|row| row.key.clone());
    let Some(key) = key else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    match agent.propose(Command::RemoveLrp { key, instance }).await {
        Ok(_changed) => StatusCode::ACCEPTED.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// 202 whatever becomes of it, as Diego's.
async fn cancel(State(agent): State<NodeAgent>, Path(task_guid): Path<String>) -> StatusCode {
    let task_guid = TaskGuid::from(task_guid);
    if let Err(error) = agent.propose(Command::CancelTask { task_guid: task_guid.clone() }).await {
        tracing::info!(%task_guid, %error, "a task is not cancelled");
    }
    StatusCode::ACCEPTED
}

#[cfg(test)]
mod tests;
