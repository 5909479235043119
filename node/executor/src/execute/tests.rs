//! Whole recipes: the plan of executor.md section 4, and the stop of section 7.

use std::sync::Arc;

use expect_test::{Expect, expect};
use model::check::CheckDefinition;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::testing::sandbox::{BROKEN, OK, Page};
use crate::testing::{World, run, sourced};
use crate::{Outcome, Progress};

async fn check(lrp: Value, expected: Expect) {
    expected.assert_eq(&World::new(lrp).story().await);
}

async fn check_stopped(lrp: Value, millis: u64, expected: Expect) {
    expected.assert_eq(&World::new(lrp).story_stopped_after(millis).await);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_exits_has_crashed_without_a_reason() {
    check(
        json!({"action": run("print:hello lasts:500")}),
        expect![[r#"
            0      start action
            0      OUT APP: hello
            0      Running { routable: true }
            500    OUT APP: Exit status 0
            500    ended: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_app_that_fails_has_crashed_with_one() {
    check(
        json!({"action": run("lasts:500 exit:3")}),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            500    OUT APP: Exit status 3
            500    failed: "APP: Exited with status 3"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_setup_comes_first_and_must_succeed() {
    let lrp = |setup| json!({"setup": run(setup), "action": run("lasts:500")});
    check(
        lrp("lasts:200"),
        expect![[r#"
            0      start setup
            200    OUT APP: Exit status 0
            200    start action
            200    Running { routable: true }
            700    OUT APP: Exit status 0
            700    ended: ""
        "#]],
    )
    .await;
    check(
        lrp("lasts:200 exit:1"),
        expect![[r#"
            0      start setup
            200    OUT APP: Exit status 1
            200    failed: "APP: Exited with status 1"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_recipe_without_an_action_fails() {
    check(
        json!({}),
        expect![[r#"
            0      failed: "container cannot have empty action"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_sidecars_exit_ends_everything() {
    let lrp = |sidecar| {
        json!({
            "action": run("on-term:100"),
            "sidecars": [{"action": sourced(run(sidecar), "SIDECAR")}],
        })
    };
    check(
        lrp("lasts:500"),
        expect![[r#"
            0      start action
            0      start sidecar/0
            0      Running { routable: true }
            500    OUT SIDECAR: Exit status 0
            500    Terminate action
            600    OUT APP: Exit status 0
            600    ended: ""
        "#]],
    )
    .await;
    check(
        lrp("lasts:500 exit:2"),
        expect![[r#"
            0      start action
            0      start sidecar/0
            0      Running { routable: true }
            500    OUT SIDECAR: Exit status 2
            500    Terminate action
            600    OUT APP: Exit status 0
            600    failed: "SIDECAR: Exited with status 2"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn with_sidecars_the_actions_exit_ends_everything() {
    let lrp = json!({"action": run("lasts:300"), "sidecars": [{"action": run("print:side")}]});
    check(
        lrp,
        expect![[r#"
            0      start action
            0      start sidecar/0
            0      OUT APP: side
            0      Running { routable: true }
            300    OUT APP: Exit status 0
            300    Terminate sidecar/0
            300    OUT APP: Exit status 143
            300    ended: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn reasons_of_all_who_failed_are_joined() {
    let lrp = json!({
        "action": run("lasts:300 exit:1"),
        "sidecars": [
            {"action": {"parallel": {"actions": [run("lasts:100 exit:2"), run("lasts:200 exit:3")]}}},
            {"action": {"try": {"action": run("lasts:900 exit:4")}}},
        ],
    });
    check(
        lrp,
        expect![[r#"
            0      start action
            0      start sidecar/0/0
            0      start sidecar/0/1
            0      start sidecar/1/0
            0      Running { routable: true }
            100    OUT APP: Exit status 2
            200    OUT APP: Exit status 3
            200    Terminate action
            200    OUT APP: Exit status 143
            200    Terminate sidecar/1/0
            200    OUT APP: Exit status 143
            200    failed: "APP: Exited with status 2; APP: Exited with status 3"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn with_checks_an_action_that_exits_well_is_a_daemon() {
    let definition = json!({"checks": [{"tcp_check": {"port": 8080}}]});
    let world = World::new(json!({"action": run("lasts:100"), "check_definition": definition}));
    world.sandbox.state().ports.insert(8080, vec![Page::Closed, Page::Closed, Page::Refused]);
    expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 8080
        0      OUT APP: Container became healthy
        0      connect 8080
        0      Running { routable: true }
        100    OUT APP: Exit status 0
        30000  connect 8080
        30000  ERR HEALTH: Liveness check unsuccessful: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused
        30000  ERR APP: Container became unhealthy
        30000  failed: "Instance became unhealthy: Liveness check unsuccessful: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused"
    "#]].assert_eq(&world.story().await);
}

#[tokio::test(start_paused = true)]
async fn a_container_runs_once_every_member_is_ready() {
    let world = World::new(json!({
        "action": {"serial": {"actions": [run("lasts:1000"), run("lasts:2500")]}},
        "sidecars": [{"action": run("print:side")}],
        "check_definition": {
            "checks": [{"tcp_check": {"port": 8080}}],
            "readiness_checks": [{"http_check": {"port": 8080}}],
        },
    }));
    world.sandbox.state().ports.insert(8080, vec![Page::Closed, OK]);
    expect![[r#"
        0      start action/0
        0      start sidecar/0
        0      OUT APP: side
        0      OUT APP: Starting health monitoring of container
        0      connect 8080
        0      OUT APP: Container became healthy
        0      connect 8080
        0      OUT HEALTH: Starting readiness health monitoring of container
        0      connect 8080
        1000   OUT APP: Exit status 0
        1000   start action/1
        1000   OUT HEALTH: Container passed the readiness health check. Container marked ready and added to route pool.
        1000   connect 8080
        1000   Running { routable: true }
        3500   OUT APP: Exit status 0
        3500   Terminate sidecar/0
        3500   OUT APP: Exit status 143
        3500   ended: ""
    "#]].assert_eq(&world.story().await);
}

#[tokio::test(start_paused = true)]
async fn a_stop_goes_to_all_processes() {
    let lrp = json!({"action": run("on-term:300"), "sidecars": [{"action": run("deaf")}]});
    check_stopped(
        lrp,
        1000,
        expect![[r#"
            0      start action
            0      start sidecar/0
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action
            1000   Terminate sidecar/0
            1300   OUT APP: Exit status 0
            11000  Kill sidecar/0
            11000  OUT APP: Exit status 137 (exceeded 10s graceful shutdown interval)
            11000  stopped: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_setup_runs_nothing_more() {
    let lrp = json!({"setup": run("exit:0 on-term:300"), "action": run("print:never")});
    check_stopped(
        lrp,
        1000,
        expect![[r#"
            0      start setup
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate setup
            1300   OUT APP: Exit status 0
            1300   stopped, failed: "cancelled"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_single_action_that_is_stopped_was_cancelled() {
    check_stopped(
        json!({"action": run("")}),
        1000,
        expect![[r#"
            0      start action
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action
            1000   OUT APP: Exit status 143
            1000   stopped, failed: "cancelled"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_before_it_runs_never_does() {
    let world = World::new(json!({"action": run("print:never")}));
    let stop = CancellationToken::new();
    stop.cancel();
    world.execute(stop).await;
    expect![[r#"
        0      stopped, failed: "stopped-before-running"
    "#]]
    .assert_eq(&world.sandbox.story());
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_not_longer_than_diegos() {
    let source = "x".repeat(20_000);
    let world = World::new(json!({"action": sourced(run("lasts:1 exit:1"), &source)}));
    let outcome = world.execute(CancellationToken::new()).await;
    assert_eq!(outcome.reason.len(), 10_000);
    assert!(outcome.reason.contains("x\n... (truncated)\nx"));
    assert!(outcome.reason.ends_with("x: Exited with status 1"));
}

#[tokio::test(start_paused = true)]
async fn an_execution_can_be_spawned() {
    let world = World::new(json!({"action": run("lasts:100 exit:1")}));
    let (sandbox, recipe) = (world.sandbox.clone(), world.recipe().clone());
    let (services, stop) = (Arc::clone(&world.services), CancellationToken::new());
    let (progress, _) = watch::channel(Progress::Starting);
    let execution = super::execute(sandbox, recipe, services, stop, progress);
    let reason = "APP: Exited with status 1".to_owned();
    let expected = Outcome { failed: true, reason, ..Outcome::default() };
    assert_eq!(tokio::spawn(execution).await.unwrap(), expected);
}

/// Recipes that are killed at every point.
mod resume {
    use super::*;
    use crate::testing::archives::tar_of;
    use crate::testing::resume::resumes;

    async fn survives(lrp: Value, stop_after: Option<u64>) {
        let world = || {
            let world = World::new(lrp.clone());
            world.sandbox.state().ports.insert(8080, vec![Page::Closed]);
            world.sandbox.state().ports.insert(8081, vec![OK]);
            world
        };
        resumes(world, stop_after).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_setup_and_an_action() {
        let lrp = json!({
            "setup": {"serial": {"actions": [run("print:1 lasts:100"), run("print:2 lasts:100")]}},
            "action": run("print:app lasts:500 exit:3"),
        });
        survives(lrp, None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn every_kind_of_group() {
        let many = |kind: &str, actions: Value| json!({kind: {"actions": actions}});
        let action = json!([
            many("parallel", json!([run("lasts:100"), run("lasts:200 print:a")])),
            {"try": {"action": run("lasts:100 exit:9")}},
            {"try": {"action": many("codependent", json!([run("lasts:150"), run("on-term:40")]))}},
            {"emit_progress": {
                "action": run("lasts:60"), "start_message": "begin", "success_message": "good",
                "failure_message_prefix": "bad",
            }},
            {"emit_progress": {
                "action": run("lasts:60 exit:7"), "start_message": "begin again",
                "success_message": "good again", "failure_message_prefix": "bad again",
            }},
        ]);
        survives(json!({"action": many("serial", action)}), None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_with_a_process_that_must_be_killed() {
        let timeout =
            |script: &str| json!({"timeout": {"timeout_ms": 5000, "action": run(script)}});
        let actions =
            [timeout("lasts:100"), json!({"try": {"action": timeout("deaf")}}), timeout("")];
        survives(json!({"action": {"serial": {"actions": actions}}}), None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn sidecars_of_which_one_fails() {
        let lrp = json!({
            "action": run("on-term:300"),
            "sidecars": [{"action": run("lasts:500 exit:2")}, {"action": run("deaf")}],
        });
        survives(lrp, None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn checks_that_pass_and_an_action_that_fails() {
        let lrp = json!({
            "action": run("lasts:5000 exit:1"),
            "check_definition": {
                "checks": [{"tcp_check": {"port": 8080}}],
                "readiness_checks": [{"http_check": {"port": 8081}}],
            },
        });
        survives(lrp, None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_monitor_and_an_action_that_fails() {
        let lrp =
            json!({"action": run("lasts:70000 exit:1"), "monitor": run("lasts:10 print:well")});
        survives(lrp, None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop() {
        let lrp = json!({
            "action": {"try": {"action": run("on-term:300")}},
            "sidecars": [{"action": run("deaf")}],
            "check_definition": {"checks": [{"tcp_check": {"port": 8080}}]},
        });
        survives(lrp, Some(3000)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_in_the_second_of_three_steps() {
        let steps = [run("lasts:100"), run("deaf"), run("print:never")];
        let lrp = json!({
            "setup": {"serial": {"actions": steps}},
            "action": run("print:never"),
        });
        survives(lrp, Some(1000)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_cannot_be_started() {
        survives(json!({"action": run("missing")}), None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_counts_from_its_real_begin() {
        let action = json!({"timeout": {"timeout_ms": 10_000, "action": run("")}});
        let world = World::new(json!({"action": action}));
        let life = world.execute(CancellationToken::new());
        tokio::time::timeout(std::time::Duration::from_secs(4), life).await.unwrap_err();
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        world.execute(CancellationToken::new()).await;
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            7000   Running { routable: true }
            10000  Terminate action/0
            10000  OUT APP: Exit status 143
            10000  failed: "exceeded 10s timeout"
        "#]]
        .assert_eq(&world.sandbox.story());
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_in_time_while_nobody_watched_was_in_time() {
        let action = json!({"timeout": {"timeout_ms": 10_000, "action": run("lasts:9000")}});
        let world = World::new(json!({"action": action}));
        let life = world.execute(CancellationToken::new());
        tokio::time::timeout(std::time::Duration::from_secs(4), life).await.unwrap_err();
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        world.execute(CancellationToken::new()).await;
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            3604000 OUT APP: Exit status 0
            3604000 Running { routable: true }
            3604000 ended: ""
        "#]]
        .assert_eq(&world.sandbox.story());
    }

    #[tokio::test(start_paused = true)]
    async fn a_startup_check_that_has_passed_is_not_asked_again() {
        let world = World::new(json!({
            "action": run(""), "start_timeout_ms": 5000,
            "check_definition": {
                "checks": [{"tcp_check": {"port": 8080}}],
                "readiness_checks": [{"http_check": {"port": 8081}}],
            },
        }));
        world.sandbox.state().ports.insert(8080, vec![Page::Closed]);
        world.sandbox.state().ports.insert(8081, vec![OK]);
        let life = world.execute(CancellationToken::new());
        tokio::time::timeout(std::time::Duration::from_secs(4), life).await.unwrap_err();
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        world.sandbox.tell("the next life");
        world.sandbox.state().ports.insert(8080, vec![Page::Closed, Page::Refused]);
        world.sandbox.state().ports.insert(8081, vec![OK, BROKEN]);
        world.execute(CancellationToken::new()).await;
        expect![[r#"
            0      start action
            0      OUT APP: Starting health monitoring of container
            0      connect 8080
            0      OUT APP: Container became healthy
            0      connect 8080
            0      OUT HEALTH: Starting readiness health monitoring of container
            0      connect 8081
            0      Running { routable: false }
            0      OUT HEALTH: Container passed the readiness health check. Container marked ready and added to route pool.
            0      connect 8081
            0      Running { routable: true }
            14000  the next life
            14000  connect 8080
            14000  connect 8081
            14000  Running { routable: true }
            44000  connect 8080
            44000  ERR HEALTH: Liveness check unsuccessful: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused
            44000  ERR APP: Container became unhealthy
            44000  connect 8081
            44000  Terminate action
            44000  OUT APP: Exit status 143
            44000  failed: "Instance became unhealthy: Liveness check unsuccessful: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused"
        "#]].assert_eq(&world.sandbox.story());
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_timeout_counts_from_its_real_begin() {
        let definition: CheckDefinition =
            serde_json::from_value(json!({"checks": [{"tcp_check": {"port": 8080}}]})).unwrap();
        let world = World::new(json!({
            "action": run(""), "start_timeout_ms": 7000, "check_definition": definition,
        }));
        world.sandbox.state().ports.insert(8080, vec![Page::Refused]);
        let life = world.execute(CancellationToken::new());
        tokio::time::timeout(std::time::Duration::from_secs(3), life).await.unwrap_err();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        world.sandbox.tell("the next life");
        world.execute(CancellationToken::new()).await;
        expect![[r#"
            0      start action
            0      OUT APP: Starting health monitoring of container
            0      connect 8080
            10     connect 8080
            30     connect 8080
            70     connect 8080
            150    connect 8080
            310    connect 8080
            630    connect 8080
            1270   connect 8080
            2550   connect 8080
            4000   the next life
            4000   connect 8080
            4010   connect 8080
            4030   connect 8080
            4070   connect 8080
            4150   connect 8080
            4310   connect 8080
            4630   connect 8080
            5270   connect 8080
            6550   connect 8080
            7000   ERR HEALTH: Timed out after 7s (9 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused
            7000   ERR APP: Failed after 7s: startup health check never passed.
            7000   Terminate action
            7000   OUT APP: Exit status 143
            7000   failed: "Instance never healthy after 7s: Timed out after 7s (9 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused"
        "#]].assert_eq(&world.sandbox.story());
    }

    #[tokio::test(start_paused = true)]
    async fn a_monitor_that_a_former_life_has_started_is_not_believed_its_first_failure() {
        let monitor =
            run("lasts:10 then lasts:5000 exit:1 print:lost then lasts:10 exit:1 print:told");
        let world = World::new(json!({"action": run(""), "monitor": monitor}));
        let life = world.execute(CancellationToken::new());
        tokio::time::timeout(std::time::Duration::from_secs(35), life).await.unwrap_err();
        world.sandbox.tell("the next life");
        world.execute(CancellationToken::new()).await;
        expect![[r#"
            0      start action
            0      OUT APP: Starting health monitoring of container
            2000   start monitor
            2010   OUT APP: Container became healthy
            2010   Running { routable: true }
            32010  start monitor
            35000  the next life
            35000  Running { routable: true }
            65000  start monitor
            65010  ERR HEALTH: told
            65010  ERR APP: Container became unhealthy
            65010  Terminate action
            65010  OUT APP: Exit status 143
            65010  failed: "Instance became unhealthy: told"
        "#]]
        .assert_eq(&world.sandbox.story());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_and_a_download() {
        let server =
            crate::testing::server::Server::new(vec![crate::testing::server::Reply::tagged(
                "1",
                &tar_of(&[("a", "hello")]),
            )])
            .await;
        let action = json!([
            {"download": {"from": server.url("a"), "to": "/app", "user": "vcap", "artifact": "app"}},
            run("lasts:100 print:built"),
            {"upload": {"from": "/built", "to": server.url("b"), "user": "vcap", "artifact": "built"}},
        ]);
        let world = || {
            let world = World::new(json!({"action": {"serial": {"actions": action}}}));
            world.sandbox.state().files.insert("/built".to_owned(), Ok(b"hello".to_vec()));
            world
        };
        resumes(world, None).await;
    }
}
