//! Nodes that trust nobody without a certificate, and one that lets nobody into containers.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use tests::eventually;
use tests::nodes::{NODES, Nodes};
use tests::registry::{REGISTRY, Registry};

const PATIENCE: Duration = Duration::from_secs(30);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn output(mut command: Command) -> Output {
    command.output().expect("nsenter starts")
}

/// Makes certificates in that directory of the host's; returns it.
fn certs(nodes: &Nodes, dir: &str, clients: &[&str]) -> PathBuf {
    let dir = nodes.host().dir().join(dir);
    let mut command = nodes.gavel(&["cluster", "certs", "--dir"]);
    command.arg(&dir);
    for client in clients {
        command.args(["--client", client]);
    }
    for number in 1..=NODES {
        command.arg(format!("node-{number}=127.0.0.1"));
    }
    let made = output(command);
    assert!(made.status.success(), "{}", text(&made.stderr));
    dir
}

/// A command with that client's certificate.
fn gavel_as(nodes: &Nodes, dir: &std::path::Path, name: &str, words: &[&str]) -> Command {
    let mut command = nodes.gavel(words);
    command.env("GAVEL_CA", dir.join("ca.crt"));
    command.env("GAVEL_CERT", dir.join(format!("{name}.crt")));
    command.env("GAVEL_KEY", dir.join(format!("{name}.key")));
    command
}

#[test]
fn certificates_let_in_and_their_absence_keeps_out() {
    let mut nodes = Nodes::new();
    let ours = certs(&nodes, "ours", &["alice"]);
    let others = certs(&nodes, "others", &["mallory"]);
    for number in 1..=NODES {
        let own = |suffix: &str| ours.join(format!("node-{number}.{suffix}")).display().to_string();
        let tls = format!(
            "[tls]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"",
            ours.join("ca.crt").display(),
            own("crt"),
            own("key")
        );
        let cell = if number == 3 { "allow_ssh = false" } else { "" };
        let config = nodes.configure(number, &nodes.endpoint(number), cell, &tls);
        nodes.start(&config);
    }
    nodes.until_ready(|words| gavel_as(&nodes, &ours, "alice", words));
    let alice = |words: &[&str]| output(gavel_as(&nodes, &ours, "alice", words));
    let flag = alice(&["enable-feature-flag", "diego_docker"]);
    assert!(flag.status.success(), "{flag:?}");
    {
        let registry = Registry::start(nodes.host());
        registry.push("shell", "oci");
        let image = format!("{REGISTRY}/shell");
        let pushed = alice(&["push", "shell", "-o", &image, "-i", "3"]);
        assert!(pushed.status.success(), "{pushed:?}");
    }
    one_cell_lets_nobody_in(&nodes, &ours);
    strangers_are_kept_out(&nodes, &ours, &others);
    certificates_are_renewed_without_a_restart(&nodes, &ours);
}

/// Two cells let alice in, by way of each other too, and the third says why it does not.
fn one_cell_lets_nobody_in(nodes: &Nodes, ours: &std::path::Path) {
    let rows = text(&output(gavel_as(nodes, ours, "alice", &["actual-lrps", "--json"])).stdout);
    let closed = (0..3).find(|index| {
        let row = rows.lines().find(|row| row.contains(&format!("\"index\":{index},")));
        row.is_some_and(|row| row.contains("\"cell_id\":\"node-3\""))
    });
    let closed = closed.unwrap_or_else(|| panic!("an instance on each cell: {rows}"));
    for index in 0..3 {
        let instance = format!("shell/{index}");
        let words = ["ssh", &instance, "-c", "echo $CF_INSTANCE_INDEX"];
        for asked in [1, 2, 3] {
            let mut command = gavel_as(nodes, ours, "alice", &words);
            command.env("GAVEL_ENDPOINTS", nodes.endpoint(asked));
            let done = output(command);
            if index == closed || asked == 3 {
                let reason = "node-3 lets nobody into containers: allow_ssh is false";
                assert!(text(&done.stderr).contains(reason), "{done:?}");
                assert_eq!(done.status.code(), Some(1));
            } else {
                assert_eq!(text(&done.stdout), format!("{index}\n"), "{done:?}");
            }
        }
    }
    let logs = text(&output(gavel_as(nodes, ours, "alice", &["logs", "shell", "--recent"])).stdout);
    assert!(logs.contains("Successful remote access by alice (127.0.0.1:"), "{logs}");
}

fn strangers_are_kept_out(nodes: &Nodes, ours: &std::path::Path, others: &std::path::Path) {
    for words in [&["apps"][..], &["exec", "shell", "--", "id"]] {
        let plain = output(nodes.gavel(words));
        assert_eq!(plain.status.code(), Some(3), "{plain:?}");
        let hint = "a node with TLS takes --ca, --cert and --key";
        assert!(text(&plain.stderr).contains(hint), "{plain:?}");
        // One whom another authority vouches for, though it trusts ours.
        let mut mallory = gavel_as(nodes, others, "mallory", words);
        mallory.env("GAVEL_CA", ours.join("ca.crt"));
        let refused = output(mallory);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(text(&refused.stderr).contains("fatal alert"), "{refused:?}");
        // One who trusts another authority only.
        let mut distrustful = gavel_as(nodes, ours, "alice", words);
        distrustful.env("GAVEL_CA", others.join("ca.crt"));
        let refused = output(distrustful);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(text(&refused.stderr).contains("invalid peer certificate"), "{refused:?}");
    }
    let mut lost = gavel_as(nodes, ours, "alice", &["apps"]);
    lost.env("GAVEL_KEY", "/no/such.key");
    let lost = output(lost);
    assert_eq!(lost.status.code(), Some(2));
    assert!(text(&lost.stderr).contains("/no/such.key: No such file"), "{lost:?}");
}

/// A new authority takes over: for a time both are trusted, then the new one only.
fn certificates_are_renewed_without_a_restart(nodes: &Nodes, ours: &std::path::Path) {
    let new = certs(nodes, "new", &["alice"]);
    let bob = || gavel_as(nodes, &new, "alice", &["cells"]);
    assert_eq!(output(bob()).status.code(), Some(3));
    for file in ["ca.crt", "node-1.crt", "node-1.key", "node-2.crt", "node-2.key", "node-3.crt"] {
        fs::copy(new.join(file), ours.join(file)).expect("both are ours");
    }
    // Half of a pair is no certificate: the third goes on with what it had, until the rest is there.
    std::thread::sleep(Duration::from_millis(1500));
    fs::copy(new.join("node-3.key"), ours.join("node-3.key")).expect("both are ours");
    eventually("every node takes the new certificates", PATIENCE, || {
        for number in 1..=NODES {
            let mut command = bob();
            command.env("GAVEL_ENDPOINTS", nodes.endpoint(number));
            let done = output(command);
            if !done.status.success() {
                return Err(text(&done.stderr));
            }
        }
        Ok(())
    });
    let old = output(gavel_as(nodes, &new, "alice", &["ssh", "shell", "-c", "true"]));
    assert!(old.status.success() || text(&old.stderr).contains("allow_ssh"), "{old:?}");
}

#[test]
fn a_node_is_not_open_to_a_network_by_mistake() {
    let nodes = Nodes::new();
    let start = |listen: &str, tables: &str| {
        let config = nodes.configure(1, listen, "", tables);
        output({
            let mut command = nodes.gavel(&["node", "--config"]);
            command.arg(config);
            command
        })
    };
    for (listen, tables, expected) in [
        ("0.0.0.0:7600", "", "listen = \"0.0.0.0:7600\" would be open to the network without TLS"),
        ("127.0.0.1:7600", "[tls]\nca = \"/c\"", "it takes all three, or none"),
        (
            "127.0.0.1:7600",
            "[tls]\nca = \"/no/ca\"\ncert = \"/no/cert\"\nkey = \"/no/key\"",
            "/no/",
        ),
    ] {
        let refused = start(listen, tables);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains(expected), "{refused:?}");
    }
}
