//! Diego's recipes on real cells: what runs before an app and beside it, what tells its health, and
//! what tasks bring and take away.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::eventually;
use tests::host::Host;
use tests::registry::{REGISTRY, Registry};

/// A script for the image's shell, with busybox's programs by their names.
fn shell(script: &str) -> Value {
    let tools = "busybox mkdir -p /tmp/bin; busybox --install -s /tmp/bin; PATH=$PATH:/tmp/bin";
    let args = ["-c".to_owned(), format!("{tools}; {script}")];
    json!({"run": {"path": "/bin/sh", "args": args, "user": "root", "log_source": "TEST"}})
}

/// A desired LRP of one instance with further fields.
fn lrp(guid: &str, fields: &Value) -> String {
    let mut lrp = json!({
        "process_guid": guid,
        "domain": "test",
        "rootfs": format!("docker://{REGISTRY}/box"),
        "instances": 1,
        "memory_mb": 32,
        "disk_mb": 32,
        "log_source": "APP",
        "ports": [8080],
    });
    let fields = fields.as_object().expect("fields are an object").clone();
    lrp.as_object_mut().expect("it is an object").extend(fields);
    lrp.to_string()
}

/// The row of index 0, once it is as wanted.
fn row(cluster: &Cluster, guid: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, Duration::from_secs(60), || {
        let row = cluster.json(&["actual-lrps", "-p", guid]).remove(0);
        if wanted(&row) { Ok(row) } else { Err(row.to_string()) }
    })
}

fn has_crashed(row: &Value) -> bool {
    row["crash_count"].as_u64() > Some(0)
}

#[test]
fn an_app_that_never_listens_crashes_with_the_checks_words() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("box", "oci");
    let image = format!("{REGISTRY}/box");
    let sleep = "exec busybox sleep 1000";
    let deaf = ["push", "deaf", "-o", &image, "-c", sleep, "-t", "3s"];
    let said = cluster.fails(&deaf);
    assert!(said.contains("deaf"), "{said}");
    let crashed = row(&cluster, "deaf", "it crashes", has_crashed);
    let reason = crashed["crash_reason"].as_str().unwrap();
    assert!(reason.starts_with("Instance never healthy after "), "{reason}");
    assert!(reason.contains("failed to make TCP connection to 10."), "{reason}");
    // The same, held to nothing but its process.
    let _ = cluster.done(&["push", "fine", "-o", &image, "-c", sleep, "-u", "process"]);
    assert_eq!(cluster.instances("fine", 1).len(), 1);
}

#[test]
fn setup_sidecars_liveness_and_readiness_are_as_diego_has_them() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("box", "oci");
    let http =
        |path: &str| json!([{"http_check": {"port": 8080, "path": path, "interval_ms": 200}}]);
    let fields = json!({
        "setup": shell("mkdir /tmp/www; echo made by setup > /tmp/www/index.html; echo set up"),
        "action": shell("exec httpd -f -p 8080 -h /tmp/www"),
        "sidecars": [{"action": shell("echo beside; exec sleep 1000")}],
        "check_definition": {"checks": http("/index.html"), "readiness_checks": http("/ready")},
        "start_timeout_ms": 30_000,
    });
    let _ = cluster.done(&["create-desired-lrp", &lrp("whole", &fields)]);
    let running = row(&cluster, "whole", "it runs", |row| row["state"] == "RUNNING");
    assert_eq!(running["OptionalRoutable"]["routable"], json!(false), "{running}");
    let instance = cluster.running("whole").remove(0);
    let page = cluster.host().http_get(instance.address, "/index.html").unwrap();
    assert!(page.contains("made by setup"), "{page}");

    // Ready and not, it is the same instance.
    let pids = cluster.host().processes_of_container(&instance.instance_guid, "httpd");
    let www = format!("/proc/{}/root/tmp/www", pids[0]);
    let is_routable = |is: bool| {
        row(&cluster, "whole", "routers are told", |row| {
            row["OptionalRoutable"]["routable"] == json!(is) && !has_crashed(row)
        })
    };
    fs::write(format!("{www}/ready"), "yes").unwrap();
    is_routable(true);
    fs::remove_file(format!("{www}/ready")).unwrap();
    is_routable(false);

    let told = eventually("it is told", Duration::from_secs(20), || {
        let told = cluster.done(&["logs", "whole", "--recent"]);
        if told.contains("marked not ready") { Ok(told) } else { Err(told) }
    });
    for line in [
        &format!("[APP/0] OUT Cell {} creating container for instance", instance.cell_id),
        "[TEST/0] OUT set up",
        "[TEST/0] OUT beside",
        "[APP/0] OUT Container became healthy",
        "[HEALTH/0] OUT Container passed the readiness health check. Container marked ready and \
         added to route pool.",
    ] {
        assert!(told.contains(line), "{line} in:\n{told}");
    }

    fs::remove_file(format!("{www}/index.html")).unwrap();
    let crashed = row(&cluster, "whole", "it crashes", has_crashed);
    let reason = crashed["crash_reason"].as_str().unwrap();
    let words = "Instance became unhealthy: Liveness check unsuccessful: failed to make HTTP \
                 request to '/index.html' on port 8080: received status code 404 in ";
    assert!(reason.starts_with(words), "{reason}");
}

#[test]
fn a_task_brings_works_on_and_takes_away_what_its_recipe_says() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("box", "oci");
    let store = Store::serve(cluster.host());
    let url = |path: &str| format!("http://{}{path}", store.address);
    let definition = json!({
        "rootfs": format!("docker://{REGISTRY}/box"),
        "memory_mb": 32,
        "disk_mb": 32,
        "log_source": "TASK",
        "result_file": "/tmp/result",
        "action": {"serial": {"actions": [
            {"download": {"artifact": "bits", "from": url("/bits.tgz"), "to": "/app",
                          "user": "root"}},
            {"try": {"action": shell("exit 5")}},
            {"parallel": {"actions": [
                shell("cat /app/word > /tmp/one"),
                {"timeout": {"timeout_ms": 60_000, "action": shell("echo two > /tmp/two")}},
            ]}},
            shell("cat /tmp/one /tmp/two | tr '\\n' ' ' > /tmp/result"),
            {"upload": {"artifact": "answer", "from": "/tmp/result", "to": url("/up"),
                        "user": "root"}},
        ]}},
    });
    let create = |guid: &str, definition: &Value| {
        let task = json!({"task_guid": guid, "domain": "test", "task_definition": definition});
        let _ = cluster.done(&["create-task", &task.to_string()]);
        eventually("the task is completed", Duration::from_secs(60), || {
            let task = cluster.json(&["task", guid]).remove(0);
            if task["state"] == "Completed" { Ok(task) } else { Err(task.to_string()) }
        })
    };
    let task = create("bring", &definition);
    assert_eq!((&task["failed"], &task["result"]), (&json!(false), &json!("one two ")), "{task}");
    assert_eq!(store.uploads.recv_timeout(Duration::from_secs(1)).unwrap(), "one two ");

    let slow = json!({"timeout": {"timeout_ms": 500, "action": shell("exec sleep 1000")}});
    let mut late = definition;
    late["action"] = slow;
    late["result_file"] = json!("");
    let task = create("late", &late);
    assert_eq!(task["failure_reason"], json!("exceeded 500ms timeout"), "{task}");
    let mut lost = late;
    lost["action"] = json!({"download": {"artifact": "nothing", "from": url("/no"), "to": "/app",
                                         "user": "root"}});
    let task = create("lost", &lost);
    assert_eq!(task["failure_reason"], json!("Downloading nothing failed"), "{task}");
}

#[test]
fn a_task_finds_its_volumes_files_and_dependencies() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("box", "oci");
    let store = Store::serve(cluster.host());
    let dependency = json!({
        "name": "bits", "from": format!("http://{}/bits.tgz", store.address), "to": "/deps/bits",
        "cache_key": "bits",
    });
    let volume = |driver: &str, target: &str, config: &str| {
        json!({"driver": driver, "container_dir": target, "mode": "rw",
               "shared": {"volume_id": "shared", "mount_config": config}})
    };
    let run = |guid: &str, script: &str, driver: &str| {
        let definition = json!({
            "rootfs": format!("docker://{REGISTRY}/box"),
            "memory_mb": 32,
            "disk_mb": 32,
            "log_source": "TASK",
            "result_file": "/tmp/result",
            "cached_dependencies": [dependency],
            "volume_mounts": [volume(driver, "/data", ""),
                              volume("tmpfs", "/memory", r#"{"size_mb": 1}"#)],
            "volume_mounted_files": [{"path": "db/user", "content": "me"}],
            "action": shell(script),
        });
        let task = json!({"task_guid": guid, "domain": "test", "task_definition": definition});
        let _ = cluster.done(&["create-task", &task.to_string()]);
    };
    let script = "{ cat /deps/bits/word /etc/cf-service-bindings/db/user; \
                  echo x > /data/file && cat /data/file; \
                  head -c 2000000 /dev/zero > /memory/file || echo full; \
                  echo y > /deps/bits/word || echo kept; } | tr '\\n' ' ' > /tmp/result";
    run("finds", script, "local");
    let task = eventually("the task is completed", Duration::from_secs(60), || {
        let task = cluster.json(&["task", "finds"]).remove(0);
        if task["state"] == "Completed" { Ok(task) } else { Err(task.to_string()) }
    });
    let expected = (&json!(false), &json!("one mex full kept "));
    assert_eq!((&task["failed"], &task["result"]), expected, "{task}");
    // A driver that no cell has: it waits, and says for what.
    run("waits", "true", "nfs");
    eventually("it says why it waits", Duration::from_secs(20), || {
        let said = cluster.done(&["task", "waits"]);
        if said.contains("volume drivers") { Ok(()) } else { Err(said) }
    });
}

/// A blob store on a host's network.
struct Store {
    address: SocketAddr,
    uploads: Receiver<String>,
}

impl Store {
    /// Offers `/bits.tgz` with a file `word`, and takes whatever is posted. It ends with the test's
    /// process.
    fn serve(host: &Host) -> Self {
        let dir = host.dir().join("bits");
        fs::create_dir(&dir).expect("the directory is ours");
        fs::write(dir.join("word"), "one\n").expect("the directory is ours");
        let packed =
            Command::new("tar").arg("-czC").arg(&dir).arg("word").output().expect("tar runs");
        assert!(packed.status.success(), "{packed:?}");
        let listener = host.in_network(|| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let address = listener.local_addr().expect("a socket");
        let (sender, uploads) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(upload) = answer(stream, &packed.stdout) else { continue };
                if sender.send(upload).is_err() {
                    return;
                }
            }
        });
        Self { address, uploads }
    }
}

/// Answers one request, and returns what was posted with it.
fn answer(mut stream: TcpStream, bits: &[u8]) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (status, body_out): (_, &[u8]) = match request.as_str() {
        get if get.starts_with("GET /bits.tgz ") => ("200 OK", bits),
        post if post.starts_with("POST ") => ("200 OK", b""),
        _ => ("404 Not Found", b""),
    };
    let length = body_out.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"1\"\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body_out).ok()?;
    request.starts_with("POST ").then(|| String::from_utf8_lossy(&body).into_owned())
}
