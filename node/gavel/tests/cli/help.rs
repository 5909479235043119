//! What is listed is what there is, and each command says how it is used.

use std::process::Command;

use expect_test::expect;

use crate::{Ran, gavel};

fn help(args: &[&str]) -> String {
    let mut command: Command = gavel("127.0.0.1:1");
    Ran::from(command.args(args).arg("--help").output().unwrap()).ok()
}

/// The names of the commands that a help text lists.
fn listed(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect()
}

#[test]
fn every_command_is_listed_and_has_an_example() {
    let top = help(&[]);
    expect![[r#"
        [
            "dev",
            "node",
            "push",
            "docker-push",
            "apps",
            "app",
            "scale",
            "start",
            "stop",
            "logs",
            "exec",
            "ssh",
            "delete",
            "enable-feature-flag",
            "disable-feature-flag",
            "feature-flags",
            "desired-lrps",
            "desired-lrp",
            "create-desired-lrp",
            "update-desired-lrp",
            "delete-desired-lrp",
            "actual-lrps",
            "retire-actual-lrp",
            "tasks",
            "task",
            "create-task",
            "cancel-task",
            "delete-task",
            "domains",
            "set-domain",
            "cells",
            "evacuate",
            "cluster",
            "completion",
            "version",
        ]
    "#]]
    .assert_debug_eq(&listed(&top));
    for name in listed(&top) {
        let text = help(&[name]);
        assert!(text.contains("Example"), "gavel {name} --help has no example:\n{text}");
        for inner in listed(&text).into_iter().filter(|inner| *inner != "help") {
            let text = help(&[name, inner]);
            assert!(text.contains("Example"), "gavel {name} {inner} --help:\n{text}");
        }
    }
    let cluster = listed(&help(&["cluster"])).join(" ");
    expect!["status join leave promote demote replace transfer-leadership certs"]
        .assert_eq(&cluster);
}

#[test]
fn wrong_usage_is_2() {
    for line in [
        "",
        "pusch hello",
        "push hello",
        "push he/llo -o image",
        "push hello -o image -m 12",
        "push hello -o image -e NOVALUE",
        "scale hello -i -1",
        "exec hello",
        "exec hello ls",
        "exec hello/x -- ls",
        "ssh hello -N",
        "apps --ca /dev/null",
        "apps --ca /dev/null --cert /dev/null --key /dev/null",
        "cluster certs --dir /tmp",
        "cluster certs --dir /tmp node-1",
        "cluster certs --dir /tmp no/de=localhost",
        "ssh hello -L 80",
        "ssh hello -N -L 80:80 -c ls",
        "enable-feature-flag diego_podman",
        "set-domain d -t 0",
        "create-desired-lrp {",
        "create-task @/no/such/file",
        "apps --endpoints nowhere",
    ] {
        let ran: Ran = gavel("127.0.0.1:1").args(line.split_whitespace()).output().unwrap().into();
        assert_eq!(ran.status, 2, "gavel {line}: {ran:?}");
        assert!(!ran.err.is_empty(), "gavel {line}");
    }
}

#[test]
fn what_needs_no_cluster_asks_none() {
    let run = |args: &[&str]| Ran::from(gavel("127.0.0.1:1").args(args).output().unwrap()).ok();
    assert_eq!(run(&["version"]), "gavel 0.1.0\n");
    assert_eq!(run(&["version", "--json"]), "{\"version\":\"0.1.0\"}\n");
    assert!(run(&["completion", "bash"]).contains("complete -F _gavel"));
}
