//! Reaching for another container: by its ids, its files and its address.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use container::container::LogStream;

use super::scene::Scene;
use super::world::{args, command, id, wait_for_file};

/// Even someone who got out reads no neighbour: the ids are of no use with another's files.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_container_open_nothing_of_another() {
    let scene = Scene::open().await;
    // Without a limit its files are where the host sees them, whatever holds limits here.
    let open = scene.world.run("open", "umask 0; echo secret >/open; sleep 1000").await;
    let file = scene.world.config.dir.join("containers/open/writable/upper/open");
    wait_for_file(&file).await;
    let neighbour = scene.world.runtime().get(&id("neighbour")).unwrap();
    assert!(neighbour.id_base.abs_diff(open.id_base) >= 65_536);
    for user in [neighbour.id_base, open.id_base] {
        let file = file.clone();
        let mut cat = Command::new("cat");
        cat.arg(&file).uid(user).gid(user);
        let output = cat.output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{user}: {output:?}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "secret\n", "the host's root reads it");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_another_container_cannot_be_taken() {
    let scene = Scene::open().await;
    let neighbour = scene.world.runtime().get(&id("neighbour")).unwrap().id_base;
    let script = format!(
        "for id in {neighbour} 65536 70000 4294967294; do setpriv --reuid $id id -u && echo $id
            touch /tmp/a; chown $id /tmp/a && echo owned by $id; done; echo still here"
    );
    let (_, out) = scene.attack("ids", &script).await;
    assert_eq!(out, "still here\n", "{}", scene.world.log("ids", LogStream::Stderr).await);
    scene.close().await;
}

/// Raw sockets are Docker's default too; what is forged by them diverts nobody, not even from who
/// has just forgotten where the neighbour is.
#[tokio::test(flavor = "multi_thread")]
async fn forged_frames_divert_nobody() {
    let scene = Scene::open().await;
    let (neighbour, gateway) =
        (scene.neighbour.to_string(), scene.world.config.subnet.gateway().to_string());
    scene.start("forger", args(&["/attack", "forge", &neighbour, &gateway])).await;
    scene.world.line("forger", "forging").await;
    command("ip", &["neigh", "flush", "to", &neighbour]);
    for _ in 0..3 {
        scene.check().await;
        // What it has just heard, the kernel believes for a second (arp(7), `locktime`).
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    scene.close().await;
}
