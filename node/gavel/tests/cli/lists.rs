//! Everything that only looks.

use expect_test::{Expect, expect};
use model::Command;

use crate::fake::Fake;

fn check(fake: &Fake, line: &str, expected: Expect) {
    expected.assert_eq(&fake.type_in(line).ok());
}

/// A fake with an app of two instances and a task that has failed.
fn busy() -> Fake {
    let fake = Fake::start();
    fake.type_in("push hello -o me/hello -i 2").ok();
    fake.run(["create-task", TASK]).ok();
    fake.with(|cluster| {
        let (task_guid, cell_id) = ("t".into(), "node-2".into());
        cluster.apply(Command::PlaceTask { task_guid, cell_id }).unwrap();
        let (task_guid, cell_id) = ("t".into(), "node-2".into());
        cluster.apply(Command::StartTask { task_guid, cell_id }).unwrap();
    });
    fake
}

const TASK: &str = r#"{"task_guid":"t","domain":"mine","task_definition":{"rootfs":"docker:///me/t",
    "memory_mb":64,"disk_mb":64,"action":{"run":{"path":"/bin/true","user":"root"}}}}"#;

#[test]
fn an_empty_cluster_says_so_on_standard_error() {
    let fake = Fake::start();
    for line in ["apps", "desired-lrps", "actual-lrps", "tasks", "domains"] {
        let ran = fake.type_in(line);
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
        assert_eq!(ran.ok(), "", "{line}");
        assert_eq!(fake.type_in(&format!("{line} --json")).ok(), "", "{line}");
    }
}

#[test]
fn apps_and_one_app() {
    let fake = busy();
    check(
        &fake,
        "apps",
        expect![[r#"
        name    instances   memory   image      routes
        hello   2/2         256M     me/hello   10.0.0.1:61001, 10.0.0.2:61002
    "#]],
    );
    check(
        &fake,
        "app hello",
        expect![[r#"
            name:      hello
            state:     started
            image:     me/hello
            digest:    sha256:abababababababababababababababababababababababababababababababab
            usage:     256M memory, 1G disk each
            instances: 2/2
            routes:    http://10.0.0.1:61001
                       http://10.0.0.2:61002

                 state     since   cpu      memory            disk          cell     address     ports
            #0   running   now     123.4%   3.0 MiB of 256M   512 B of 1G   node-1   10.88.0.2   61001->8080
            #1   running   now                                              node-2   10.88.0.2   61002->8080
            no figures of #1: cell node-2 is silent
        "#]],
    );
    check(
        &fake,
        "apps --json",
        expect![[r#"
        {"digest":"sha256:abababababababababababababababababababababababababababababababab","disk_mb":1024,"image":"me/hello","memory_mb":256,"name":"hello","requested":2,"requested_state":"started","rootfs":"docker:///me/hello#latest","routes":["10.0.0.1:61001","10.0.0.2:61002"],"running":2}
    "#]],
    );
    let app: serde_json::Value =
        serde_json::from_str(&fake.type_in("app hello --json").ok()).unwrap();
    assert_eq!(app["instances"][0]["usage"]["age_ms"], 9000);
    assert_eq!(app["instances"][1]["cell_id"], "node-2");
    assert_eq!(app["instances"][1]["usage_unknown"], "cell node-2 is silent");
}

#[test]
fn lrps_as_cfdot() {
    let fake = busy();
    check(
        &fake,
        "desired-lrps",
        expect![[r#"
        process guid   domain    instances   memory   disk   rootfs
        hello          cf-apps           2   256M     1G     docker:///me/hello#latest
    "#]],
    );
    check(
        &fake,
        "actual-lrps -p hello --stale",
        expect![[r#"
        process guid   index   state     presence   since   cell     instance guid                  ports
        hello              0   RUNNING   ORDINARY   now     node-1   00000007-0000-0000-0007-0000   61001->8080
        hello              1   RUNNING   ORDINARY   now     node-2   00000007-0000-0000-0008-0000   61002->8080
    "#]],
    );
    assert_eq!(fake.type_in("actual-lrps -p other").ok(), "");
    let lines = fake.type_in("actual-lrps --json").ok();
    let states: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|lrp| format!("{} {}", lrp["index"], lrp["state"]))
        .collect();
    assert_eq!(states, [r#"0 "RUNNING""#, r#"1 "RUNNING""#]);
    let one = fake.type_in("desired-lrp hello --json").ok();
    assert_eq!(one.lines().count(), 1);
    assert!(fake.type_in("desired-lrp hello").ok().lines().count() > 10);
}

#[test]
fn tasks_as_cfdot() {
    let fake = busy();
    check(
        &fake,
        "tasks",
        expect![[r#"
        task guid   domain   state     updated   cell
        t           mine     Running   now       node-2
    "#]],
    );
    fake.type_in("cancel-task t").ok();
    check(
        &fake,
        "tasks",
        expect![[r#"
        task guid   domain   state       updated   outcome
        t           mine     Completed   now       failed: task was cancelled
    "#]],
    );
    let task: serde_json::Value =
        serde_json::from_str(&fake.type_in("task t --json").ok()).unwrap();
    assert_eq!(task["failure_reason"], "task was cancelled");
}

#[test]
fn cells_domains_flags_and_the_cluster() {
    let fake = busy();
    check(
        &fake,
        "cells",
        expect![[r#"
            cell     state     zone   address    memory       disk         lrps   tasks   containers
            node-1   present   z1     10.0.0.1   256M of 1G   1G of 4G        1       0   1 of 100
            node-2   present   z1     10.0.0.2   320M of 1G   1.0G of 4G      1       1   2 of 100
            node-3   present   z1     10.0.0.3   0M of 1G     0M of 4G        0       0   0 of 100
        "#]],
    );
    check(
        &fake,
        "feature-flags",
        expect![[r#"
        flag           state
        diego_docker   enabled
    "#]],
    );
    fake.type_in("set-domain mine").ok();
    check(
        &fake,
        "domains",
        expect![[r#"
        domain   expires
        mine     never
    "#]],
    );
    fake.type_in("set-domain mine -t 2m").ok();
    let domain: serde_json::Value =
        serde_json::from_str(&fake.type_in("domains --json").ok()).unwrap();
    assert!(domain["expires_at"].is_i64());
    let status = fake.type_in("cluster status").ok();
    let status: Vec<_> = status.lines().filter(|line| !line.starts_with("answered")).collect();
    let matched = fake.with(|cluster| cluster.index()).to_string();
    expect![[r#"
        leader    node-1
        term      4
        layers    1 from registries, 2 from other cells, 0 to them

        node   name     address         role       applied
           1   node-1   10.0.0.1:7440   leader     INDEX
           2   node-2   10.0.0.2:7440   voter      INDEX
           3   node-3   10.0.0.3:7440   voter    no answer"#]]
    .assert_eq(&status.join("\n").replace(&format!("{matched:>7}"), "INDEX"));
}
