//! Download: the real downloader, and a server on loopback.

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::testing::archives::{gzip, tar_of};
use crate::testing::server::{Reply, Server};
use crate::testing::{World, run, sourced};

fn download(server: &Server, members: Value) -> Value {
    let mut action = json!({
        "from": server.url("app"), "to": "/home/vcap", "user": "vcap", "artifact": "app bits",
    });
    for (name, value) in members.as_object().unwrap() {
        action[name] = value.clone();
    }
    json!({"download": action})
}

/// The story without its times, which are the machine's, and without what depends on them.
async fn story(world: &World) -> String {
    world.execute(CancellationToken::new()).await;
    timeless(&world.sandbox.story())
}

pub(super) fn timeless(story: &str) -> String {
    let lines = story.lines().map(|line| line.split_once(' ').unwrap().1.trim_start());
    lines.filter(|line| !line.starts_with("Running")).map(|line| format!("{line}\n")).collect()
}

async fn check(reply: Reply, members: Value, expected: Expect) {
    let server = Server::new(vec![reply]).await;
    let world = World::new(json!({"action": download(&server, members)}));
    expected.assert_eq(&story(&world).await);
}

#[tokio::test]
async fn an_archive_is_unpacked_as_the_user() {
    let archive = gzip(&tar_of(&[("bin/app", "#!/bin/sh"), ("Procfile", "web: bin/app")]));
    check(
        Reply::ok(&archive),
        json!({}),
        expect![[r##"
            OUT APP: Downloading app bits...
            unpack as vcap into /home/vcap: bin/app 644 "#!/bin/sh", Procfile 644 "web: bin/app"
            OUT APP: Downloaded app bits (156B)
            ended: ""
        "##]],
    )
    .await;
    check(
        Reply::ok(&archive),
        json!({"artifact": ""}),
        expect![[r##"
            unpack as vcap into /home/vcap: bin/app 644 "#!/bin/sh", Procfile 644 "web: bin/app"
            ended: ""
        "##]],
    )
    .await;
    check(
        Reply::ok(&archive),
        json!({"log_source": "CELL"}),
        expect![[r##"
            OUT CELL: Downloading app bits...
            unpack as vcap into /home/vcap: bin/app 644 "#!/bin/sh", Procfile 644 "web: bin/app"
            OUT CELL: Downloaded app bits (156B)
            ended: ""
        "##]],
    )
    .await;
}

#[tokio::test]
async fn what_the_cache_holds_is_not_downloaded_again() {
    let server = Server::new(vec![
        Reply::tagged("one", &tar_of(&[("a", "1")])),
        Reply::status("304 Not Modified"),
    ])
    .await;
    let once = download(&server, json!({"cache_key": "bits"}));
    let twice = json!({"serial": {"actions": [once, once]}});
    let world = World::new(json!({"action": twice}));
    expect![[r#"
        OUT APP: Downloading app bits...
        unpack as vcap into /home/vcap: a 644 "1"
        OUT APP: Downloaded app bits (2K)
        OUT APP: Downloading app bits...
        unpack as vcap into /home/vcap: a 644 "1"
        OUT APP: Downloaded app bits
        ended: ""
    "#]]
    .assert_eq(&story(&world).await);
    assert_eq!(server.requests()[1].header("if-none-match"), Some("\"one\""));
}

#[tokio::test]
async fn a_download_that_fails_is_told_without_its_url() {
    check(
        Reply::status("404 Not Found"),
        json!({"from": "no url"}),
        expect![[r#"
        OUT APP: Downloading app bits...
        ERR APP: Downloading app bits failed
        failed: "Downloading app bits failed"
    "#]],
    )
    .await;
    let from = json!({"from": "no url", "artifact": ""});
    check(
        Reply::status("404 Not Found"),
        from,
        expect![[r#"
        ERR APP: Downloading failed
        failed: "Downloading failed"
    "#]],
    )
    .await;
    let wrong = json!({"checksum_algorithm": "md5", "checksum_value": "0".repeat(32)});
    check(
        Reply::ok(&tar_of(&[("a", "1")])),
        wrong,
        expect![[r#"
            OUT APP: Downloading app bits...
            ERR APP: Downloading app bits failed
            failed: "Downloading app bits failed"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_told_with_the_reason() {
    let server = Server::new(vec![Reply::ok(&tar_of(&[("a", "1")]))]).await;
    for artifact in ["app bits", ""] {
        let action = download(&server, json!({"artifact": artifact}));
        let world = World::new(json!({"action": action}));
        world.sandbox.state().unpack_error = Some("disk quota exceeded".to_owned());
        let expected = if artifact.is_empty() {
            expect![[r#"
                ERR APP: Copying into the container failed: disk quota exceeded
                failed: "Copying into the container failed: disk quota exceeded"
            "#]]
        } else {
            expect![[r#"
                OUT APP: Downloading app bits...
                ERR APP: Copying app bits into the container failed: disk quota exceeded
                failed: "Copying app bits into the container failed: disk quota exceeded"
            "#]]
        };
        expected.assert_eq(&story(&world).await);
    }
}

#[tokio::test]
async fn five_at_once_on_a_cell_and_the_wait_can_be_cancelled() {
    let server = Server::new(vec![Reply::Stall(vec![0; 10], 1)]).await;
    let one = download(&server, json!({}));
    let action = json!({"parallel": {"actions": vec![one; 7]}});
    let world = World::new(json!({"action": action}));
    let stop = CancellationToken::new();
    let stopping = async {
        while server.requests().len() < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stop.cancel();
    };
    tokio::join!(world.execute(stop.clone()), stopping);
    assert_eq!(server.requests().len(), 5);
    expect![[r#"
        OUT APP: Downloading app bits...
        OUT APP: Downloading app bits...
        OUT APP: Downloading app bits...
        OUT APP: Downloading app bits...
        OUT APP: Downloading app bits...
        OUT APP: Cell cell-1 stopping instance guid-1
        stopped: ""
    "#]]
    .assert_eq(&timeless(&world.sandbox.story()));
    assert_eq!(world.services.download_slots.available_permits(), 5);
}

#[tokio::test]
async fn a_cancelled_download_ends_a_series() {
    let server = Server::new(vec![Reply::Stall(vec![0; 10], 1)]).await;
    let actions = [download(&server, json!({})), sourced(run("print:never"), "X")];
    let world = World::new(json!({"action": {"serial": {"actions": actions}}}));
    let stop = CancellationToken::new();
    let stopping = async {
        while server.requests().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    tokio::join!(world.execute(stop.clone()), stopping);
    expect![[r#"
        OUT APP: Downloading app bits...
        OUT APP: Cell cell-1 stopping instance guid-1
        stopped, failed: "cancelled"
    "#]]
    .assert_eq(&timeless(&world.sandbox.story()));
    let left: Vec<_> = std::fs::read_dir(world.dir().join("cache/making")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
