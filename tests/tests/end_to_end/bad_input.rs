//! Bad input: a clear error to the one who asked, nothing half-made, and the nodes go on.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use tests::cluster::{Cluster, SAMPLE};
use tests::eventually;
use tests::registry::{Lie, Registry, lie};

#[test]
fn bad_images_and_lying_registries_are_named_with_the_reason() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push("honest", "oci");
    lie(cluster.host(), "127.0.0.1:6001", Lie::Rubbish);
    lie(cluster.host(), "127.0.0.1:6002", Lie::WrongBytes);
    lie(cluster.host(), "127.0.0.1:6003", Lie::CutOff);
    // Who asks hears of what the manifest shows at once, and of layers when instances are made.
    for (image, expected) in [
        ("127.0.0.1:7450/nothing", "127.0.0.1:7450/nothing:latest does not exist"),
        ("127.0.0.1:5000/nothing", "127.0.0.1:5000/nothing:latest does not exist"),
        ("127.0.0.1:5000/honest:v9", "127.0.0.1:5000/honest:v9 does not exist"),
        ("127.0.0.1:5999/honest", "cannot reach registry 127.0.0.1:5999"),
        ("127.0.0.1:6001/honest", "127.0.0.1:6001"),
        ("Not/An@Image", "invalid image reference \"Not/An@Image\""),
    ] {
        let said = cluster.fails(&["push", "bad", "-o", image]);
        assert!(said.contains(expected), "{image}: {said}");
        assert_eq!(cluster.json(&["desired-lrps"]), Vec::<serde_json::Value>::new(), "{image}");
    }
    for (image, expected) in
        [("127.0.0.1:6002/honest", "digest"), ("127.0.0.1:6003/honest", "broke off after")]
    {
        let said = cluster.fails(&["push", "bad", "-o", image, "-t", "20s"]);
        assert!(said.contains(image) && said.contains(expected), "{image}: {said}");
        let _ = cluster.done(&["delete", "bad"]);
        let _ = cluster.instances("bad", 0);
    }
    for node in ["node-1", "node-2", "node-3"] {
        let incomplete = cluster.data_dir().join(node).join("images/incomplete");
        let left: Vec<_> = fs::read_dir(&incomplete).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let _ = cluster.done(&["push", "honest", "-o", "127.0.0.1:5000/honest", "-i", "3"]);
    assert_eq!(cluster.answers("honest", 3).len(), 3);
}

#[test]
fn no_room_and_no_ports_are_said_with_what_would_help() {
    let cluster = Cluster::start_with(&["--host-ports", "61001-61003"]);
    let said = cluster.fails(&["push", "large", "-o", SAMPLE, "-m", "900G", "-t", "3s"]);
    assert!(said.contains("insufficient resources: memory"), "{said}");
    assert!(said.contains("add a cell, or ask for less"), "{said}");
    let _ = cluster.done(&["delete", "large"]);
    // A port for each cell.
    let said = cluster.fails(&["push", "hello", "-o", SAMPLE, "-i", "4", "-t", "10s"]);
    assert!(said.contains("port"), "{said}");
    assert!(said.contains("3 of 4 run"), "{said}");
    // Not by scaling: the one that found none may be any of the first three, and rests by then.
    let running = cluster.running("hello");
    let _ = cluster.done(&["delete", "hello"]);
    // Instances go on for a moment, until no router sends them anything, and have their ports.
    for instance in running {
        eventually("its port is free again", Duration::from_secs(20), || {
            match cluster.host().http_get(instance.address, "/") {
                Ok(said) => Err(said),
                Err(_gone) => Ok(()),
            }
        });
    }
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "3"]);
    assert_eq!(cluster.answers("hello", 3).len(), 3);
}

#[test]
fn malformed_requests_are_refused_and_the_flag_holds() {
    let cluster = Cluster::start();
    for (words, code, expected) in [
        (&["create-task", "{\"task_guid\":"][..], 2, "the task cannot be read"),
        (&["create-desired-lrp", "[]"], 2, "cannot be read"),
        (&["push", "no spaces", "-o", SAMPLE], 2, "letters, digits"),
        (&["push", "hello"], 2, "no image: give one with -o IMAGE"),
        (&["scale", "nobody", "-i", "2"], 1, "ResourceNotFound"),
        (&["delete-task", "nobody"], 1, "ResourceNotFound"),
        (&["logs", "nobody", "--recent"], 1, "ResourceNotFound"),
    ] {
        let output = cluster.gavel(words).stdout(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    let _ = cluster.done(&["push", "runs", "-o", SAMPLE, "-i", "2"]);
    let _ = cluster.done(&["disable-feature-flag", "diego_docker"]);
    let said = cluster.fails(&["push", "hello", "-o", SAMPLE]);
    assert!(said.contains("diego_docker"), "{said}");
    assert_eq!(cluster.instances("runs", 0).len(), 0);
    let said = cluster.done(&["app", "runs"]);
    assert!(said.contains("feature flag diego_docker is disabled"), "{said}");
    let _ = cluster.done(&["enable-feature-flag", "diego_docker"]);
    assert_eq!(cluster.answers("runs", 2).len(), 2);
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE]);
}
