//! What is kept, for whom, for how long, and over the node's death.

use std::fs;

use expect_test::expect;

use super::*;
use crate::testing::archives::{gzip, tar_of};
use crate::testing::server::Reply;

fn tar(content: &str) -> Vec<u8> {
    tar_of(&[("a", content)])
}

fn unchanged() -> Reply {
    Reply::status("304 Not Modified")
}

async fn content(world: &World, server: &Server, key: &str) -> String {
    listed(world.archive(server, key).await.unwrap()).await
}

const ONE: &str = "0644 0 a \"one\"\n";
const TWO: &str = "0644 0 a \"two\"\n";

#[tokio::test]
async fn what_has_not_changed_is_served_from_the_disk() {
    let world = World::new();
    let server = Server::new(vec![Reply::tagged("1", &gzip(&tar("one"))), unchanged()]).await;
    let first = world.archive(&server, "key").await.unwrap();
    assert_eq!(first.downloaded(), Some(gzip(&tar("one")).len() as u64));
    drop(first);
    let second = world.archive(&server, "key").await.unwrap();
    assert_eq!(second.downloaded(), None);
    assert_eq!(listed(second).await, ONE);
    assert_eq!(server.requests()[0].header("if-none-match"), None);
    assert_eq!(server.requests()[1].header("if-none-match"), Some("\"1\""));
    assert_eq!(world.files(), "0.json 0.tar making");
}

#[tokio::test]
async fn a_date_is_as_good_as_a_tag() {
    let world = World::new();
    let date = "Wed, 21 Oct 2015 07:28:00 GMT";
    let headers = format!("Last-Modified: {date}\r\n");
    let server = Server::new(vec![Reply::page("200 OK", &headers, &tar("one")), unchanged()]).await;
    assert_eq!(content(&world, &server, "key").await, ONE);
    assert_eq!(content(&world, &server, "key").await, ONE);
    let date = date.to_lowercase();
    assert_eq!(server.requests()[1].header("if-modified-since"), Some(date.as_str()));
}

#[tokio::test]
async fn what_has_no_validator_or_no_key_is_not_kept() {
    let world = World::new();
    let server = Server::new(vec![Reply::ok(&tar("one"))]).await;
    assert_eq!(content(&world, &server, "key").await, ONE);
    assert_eq!(world.files(), "making");
    server.reply(vec![Reply::tagged("1", &tar("one"))]);
    assert_eq!(content(&world, &server, "").await, ONE);
    assert_eq!(world.files(), "making");
    // Of no use any more: nothing says whether it is current.
    assert_eq!(content(&world, &server, "key").await, ONE);
    server.reply(vec![Reply::page("200 OK", "ETag: \r\n", &tar("two")), Reply::ok(&tar("two"))]);
    assert_eq!(content(&world, &server, "key").await, TWO);
    assert_eq!(content(&world, &server, "key").await, TWO);
    assert_eq!(server.requests().last().unwrap().header("if-none-match"), None);
}

#[tokio::test]
async fn a_validator_that_is_too_long_is_none() {
    let world = World::new();
    let server = Server::new(vec![Reply::tagged(&"x".repeat(2000), &tar("one"))]).await;
    assert_eq!(content(&world, &server, "key").await, ONE);
    assert_eq!(world.files(), "making");
}

#[tokio::test]
async fn what_has_changed_takes_the_place_of_what_was() {
    let world = World::new();
    let replies =
        vec![Reply::tagged("1", &tar("one")), Reply::tagged("2", &tar("two")), unchanged()];
    let server = Server::new(replies).await;
    let old = world.archive(&server, "key").await.unwrap();
    assert_eq!(content(&world, &server, "key").await, TWO);
    assert_eq!(content(&world, &server, "key").await, TWO);
    assert_eq!(server.requests()[2].header("if-none-match"), Some("\"2\""));
    assert_eq!(listed(old).await, ONE, "whoever has it reads it to its end");
}

#[tokio::test]
async fn keys_are_kept_apart() {
    let world = World::new();
    let one = Server::new(vec![Reply::tagged("1", &tar("one")), unchanged()]).await;
    let two = Server::new(vec![Reply::tagged("1", &tar("two")), unchanged()]).await;
    for _ in 0..2 {
        assert_eq!(content(&world, &one, "one").await, ONE);
        assert_eq!(content(&world, &two, "two").await, TWO);
    }
}

#[tokio::test]
async fn what_is_kept_serves_nobody_who_demands_another_checksum() {
    let world = World::new();
    let server = Server::new(vec![Reply::tagged("1", &tar("one"))]).await;
    assert_eq!(content(&world, &server, "key").await, ONE);
    let zeros = "0".repeat(64);
    let demanding = Wanted::new(&server.url("file"), "key", "sha256", &zeros).unwrap();
    let refused = failed(world.downloader.archive(&demanding).await);
    let sum = refused.split_once("got ").unwrap().1;
    assert_eq!(server.requests()[1].header("if-none-match"), None);
    let demanding = Wanted::new(&server.url("file"), "key", "sha256", sum).unwrap();
    drop(world.downloader.archive(&demanding).await.unwrap());
    assert_eq!(server.requests()[2].header("if-none-match"), None);
    server.reply(vec![unchanged()]);
    drop(world.downloader.archive(&demanding).await.unwrap());
    assert_eq!(content(&world, &server, "key").await, ONE, "and whoever demands none");
}

#[tokio::test]
async fn one_of_a_key_is_downloaded_at_a_time() {
    let world = World::new();
    let server = Server::new(vec![Reply::tagged("1", &tar("one")), unchanged()]).await;
    let (one, two, three) = tokio::join!(
        world.archive(&server, "key"),
        world.archive(&server, "key"),
        world.archive(&server, "key"),
    );
    for archive in [one, two, three] {
        assert_eq!(listed(archive.unwrap()).await, ONE);
    }
    let requests = server.requests();
    let tags: Vec<_> = requests.iter().map(|it| it.header("if-none-match")).collect();
    assert_eq!(tags, [None, Some("\"1\""), Some("\"1\"")]);
}

#[tokio::test]
async fn what_was_used_least_recently_goes_and_what_is_in_use_stays() {
    // Each takes 2048 bytes of tar and two blocks.
    let world = World::of(3 * (2048 + 8192) + 2048);
    let server = Server::new(vec![Reply::tagged("1", &tar("one"))]).await;
    for key in ["a", "b", "c"] {
        drop(world.archive(&server, key).await.unwrap());
    }
    server.reply(vec![unchanged()]);
    let held = world.archive(&server, "a").await.unwrap();
    server.reply(vec![Reply::tagged("1", &tar("two"))]);
    drop(world.archive(&server, "d").await.unwrap());
    expect!["0.json 0.tar 2.json 2.tar 3.json 3.tar making"].assert_eq(&world.files());
    drop(world.archive(&server, "e").await.unwrap());
    drop(world.archive(&server, "f").await.unwrap());
    expect!["0.json 0.tar 4.json 4.tar 5.json 5.tar making"].assert_eq(&world.files());
    assert_eq!(listed(held).await, ONE);
    drop(world.archive(&server, "g").await.unwrap());
    drop(world.archive(&server, "h").await.unwrap());
    expect!["5.json 5.tar 6.json 6.tar 7.json 7.tar making"].assert_eq(&world.files());
    assert!(world.downloader.index.bytes() <= 3 * (2048 + 8192) + 2048);
}

#[tokio::test]
async fn there_is_no_room_beside_what_is_in_use() {
    let world = World::of(2048 + 8192 + 1000);
    let server = Server::new(vec![Reply::tagged("1", &tar("one"))]).await;
    let held = world.archive(&server, "a").await.unwrap();
    let refused = failed(world.archive(&server, "b").await);
    assert_eq!(refused, "no room for it: all of the cache's 11240 bytes are in use");
    drop(held);
    drop(world.archive(&server, "b").await.unwrap());
    expect!["1.json 1.tar making"].assert_eq(&world.files());
}

#[tokio::test]
async fn what_is_kept_is_kept_over_a_death() {
    let world = World::new();
    let server = Server::new(vec![Reply::tagged("1", &tar("one"))]).await;
    for key in ["a", "b", "a"] {
        drop(world.archive(&server, key).await.unwrap());
        // Of files written in one tick of the kernel's clock nobody knows which is older.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (files, bytes) = (world.files(), world.downloader.index.bytes());
    let world = world.reopen();
    assert_eq!((world.files(), world.downloader.index.bytes()), (files, bytes));
    server.reply(vec![unchanged()]);
    assert_eq!(content(&world, &server, "b").await, ONE);
    assert_eq!(content(&world, &server, "a").await, ONE);
}

#[tokio::test]
async fn what_is_half_done_or_strange_is_gone_after_a_death() {
    let world = World::new();
    let server = Server::new(vec![Reply::tagged("1", &tar("one"))]).await;
    for key in ["kept", "no data", "bad record"] {
        drop(world.archive(&server, key).await.unwrap());
    }
    let path = |name: &str| world.dir.path().join(name);
    fs::remove_file(path("0000000000000001.tar")).unwrap();
    fs::write(path("0000000000000002.json"), "{").unwrap();
    fs::write(path("making/half"), "x").unwrap();
    fs::write(path("0000000000000009.tar"), "no record").unwrap();
    fs::create_dir_all(path("stranger/deep")).unwrap();
    fs::copy(path("0000000000000000.json"), path("+000000000000000.json")).unwrap();
    let world = world.reopen();
    assert_eq!(world.files(), "0.json 0.tar making");
    drop(world.archive(&server, "new").await.unwrap());
    expect!["0.json 0.tar 1.json 1.tar making"].assert_eq(&world.files());
}

#[tokio::test]
async fn a_cache_that_was_made_smaller_shrinks_with_the_next_download() {
    let world = World::new();
    let server = Server::new(vec![Reply::tagged("1", &tar("one"))]).await;
    for key in ["a", "b", "c"] {
        drop(world.archive(&server, key).await.unwrap());
    }
    let World { dir, downloader } = world;
    drop(downloader);
    let downloader = open(dir.path(), 2 * (2048 + 8192));
    let world = World { dir, downloader };
    drop(world.archive(&server, "d").await.unwrap());
    expect!["2.json 2.tar 3.json 3.tar making"].assert_eq(&world.files());
}

async fn dependency(world: &World, server: &Server) -> Result<crate::Dependency, DownloadError> {
    world.downloader.dependency(&wanted(server, "key")).await
}

#[tokio::test]
async fn a_dependency_is_expanded_once_for_all() {
    let world = World::new();
    let archive = gzip(&tar_of(&[("bin/tool", "#!"), ("share/.wh.doc", "text")]));
    let server = Server::new(vec![Reply::tagged("1", &archive), unchanged()]).await;
    let one = dependency(&world, &server).await.unwrap();
    let two = dependency(&world, &server).await.unwrap();
    assert_eq!(one.directory(), two.directory());
    assert_eq!((one.downloaded(), two.downloaded()), (Some(archive.len() as u64), None));
    assert_eq!(fs::read_to_string(one.directory().join("bin/tool")).unwrap(), "#!");
    assert_eq!(fs::read_to_string(one.directory().join("share/.wh.doc")).unwrap(), "text");
    assert_eq!(world.files(), "0.d 0.json making");
}

#[tokio::test]
async fn a_dependency_needs_a_key_and_a_validator() {
    let world = World::new();
    let server = Server::new(vec![Reply::ok(&tar("one"))]).await;
    let refused = failed(world.downloader.dependency(&wanted(&server, "")).await);
    assert_eq!(refused, "not cacheable directory: cache key is missing");
    let refused = failed(dependency(&world, &server).await);
    let expected = "not cacheable directory: ETag and Last-Modified were missing from response";
    assert_eq!(refused, expected);
    assert_eq!(world.files(), "making");
    assert_eq!(world.downloader.index.bytes(), 0);
}

#[tokio::test]
async fn a_hostile_dependency_is_refused() {
    let mut world = World::new();
    world.downloader.archive_bytes_max = 1 << 16;
    let mut escape = tar("x");
    escape[..4].copy_from_slice(b"../b");
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&escape[..512]);
    header.set_cksum();
    escape[..512].copy_from_slice(header.as_bytes());
    for (bytes, expected) in [
        (b"hello".to_vec(), "unknown archive format"),
        (tar(&"x".repeat(2000))[..1000].to_vec(), "broken archive: "),
        (gzip(&vec![0; 1 << 20]), "more than 65536 bytes once unpacked"),
    ] {
        let server = Server::new(vec![Reply::tagged("1", &bytes)]).await;
        let refused = failed(dependency(&world, &server).await);
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(world.files(), "making");
        assert_eq!(world.downloader.index.bytes(), 0);
    }
    let server = Server::new(vec![Reply::tagged("1", &escape)]).await;
    let kept = dependency(&world, &server).await.unwrap();
    assert_eq!(fs::read_to_string(kept.directory().join("b")).unwrap(), "x", "it stays within");
}

#[tokio::test]
async fn a_dependency_in_use_outlives_its_successor_and_the_node() {
    let world = World::new();
    let replies =
        vec![Reply::tagged("1", &tar("one")), Reply::tagged("2", &tar("two")), unchanged()];
    let server = Server::new(replies).await;
    let old = dependency(&world, &server).await.unwrap();
    let new = dependency(&world, &server).await.unwrap();
    assert_ne!(old.directory(), new.directory());
    let (old, new) = (old.directory(), new.directory());
    let world = world.reopen();
    let adopted = world.downloader.adopt(&old).unwrap();
    assert!(world.downloader.adopt(&world.dir.path().join("making")).is_none());
    assert_eq!(fs::read_to_string(adopted.directory().join("a")).unwrap(), "one");
    let current = dependency(&world, &server).await.unwrap();
    assert_eq!((current.directory(), current.downloaded()), (new, None));
}

#[tokio::test]
async fn an_old_dependency_goes_once_nobody_uses_it_and_room_is_needed() {
    let world = World::of(3 * (2048 + 8192) + 4096);
    let replies = vec![Reply::tagged("1", &tar("one")), Reply::tagged("2", &tar("two"))];
    let server = Server::new(replies).await;
    let old = dependency(&world, &server).await.unwrap();
    let new = dependency(&world, &server).await.unwrap();
    drop(new);
    drop(old);
    drop(world.archive(&server, "x").await.unwrap());
    drop(world.archive(&server, "y").await.unwrap());
    expect!["1.d 1.json 2.json 2.tar 3.json 3.tar making"].assert_eq(&world.files());
}
