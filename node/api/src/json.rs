//! The nouns as `cfdot` prints and reads them: Diego's field names, one object each.
//!
//! The model's own form serves postcard, which cannot leave fields out or flatten them; this is
//! where JSON's habits live.

use model::{
    ActualLrp, ActualState, Cell, CellHealth, DesiredLrp, DesiredLrpUpdate, Domain, DomainName,
    Intake, Millis, RootfsProvider, Task, TaskDefinition, TaskGuid, metric_tag,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::admin::{CellStatus, ClusterStatus, LogLine};

/// A desired LRP as `cfdot desired-lrps` prints it: routes are JSON, not text.
#[must_use]
pub fn desired_lrp(lrp: &DesiredLrp) -> Value {
    let mut value = serde_json::to_value(lrp).expect("a desired LRP is plain data");
    let routes: Map<String, Value> = lrp
        .routes
        .iter()
        .map(|(router, text)| {
            let route = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
            (router.clone(), route)
        })
        .collect();
    value["routes"] = Value::Object(routes);
    value["created_at"] = lrp.created_at.as_nanos().into();
    value
}

/// Reads a desired LRP as `cfdot create-desired-lrp` takes it.
///
/// # Errors
///
/// Says which field is missing, unknown in kind or not JSON.
pub fn parse_desired_lrp(text: &str) -> Result<DesiredLrp, serde_json::Error> {
    let mut value: Value = serde_json::from_str(text)?;
    routes_to_text(&mut value);
    if let Value::Object(fields) = &mut value {
        // In nanoseconds where it was printed; it is made anew in any case.
        fields.remove("created_at");
    }
    serde_json::from_value(value)
}

/// Reads an update as `cfdot update-desired-lrp` takes it.
///
/// # Errors
///
/// As [`parse_desired_lrp`].
pub fn parse_desired_lrp_update(text: &str) -> Result<DesiredLrpUpdate, serde_json::Error> {
    let mut value: Value = serde_json::from_str(text)?;
    routes_to_text(&mut value);
    serde_json::from_value(value)
}

fn routes_to_text(value: &mut Value) {
    if let Some(Value::Object(routes)) = value.get_mut("routes") {
        for route in routes.values_mut() {
            *route = Value::String(route.to_string());
        }
    }
}

/// An actual LRP as `cfdot actual-lrps` prints it: key, placement and net info side by side. Its
/// internal routes and metric tags are those of the desired LRP, where that is given.
#[must_use]
pub fn actual_lrp(lrp: &ActualLrp, desired: Option<&DesiredLrp>) -> Value {
    let mut value = json!({
        "process_guid": lrp.key.process_guid,
        "index": lrp.key.index,
        "domain": lrp.key.domain,
        "state": lrp.state.name(),
        "presence": lrp.presence.name(),
        "crash_count": lrp.crash_count,
        "since": lrp.since.as_nanos(),
        "modification_tag": lrp.modification_tag,
        "OptionalRoutable": {"routable": lrp.routable},
        "availability_zone": lrp.availability_zone,
    });
    if let Some(routes) = desired.and_then(internal_routes) {
        value["actual_lrp_internal_routes"] = routes;
    }
    let tags = desired.map(|desired| metric_tag::resolve(&desired.metric_tags, lrp));
    if let Some(tags) = tags.filter(|tags| !tags.is_empty()) {
        value["metric_tags"] = json!(tags);
    }
    if !lrp.crash_reason.is_empty() {
        value["crash_reason"] = lrp.crash_reason.as_str().into();
    }
    if let Some(instance) = lrp.instance() {
        value["instance_guid"] = instance.instance_guid.as_str().into();
        value["cell_id"] = instance.cell_id.as_str().into();
    }
    match &lrp.state {
        ActualState::Unclaimed { placement_error } if !placement_error.is_empty() => {
            value["placement_error"] = placement_error.as_str().into();
        }
        ActualState::Running { net_info, .. } => {
            value["address"] = net_info.address.to_string().into();
            value["instance_address"] = net_info.instance_address.to_string().into();
            value["ports"] = json!(net_info.ports);
        }
        ActualState::Unclaimed { .. } | ActualState::Claimed { .. } | ActualState::Crashed => {}
    }
    value
}

/// The names of an LRP inside the platform (Diego: the routes of `internal-router`).
fn internal_routes(desired: &DesiredLrp) -> Option<Value> {
    let text = desired.routes.get("internal-router")?;
    let routes: Value = serde_json::from_str(text).ok()?;
    let is_empty = routes.as_array().is_none_or(Vec::is_empty);
    (!is_empty).then_some(routes)
}

/// A task as `cfdot tasks` prints it: its definition nested, its state's parts side by side.
#[must_use]
pub fn task(task: &Task) -> Value {
    let result = task.result();
    let first_completed_at = result.map_or(Millis(0), |end| end.first_completed_at);
    json!({
        "task_guid": task.task_guid,
        "domain": task.domain,
        "task_definition": task.definition,
        "state": task.state.name(),
        "cell_id": task.cell().map(model::CellId::as_str).unwrap_or_default(),
        "created_at": task.created_at.as_nanos(),
        "updated_at": task.updated_at.as_nanos(),
        "first_completed_at": first_completed_at.as_nanos(),
        "failed": result.is_some_and(|end| end.failed),
        "failure_reason": result.map(|end| end.failure_reason.as_str()).unwrap_or_default(),
        "result": result.map(|end| end.result.as_str()).unwrap_or_default(),
        "rejection_count": task.rejection_count,
        "rejection_reason": task.rejection_reason,
    })
}

/// What a client is told when its task has ended (Diego: `models.TaskCallbackResponse`).
#[must_use]
pub fn task_callback(task: &Task) -> Value {
    let result = task.result();
    let mut value = json!({
        "task_guid": task.task_guid,
        "failed": result.is_some_and(|end| end.failed),
        "failure_reason": result.map(|end| end.failure_reason.as_str()).unwrap_or_default(),
        "result": result.map(|end| end.result.as_str()).unwrap_or_default(),
        "created_at": task.created_at.as_nanos(),
    });
    if !task.definition.annotation.is_empty() {
        value["annotation"] = task.definition.annotation.as_str().into();
    }
    value
}

/// A task as `cfdot create-task` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NewTask {
    pub task_guid: TaskGuid,
    pub domain: DomainName,
    pub task_definition: TaskDefinition,
}

/// Reads a task as `cfdot create-task` takes it.
///
/// # Errors
///
/// Says which field is missing or of the wrong kind.
pub fn parse_task(text: &str) -> Result<NewTask, serde_json::Error> {
    serde_json::from_str(text)
}

/// Diego: an arbitrary provider has no properties, a fixed set's are its stacks.
fn rootfs_provider(provider: &RootfsProvider) -> Value {
    match provider {
        RootfsProvider::Arbitrary { scheme } => json!({"name": scheme}),
        RootfsProvider::FixedSet { scheme, stacks } => {
            json!({"name": scheme, "properties": stacks})
        }
    }
}

/// A cell as `cfdot cells` prints it, with what is taken of it besides.
#[must_use]
pub fn cell(status: &CellStatus) -> Value {
    let cell: &Cell = &status.cell;
    let providers: Vec<Value> = cell.rootfs_providers.iter().map(rootfs_provider).collect();
    json!({
        "cell_id": cell.cell_id,
        "zone": cell.zone,
        "address": cell.address,
        "capacity": cell.capacity,
        "rootfs_provider_list": providers,
        "placement_tags": cell.placement_tags,
        "optional_placement_tags": cell.optional_placement_tags,
        "volume_drivers": cell.volume_drivers,
        "state": match cell.health {
            CellHealth::Present => "present",
            CellHealth::Missing { .. } => "missing",
        },
        "intake": match cell.intake {
            Intake::Open => "open",
            Intake::Evacuating { .. } => "evacuating",
            Intake::Closed => "closed",
        },
        "memory_mb_used": status.memory_mb_used,
        "disk_mb_used": status.disk_mb_used,
        "lrps": status.lrps,
        "tasks": status.tasks,
    })
}

#[must_use]
pub fn domain(domain: &Domain) -> Value {
    json!({ "domain": domain.name, "expires_at": domain.expires_at.map(Millis::as_nanos) })
}

#[must_use]
pub fn cluster_status(status: &ClusterStatus) -> Value {
    serde_json::to_value(status).expect("a status is plain data")
}

/// A line of output, with the instance that wrote it.
#[must_use]
pub fn log_line(source: &str, line: &LogLine) -> Value {
    json!({
        "source": source,
        "timestamp": line.at_ns,
        "type": if line.is_stderr { "ERR" } else { "OUT" },
        "message": line.text,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use model::metric_tag::{DynamicValue, MetricTagValue};
    use model::{ActualLrpKey, InstanceKey, ModificationTag, NetInfo, PortMapping, Presence};

    use super::*;

    #[test]
    fn a_running_instance_reads_as_cfdot_prints_it() {
        let lrp = ActualLrp {
            key: ActualLrpKey { process_guid: "app".into(), index: 2, domain: "d".into() },
            presence: Presence::Ordinary,
            state: ActualState::Running {
                instance: InstanceKey { instance_guid: "i".into(), cell_id: "c".into() },
                net_info: NetInfo {
                    address: [10, 0, 0, 1].into(),
                    instance_address: [10, 88, 0, 2].into(),
                    ports: vec![PortMapping { container_port: 8080, host_port: 61001 }],
                },
            },
            crash_count: 1,
            crash_reason: "Exited with status 1".to_owned(),
            since: Millis(5),
            memory_mb: 64,
            disk_mb: 0,
            modification_tag: ModificationTag { epoch: "e".into(), index: 3 },
            routable: true,
            availability_zone: "z1".into(),
        };
        let tag = |fixed: &str, dynamic| {
            let value = MetricTagValue { fixed: fixed.to_owned(), dynamic };
            (fixed.to_owned() + "-tag", value)
        };
        let desired = DesiredLrp {
            routes: [("internal-router".to_owned(), r#"[{"hostname":"app.internal"}]"#.to_owned())]
                .into(),
            metric_tags: [
                tag("fixed", DynamicValue::Invalid),
                tag("", DynamicValue::Index),
                tag("i", DynamicValue::InstanceGuid),
            ]
            .into(),
            ..DesiredLrp::default()
        };
        expect![[r#"{"OptionalRoutable":{"routable":true},"actual_lrp_internal_routes":[{"hostname":"app.internal"}],"address":"10.0.0.1","availability_zone":"z1","cell_id":"c","crash_count":1,"crash_reason":"Exited with status 1","domain":"d","index":2,"instance_address":"10.88.0.2","instance_guid":"i","metric_tags":{"-tag":"2","fixed-tag":"fixed","i-tag":"i"},"modification_tag":{"epoch":"e","index":3},"ports":[{"container_port":8080,"host_port":61001}],"presence":"ORDINARY","process_guid":"app","since":5000000,"state":"RUNNING"}"#]]
            .assert_eq(&actual_lrp(&lrp, Some(&desired)).to_string());
        let alone = actual_lrp(&lrp, None);
        assert!(alone.get("metric_tags").is_none() && alone.get("OptionalRoutable").is_some());
    }

    #[test]
    fn routes_are_json_outside_and_text_inside() {
        let text = r#"{"process_guid":"app","domain":"d","rootfs":"docker:///a","instances":1,
            "action":{"run":{"path":"/a","user":"root"}},
            "routes":{"cf-router":[{"hostnames":["a.example"],"port":8080}]}}"#;
        let lrp = parse_desired_lrp(text).unwrap();
        assert_eq!(lrp.routes["cf-router"], r#"[{"hostnames":["a.example"],"port":8080}]"#);
        let printed = desired_lrp(&lrp);
        assert_eq!(printed["routes"]["cf-router"][0]["port"], 8080);
        assert_eq!(parse_desired_lrp(&printed.to_string()).unwrap(), lrp);
    }

    #[test]
    fn what_is_wrong_with_a_definition_is_named() {
        let error = |text| parse_desired_lrp(text).unwrap_err().to_string();
        expect!["missing field `process_guid`"].assert_eq(&error("{}"));
        let unknown = r#"{"process_guid":"a","domain":"d","rootfs":"r:x","action":{"jump":{}}}"#;
        expect!["unknown variant `jump`, expected one of `run`, `download`, `upload`, `timeout`, `emit_progress`, `try`, `parallel`, `serial`, `codependent`"].assert_eq(&error(unknown));
        let error = parse_task(r#"{"task_guid":"t","domain":1}"#).unwrap_err().to_string();
        expect!["invalid type: integer `1`, expected a string at line 1 column 27"]
            .assert_eq(&error);
    }
}
