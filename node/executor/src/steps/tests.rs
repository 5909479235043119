//! One test for each action, limit and text of executor.md section 5.

mod download;
mod upload;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::testing::{World, run, sourced};

async fn check(action: Value, expected: Expect) {
    expected.assert_eq(&World::new(json!({"action": action})).story().await);
}

/// The action is told to end after a second.
async fn check_cancelled(action: Value, expected: Expect) {
    let world = World::new(json!({"action": action}));
    expected.assert_eq(&world.story_stopped_after(1000).await);
}

fn many(kind: &str, actions: &[Value]) -> Value {
    json!({kind: {"actions": actions}})
}

fn timeout(millis: u64, action: Value) -> Value {
    json!({"timeout": {"timeout_ms": millis, "action": action}})
}

fn emit(action: Value) -> Value {
    json!({"emit_progress": {
        "action": action, "start_message": "Starting", "success_message": "Done",
        "failure_message_prefix": "Oh no",
    }})
}

#[tokio::test(start_paused = true)]
async fn run_tells_what_its_process_writes_and_how_it_ends() {
    check(
        run("print:hello lasts:10"),
        expect![[r#"
            0      start action
            0      OUT APP: hello
            0      Running { routable: true }
            10     OUT APP: Exit status 0
            10     ended: ""
        "#]],
    )
    .await;
    check(
        sourced(run("print:hello lasts:10 exit:42"), "APP/PROC/WEB"),
        expect![[r#"
            0      start action
            0      OUT APP/PROC/WEB: hello
            0      Running { routable: true }
            10     OUT APP/PROC/WEB: Exit status 42
            10     failed: "APP/PROC/WEB: Exited with status 42"
        "#]],
    )
    .await;
    check(
        run("lasts:10 dies:9"),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            10     OUT APP: Exit status 137
            10     failed: "APP: Exited with status 137"
        "#]],
    )
    .await;
    check(
        sourced(run("lasts:10 dies:9 oom"), "APP/PROC/WEB"),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            10     OUT APP/PROC/WEB: Exit status 137 (out of memory)
            10     failed: "APP/PROC/WEB: Exited with status 137 (out of memory)"
        "#]],
    )
    .await;
    check(
        run("lasts:10 oom"),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            10     OUT APP: Exit status 0
            10     ended: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn run_tells_nothing_where_it_is_told_not_to() {
    let silent = |script: &str| {
        let mut action = run(script);
        action["run"]["suppress_log_output"] = json!(true);
        action
    };
    check(
        silent("print:secret lasts:10 exit:1"),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            10     failed: "APP: Exited with status 1"
        "#]],
    )
    .await;
    check(
        silent("missing"),
        expect![[r#"
            0      failed: "exec: \"/app\": no such file or directory"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn run_fails_where_its_process_cannot_be_started() {
    check(
        run("missing"),
        expect![[r#"
            0      OUT APP: failed-creating-process: exec: "/app": no such file or directory
            0      failed: "exec: \"/app\": no such file or directory"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn run_ends_its_process_gently_first() {
    check_cancelled(
        run("on-term:9000"),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action
            10000  OUT APP: Exit status 0
            10000  stopped, failed: "cancelled"
        "#]],
    )
    .await;
    check_cancelled(
        run("exit:143 on-term:9000"),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action
            10000  OUT APP: Exit status 143
            10000  stopped, failed: "cancelled"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn run_kills_a_process_that_will_not_end() {
    check_cancelled(
        run("deaf"),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action
            11000  Kill action
            11000  OUT APP: Exit status 137 (exceeded 10s graceful shutdown interval)
            11000  stopped, failed: "exceeded graceful shutdown interval"
        "#]],
    )
    .await;
    check_cancelled(
        run("deaf undead"),
        expect![[r#"
            0      start action
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action
            11000  Kill action
            12000  stopped, failed: "process did not exit"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn timeout_ends_what_takes_too_long() {
    check(
        timeout(500, run("lasts:100")),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            100    OUT APP: Exit status 0
            100    ended: ""
        "#]],
    )
    .await;
    check(
        timeout(500, run("lasts:100 exit:1")),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            100    OUT APP: Exit status 1
            100    failed: "APP: Exited with status 1"
        "#]],
    )
    .await;
    check(
        timeout(500, run("on-term:100")),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            500    Terminate action/0
            600    OUT APP: Exit status 0
            600    failed: "exceeded 500ms timeout"
        "#]],
    )
    .await;
    check(
        timeout(60_000, run("deaf")),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            60000  Terminate action/0
            70000  Kill action/0
            70000  OUT APP: Exit status 137 (exceeded 10s graceful shutdown interval)
            70000  failed: "exceeded 1m0s timeout"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn timeout_adds_what_the_inner_step_tells_users() {
    check(
        timeout(1500, timeout(1000, run("on-term:2000"))),
        expect![[r#"
            0      start action/0/0
            0      Running { routable: true }
            1000   Terminate action/0/0
            3000   OUT APP: Exit status 0
            3000   failed: "exceeded 1.5s timeout; exceeded 1s timeout"
        "#]],
    )
    .await;
    let group = many("parallel", &[run("lasts:10 exit:1"), run("")]);
    check(
        timeout(1500, group),
        expect![[r#"
            0      start action/0/0
            0      start action/0/1
            0      Running { routable: true }
            10     OUT APP: Exit status 1
            1500   Terminate action/0/1
            1500   OUT APP: Exit status 143
            1500   failed: "exceeded 1.5s timeout"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn timeout_passes_a_cancel_on() {
    check_cancelled(
        timeout(5000, run("on-term:100")),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action/0
            1100   OUT APP: Exit status 0
            1100   stopped, failed: "cancelled"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn emit_progress_tells_how_it_goes() {
    check(
        emit(run("lasts:10")),
        expect![[r#"
            0      OUT APP: Starting
            0      start action/0
            0      Running { routable: true }
            10     OUT APP: Exit status 0
            10     OUT APP: Done
            10     ended: ""
        "#]],
    )
    .await;
    check(
        sourced(emit(run("lasts:10 exit:1")), "STG"),
        expect![[r#"
            0      OUT STG: Starting
            0      start action/0
            0      Running { routable: true }
            10     OUT STG: Exit status 1
            10     ERR STG: Oh no: STG: Exited with status 1
            10     failed: "STG: Exited with status 1"
        "#]],
    )
    .await;
    check(
        emit(run("missing")),
        expect![[r#"
            0      OUT APP: Starting
            0      OUT APP: failed-creating-process: exec: "/app": no such file or directory
            0      ERR APP: Oh no
            0      failed: "exec: \"/app\": no such file or directory"
        "#]],
    )
    .await;
    check(
        emit(many("parallel", &[run("lasts:10 exit:1")])),
        expect![[r#"
            0      OUT APP: Starting
            0      start action/0/0
            0      Running { routable: true }
            10     OUT APP: Exit status 1
            10     ERR APP: Oh no
            10     failed: "APP: Exited with status 1"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn emit_progress_has_nothing_to_say_of_empty_texts() {
    check(
        json!({"emit_progress": {"action": run("lasts:10")}}),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            10     OUT APP: Exit status 0
            10     ended: ""
        "#]],
    )
    .await;
    check(
        json!({"emit_progress": {"action": run("lasts:10 exit:1")}}),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            10     OUT APP: Exit status 1
            10     failed: "APP: Exited with status 1"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn try_ignores_a_failure() {
    let attempt = |script| json!({"try": {"action": run(script)}});
    check(
        attempt("lasts:10 exit:1"),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            10     OUT APP: Exit status 1
            10     ended: ""
        "#]],
    )
    .await;
    check(
        attempt("missing"),
        expect![[r#"
            0      OUT APP: failed-creating-process: exec: "/app": no such file or directory
            0      ended: ""
        "#]],
    )
    .await;
    check_cancelled(
        attempt("on-term:100"),
        expect![[r#"
            0      start action/0
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action/0
            1100   OUT APP: Exit status 0
            1100   stopped: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn parallel_waits_for_all() {
    let both = |one, two| many("parallel", &[run(one), run(two)]);
    check(
        both("lasts:10", "lasts:20"),
        expect![[r#"
            0      start action/0
            0      start action/1
            0      Running { routable: true }
            10     OUT APP: Exit status 0
            20     OUT APP: Exit status 0
            20     ended: ""
        "#]],
    )
    .await;
    check(
        both("lasts:30 exit:1", "lasts:20 exit:2"),
        expect![[r#"
            0      start action/0
            0      start action/1
            0      Running { routable: true }
            20     OUT APP: Exit status 2
            30     OUT APP: Exit status 1
            30     failed: "APP: Exited with status 1; APP: Exited with status 2"
        "#]],
    )
    .await;
    check_cancelled(
        both("lasts:10 exit:1", "on-term:100"),
        expect![[r#"
            0      start action/0
            0      start action/1
            0      Running { routable: true }
            10     OUT APP: Exit status 1
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action/1
            1100   OUT APP: Exit status 0
            1100   stopped, failed: "APP: Exited with status 1"
        "#]],
    )
    .await;
    check(
        many("parallel", &[]),
        expect![[r#"
            0      ended: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn serial_stops_at_the_first_failure() {
    let three = |two| many("serial", &[run("print:1 lasts:10"), run(two), run("print:3 lasts:10")]);
    check(
        three("lasts:10"),
        expect![[r#"
            0      start action/0
            0      OUT APP: 1
            10     OUT APP: Exit status 0
            10     start action/1
            20     OUT APP: Exit status 0
            20     start action/2
            20     OUT APP: 3
            20     Running { routable: true }
            30     OUT APP: Exit status 0
            30     ended: ""
        "#]],
    )
    .await;
    check(
        three("lasts:10 exit:1"),
        expect![[r#"
            0      start action/0
            0      OUT APP: 1
            10     OUT APP: Exit status 0
            10     start action/1
            20     OUT APP: Exit status 1
            20     failed: "APP: Exited with status 1"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn serial_ends_with_its_current_step() {
    let last = run("print:never");
    check_cancelled(
        many("serial", &[run("on-term:100"), last.clone()]),
        expect![[r#"
            0      start action/0
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action/0
            1100   OUT APP: Exit status 0
            1100   stopped, failed: "cancelled"
        "#]],
    )
    .await;
    let attempt = json!({"try": {"action": run("on-term:100")}});
    check_cancelled(
        many("serial", &[attempt, last]),
        expect![[r#"
            0      start action/0/0
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action/0/0
            1100   OUT APP: Exit status 0
            1100   stopped: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn codependent_fails_whoever_exits() {
    let both = |one, two| many("codependent", &[run(one), run(two)]);
    check(
        both("lasts:10", "on-term:100"),
        expect![[r#"
            0      start action/0
            0      start action/1
            0      Running { routable: true }
            10     OUT APP: Exit status 0
            10     Terminate action/1
            110    OUT APP: Exit status 0
            110    failed: "Codependent step exited"
        "#]],
    )
    .await;
    check(
        both("on-term:100", "lasts:10 exit:2"),
        expect![[r#"
            0      start action/0
            0      start action/1
            0      Running { routable: true }
            10     OUT APP: Exit status 2
            10     Terminate action/0
            110    OUT APP: Exit status 0
            110    failed: "APP: Exited with status 2"
        "#]],
    )
    .await;
    check(
        both("lasts:10 exit:1", "exit:0 lasts:10"),
        expect![[r#"
            0      start action/0
            0      start action/1
            0      Running { routable: true }
            10     OUT APP: Exit status 1
            10     OUT APP: Exit status 0
            10     failed: "APP: Exited with status 1; Codependent step exited"
        "#]],
    )
    .await;
    check_cancelled(
        both("on-term:100", "deaf"),
        expect![[r#"
            0      start action/0
            0      start action/1
            0      Running { routable: true }
            1000   stop
            1000   OUT APP: Cell cell-1 stopping instance guid-1
            1000   Terminate action/0
            1000   Terminate action/1
            1100   OUT APP: Exit status 0
            11000  Kill action/1
            11000  OUT APP: Exit status 137 (exceeded 10s graceful shutdown interval)
            11000  stopped: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_log_source_is_its_childrens_unless_it_is_a_serials() {
    let inner = run("print:x lasts:10 exit:1");
    for kind in ["timeout", "try", "emit_progress"] {
        let mut action = json!({kind: {"action": inner, "log_source": "OUTER"}});
        action[kind]["timeout_ms"] = json!(1000);
        let story = World::new(json!({"action": action})).story().await;
        assert!(story.contains("OUT OUTER: Exit status 1"), "{kind}: {story}");
    }
    for (kind, source) in [("parallel", "OUTER"), ("codependent", "OUTER"), ("serial", "APP")] {
        let action = sourced(many(kind, std::slice::from_ref(&inner)), "OUTER");
        let story = World::new(json!({"action": action})).story().await;
        assert!(story.contains(&format!("OUT {source}: Exit status 1")), "{kind}: {story}");
        let own = sourced(many(kind, &[sourced(inner.clone(), "OWN")]), "OUTER");
        let story = World::new(json!({"action": own})).story().await;
        assert!(story.contains("OUT OWN: Exit status 1"), "{kind}: {story}");
        assert!(story.contains("OWN: Exited with status 1"), "{kind}: {story}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_that_is_missing_fails() {
    check(
        json!({"try": {}}),
        expect![[r#"
            0      ended: ""
        "#]],
    )
    .await;
    check(
        json!({"parallel": {"actions": [null, run("lasts:10")]}}),
        expect![[r#"
            0      start action/1
            10     OUT APP: Exit status 0
            10     failed: "invalid action type"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_source_or_a_key_that_is_too_long_is_made_shorter() {
    let nothing = many("parallel", &[]);
    let deep = (0..60).fold(many("parallel", &[run("lasts:10"), run("lasts:20")]), |action, _| {
        let fill = vec![nothing.clone(); 100];
        many("parallel", &[fill, vec![action]].concat())
    });
    let world = World::new(json!({"action": sourced(deep, &"s".repeat(300))}));
    world.story().await;
    let starts = world.sandbox.state().starts.clone();
    let [one, two] = &starts[..] else { panic!("two processes: {starts:?}") };
    assert_ne!(one, two);
    assert!(one.len() <= 200);
    let line = format!("OUT {}: Exit status 0", "s".repeat(300));
    assert_eq!(world.sandbox.state().lines, [line.clone(), line]);
}
