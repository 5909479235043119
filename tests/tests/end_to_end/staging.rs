//! An image is staged by a task on some cell, which is gone afterwards, whatever came of it.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::cluster::Cluster;
use tests::eventually;
use tests::registry::{REGISTRY, Registry};

/// How long what is expected may take to be seen.
const PATIENCE: Duration = Duration::from_secs(40);
/// Where a registry takes connections, and says nothing.
const SILENT: &str = "127.0.0.1:6004";

fn no_task_is_left(cluster: &Cluster) {
    eventually("the tasks are gone", PATIENCE, || match cluster.json(&["tasks"]) {
        tasks if tasks.is_empty() => Ok(()),
        tasks => Err(format!("{tasks:?}")),
    });
}

/// The staging task that runs on a cell, and is another than this.
fn staging(cluster: &Cluster, than: &str) -> (String, String, Value) {
    eventually("a cell stages the image", PATIENCE, || {
        let tasks = cluster.json(&["tasks"]);
        let text = |task: &Value, field: &str| task[field].as_str().expect("text").to_owned();
        let found =
            tasks.iter().find(|task| task["state"] == "Running" && task["task_guid"] != than);
        let found =
            found.map(|task| (text(task, "task_guid"), text(task, "cell_id"), task.clone()));
        found.ok_or_else(|| format!("{tasks:?}"))
    })
}

#[test]
fn a_push_is_staged_on_a_cell_and_again_where_that_is_lost() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("web", "oci");
    let pushed = cluster
        .gavel(&["push", "web", "-o", &format!("{REGISTRY}/web")])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&pushed.stderr);
    assert!(pushed.status.success(), "{said}");
    assert!(said.contains("\nstaged on node-"), "{said}");
    let answer = &cluster.answers("web", 1)[0];
    assert!(answer.contains("user 1234") && answer.contains("args one"), "{answer}");
    no_task_is_left(&cluster);

    // The node that is asked goes on, and another is lost.
    let _ = cluster.done(&["evacuate", "node-1"]);
    let listener = cluster.host().in_network(|| TcpListener::bind(SILENT).unwrap());
    let push = cluster
        .gavel(&["push", "other", "-o", &format!("{SILENT}/web")])
        .env("GAVEL_ENDPOINTS", cluster.endpoint("node-1"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (first, cell, task) = staging(&cluster, "");
    assert_eq!(task["domain"], "cf-app-staging");
    let annotation = task["task_definition"]["annotation"].as_str().unwrap();
    let expected =
        format!("{{\"staging\":{{\"app\":\"other\",\"image\":\"docker://{SILENT}/web#latest\"}}}}");
    assert_eq!(annotation, expected);
    cluster.kill_node(&cell);
    let (second, cell, _) = staging(&cluster, &first);
    assert_ne!(cell, "node-1");
    let _ = cluster.done(&["cancel-task", &second]);
    let ended = push.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("task was cancelled"), "{said}");
    no_task_is_left(&cluster);
    drop(listener);
    let apps = cluster.json(&["desired-lrps"]);
    assert!(apps.iter().all(|app| app["process_guid"] == "web"), "{apps:?}");
}
