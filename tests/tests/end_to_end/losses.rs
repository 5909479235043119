//! What is lost or taken away: processes, nodes, the leader, the whole cluster.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use tests::cluster::{Cluster, Instance, SAMPLE};
use tests::eventually;
use tests::host::http_get;

#[test]
fn a_killed_process_is_restarted() {
    let cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "2"]);
    let before = cluster.instances("hello", 2);
    let apps = cluster.host().processes_of_container(&before[0].instance_guid, "/hello");
    assert_eq!(apps.len(), 1, "{apps:?}");
    kill(apps[0], Signal::SIGKILL).unwrap();
    let after = eventually("another instance in its place", Duration::from_secs(30), || {
        let after = cluster.instances("hello", 2);
        if after[0].instance_guid == before[0].instance_guid {
            Err("the same".to_owned())
        } else {
            Ok(after)
        }
    });
    assert_eq!(after[1], before[1], "the other one is left alone");
    assert_eq!(cluster.answers("hello", 2).len(), 2);
    let told = cluster.done(&["app", "hello"]);
    assert!(told.contains("APP/PROC/WEB: Exited with status 137"), "{told}");
}

#[test]
fn a_crashing_app_backs_off_by_the_book() {
    // Crash, and how long the instance then rests, in seconds of the cluster's time (Diego's
    // restart calculator).
    const BOOK: [(u64, Option<u64>); 4] = [(1, None), (2, None), (3, Some(30)), (4, Some(60))];
    const CLOCK_SPEED: u64 = 20;
    /// What finding out, placing and starting may take, in seconds of the wall clock.
    const SLACK: u64 = 4;
    let cluster = Cluster::start_with(&["--clock-speed", &CLOCK_SPEED.to_string()]);
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE]);
    for (crash, rest) in BOOK {
        let before = cluster.instances("hello", 1).remove(0);
        let pids = cluster.host().processes_of_container(&before.instance_guid, "/hello");
        kill(pids[0], Signal::SIGKILL).unwrap();
        let mut crashed_at = None;
        let running_at = eventually("it runs again", Duration::from_secs(60), || {
            let row = cluster.json(&["actual-lrps", "-p", "hello"]).remove(0);
            let since = row["since"].as_u64().unwrap() / 1_000_000_000;
            if row["state"] == "CRASHED" {
                crashed_at = Some(since);
            }
            let is_new = row["instance_guid"] != before.instance_guid.as_str();
            if row["state"] == "RUNNING" && is_new {
                assert_eq!(row["crash_count"], crash);
                Ok(since)
            } else {
                Err(row.to_string())
            }
        });
        match (rest, crashed_at) {
            (None, crashed_at) => assert_eq!(crashed_at, None, "crash {crash} restarts at once"),
            (Some(rest), crashed_at) => {
                let rested = running_at - crashed_at.expect("it was seen to rest");
                let most = rest + SLACK * CLOCK_SPEED;
                assert!((rest..most).contains(&rested), "crash {crash}: {rested} s");
            }
        }
    }
}

#[test]
fn killing_the_leader_while_pushing_loses_nothing_acknowledged() {
    const APPS: usize = 12;
    let cluster = Cluster::start();
    let (mut acknowledged, mut killed) = (BTreeSet::new(), 0);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            (0..APPS)
                .filter_map(|number| {
                    let name = format!("app-{number}");
                    let words = ["push", &name, "-o", SAMPLE, "-i", "3", "-m", "32M", "-k", "32M"];
                    // It may be told that the outcome is unknown: only what was acknowledged counts.
                    let done = cluster.gavel(&words).output().unwrap().status.success();
                    done.then_some(name)
                })
                .collect::<Vec<_>>()
        });
        while !pushing.is_finished() && killed < 3 {
            cluster.kill_node(&cluster.leader());
            killed += 1;
            std::thread::sleep(Duration::from_millis(1500));
        }
        acknowledged.extend(pushing.join().unwrap());
    });
    assert!(killed > 0, "it was all over before anything was killed");
    assert!(acknowledged.len() > APPS / 2, "most pushes survive: {acknowledged:?}");
    let desired: BTreeSet<String> = cluster
        .json(&["desired-lrps"])
        .iter()
        .map(|lrp| lrp["process_guid"].as_str().unwrap().to_owned())
        .collect();
    assert!(desired.is_superset(&acknowledged), "{acknowledged:?} of {desired:?}");
    for app in &desired {
        assert_eq!(cluster.answers(app, 3).len(), 3);
    }
}

#[test]
fn containers_outlive_their_killed_node_and_are_found_again() {
    let cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "3"]);
    let before = cluster.instances("hello", 3);
    let on_second = before.iter().find(|instance| instance.cell_id == "node-2").unwrap();
    let pids = cluster.host().processes_of_container(&on_second.instance_guid, "/hello");
    assert_eq!(pids.len(), 1, "{pids:?}");
    cluster.kill_node("node-2");
    assert!(cluster.host().http_get(on_second.address, "/").is_ok(), "it answers without its node");
    eventually("the node is back", Duration::from_secs(30), || {
        let cells = cluster.json(&["cells"]);
        let back = cells.iter().all(|cell| cell["state"] == "present");
        let status = cluster.json(&["cluster", "status"]).remove(0);
        let answers = status["members"][1]["applied_index"].is_u64();
        if back && answers { Ok(()) } else { Err(format!("{cells:?} {status}")) }
    });
    // A while in which a node that had forgotten them would replace them.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.instances("hello", 3), before, "the same instances, where they were");
    assert_eq!(cluster.host().processes_of_container(&on_second.instance_guid, "/hello"), pids);
}

#[test]
fn a_stopped_cluster_runs_the_same_apps_when_it_starts_again() {
    let mut cluster = Cluster::start();
    for app in ["one", "two"] {
        let _ = cluster.done(&["push", app, "-o", SAMPLE, "-i", "3"]);
    }
    cluster.interrupt();
    assert_eq!(cluster.host().traces(), Vec::<String>::new());
    cluster.resume();
    for app in ["one", "two"] {
        assert_eq!(cluster.answers(app, 3).len(), 3);
        let told = cluster.done(&["app", app]);
        assert!(!told.contains("crashes"), "a stop is no crash: {told}");
    }
}

#[test]
fn a_killed_cluster_runs_the_same_apps_when_it_starts_again() {
    let mut cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "3"]);
    let before = cluster.instances("hello", 3);
    cluster.kill_all();
    cluster.resume();
    assert_eq!(cluster.answers("hello", 3).len(), 3);
    assert_eq!(cluster.instances("hello", 3), before, "containers outlive their nodes");
}

#[test]
fn a_silent_cells_instances_are_replaced_and_its_own_end_when_it_is_back() {
    let cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "3"]);
    let before = cluster.instances("hello", 3);
    let lost = before.iter().find(|instance| instance.cell_id == "node-2").unwrap();
    // As a machine that hangs: nothing answers, nothing closes a connection.
    cluster.signal_node("node-2", Signal::SIGSTOP);
    eventually("it runs elsewhere", Duration::from_secs(60), || {
        let now = cluster.instances("hello", 3);
        let still = now.iter().any(|instance| instance.cell_id == "node-2");
        if still { Err(format!("{now:?}")) } else { Ok(()) }
    });
    assert_eq!(cluster.answers("hello", 3).len(), 3);
    cluster.signal_node("node-2", Signal::SIGCONT);
    eventually(
        "what nobody asks for any more has ended",
        Duration::from_secs(60),
        || match cluster.host().processes_of_container(&lost.instance_guid, "/hello").as_slice() {
            [] => Ok(()),
            pids => Err(format!("{pids:?}")),
        },
    );
    assert_eq!(cluster.instances("hello", 3).len(), 3);
}

#[test]
fn leadership_goes_where_it_is_asked_to() {
    let cluster = Cluster::start();
    for name in ["node-1", "node-2", "node-3"] {
        let _ = cluster.done(&["cluster", "transfer-leadership", name]);
        assert_eq!(cluster.leader(), name);
    }
    let said = cluster.fails(&["cluster", "transfer-leadership", "node-9"]);
    assert!(said.contains("node-9 is no member"), "{said}");
}

#[test]
fn instances_of_evacuated_cells_answer_until_others_do() {
    const INSTANCES: usize = 6;
    let cluster = Cluster::start();
    let words = ["push", "hello", "-o", SAMPLE, "-m", "32M", "-k", "32M", "-i", "6"];
    let _ = cluster.done(&words);
    let _ = cluster.answers("hello", INSTANCES);
    std::thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel();
        let routed = &cluster;
        let load = scope.spawn(move || {
            routed.host().in_network(|| answered_until(routed, "hello", INSTANCES, stopped))
        });
        for cell_id in ["node-2", "node-3", "node-1"].repeat(2) {
            let told = cluster.done(&["evacuate", cell_id]);
            assert!(told.contains(&format!("{cell_id} is empty")), "{told}");
            let emptied = cell(&cluster, cell_id);
            assert_eq!(emptied["intake"], "evacuating", "{emptied}");
            assert_eq!(emptied["lrps"], 0, "{emptied}");
            let moved = cluster.instances("hello", INSTANCES);
            assert!(moved.iter().all(|instance| instance.cell_id != cell_id), "{moved:?}");
            let _ = cluster.done(&["evacuate", cell_id, "--cancel"]);
            assert_eq!(cell(&cluster, cell_id)["intake"], "open");
            assert_eq!(cluster.instances("hello", INSTANCES), moved, "what moved stays");
        }
        drop(stop);
        let answered = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(answered > INSTANCES * 10, "{answered} requests are no load");
    });
    let _ = cluster.done(&["scale", "hello", "-i", "9"]);
    let spread = cluster.instances("hello", 9);
    assert!(spread.iter().any(|instance| instance.cell_id == "node-1"), "{spread:?}");
}

/// As a router on the machine's network does: asks each index in turn, by a table that may be as old as one round; where
/// that table's instance does not answer, by a new one. Returns how many were answered.
///
/// # Panics
///
/// A request is lost: nobody who runs, as the new table has it, answers for its index.
fn answered_until(cluster: &Cluster, app: &str, count: usize, stopped: Receiver<()>) -> usize {
    let ask = |table: &[Instance], index: usize| {
        let mut those = table.iter().filter(|instance| instance.index == index as u64);
        those.any(|instance| http_get(instance.address, "/").is_ok())
    };
    let mut answered = 0;
    while stopped.try_recv() == Err(TryRecvError::Empty) {
        let table = cluster.running(app);
        for index in (0..5).flat_map(|_| 0..count) {
            if !ask(&table, index) {
                let (old, table) = (&table, cluster.running(app));
                assert!(ask(&table, index), "{app}/{index}: lost\n{old:?}\n{table:?}");
            }
            answered += 1;
        }
    }
    answered
}

fn cell(cluster: &Cluster, cell_id: &str) -> serde_json::Value {
    let cells = cluster.json(&["cells"]);
    cells.into_iter().find(|cell| cell["cell_id"] == cell_id).expect("it is a cell")
}
