//! A cell's own routes, as Diego's clients ask them over mutual TLS: what it holds, and the things
//! that it may be told to do.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Cluster, Instance, SAMPLE};
use tests::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
/// The first node's port for Diego's clients; the others follow.
const PORT: u16 = 8889;

/// Who asks cells.
struct Asker<'a> {
    cluster: &'a Cluster,
    has_certificate: bool,
}

impl Asker<'_> {
    /// The status and the body; no status where nothing was heard.
    fn ask(&self, method: &str, cell: &str, path: &str) -> (u16, String) {
        let file = |name: &str| self.cluster.data_dir().join("diego").join(name);
        let number: u16 =
            cell.strip_prefix("node-").and_then(|it| it.parse().ok()).expect("node-N");
        let url = format!("https://127.0.0.1:{}{path}", PORT + number - 1);
        let mut curl: Command = self.cluster.host().command("curl");
        curl.args(["--silent", "--max-time", "20", "--request", method, &url]);
        curl.arg("--cacert").arg(file("ca.crt"));
        if self.has_certificate {
            curl.arg("--cert").arg(file("client.crt")).arg("--key").arg(file("client.key"));
        }
        curl.args(["--write-out", "\n%{http_code}"]).stderr(Stdio::null());
        let said = String::from_utf8(curl.output().expect("nsenter starts").stdout).expect("text");
        let (body, status) = said.rsplit_once('\n').expect("a line of its own");
        (status.parse().expect("a status"), body.to_owned())
    }

    fn status(&self, method: &str, cell: &str, path: &str) -> u16 {
        self.ask(method, cell, path).0
    }

    fn json(&self, cell: &str, path: &str) -> Value {
        let (status, body) = self.ask("GET", cell, path);
        assert_eq!(status, 200, "{cell}{path}: {body}");
        serde_json::from_str(&body).expect("it answers in JSON")
    }

    /// The instances that a cell says it has, with their states.
    fn lrps(&self, cell: &str) -> Vec<(String, String)> {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let state = self.json(cell, "/state");
        let rows = state["LRPs"].as_array().expect("a list").iter();
        rows.map(|row| (text(row, "instance_guid"), text(row, "state"))).collect()
    }
}

const CELLS: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A cell that has not this one.
fn other_than(cell: &str) -> &'static str {
    CELLS.into_iter().find(|it| *it != cell).expect("one of three")
}

/// Three instances of the sample, one on each cell.
fn one_on_each(cluster: &Cluster) -> Vec<Instance> {
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "3", "-m", "64M", "-k", "32M"]);
    let instances = cluster.instances("hello", 3);
    let mut cells: Vec<_> = instances.iter().map(|it| it.cell_id.as_str()).collect();
    cells.sort_unstable();
    assert_eq!(cells, CELLS);
    instances
}

fn create_task(cluster: &Cluster, guid: &str) -> String {
    let definition = json!({
        "rootfs": format!("docker://{SAMPLE}"),
        "memory_mb": 16,
        "disk_mb": 32,
        "metrics_guid": "figures",
        "action": {"run": {"path": "/hello", "user": "root"}},
    });
    let task = json!({"task_guid": guid, "domain": "test", "task_definition": definition});
    let _ = cluster.done(&["create-task", &task.to_string()]);
    eventually("the task runs", PATIENCE, || {
        let task = cluster.json(&["task", guid]).remove(0);
        if task["state"] == "Running" {
            Ok(task["cell_id"].as_str().expect("a cell").to_owned())
        } else {
            Err(task.to_string())
        }
    })
}

#[test]
fn a_cell_says_what_it_has_and_what_that_uses() {
    let cluster = Cluster::start();
    let asker = Asker { cluster: &cluster, has_certificate: true };
    let before = asker.json("node-1", "/state");
    assert_eq!(before["AvailableResources"], before["TotalResources"]);
    let instances = one_on_each(&cluster);
    let task_cell = create_task(&cluster, "job");
    for instance in &instances {
        let Instance { cell_id, instance_guid, index, .. } = instance;
        let running = vec![(instance_guid.clone(), "RUNNING".to_owned())];
        // By its own state, which may be a moment behind.
        eventually("it says so", PATIENCE, || match asker.lrps(cell_id) {
            lrps if lrps == running => Ok(()),
            lrps => Err(format!("{lrps:?}")),
        });
        let state = asker.json(cell_id, "/state");
        assert_eq!(state["cell_id"], json!(cell_id));
        assert_eq!(state["Zone"], "z1");
        assert_eq!(state["Evacuating"], json!(false));
        assert_eq!(state["RootFSProviders"]["docker"], json!({"type": "arbitrary"}));
        let (total, left) = (&state["TotalResources"], &state["AvailableResources"]);
        let taken = |what: &str| total[what].as_i64().unwrap() - left[what].as_i64().unwrap();
        let has_task = *cell_id == task_cell;
        let lrp = &state["LRPs"][0];
        assert_eq!((&lrp["index"], &lrp["MemoryMB"]), (&json!(index), &json!(64)), "{lrp}");
        assert_eq!(taken("MemoryMB"), 64 + i64::from(has_task) * 16);
        assert_eq!(taken("DiskMB"), 32 + i64::from(has_task) * 32);
        assert_eq!(taken("Containers"), 1 + i64::from(has_task));
        let tasks: Vec<_> = state["Tasks"].as_array().unwrap().iter().collect();
        assert_eq!(tasks.len(), usize::from(has_task), "{state}");
        for task in tasks {
            let said = (&task["TaskGuid"], &task["state"], &task["failed"]);
            assert_eq!(said, (&json!("job"), &json!("Running"), &json!(false)), "{task}");
        }

        let metrics = asker.json(cell_id, "/container_metrics");
        assert_eq!(metrics["cell_id"], json!(cell_id));
        let (lrps, tasks) = (&metrics["lrps"], &metrics["tasks"]);
        assert_eq!(lrps.as_array().map(Vec::len), Some(1), "{metrics}");
        assert_eq!(lrps[0]["instance_guid"], json!(instance_guid));
        assert_eq!(lrps[0]["index"], json!(index));
        assert_eq!(lrps[0]["memory_quota_bytes"], json!(64 << 20));
        assert_eq!(lrps[0]["disk_quota_bytes"], json!(32 << 20));
        assert!((1..64 << 20).contains(&lrps[0]["memory_usage_bytes"].as_u64().unwrap()));
        assert!(lrps[0]["disk_usage_bytes"].as_u64().unwrap() < 32 << 20);
        assert!(lrps[0]["cpu_usage_fraction"].is_f64());
        assert_eq!(tasks.as_array().map(Vec::len), Some(usize::from(has_task)), "{metrics}");
        if has_task {
            let said = (&tasks[0]["task_guid"], &tasks[0]["metric_guid"]);
            assert_eq!(said, (&json!("job"), &json!("figures")));
            assert!(tasks[0]["memory_usage_bytes"].as_u64().unwrap() > 0);
        }
    }
}

#[test]
fn a_cell_stops_cancels_and_empties_itself_as_it_is_told() {
    let cluster = Cluster::start();
    let asker = Asker { cluster: &cluster, has_certificate: true };
    let instances = one_on_each(&cluster);

    let Instance { cell_id, instance_guid, .. } = &instances[0];
    let processes = |of: &str| cluster.host().processes_of_container(of, "/hello");
    assert_eq!(processes(instance_guid).len(), 1);
    let rows = cluster.json(&["actual-lrps", "-p", "hello"]);
    let process_guid = rows[0]["process_guid"].as_str().expect("a guid").to_owned();
    let stop = |guid: &str| format!("/v1/lrps/{process_guid}/instances/{guid}/stop");
    assert_eq!(asker.status("POST", other_than(cell_id), &stop(instance_guid)), 500, "not there");
    assert_eq!(asker.status("POST", cell_id, &stop("nobody")), 500);
    assert_eq!(cluster.instances("hello", 3), instances, "nothing was stopped");
    assert_eq!(asker.status("POST", cell_id, &stop(instance_guid)), 202);
    eventually("another one runs in its place", PATIENCE, || {
        let running = cluster.instances("hello", 3);
        let is_new = running[0].instance_guid != *instance_guid;
        if is_new && running[1..] == instances[1..] { Ok(()) } else { Err(format!("{running:?}")) }
    });
    eventually("its container is gone", PATIENCE, || match processes(instance_guid) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });

    let task_cell = create_task(&cluster, "job");
    eventually("its process runs", PATIENCE, || match processes("task-job").len() {
        1 => Ok(()),
        count => Err(count.to_string()),
    });
    assert_eq!(asker.status("POST", &task_cell, "/v1/tasks/nobody/cancel"), 202);
    assert_eq!(asker.status("POST", &task_cell, "/v1/tasks/job/cancel"), 202);
    let job = eventually("it is cancelled", PATIENCE, || {
        let job = cluster.json(&["task", "job"]).remove(0);
        if job["state"] == "Completed" { Ok(job) } else { Err(job.to_string()) }
    });
    assert_eq!(job["failure_reason"], "task was cancelled", "{job}");
    eventually("its container is gone", PATIENCE, || match processes("task-job") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });

    assert_eq!(asker.status("GET", "node-2", "/ping"), 200);
    let (status, body) = asker.ask("POST", "node-2", "/evacuate");
    assert_eq!((status, body.as_str()), (202, r#"{"ping_path":"/ping"}"#));
    eventually("its instance runs elsewhere", PATIENCE, || {
        let running = cluster.running("hello");
        let is_empty = running.iter().all(|it| it.cell_id != "node-2");
        let is_done = running.len() == 3 && is_empty && asker.lrps("node-2").is_empty();
        if is_done { Ok(()) } else { Err(format!("{running:?}, {:?}", asker.lrps("node-2"))) }
    });
    assert_eq!(asker.json("node-2", "/state")["Evacuating"], json!(true));
    assert_eq!(asker.json("node-1", "/state")["Evacuating"], json!(false));
    assert_eq!(asker.status("GET", "node-2", "/ping"), 200, "the node goes on");
    assert_eq!(asker.status("POST", "node-2", "/evacuate"), 202, "it may be asked again");
}

#[test]
fn a_cell_has_no_other_routes_and_does_nothing_for_strangers() {
    let cluster = Cluster::start();
    let asker = Asker { cluster: &cluster, has_certificate: true };
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("POST", "/work", 404),
        ("PUT", "/v2/lrps/hello/instances/one", 404),
        ("POST", "/sim/reset", 404),
        ("POST", "/v1/lrps/hello/stop", 404),
        ("POST", "/state", 405),
        ("GET", "/evacuate", 405),
        ("GET", "/v1/tasks/job/cancel", 405),
    ] {
        assert_eq!(asker.status(method, "node-1", path), status, "{method} {path}");
    }
    let _ = create_task(&cluster, "job");
    let stranger = Asker { cluster: &cluster, has_certificate: false };
    for (method, path) in [
        ("GET", "/state"),
        ("GET", "/container_metrics"),
        ("GET", "/ping"),
        ("POST", "/evacuate"),
        ("POST", "/v1/tasks/job/cancel"),
    ] {
        assert_eq!(stranger.ask(method, "node-1", path), (0, String::new()), "{method} {path}");
    }
    assert_eq!(asker.json("node-1", "/state")["Evacuating"], json!(false));
    assert_eq!(cluster.json(&["task", "job"])[0]["state"], "Running");
}
