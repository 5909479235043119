//! What containers use, told by any node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::cluster::{Cluster, SAMPLE};
use tests::eventually;

/// How long what is expected may take to be seen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rows of `gavel app hello --json`, asked of one node.
fn instances(cluster: &Cluster, node: &str) -> Vec<Value> {
    let mut asked = cluster.gavel(&["app", "hello", "--stale", "--json"]);
    let done = asked
        .env("GAVEL_ENDPOINTS", cluster.endpoint(node))
        .output()
        .expect("gavel can be started");
    assert!(done.status.success(), "{done:?}");
    let app: Value = serde_json::from_slice(&done.stdout).expect("it answers in JSON");
    app["instances"].as_array().expect("an app has instances").clone()
}

#[test]
fn an_app_tells_what_its_instances_use_as_far_as_their_cells_answer() {
    let cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "3", "-m", "64M", "-k", "32M"]);
    let running = cluster.instances("hello", 3);
    let _ = cluster.answers("hello", 3);

    for node in ["node-1", "node-2", "node-3"] {
        for row in instances(&cluster, node) {
            let usage = &row["usage"];
            let memory = usage["memory_bytes"].as_u64().unwrap();
            assert!((1..64 << 20).contains(&memory), "{row}");
            assert!(usage["cpu_ns"].as_u64().unwrap() > 0, "{row}");
            assert!(usage["pids"].as_u64().unwrap() >= 2, "{row}");
            assert!(usage["age_ms"].as_u64().unwrap() > 0, "{row}");
            assert!(usage["disk_bytes"].as_u64().unwrap() < 32 << 20, "{row}");
        }
    }
    let told = cluster.done(&["app", "hello"]);
    assert!(told.contains("cpu") && told.contains(" of 64M") && told.contains(" of 32M"), "{told}");

    // The rate is of now: it rises where there is something to do, and falls again.
    let rate = |index: usize| {
        let row = &instances(&cluster, "node-1")[index];
        row["usage"]["cpu_millicores"].as_u64().ok_or_else(|| row.to_string())
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = cluster.host().http_get(running[1].address, "/");
            }
        });
        eventually("the busy one is seen", PATIENCE, || match rate(1)? {
            0 => Err("it uses nothing".to_owned()),
            _ => Ok(()),
        });
        is_over.store(true, Ordering::Relaxed);
    });
    eventually("it rests again", PATIENCE, || match rate(1)? {
        0 => Ok(()),
        rate => Err(format!("it uses {rate}")),
    });

    // A cell that is silent leaves its own figures out, and nothing else.
    let silent = &running[2];
    let (number, others) = (silent.cell_id.rsplit('-').next().unwrap(), &running[..2]);
    let silent_node = format!("node-{number}");
    let other_number = others[0].cell_id.rsplit('-').next().unwrap();
    cluster.signal_node(&silent_node, Signal::SIGSTOP);
    let rows = instances(&cluster, &format!("node-{other_number}"));
    cluster.signal_node(&silent_node, Signal::SIGCONT);
    for row in rows.iter().filter(|row| row["presence"] == "ORDINARY") {
        if row["cell_id"] == silent.cell_id.as_str() {
            assert!(row["usage"].is_null(), "{row}");
            let why = row["usage_unknown"].as_str().unwrap();
            assert!(why.contains(&silent.cell_id) && why.contains("no answer in 2s"), "{why}");
        } else {
            assert!(row["usage"]["memory_bytes"].as_u64().unwrap() > 0, "{row}");
        }
    }
    assert!(rows.iter().any(|row| row["cell_id"] == silent.cell_id.as_str()), "{rows:?}");
}
