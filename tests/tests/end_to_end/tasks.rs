//! Tasks: once, to their end, and no further.

use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::eventually;
use tests::registry::{REGISTRY, Registry};

fn task(guid: &str, script: &str) -> String {
    json!({
        "task_guid": guid,
        "domain": "test",
        "task_definition": {
            "rootfs": format!("docker://{REGISTRY}/box"),
            "memory_mb": 32,
            "disk_mb": 32,
            "action": {"run": {"path": "/bin/sh", "args": ["-c", script], "user": "root"}},
        }
    })
    .to_string()
}

fn completed(cluster: &Cluster, guid: &str) -> Value {
    eventually("the task is completed", Duration::from_secs(30), || {
        let task = cluster.json(&["task", guid]).remove(0);
        if task["state"] == "Completed" { Ok(task) } else { Err(task.to_string()) }
    })
}

#[test]
fn a_task_runs_once_and_says_how_it_ended() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("box", "oci");

    let _ = cluster.done(&["create-task", &task("good", "echo done")]);
    let good = completed(&cluster, "good");
    assert_eq!(good["failed"], json!(false), "{good}");

    let _ = cluster.done(&["create-task", &task("bad", "exit 7")]);
    let bad = completed(&cluster, "bad");
    assert_eq!(bad["failed"], json!(true), "{bad}");
    assert!(bad["failure_reason"].as_str().unwrap().contains("Exited with status 7"), "{bad}");

    let _ = cluster.done(&["create-task", &task("long", "busybox sleep 1000")]);
    eventually("the task runs", Duration::from_secs(30), || {
        let task = cluster.json(&["task", "long"]).remove(0);
        if task["state"] == "Running" { Ok(()) } else { Err(task.to_string()) }
    });
    let _ = cluster.done(&["cancel-task", "long"]);
    let long = completed(&cluster, "long");
    assert_eq!(long["failed"], json!(true), "{long}");

    let refused = cluster.fails(&["create-task", &task("good", "echo again")]);
    assert!(refused.contains("ResourceExists"), "{refused}");
    for guid in ["good", "bad", "long"] {
        let _ = cluster.done(&["delete-task", guid]);
    }
    assert_eq!(cluster.json(&["tasks"]), Vec::<Value>::new());
}
