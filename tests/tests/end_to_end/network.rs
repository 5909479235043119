//! Apps find each other by name, and nothing else of the machine.

use std::time::Duration;

use serde_json::json;
use tests::cluster::Cluster;
use tests::eventually;
use tests::registry::{REGISTRY, Registry};

/// Asks again and again, by busybox's netcat, and says what it hears: who answers at three names;
/// what comes of a name that nobody has; and of the node's own port.
const CALLER: &str = r#"
ask() {
    printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc -w 2 "$1" "$2" 2>&1 |
        busybox grep -e index -e nc: | busybox head -n 1
}
while :; do
    echo "app says $(ask callee.internal 8080)"
    echo "two says $(ask 2.callee.internal 8080)"
    echo "route says $(ask Callee.Apps.internal 8080)"
    echo "nobody says $(ask nobody.internal 8080)"
    echo "node says $(ask $GATEWAY $NODE_PORT)"
    busybox sleep 0.2
done
"#;

/// Waits until an app has said each of these after all it said until now.
fn says(cluster: &Cluster, app: &str, wanted: &[&str]) {
    let before = cluster.done(&["logs", app, "--recent"]).lines().count();
    eventually(&format!("{app} says {wanted:?}"), Duration::from_secs(60), || {
        let logs = cluster.done(&["logs", app, "--recent"]);
        // Two lines more may belong to questions that were under way.
        let new: Vec<&str> = logs.lines().skip(before.saturating_sub(2)).collect();
        let is_said = |wanted: &&str| new.iter().any(|line| line.contains(wanted));
        if wanted.iter().all(is_said) { Ok(()) } else { Err(new.join("\n")) }
    });
}

#[test]
fn apps_call_each_other_by_name_wherever_they_run_and_whatever_nodes_do() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("busybox", "oci");
    let image = format!("{REGISTRY}/busybox");
    let _ = cluster.done(&["push", "callee", "-o", &image, "-i", "3"]);
    let _ = cluster.answers("callee", 3);
    let routes = json!([{"hostname": "callee.apps.internal"}]);
    let update = json!({"routes": {"internal-router": routes}}).to_string();
    let _ = cluster.done(&["update-desired-lrp", "callee", &update]);
    let node_port = cluster.endpoint("node-1");
    let node_port = format!("NODE_PORT={}", node_port.rsplit(':').next().unwrap());
    // The node's own address towards its containers, from the container's.
    let command = format!("GATEWAY=${{CF_INSTANCE_INTERNAL_IP%.*}}.1; {CALLER}");
    let words = ["push", "caller", "-o", &image, "-u", "process"];
    let _ = cluster.done(&[&words[..], &["-c", &command, "-e", &node_port]].concat());
    let on = cluster.instances("caller", 1)[0].cell_id.clone();
    says(
        &cluster,
        "caller",
        &[
            "app says index 0",
            "app says index 1",
            "app says index 2",
            "two says index 2",
            "route says index",
            "nobody says nc: bad address",
        ],
    );
    let logs = cluster.done(&["logs", "caller", "--recent"]);
    let node = logs.lines().rfind(|line| line.contains("node says")).unwrap();
    assert!(node.contains("refused"), "{node}");
    // Names come back with the node, and say what has changed meanwhile.
    cluster.kill_node(&on);
    let _ = cluster.done(&["scale", "callee", "-i", "1"]);
    let _ = cluster.instances("callee", 1);
    says(&cluster, "caller", &["app says index 0", "two says nc: bad address"]);
    assert_eq!(cluster.instances("caller", 1)[0].cell_id, on, "it went on without its node");
}

#[test]
fn an_egress_rule_that_no_cell_can_enforce_is_told() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("busybox", "oci");
    let lrp = json!({
        "process_guid": "odd", "domain": "d", "instances": 1,
        "rootfs": format!("docker://{REGISTRY}/busybox"),
        "action": {"run": {"path": "/bin/sh", "args": ["-c", "busybox sleep 1000"], "user": "root"}},
        "egress_rules": [
            {"protocol": "icmp", "destinations": ["0.0.0.0/0"],
             "icmp_info": {"type": 300, "code": 0}},
        ],
    });
    let _ = cluster.done(&["create-desired-lrp", &lrp.to_string()]);
    eventually("it crashes with the reason", Duration::from_secs(60), || {
        let rows = cluster.json(&["actual-lrps", "-p", "odd"]);
        let reason = rows.first().and_then(|row| row["crash_reason"].as_str());
        match reason {
            Some("failed to create container: Invalid field: icmp_info") => Ok(()),
            _ => Err(format!("{rows:?}")),
        }
    });
}
