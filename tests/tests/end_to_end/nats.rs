//! Gorouters that are told of instances over Debian's `nats-server`: what a router hears.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tests::eventually;
use tests::nodes::{NODES, Nodes};
use tests::registry::{REGISTRY, Registry};

const PATIENCE: Duration = Duration::from_secs(60);
const NATS: &str = "127.0.0.1:4222";

/// `nats-server` on the nodes' machine, which it ends with.
struct Server(Child);

impl Server {
    fn start(nodes: &Nodes) -> Self {
        let mut command = nodes.host().command("/usr/sbin/nats-server");
        command.args(["--addr", "127.0.0.1", "--port", "4222"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("nsenter starts"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends with the machine at the latest.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A message to routers: its subject and what it says.
type Heard = (String, Value);

/// A Gorouter, as far as it listens: it answers greetings, and asks for a registration each second.
struct Gorouter(Arc<Mutex<Vec<Heard>>>);

impl Gorouter {
    fn start(nodes: &Nodes) -> Self {
        let connect = || TcpStream::connect(NATS).map_err(|error| error.to_string());
        let mut stream = eventually("nats-server (Debian: nats-server) serves", PATIENCE, || {
            nodes.host().in_network(connect)
        });
        let hello = b"CONNECT {\"verbose\":false}\r\nSUB router.* 1\r\n";
        stream.write_all(hello).expect("it serves");
        let heard = Arc::default();
        let gorouter = Self(Arc::clone(&heard));
        std::thread::spawn(move || listen(&stream, &heard));
        gorouter
    }

    /// All that was heard from some point on.
    fn since(&self, start: usize) -> Vec<Heard> {
        self.0.lock().expect("nobody panics with it")[start..].to_vec()
    }

    fn now(&self) -> usize {
        self.0.lock().expect("nobody panics with it").len()
    }

    /// Waits for that many messages of that subject and instance.
    fn hears(&self, since: usize, subject: &str, guid: &str, times: usize) -> Vec<Value> {
        eventually(&format!("{subject} of {guid}, {times} times"), PATIENCE, || {
            let all = self.since(since);
            let is_it =
                |(of, it): &&Heard| of == subject && it["private_instance_id"] == json!(guid);
            let found: Vec<_> = all.iter().filter(is_it).map(|(_, it)| it.clone()).collect();
            if found.len() < times { Err(format!("{all:?}")) } else { Ok(found) }
        })
    }
}

/// Follows the server until it ends: https://docs.nats.io/reference/reference-protocols/nats-protocol
fn listen(stream: &TcpStream, heard: &Mutex<Vec<Heard>>) {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        line.clear();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["PING"] => writer.write_all(b"PONG\r\n").expect("it serves"),
            ["MSG", subject, _, rest @ ..] => {
                let count: usize = rest.last().expect("a count").parse().expect("a number");
                let mut payload = vec![0; count + 2];
                reader.read_exact(&mut payload).expect("it says all");
                if let [reply, _] = rest {
                    let start = r#"{"id":"r","hosts":[],"minimumRegisterIntervalInSeconds":1}"#;
                    let answer = format!("PUB {reply} {}\r\n{start}\r\n", start.len());
                    writer.write_all(answer.as_bytes()).expect("it serves");
                }
                let said = serde_json::from_slice(&payload).unwrap_or(Value::Null);
                let mut heard = heard.lock().expect("nobody panics with it");
                heard.push(((*subject).to_owned(), said));
            }
            _ => {}
        }
    }
}

fn gavel(nodes: &Nodes, words: &[&str]) -> String {
    let output = nodes.gavel(words).output().expect("nsenter starts");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The instances of an app, as its records have them.
fn rows(nodes: &Nodes, app: &str) -> Vec<Value> {
    let rows = gavel(nodes, &["actual-lrps", "-p", app, "--json"]);
    rows.lines().map(|row| serde_json::from_str(row).expect("JSON lines")).collect()
}

/// Three instances that run, one for each index.
fn running(nodes: &Nodes, app: &str) -> Vec<Value> {
    eventually("three instances run", PATIENCE, || {
        let rows = rows(nodes, app);
        let is_done = rows.len() == 3 && rows.iter().all(|row| row["state"] == "RUNNING");
        if is_done { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
}

fn guid(row: &Value) -> &str {
    row["instance_guid"].as_str().expect("it runs")
}

fn start(nodes: &mut Nodes) {
    for number in 1..=NODES {
        let emitter = format!("[route_emitter]\nnats = [\"{NATS}\"]");
        let zone = format!("zone = \"z{number}\"");
        let config = nodes.configure(number, &nodes.endpoint(number), &zone, &emitter);
        nodes.start(&config);
    }
    nodes.until_ready(|words| nodes.gavel(words));
    gavel(nodes, &["enable-feature-flag", "diego_docker"]);
}

#[test]
fn routers_hear_of_instances_as_from_diego_whoever_leads() {
    let mut nodes = Nodes::new();
    let server = Server::start(&nodes);
    let gorouter = Gorouter::start(&nodes);
    start(&mut nodes);
    let registry = Registry::start(nodes.host());
    registry.push("web", "oci");
    let image = format!("{REGISTRY}/web");
    let push = |app: &str, instances: &str, route: &str| {
        let small = ["-m", "64M", "-k", "64M"];
        let words = ["push", app, "-o", &image, "-i", instances, "--route", route];
        gavel(&nodes, &[&words[..], &small].concat());
    };
    push("web", "3", "web.example.com/v1");

    let before = running(&nodes, "web");
    for row in &before {
        // Again at the interval that the router has asked for.
        let said = gorouter.hears(0, "router.register", guid(row), 4);
        let (news, rest): (Vec<_>, Vec<_>) =
            said.iter().partition(|it| it.get("endpoint_updated_at_ns").is_some());
        assert_eq!(news, [&told_of(row, true)], "when it is new");
        assert!(rest.iter().all(|it| **it == told_of(row, false)), "{rest:?}");
    }

    let leader = kill_leader(&nodes);
    let killed_at = gorouter.now();
    let (lost, left): (Vec<_>, Vec<_>) = before.iter().partition(|row| row["cell_id"] == leader);
    for row in left {
        gorouter.hears(killed_at, "router.register", guid(row), 3);
    }
    let [lost] = lost[..] else { panic!("one instance on each cell: {before:?}") };
    let replacement = eventually("it is replaced and registered", PATIENCE, || {
        let all = gorouter.since(killed_at);
        let is_it = |(subject, it): &&Heard| {
            let is_index = it["private_instance_index"] == json!(lost["index"].to_string());
            subject == "router.register" && is_index && it["private_instance_id"] != guid(lost)
        };
        let found = all.iter().find(is_it).map(|(_, it)| it.clone());
        found.ok_or_else(|| format!("{:?}", rows(&nodes, "web")))
    });
    assert_ne!(replacement["port"], json!(lost["ports"][0]["host_port"]));

    let after = running(&nodes, "web");
    gavel(&nodes, &["delete", "web"]);
    for row in &after {
        let said = gorouter.hears(killed_at, "router.unregister", guid(row), 1);
        assert_eq!(said[0], told_of(row, false));
    }
    // Others are registered, and what is gone is not any more.
    push("other", "2", "other.example.com");
    for row in rows(&nodes, "other") {
        gorouter.hears(killed_at, "router.register", guid(&row), 3);
    }
    for row in &after {
        let all = gorouter.since(killed_at);
        let mut last = all.iter().rev().filter(|(_, it)| it["private_instance_id"] == guid(row));
        assert_eq!(last.next().expect("it was withdrawn").0, "router.unregister");
    }
    drop(server);
}

/// What a router is told of an instance of `web` (Diego's route-emitter: `RegistryMessage`).
fn told_of(row: &Value, is_new: bool) -> Value {
    let mut told = json!({
        "host": "127.0.0.1",
        "port": row["ports"][0]["host_port"],
        "uris": ["web.example.com/v1"],
        "app": "web",
        "private_instance_id": row["instance_guid"],
        "private_instance_index": row["index"].to_string(),
        "server_cert_domain_san": row["instance_guid"],
        "tags": {"component": "route-emitter"},
        "availability_zone": row["availability_zone"],
    });
    if is_new {
        told["endpoint_updated_at_ns"] = row["since"].clone();
    }
    told
}

/// Who led, by name; its node is gone for good.
fn kill_leader(nodes: &Nodes) -> String {
    let status = gavel(nodes, &["cluster", "status", "--json"]);
    let status: Value = serde_json::from_str(status.lines().next().expect("a line")).expect("JSON");
    let leader = format!("node-{}", status["leader"]);
    let pids = nodes.host().processes(&format!("/{leader}.toml"));
    assert_eq!(pids.len(), 1, "{leader}: {pids:?}");
    kill(pids[0], Signal::SIGKILL).expect("it runs");
    leader
}
