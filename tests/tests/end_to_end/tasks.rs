//! Tasks: once, to their end, and no further.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::eventually;
use tests::host::Host;
use tests::registry::{REGISTRY, Registry};

fn task(guid: &str, script: &str) -> String {
    task_with(guid, script, &json!({}))
}

/// With further fields of its definition.
fn task_with(guid: &str, script: &str, fields: &Value) -> String {
    let mut definition = json!({
        "rootfs": format!("docker://{REGISTRY}/box"),
        "memory_mb": 32,
        "disk_mb": 32,
        "action": {"run": {"path": "/bin/sh", "args": ["-c", script], "user": "root"}},
    });
    let more = fields.as_object().expect("fields are an object").clone();
    definition.as_object_mut().expect("it is an object").extend(more);
    json!({"task_guid": guid, "domain": "test", "task_definition": definition}).to_string()
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

#[test]
fn a_tasks_result_is_what_its_result_file_says() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("box", "oci");
    let script =
        |size: u32| format!("busybox head -c {size} /dev/zero | busybox tr '\\0' x > /tmp/r");
    let file = json!({"result_file": "/tmp/r"});
    for (guid, script, failed, reason, length) in [
        ("fits", script(51_200), false, "", 51_200),
        ("too-long", script(51_201), true, "failed to fetch result", 0),
        ("none", "true".to_owned(), true, "failed to fetch result", 0),
        ("failed", format!("{}; exit 3", script(5)), true, "Exited with status 3", 5),
    ] {
        let _ = cluster.done(&["create-task", &task_with(guid, &script, &file)]);
        let task = completed(&cluster, guid);
        assert_eq!(task["failed"], failed, "{guid}: {task}");
        assert!(task["failure_reason"].as_str().unwrap().ends_with(reason), "{guid}: {task}");
        assert_eq!(task["result"], "x".repeat(length), "{guid}");
    }
}

#[test]
fn a_tasks_client_is_told_though_the_leader_is_lost_meanwhile() {
    // A task whose client was not reached comes back after 30 s of the cluster's time.
    let cluster = Cluster::start_with(&["--clock-speed", "20"]);
    let registry = Registry::start(cluster.host());
    registry.push("box", "oci");
    let client = Client::listen(cluster.host());
    let fields = json!({
        "result_file": "/tmp/r",
        "annotation": "a note",
        "completion_callback_url": format!("http://{}/done?of=job", client.address),
    });
    let words = task_with("job", "echo -n well > /tmp/r", &fields);
    let _ = cluster.done(&["create-task", &words]);
    let (unanswered, first) = client.accept();
    cluster.kill_node(&cluster.leader());
    drop(unanswered);
    // What the killed leader may still have sent is in line before what the next one sends.
    let (mut answered, last) = client.accept_last();
    answered.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    for request in [&first, &last] {
        assert!(request.starts_with("POST /done?of=job HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("content-type: application/json\r\n"), "{request}");
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let mut body: Value = serde_json::from_str(body).unwrap();
        assert!(body.as_object_mut().unwrap().remove("created_at").unwrap().is_i64());
        let expected = json!({
            "task_guid": "job",
            "failed": false,
            "failure_reason": "",
            "result": "well",
            "annotation": "a note",
        });
        assert_eq!(body, expected);
    }
    eventually("the task is gone", Duration::from_secs(10), || {
        match cluster.json(&["tasks"]).as_slice() {
            [] => Ok(()),
            tasks => Err(format!("{tasks:?}")),
        }
    });
}

/// Who is told of tasks, on a host's network.
struct Client {
    listener: TcpListener,
    address: SocketAddr,
}

impl Client {
    fn listen(host: &Host) -> Self {
        let listener = host.in_network(|| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("a socket");
        Self { listener, address }
    }

    /// Waits for one whole request.
    fn accept(&self) -> (TcpStream, String) {
        let mut stream = eventually("the client is called", Duration::from_secs(30), || {
            self.listener.accept().map(|(stream, _)| stream).map_err(|error| error.to_string())
        });
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"}") {
            let length = stream.read(&mut buffer).expect("a request");
            assert!(length > 0, "{}", String::from_utf8_lossy(&request));
            request.extend(&buffer[..length]);
        }
        (stream, String::from_utf8(request).expect("text"))
    }

    /// Waits for a request whose sender still listens.
    fn accept_last(&self) -> (TcpStream, String) {
        loop {
            let (stream, request) = self.accept();
            stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
            // The end of the stream: whoever sent it is gone.
            if !matches!((&stream).read(&mut [0]), Ok(0)) {
                return (stream, request);
            }
        }
    }
}
