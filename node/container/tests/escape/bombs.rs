//! Taking all there is: the attacker hits its own limits, and the neighbour goes on.

use container::container::{ExitStatus, LogRate, LogStream, Process};

use super::scene::{Scene, limited};
use super::world::{args, id, sh};

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_ends_at_the_limit() {
    let scene = Scene::open().await;
    let had = scene.take("forks", "processes").await;
    assert!(had < 64, "{had}");
    scene.check().await;
    let stats = scene.world.runtime().stats(&id("forks")).unwrap();
    assert!(stats.pids <= 65, "{stats:?}");
    scene.world.destroy("forks").await;
    // The classic, whose processes fork as fast as they die.
    scene.start("bomb", sh("echo up; bomb() { bomb | bomb & }; bomb; sleep 1000")).await;
    scene.world.line("bomb", "up").await;
    for _ in 0..3 {
        scene.check().await;
    }
    scene.world.destroy("bomb").await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_ends_at_the_limit() {
    let scene = Scene::open().await;
    scene.start("memory", args(&["/attack", "memory"])).await;
    let (exit, _) = scene.end("memory").await;
    assert_eq!((exit.status, exit.oom_killed), (ExitStatus::Signal(9), true));
    // Files in memory are memory, and stay when their writer was killed.
    let (exit, out) =
        scene.attack("files", "cat /dev/zero >/dev/shm/a; true; echo still here").await;
    assert!(exit.oom_killed, "{exit:?} {out}");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_bomb_ends_at_the_limit() {
    let scene = Scene::open().await;
    let script = "dd if=/dev/zero of=/tmp/a bs=1M 2>/dev/null; echo full
        i=0; while true >/tmp/f$i; do i=$((i+1)); done 2>/dev/null; echo still here; sleep 1000";
    scene.start("disk", sh(script)).await;
    scene.world.line("disk", "still here").await;
    scene.check().await;
    let stats = scene.world.runtime().stats(&id("disk")).unwrap();
    assert!(stats.disk_bytes.unwrap() <= 18 << 20, "{stats:?}");
    scene.close().await;
}

/// A file of holes takes no disk, and a hole filled later counts.
#[tokio::test(flavor = "multi_thread")]
async fn holes_and_links_do_not_dodge_the_limit() {
    let scene = Scene::open().await;
    let script = "truncate -s 1T /tmp/hole || true
        dd if=/dev/zero of=/tmp/hole bs=1M count=24 seek=100 conv=notrunc 2>/dev/null || echo full
        rm -f /tmp/hole
        # A file that has no name any more is still there.
        exec 3>/tmp/gone; rm /tmp/gone; dd if=/dev/zero bs=1M count=12 2>/dev/null >&3
        dd if=/dev/zero of=/tmp/b bs=1M count=8 2>/dev/null || echo full";
    let (_, out) = scene.attack("holes", script).await;
    assert_eq!(out, "full\nfull\n");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_flood_is_bounded() {
    let scene = Scene::open().await;
    scene.start("flood", sh("yes $(printf '%01000d' 0)")).await;
    let mut limited_spec = limited(scene.world.spec("limited"));
    limited_spec.limits.log_rate =
        LogRate { bytes_per_second: Some(1000), lines_per_second: Some(10) };
    scene.start_with(limited_spec, sh("yes both limits")).await;
    let notice = "app instance exceeded log rate limit (10 log-lines/sec) set by platform operator";
    scene.world.line("limited", notice).await;
    for _ in 0..3 {
        scene.check().await;
    }
    let log = scene.world.config.dir.join("containers/flood/log");
    let bytes: u64 =
        std::fs::read_dir(log).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= scene.world.config.log_bytes_max, "{bytes}");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_files_are_its_own() {
    let scene = Scene::open().await;
    let had = scene.take("files", "files").await;
    assert!(had >= 1000, "{had}");
    scene.check().await;
    scene.close().await;
}

/// What the kernel counts by user is counted for each container alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_by_user_is_its_own() {
    let scene = Scene::open().await;
    for what in ["inotify", "signals"] {
        assert!(scene.take(what, what).await > 0);
        scene.check().await;
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_signals_stays_inside() {
    let scene = Scene::open().await;
    scene.start("storm", args(&["/attack", "storm"])).await;
    scene.world.line("storm", "had 16").await;
    for _ in 0..3 {
        scene.check().await;
    }
    // Its init is not hit: it still can be asked to end.
    scene.world.destroy("storm").await;
    scene.close().await;
}

/// A program that wants all of the processor gets its share.
#[tokio::test(flavor = "multi_thread")]
async fn busy_loops_leave_time_for_others() {
    let scene = Scene::open().await;
    let script = "i=0; while [ $i -lt 50 ]; do (while :; do :; done) & i=$((i+1)); done; \
                  echo up; sleep 1000";
    let process = Process { nofile: Some(64), ..sh(script) };
    scene.start("busy", process).await;
    scene.world.line("busy", "up").await;
    for _ in 0..3 {
        scene.check().await;
    }
    assert_eq!(scene.world.log("busy", LogStream::Stderr).await, "");
    scene.close().await;
}
