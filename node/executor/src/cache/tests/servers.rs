//! Servers that are slow, broken or lie.

use expect_test::expect;

use super::*;
use crate::testing::archives::tar_of;
use crate::testing::server::Reply;

fn tar() -> Vec<u8> {
    tar_of(&[("a", "hello")])
}

async fn check(replies: Vec<Reply>, requests: usize) -> String {
    let world = World::new();
    let server = Server::new(replies).await;
    let result = world.archive(&server, "key").await;
    let text = match result {
        Ok(archive) => listed(archive).await,
        Err(error) => error.to_string(),
    };
    assert_eq!(server.requests().len(), requests);
    text
}

#[tokio::test]
async fn four_tries_are_made() {
    let ok = || Reply::ok(&tar());
    let busy = || Reply::status("503 Service Unavailable");
    let good = "0644 0 a \"hello\"\n";
    let missing = Reply::status("404 Not Found");
    assert_eq!(check(vec![busy(), missing, busy(), ok()], 4).await, good);
    assert_eq!(check(vec![busy()], 4).await, "Download failed: Status code 503");
    assert_eq!(check(vec![Reply::Nothing, Reply::Nothing, ok()], 3).await, good);
    assert_eq!(
        check(vec![Reply::status("304 Not Modified")], 4).await,
        "Download failed: Status code 304"
    );
}

#[tokio::test]
async fn what_is_cut_is_begun_anew() {
    let bytes = tar();
    let good = "0644 0 a \"hello\"\n";
    let cut = Reply::Cut(bytes.clone(), 700);
    assert_eq!(
        check(vec![cut.clone(), Reply::Stall(bytes.clone(), 3), Reply::ok(&bytes)], 3).await,
        good
    );
    expect!["end of file before message length reached"].assert_eq(&check(vec![cut], 4).await);
}

#[tokio::test]
async fn a_silent_server_is_left() {
    expect!["the server was silent for 500ms"]
        .assert_eq(&check(vec![Reply::Stall(tar(), 3)], 4).await);
    expect!["the server was silent for 500ms"].assert_eq(&check(vec![Reply::Silence], 4).await);
}

#[tokio::test]
async fn a_dripping_server_is_left() {
    let drip = Reply::Drip(tar(), Duration::from_millis(50));
    assert_eq!(check(vec![drip, Reply::ok(&tar())], 2).await, "0644 0 a \"hello\"\n");
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let circle = Reply::page("302 Found", "Location: /file\r\n", b"");
    expect!["too many redirects"].assert_eq(&check(vec![circle], 44).await);
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let away = Reply::page("302 Found", "Location: /other\r\n", b"");
    assert_eq!(check(vec![away, Reply::ok(&tar())], 2).await, "0644 0 a \"hello\"\n");
}

#[tokio::test]
async fn a_server_without_end_finds_no_room() {
    let refused = check(vec![Reply::Endless], 1).await;
    expect!["no room for it: all of the cache's 1048576 bytes are in use"].assert_eq(&refused);
}

#[tokio::test]
async fn nobody_answers() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/secret", listener.local_addr().unwrap());
    drop(listener);
    let refused = failed(world.downloader.archive(&Wanted::new(&url, "", "", "").unwrap()).await);
    expect!["Connection refused (os error 111)"].assert_eq(&refused);
}

#[tokio::test]
async fn a_checksum_that_does_not_match_is_not_tried_again() {
    let world = World::new();
    let server = Server::new(vec![Reply::tagged("1", &tar())]).await;
    let wanted = |algorithm: &str, value: &str| {
        Wanted::new(&server.url("file"), "key", algorithm, value).unwrap()
    };
    let zeros = "0".repeat(40);
    let refused = failed(world.downloader.archive(&wanted("sha1", &zeros)).await);
    assert!(refused.starts_with(&format!("checksum mismatch: expected {zeros}, got ")));
    assert_eq!(server.requests().len(), 1);
    assert_eq!(world.files(), "making");
    let right = refused.split_once("got ").unwrap().1;
    let archive = world.downloader.archive(&wanted("SHA1", right)).await.unwrap();
    assert_eq!(listed(archive).await, "0644 0 a \"hello\"\n");
}

#[tokio::test]
async fn a_download_that_nobody_waits_for_leaves_nothing() {
    let world = World::new();
    let server = Server::new(vec![Reply::Stall(tar(), 600)]).await;
    let wanted = wanted(&server, "key");
    let download = world.downloader.archive(&wanted);
    tokio::time::timeout(Duration::from_millis(100), download).await.unwrap_err();
    assert_eq!(server.requests().len(), 1);
    assert_eq!(world.files(), "making");
    assert_eq!(world.downloader.index.bytes(), 0);
}
