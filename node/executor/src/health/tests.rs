//! One test for each check, cadence and text of executor.md section 6.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::testing::sandbox::{BROKEN, OK, Page};
use crate::testing::{World, run};

fn world(lrp: Value, ports: &[(u16, &[Page])]) -> World {
    let mut whole = json!({"action": run("on-term:100")});
    for (name, value) in lrp.as_object().unwrap() {
        whole[name] = value.clone();
    }
    let world = World::new(whole);
    for (port, pages) in ports {
        world.sandbox.state().ports.insert(*port, pages.to_vec());
    }
    world
}

fn checked(check: Value, start_timeout_ms: i64) -> Value {
    json!({"check_definition": {"checks": [check]}, "start_timeout_ms": start_timeout_ms})
}

async fn check(lrp: Value, ports: &[(u16, &[Page])], expected: Expect) {
    expected.assert_eq(&world(lrp, ports).story().await);
}

#[tokio::test(start_paused = true)]
async fn a_tcp_check_passes_when_the_port_takes_a_connection() {
    use Page::{Closed, Refused};
    let lrp = checked(json!({"tcp_check": {"port": 8080}}), 60_000);
    let pages = [Refused, Refused, Closed, Closed, Closed, Refused];
    check(lrp, &[(8080, &pages)], expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 8080
        10     connect 8080
        30     connect 8080
        30     OUT APP: Container became healthy
        30     connect 8080
        30     Running { routable: true }
        30030  connect 8080
        60030  connect 8080
        60030  ERR HEALTH: Liveness check unsuccessful: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused
        60030  ERR APP: Container became unhealthy
        60030  Terminate action
        60130  OUT APP: Exit status 0
        60130  failed: "Instance became unhealthy: Liveness check unsuccessful: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused"
    "#]]).await;
}

#[tokio::test(start_paused = true)]
async fn an_http_check_passes_only_on_200() {
    let lrp = checked(json!({"http_check": {"port": 8080, "path": "/ok?x=1"}}), 60_000);
    let world = world(lrp, &[(8080, &[BROKEN, OK, OK, BROKEN])]);
    expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 8080
        10     connect 8080
        10     OUT APP: Container became healthy
        10     connect 8080
        10     Running { routable: true }
        30010  connect 8080
        30010  ERR HEALTH: Liveness check unsuccessful: failed to make HTTP request to '/ok?x=1' on port 8080: received status code 500 in 0ms
        30010  ERR APP: Container became unhealthy
        30010  Terminate action
        30110  OUT APP: Exit status 0
        30110  failed: "Instance became unhealthy: Liveness check unsuccessful: failed to make HTTP request to '/ok?x=1' on port 8080: received status code 500 in 0ms"
    "#]].assert_eq(&world.story().await);
    let requests = world.sandbox.state().requests.clone();
    expect![[r#"
        GET /ok?x=1 HTTP/1.1
        host: 10.255.0.2:8080
        user-agent: diego-healthcheck
        x-forwarded-proto: https

    "#]]
    .assert_eq(&requests[0].replace("\r\n", "\n"));
}

#[tokio::test(start_paused = true)]
async fn a_start_timeout_ends_an_instance_that_was_never_healthy() {
    let tcp = json!({"tcp_check": {"port": 8080}});
    check(checked(tcp.clone(), 60_200), &[(8080, &[Page::Refused])], expect![[r#"
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
        4550   connect 8080
        6550   connect 8080
        8550   connect 8080
        10550  connect 8080
        12550  connect 8080
        14550  connect 8080
        16550  connect 8080
        18550  connect 8080
        20550  connect 8080
        22550  connect 8080
        24550  connect 8080
        26550  connect 8080
        28550  connect 8080
        30550  connect 8080
        32550  connect 8080
        34550  connect 8080
        36550  connect 8080
        38550  connect 8080
        40550  connect 8080
        42550  connect 8080
        44550  connect 8080
        46550  connect 8080
        48550  connect 8080
        50550  connect 8080
        52550  connect 8080
        54550  connect 8080
        56550  connect 8080
        58550  connect 8080
        60200  ERR HEALTH: Timed out after 1m0.2s (37 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused
        60200  ERR APP: Failed after 1m0.2s: startup health check never passed.
        60200  Terminate action
        60300  OUT APP: Exit status 0
        60300  failed: "Instance never healthy after 1m0.2s: Timed out after 1m0.2s (37 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused"
    "#]]).await;
    check(checked(tcp, 500), &[(8080, &[Page::Silent])], expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 8080
        500    ERR HEALTH: Timed out after 500ms (1 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.255.0.2:8080: timed out after 0.50 seconds
        500    ERR APP: Failed after 500ms: startup health check never passed.
        500    Terminate action
        600    OUT APP: Exit status 0
        600    failed: "Instance never healthy after 500ms: Timed out after 500ms (1 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.255.0.2:8080: timed out after 0.50 seconds"
    "#]]).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_start_timeout_it_is_waited_for_ever() {
    let lrp = checked(json!({"tcp_check": {"port": 8080}}), 0);
    let world = world(lrp, &[(8080, &[Page::Refused])]);
    let story = world.story_stopped_after(3_600_000).await;
    // Nine in the first 2,550 ms, and then one each two seconds.
    assert_eq!(story.matches("connect 8080").count(), 9 + 1798);
    let tail: String = story.lines().rev().take(6).collect::<Vec<_>>().join("\n");
    expect![[r#"
        3600100 stopped: ""
        3600100 OUT APP: Exit status 0
        3600000 Terminate action
        3600000 OUT APP: Cell cell-1 stopping instance guid-1
        3600000 stop
        3598550 connect 8080"#]]
    .assert_eq(&tail);
}

/// What a check says the first time that it is made.
async fn said(check: Value, page: Page) -> String {
    let story = world(checked(check, 1500), &[(8080, &[page])]).story().await;
    let line = story.lines().find(|line| line.contains("ERR HEALTH")).unwrap();
    line.split_once("succeed: ").unwrap().1.to_owned()
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_in_diegos_words() {
    let tcp = json!({"tcp_check": {"port": 8080}});
    let http = json!({"http_check": {"port": 8080, "path": "/health"}});
    let quick = json!({"http_check": {"port": 8080, "request_timeout_ms": 250}});
    let table = [
        (&tcp, Page::Refused),
        (&tcp, Page::Fails(nix::libc::EHOSTUNREACH)),
        (&tcp, Page::Fails(nix::libc::ETIMEDOUT)),
        (&tcp, Page::Silent),
        (&tcp, Page::NoAddress),
        (&http, BROKEN),
        (&http, Page::Fails(nix::libc::ETIMEDOUT)),
        (&http, Page::Silent),
        (&http, Page::Deaf),
        (&http, Page::Refused),
        (&http, Page::Closed),
        (&http, Page::Says("SSH-2.0-OpenSSH\r\n")),
        (&http, Page::Says("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")),
        (&http, Page::NoAddress),
        (&quick, Page::Deaf),
    ];
    let mut all = String::new();
    for (check, page) in table {
        all.push_str(&said(check.clone(), page).await);
        all.push('\n');
    }
    for path in ["no-slash", "/a b", "/\n"] {
        let check = json!({"http_check": {"port": 8080, "path": path}});
        all.push_str(&said(check, OK).await);
        all.push('\n');
    }
    expect![[r#"
        failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused
        failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: no route to host
        failed to make TCP connection to 10.255.0.2:8080: timed out after 1.00 seconds
        failed to make TCP connection to 10.255.0.2:8080: timed out after 1.00 seconds
        failure to find suitable interface
        failed to make HTTP request to '/health' on port 8080: received status code 500 in 0ms
        failed to make HTTP request to '/health' on port 8080: timed out after 1.00 seconds
        failed to make HTTP request to '/health' on port 8080: timed out after 1.00 seconds
        failed to make HTTP request to '/health' on port 8080: timed out after 1.00 seconds
        failed to make HTTP request to '/health' on port 8080: connection refused
        failed to make HTTP request to '/health' on port 8080: connection refused
        failed to make HTTP request to '/health' on port 8080: connection refused
        failed to make HTTP request to '/health' on port 8080: received status code 302 in 0ms
        failure to find suitable interface
        failed to make HTTP request to '/' on port 8080: timed out after 0.25 seconds
        failed to create an HTTP request to 'no-slash' on port 8080
        failed to create an HTTP request to '/a b' on port 8080
        failed to create an HTTP request to '/
    "#]].assert_eq(&all);
}

#[tokio::test(start_paused = true)]
async fn a_page_without_end_has_answered_by_its_head() {
    let endless = Page::Holds("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nwait");
    let lrp = checked(json!({"http_check": {"port": 8080}}), 1500);
    let world = world(lrp, &[(8080, &[endless, BROKEN])]);
    expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 8080
        1000   OUT APP: Container became healthy
        1000   connect 8080
        1000   Running { routable: true }
        1000   ERR HEALTH: Liveness check unsuccessful: failed to make HTTP request to '/' on port 8080: received status code 500 in 0ms
        1000   ERR APP: Container became unhealthy
        1000   Terminate action
        1100   OUT APP: Exit status 0
        1100   failed: "Instance became unhealthy: Liveness check unsuccessful: failed to make HTTP request to '/' on port 8080: received status code 500 in 0ms"
    "#]].assert_eq(&world.story().await);
}

#[tokio::test(start_paused = true)]
async fn all_startup_checks_must_pass_and_one_liveness_check_may_not_fail() {
    let lrp = json!({
        "check_definition": {
            "checks": [
                {"tcp_check": {"port": 1, "interval_ms": 5000}},
                {"http_check": {"port": 2, "interval_ms": 7000}},
            ],
            "log_source": "CHECKS",
        },
        "start_timeout_ms": 5000,
    });
    let ports: [(u16, &[Page]); 2] =
        [(1, &[Page::Closed]), (2, &[Page::Refused, OK, OK, OK, BROKEN])];
    check(lrp.clone(), &ports, expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 1
        0      connect 2
        10     connect 2
        10     OUT APP: Container became healthy
        10     connect 1
        10     connect 2
        10     Running { routable: true }
        5010   connect 1
        7010   connect 2
        10010  connect 1
        14010  connect 2
        14010  ERR CHECKS: Liveness check unsuccessful: failed to make HTTP request to '/' on port 2: received status code 500 in 0ms
        14010  ERR APP: Container became unhealthy
        14010  Terminate action
        14110  OUT APP: Exit status 0
        14110  failed: "Instance became unhealthy: Liveness check unsuccessful: failed to make HTTP request to '/' on port 2: received status code 500 in 0ms"
    "#]]).await;
    let ports: [(u16, &[Page]); 2] = [(1, &[Page::Refused]), (2, &[Page::Refused])];
    check(lrp, &ports, expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 1
        0      connect 2
        10     connect 1
        10     connect 2
        30     connect 1
        30     connect 2
        70     connect 1
        70     connect 2
        150    connect 1
        150    connect 2
        310    connect 1
        310    connect 2
        630    connect 1
        630    connect 2
        1270   connect 1
        1270   connect 2
        2550   connect 1
        2550   connect 2
        4550   connect 1
        4550   connect 2
        5000   ERR CHECKS: Timed out after 5s (10 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.255.0.2:1: dial tcp 10.255.0.2:1: connect: connection refused; Timed out after 5s (10 attempts) waiting for startup check to succeed: failed to make HTTP request to '/' on port 2: connection refused
        5000   ERR APP: Failed after 5s: startup health check never passed.
        5000   Terminate action
        5100   OUT APP: Exit status 0
        5100   failed: "Instance never healthy after 5s: Timed out after 5s (10 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.255.0.2:1: dial tcp 10.255.0.2:1: connect: connection refused; Timed out after 5s (10 attempts) waiting for startup check to succeed: failed to make HTTP request to '/' on port 2: connection refused"
    "#]]).await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_check_is_left_out() {
    let valid = json!({"tcp_check": {"port": 8080}});
    let invalid = [
        json!({}),
        json!({"tcp_check": {"port": 0}}),
        json!({"http_check": {"port": 65536}}),
        json!({"tcp_check": {"port": 1}, "http_check": {"port": 1}}),
    ];
    let lrp = json!({
        "check_definition": {
            "checks": ([&invalid[..], &[valid]].concat()), "readiness_checks": invalid,
        },
    });
    check(lrp, &[(8080, &[Page::Closed, Page::Refused])], expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 8080
        0      OUT APP: Container became healthy
        0      connect 8080
        0      ERR HEALTH: Liveness check unsuccessful: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused
        0      ERR APP: Container became unhealthy
        0      Terminate action
        0      Running { routable: true }
        100    OUT APP: Exit status 0
        100    failed: "Instance became unhealthy: Liveness check unsuccessful: failed to make TCP connection to 10.255.0.2:8080: dial tcp 10.255.0.2:8080: connect: connection refused"
    "#]]).await;
    let lrp = json!({
        "action": run("lasts:500"),
        "check_definition": {"checks": invalid, "readiness_checks": invalid},
    });
    check(
        lrp,
        &[],
        expect![[r#"
            0      start action
            0      Running { routable: true }
            500    OUT APP: Exit status 0
            500    ended: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_check_definition_wins_over_a_monitor() {
    let lrp = json!({
        "action": run("lasts:10000"), "monitor": run("print:never"),
        "check_definition": {"checks": []},
    });
    check(
        lrp,
        &[],
        expect![[r#"
            0      start action
            0      Running { routable: true }
            10000  OUT APP: Exit status 0
            10000  ended: ""
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn readiness_turns_an_instance_routable_and_back() {
    let lrp = json!({
        "action": run("lasts:70000 exit:1"),
        "check_definition": {
            "readiness_checks": [
                {"http_check": {"port": 8080}},
                {"tcp_check": {"port": 8081, "interval_ms": 11_000}},
            ],
        },
    });
    let pages = [BROKEN, OK, OK, BROKEN, OK];
    check(lrp, &[(8080, &pages), (8081, &[Page::Closed])], expect![[r#"
        0      start action
        0      OUT HEALTH: Starting readiness health monitoring of container
        0      connect 8080
        0      connect 8081
        0      Running { routable: false }
        10     connect 8080
        10     OUT HEALTH: Container passed the readiness health check. Container marked ready and added to route pool.
        10     connect 8080
        10     connect 8081
        10     Running { routable: true }
        11010  connect 8081
        22010  connect 8081
        30010  connect 8080
        30010  OUT HEALTH: Container failed the readiness health check. Container marked not ready and removed from route pool.
        30010  connect 8080
        30010  connect 8081
        30010  Running { routable: false }
        30010  OUT HEALTH: Container passed the readiness health check. Container marked ready and added to route pool.
        30010  connect 8080
        30010  connect 8081
        30010  Running { routable: true }
        41010  connect 8081
        52010  connect 8081
        60010  connect 8080
        63010  connect 8081
        70000  OUT APP: Exit status 1
        70000  failed: "APP: Exited with status 1"
    "#]]).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_ready_only_once_it_runs() {
    let lrp = json!({
        "check_definition": {
            "checks": [{"tcp_check": {"port": 1}}],
            "readiness_checks": [{"tcp_check": {"port": 2}}],
            "log_source": "CHECKS",
        },
    });
    let ports: [(u16, &[Page]); 2] =
        [(1, &[Page::Refused, Page::Refused, Page::Closed]), (2, &[Page::Closed])];
    let world = world(lrp, &ports);
    expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        0      connect 1
        0      OUT CHECKS: Starting readiness health monitoring of container
        0      connect 2
        10     connect 1
        30     connect 1
        30     OUT APP: Container became healthy
        30     connect 1
        30     OUT CHECKS: Container passed the readiness health check. Container marked ready and added to route pool.
        30     connect 2
        30     Running { routable: true }
        10000  stop
        10000  OUT APP: Cell cell-1 stopping instance guid-1
        10000  Terminate action
        10100  OUT APP: Exit status 0
        10100  stopped: ""
    "#]].assert_eq(&world.story_stopped_after(10_000).await);
}

fn monitored(monitor: Value, start_timeout_ms: i64) -> Value {
    json!({"monitor": monitor, "start_timeout_ms": start_timeout_ms})
}

#[tokio::test(start_paused = true)]
async fn a_monitor_runs_until_it_succeeds_and_then_until_it_fails() {
    let script = "lasts:10 exit:1 then lasts:10 then lasts:10 then lasts:10 exit:1 print:_no_more_";
    check(
        monitored(run(script), 60_000),
        &[],
        expect![[r#"
            0      start action
            0      OUT APP: Starting health monitoring of container
            2000   start monitor
            4010   start monitor
            4020   OUT APP: Container became healthy
            4020   Running { routable: true }
            34020  start monitor
            64030  start monitor
            64040  ERR HEALTH: no more
            64040  ERR APP: Container became unhealthy
            64040  Terminate action
            64140  OUT APP: Exit status 0
            64140  failed: "Instance became unhealthy: no more"
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_never_succeeds_fails_after_its_time() {
    let script = "lasts:10 exit:1 print:not_yet";
    check(
        monitored(run(script), 5000),
        &[],
        expect![[r#"
            0      start action
            0      OUT APP: Starting health monitoring of container
            2000   start monitor
            4010   start monitor
            6020   start monitor
            6030   ERR HEALTH: not yet
            6030   ERR APP: Failed after 6.03s: startup health check never passed.
            6030   Terminate action
            6130   OUT APP: Exit status 0
            6130   failed: "Instance never healthy after 6.03s: not yet"
        "#]],
    )
    .await;
    let world = world(monitored(run(script), 0), &[]);
    let story = world.story_stopped_after(3_600_000).await;
    assert_eq!(story.matches("start monitor").count(), 1791);
}

/// What a monitor that fails is said to have said.
async fn monitor_said(monitor: Value) -> String {
    let story = world(monitored(monitor, 1), &[]).story().await;
    let line = story.lines().find(|line| line.contains("failed: ")).unwrap();
    line.split_once("failed: ").unwrap().1.to_owned() + "\n"
}

#[tokio::test(start_paused = true)]
async fn a_monitors_output_is_its_reason() {
    let loud = || run("lasts:10 exit:1 print:no");
    let silent = || run("lasts:10 exit:1");
    let many = |kind: &str, actions: &[Value]| json!({kind: {"actions": actions}});
    let mut suppressed = loud();
    suppressed["run"]["suppress_log_output"] = json!(true);
    let monitors = [
        loud(),
        silent(),
        suppressed,
        run("missing"),
        run("lasts:10 dies:9 oom"),
        many("parallel", &[loud(), silent(), run("lasts:10")]),
        many("parallel", &[loud(), run("lasts:20 exit:1 print:nor_I")]),
        many("parallel", &[run("missing")]),
        many("codependent", &[run(""), silent()]),
        many("serial", &[run("lasts:10 print:well"), loud()]),
        many("parallel", &[many("serial", &[run("lasts:10 print:well"), silent()])]),
        json!({"timeout": {"timeout_ms": 500, "action": run("")}}),
        json!({"timeout": {"timeout_ms": 500, "action": many("parallel", &[run("print:slow")])}}),
        many("parallel", &[json!({"timeout": {"timeout_ms": 500, "action": run("deaf")}})]),
    ];
    let mut all = String::new();
    for monitor in monitors {
        all.push_str(&monitor_said(monitor).await);
    }
    expect![[r#"
        "Instance never healthy after 2.01s: no"
        "Instance never healthy after 2.01s: Failed to invoke process: "
        "Instance never healthy after 2.01s: no"
        "Instance never healthy after 2s: exec: \"/app\": no such file or directory"
        "Instance never healthy after 2.01s: Failed to invoke process:  (out of memory)"
        "Instance never healthy after 2.01s: no; Failed to invoke process: "
        "Instance never healthy after 2.02s: no; nor I"
        "Instance never healthy after 2s: failed-creating-process: exec: \"/app\": no such file or directory"
        "Instance never healthy after 2.01s: Failed to invoke process: ; Failed to invoke process: cancelled"
        "Instance never healthy after 2.02s: no"
        "Instance never healthy after 2.02s: well"
        "Instance never healthy after 2.5s: exceeded 500ms timeout"
        "Instance never healthy after 2.5s: exceeded 500ms timeout"
        "Instance never healthy after 12.5s: (exceeded 10s graceful shutdown interval)"
    "#]].assert_eq(&all);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_monitors_run() {
    let world = world(monitored(run("lasts:10 then on-term:300"), 0), &[]);
    expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        2000   start monitor
        2010   OUT APP: Container became healthy
        2010   Running { routable: true }
        32010  start monitor
        33000  stop
        33000  OUT APP: Cell cell-1 stopping instance guid-1
        33000  Terminate action
        33000  Terminate monitor
        33100  OUT APP: Exit status 0
        33300  stopped: ""
    "#]]
    .assert_eq(&world.story_stopped_after(33_000).await);
}

#[tokio::test(start_paused = true)]
async fn sixty_four_monitors_run_at_once_on_a_cell() {
    let world = world(monitored(run("lasts:10"), 5000), &[]);
    let slots = world.services.monitor_slots.acquire_many(64).await.unwrap();
    let release = async {
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        world.sandbox.tell("a slot is free");
        drop(slots);
    };
    let (story, ()) = tokio::join!(world.story_stopped_after(9000), release);
    expect![[r#"
        0      start action
        0      OUT APP: Starting health monitoring of container
        4000   a slot is free
        4000   start monitor
        4010   OUT APP: Container became healthy
        4010   Running { routable: true }
        9000   stop
        9000   OUT APP: Cell cell-1 stopping instance guid-1
        9000   Terminate action
        9100   OUT APP: Exit status 0
        9100   stopped: ""
    "#]]
    .assert_eq(&story);
}
