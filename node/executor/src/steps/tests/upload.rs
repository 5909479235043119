//! Upload: a server on loopback.

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::download::timeless;
use crate::testing::World;
use crate::testing::server::{Reply, Server};

fn world(to: &str, members: Value) -> World {
    let mut action =
        json!({"from": "/tmp/droplet", "to": to, "user": "vcap", "artifact": "droplet"});
    for (name, value) in members.as_object().unwrap() {
        action[name] = value.clone();
    }
    let world = World::new(json!({"action": {"upload": action}}));
    world.sandbox.state().files.insert("/tmp/droplet".to_owned(), Ok(b"hello".to_vec()));
    world
}

async fn story(world: &World) -> String {
    world.execute(CancellationToken::new()).await;
    timeless(&world.sandbox.story())
}

async fn check(replies: Vec<Reply>, members: Value, requests: usize, expected: Expect) {
    let server = Server::new(replies).await;
    let world = world(&server.url("droplets"), members);
    expected.assert_eq(&story(&world).await);
    assert_eq!(server.requests().len(), requests);
    let left: Vec<_> = std::fs::read_dir(world.dir().join("uploads")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_file_is_sent_with_its_checksums() {
    let server = Server::new(vec![Reply::status("201 Created")]).await;
    let world = world(&server.url("droplets"), json!({}));
    expect![[r#"
        OUT APP: Uploading droplet...
        read /tmp/droplet as vcap
        OUT APP: Uploaded droplet (5B)
        ended: ""
    "#]]
    .assert_eq(&story(&world).await);
    let [request] = &server.requests()[..] else { panic!("one request") };
    assert!(request.head.starts_with("post /droplets http/1.1\n"), "{}", request.head);
    assert_eq!(request.header("content-type"), Some("application/octet-stream"));
    assert_eq!(request.header("content-length"), Some("5"));
    // Of "hello": md5sum and sha256sum of coreutils, in base64, here in lower case.
    let md5 = "XUFAKrxLKna5cZ2REBfFkg==".to_lowercase();
    assert_eq!(request.header("content-md5"), Some(md5.as_str()));
    let sha256 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=".to_lowercase();
    assert_eq!(request.header("content-digest"), Some(format!("sha-256=:{sha256}:").as_str()));
    assert_eq!(request.body, b"hello");
}

#[tokio::test]
async fn three_tries_are_made() {
    let busy = || Reply::status("503 Service Unavailable");
    check(
        vec![busy(), Reply::Nothing, Reply::ok(b"")],
        json!({}),
        3,
        expect![[r#"
            OUT APP: Uploading droplet...
            read /tmp/droplet as vcap
            OUT APP: Uploaded droplet (5B)
            ended: ""
        "#]],
    )
    .await;
    check(
        vec![busy()],
        json!({}),
        3,
        expect![[r#"
            OUT APP: Uploading droplet...
            read /tmp/droplet as vcap
            ERR APP: Failed to upload payload for droplet
            failed: "Upload failed: Status code 503"
        "#]],
    )
    .await;
    check(
        vec![busy()],
        json!({"artifact": "", "log_source": "UP"}),
        3,
        expect![[r#"
            read /tmp/droplet as vcap
            failed: "Upload failed: Status code 503"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_bad_url_is_told_of() {
    let world = world("not a url", json!({}));
    expect![[r#"
        OUT APP: Uploading droplet...
        ERR APP: Failed to parse URL for droplet
        failed: "parse \"not a url\": invalid URI for request"
    "#]]
    .assert_eq(&story(&world).await);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_told_of() {
    let ok = || vec![Reply::ok(b"")];
    check(
        ok(),
        json!({"from": "/nothing"}),
        0,
        expect![[r#"
            OUT APP: Uploading droplet...
            ERR APP: Failed to establish stream from container for droplet
            failed: "Failed to establish stream from container for droplet"
        "#]],
    )
    .await;
    check(
        ok(),
        json!({"from": "/nothing", "artifact": ""}),
        0,
        expect![[r#"
        failed: "Failed to establish stream from container"
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_file_that_breaks_off_is_not_sent() {
    let server = Server::new(vec![Reply::ok(b"")]).await;
    let world = world(&server.url("droplets"), json!({}));
    world.sandbox.state().files.insert("/tmp/droplet".to_owned(), Ok(b"helBREAKS".to_vec()));
    expect![[r#"
        OUT APP: Uploading droplet...
        read /tmp/droplet as vcap
        ERR APP: Failed to copy stream contents into temp file for droplet
        failed: "Failed to copy stream contents into temp file for droplet"
    "#]]
    .assert_eq(&story(&world).await);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_disk_that_takes_no_file_is_told_of() {
    let server = Server::new(vec![Reply::ok(b"")]).await;
    let world = world(&server.url("droplets"), json!({}));
    let uploads = world.dir().join("uploads");
    std::fs::remove_dir(&uploads).unwrap();
    std::fs::write(&uploads, "in the way").unwrap();
    expect![[r#"
        OUT APP: Uploading droplet...
        ERR APP: Failed to create temp dir for droplet
        failed: "Failed to create temp dir for droplet"
    "#]]
    .assert_eq(&story(&world).await);
}

#[tokio::test]
async fn an_upload_can_be_cancelled() {
    let server = Server::new(vec![Reply::Silence]).await;
    let world = world(&server.url("droplets"), json!({}));
    let stop = CancellationToken::new();
    let stopping = async {
        while server.requests().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    tokio::join!(world.execute(stop.clone()), stopping);
    expect![[r#"
        OUT APP: Uploading droplet...
        read /tmp/droplet as vcap
        OUT APP: Cell cell-1 stopping instance guid-1
        stopped, failed: "cancelled"
    "#]]
    .assert_eq(&timeless(&world.sandbox.story()));
}

#[tokio::test]
async fn five_at_once_on_a_cell_and_nothing_cuts_the_wait_short() {
    let server = Server::new(vec![Reply::ok(b"")]).await;
    let world = world(&server.url("droplets"), json!({}));
    let slots = world.services.upload_slots.acquire_many(5).await.unwrap();
    let stop = CancellationToken::new();
    let stopping = async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        stop.cancel();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        world.sandbox.tell("a slot is free");
        drop(slots);
    };
    tokio::join!(world.execute(stop.clone()), stopping);
    assert!(server.requests().is_empty());
    expect![[r#"
        OUT APP: Cell cell-1 stopping instance guid-1
        a slot is free
        OUT APP: Uploading droplet...
        stopped, failed: "cancelled"
    "#]]
    .assert_eq(&timeless(&world.sandbox.story()));
}
