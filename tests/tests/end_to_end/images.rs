//! Images from a real registry run as they say they want to.

use std::time::Duration;

use serde_json::json;
use tests::cluster::{Cluster, SAMPLE};
use tests::eventually;
use tests::registry::{REGISTRY, Registry, USER};

#[test]
fn an_image_from_a_real_registry_runs_as_its_config_says() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    for format in ["oci", "v2s2"] {
        registry.push(format, format);
        let pushed =
            cluster.done(&["push", format, "-o", &format!("{REGISTRY}/{format}"), "-i", "3"]);
        assert!(pushed.contains("instances: 3/3"), "{pushed}");
        let mut answers = cluster.answers(format, 3);
        answers.sort_unstable();
        for (index, answer) in answers.iter().enumerate() {
            for expected in
                ["greeting moin", "user 1234", "dir /app", "args one", "the removed file is gone"]
            {
                assert!(answer.contains(expected), "{expected}: {answer}");
            }
            assert!(answer.contains(&format!("index {index}\n")), "{answer}");
            // Root in the container is nobody on the host.
            let map = answer.lines().find_map(|line| line.strip_prefix("root is ")).unwrap();
            let outside: u64 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert!(outside >= 65_536, "{answer}");
        }
        let cells: std::collections::BTreeSet<String> =
            cluster.instances(format, 3).into_iter().map(|instance| instance.cell_id).collect();
        assert_eq!(cells.len(), 3, "an instance on each cell");
        let logs = cluster.done(&["logs", format, "--recent"]);
        for index in 0..3 {
            assert!(
                logs.contains(&format!("[APP/PROC/WEB/{index}] OUT serving on 8080")),
                "{logs}"
            );
            assert!(logs.contains(&format!("[APP/PROC/WEB/{index}] ERR complaining")), "{logs}");
        }
    }
}

#[test]
fn the_sample_runs_scales_and_leaves_nothing_behind() {
    let mut cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "3"]);
    let answers = cluster.answers("hello", 3);
    assert!(answers.iter().all(|answer| answer.starts_with("Hello from instance")), "{answers:?}");
    let _ = cluster.done(&["scale", "hello", "-i", "5"]);
    assert_eq!(cluster.answers("hello", 5).len(), 5);
    let _ = cluster.done(&["scale", "hello", "-i", "1"]);
    assert_eq!(cluster.instances("hello", 1)[0].index, 0);
    let _ = cluster.done(&["delete", "hello"]);
    assert_eq!(cluster.instances("hello", 0), []);
    let _ = cluster.done(&["push", "again", "-o", SAMPLE]);
    cluster.interrupt();
    assert_eq!(cluster.host().traces(), Vec::<String>::new());
}

#[test]
fn an_instance_on_each_of_three_cells_costs_the_registry_one_download_of_each_layer() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("web", "oci");
    // Each cell hears of the others within a second or two of their start; until all have, they do
    // not agree on a layer's home.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let _ = cluster.done(&["push", "web", "-o", &format!("{REGISTRY}/web"), "-i", "3"]);
    let cells: std::collections::BTreeSet<String> =
        cluster.instances("web", 3).into_iter().map(|instance| instance.cell_id).collect();
    assert_eq!(cells.len(), 3, "an instance on each cell");
    let (mut registries, mut cells) = (0, 0);
    for node in ["node-1", "node-2", "node-3"] {
        let status = cluster
            .gavel(&["cluster", "status", "--json"])
            .env("GAVEL_ENDPOINTS", cluster.endpoint(node))
            .output()
            .unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        registries += status["layers"]["registries"].as_u64().unwrap();
        cells += status["layers"]["cells"].as_u64().unwrap();
    }
    assert_eq!(registries, 2, "the image has two layers");
    assert_eq!(cells, 4, "and two cells that are not their home");
}

#[test]
fn a_private_image_runs_and_nobody_sees_its_password() {
    let mut cluster = Cluster::start();
    let registry = Registry::start_private(cluster.host());
    registry.push("mine", "v2s2");
    let image = format!("{REGISTRY}/mine");
    let refused = cluster.fails(&["push", "mine", "-o", &image]);
    assert!(
        refused.contains("does not exist or you do not have permissions to see it"),
        "{refused}"
    );
    let push = |password: &str| {
        cluster
            .gavel(&["push", "mine", "-o", &image, "-i", "2", "--docker-username", USER.0])
            .env("CF_DOCKER_PASSWORD", password)
            .output()
            .unwrap()
    };
    let wrong = String::from_utf8(push("wrong").stderr).unwrap();
    assert!(wrong.contains("authorization failed: username and password are invalid"), "{wrong}");
    let pushed = push(USER.1);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    assert_eq!(cluster.answers("mine", 2).len(), 2);
    let shown = cluster.done(&["desired-lrp", "mine"]);
    assert!(shown.contains(USER.0) && !shown.contains("gavel-sealed"), "{shown}");
    let holds = |text: &str| {
        let grep = std::process::Command::new("grep")
            .args(["--recursive", "--text", "--files-with-matches", "--fixed-strings", text])
            .arg(cluster.data_dir())
            .output()
            .unwrap();
        String::from_utf8(grep.stdout).unwrap()
    };
    assert!(holds(USER.0).contains("/raft/"), "what is kept is found");
    assert!(holds("gavel-sealed:").contains("/raft/"));
    assert_eq!(holds(USER.1), "");
    let _ = cluster.done(&["scale", "mine", "-i", "3"]);
    assert_eq!(cluster.answers("mine", 3).len(), 3);
    who_knows_a_digest_has_no_image(&cluster);
    // What is sealed still opens when all of it starts again, and each cell knows whom it gave the
    // image to, though its registry is away.
    drop(registry);
    cluster.interrupt();
    cluster.resume();
    assert_eq!(cluster.answers("mine", 3).len(), 3);
    let logs = cluster.done(&["logs", "mine", "--recent"]);
    assert!(!logs.contains("cannot reach registry"), "{logs}");
}

/// Every cell has the private image, and starts it for nobody but its user.
fn who_knows_a_digest_has_no_image(cluster: &Cluster) {
    let app = cluster.json(&["app", "mine"]).remove(0);
    let digest = app["digest"].as_str().unwrap_or_else(|| panic!("{app}"));
    for (guid, user, expected) in [
        ("nobody", None, "does not exist or you do not have permissions to see it."),
        ("wrong", Some("guess"), "authorization failed: username and password are invalid"),
    ] {
        let mut lrp = json!({
            "process_guid": guid, "domain": "test", "instances": 1, "memory_mb": 32,
            "rootfs": format!("docker://{REGISTRY}/mine"), "rootfs_digest": digest,
            "action": { "run": { "path": "/bin/sh", "args": ["/app/run.sh"], "user": "web" } },
        });
        if let Some(password) = user {
            lrp["image_username"] = json!(USER.0);
            lrp["image_password"] = json!(password);
        }
        let _ = cluster.done(&["create-desired-lrp", &lrp.to_string()]);
        eventually("it is refused", Duration::from_secs(60), || {
            let row = cluster.json(&["actual-lrps", "-p", guid]).remove(0);
            let reason = row["crash_reason"].as_str().unwrap_or_default();
            if reason.contains(expected) { Ok(()) } else { Err(row.to_string()) }
        });
        let _ = cluster.done(&["delete-desired-lrp", guid]);
    }
}
