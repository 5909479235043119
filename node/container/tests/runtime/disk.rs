//! What a container may write to disk, by each way of enforcing it that works on this machine.

use container::container::{
    DiskEnforcement, DiskLimit, DiskScope, Error, ExitStatus, Limits, LogStream, Stats,
};

use super::world::{World, id, sh};

const WAYS: [DiskEnforcement; 3] =
    [DiskEnforcement::ProjectQuotas, DiskEnforcement::Pool, DiskEnforcement::Volumes];

/// A world for each way that works here. At least one does: a volume needs loop devices only.
async fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for disk in WAYS {
        match World::try_open(|config| config.disk = disk).await {
            Ok(world) => worlds.push(world),
            Err(Error::Invalid { what, reason }) => {
                assert!(what.starts_with("disk limits by "), "{what}: {reason}");
                eprintln!("{what}: {reason}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(!worlds.is_empty(), "no way of limiting a disk works on this machine");
    worlds
}

fn limits(bytes: u64, scope: DiskScope) -> Limits {
    let disk = Some(DiskLimit { bytes, scope });
    Limits { disk, inodes: Some(200_000), ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_the_limit_is_refused_to_a_process_that_goes_on() {
    for world in worlds().await {
        let mut spec = world.spec("full");
        spec.limits = limits(16 << 20, DiskScope::Exclusive);
        let script = "dd if=/dev/zero of=/tmp/a bs=1M count=12 2>/dev/null && echo 12 fit
            dd if=/dev/zero of=/home/b bs=1M count=12 2>/dev/null || echo 24 do not
            rm /tmp/a
            dd if=/dev/zero of=/home/c bs=1M count=8 2>/dev/null && echo 8 fit again
            rm /home/b; dd if=/dev/zero of=/root/d bs=1M count=64";
        world.run_with(spec, sh(script)).await;
        let exit = world.exit("full").await;
        assert_eq!(exit.status, ExitStatus::Code(1));
        assert!(!exit.oom_killed);
        let out = world.log("full", LogStream::Stdout).await;
        assert_eq!(out, "12 fit\n24 do not\n8 fit again\n", "{:?}", world.config.disk);
        let errors = world.log("full", LogStream::Stderr).await;
        let told = ["No space left on device", "Disk quota exceeded", "Quota exceeded"];
        assert!(told.iter().any(|reason| errors.contains(reason)), "{errors}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_containers_limit_is_no_others() {
    for world in worlds().await {
        for name in ["first", "second"] {
            let mut spec = world.spec(name);
            spec.limits = limits(8 << 20, DiskScope::Exclusive);
            let fill =
                "dd if=/dev/zero of=/tmp/a bs=1M count=16 2>/dev/null; echo full; sleep 1000";
            world.run_with(spec, sh(fill)).await;
            world.line(name, "full").await;
        }
        world
            .run("unlimited", "dd if=/dev/zero of=/a bs=1M count=16 2>/dev/null && echo fits")
            .await;
        world.line("unlimited", "fits").await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inodes_are_limited_too() {
    for world in worlds().await {
        let mut spec = world.spec("inodes");
        spec.limits = Limits { inodes: Some(200), ..limits(64 << 20, DiskScope::Exclusive) };
        let script = "i=0; while true >/tmp/$i; do i=$((i+1)); test $i -lt 100000 || break; done; \
                      echo $i";
        world.run_with(spec, sh(script)).await;
        world.exit("inodes").await;
        let made: u32 = world.log("inodes", LogStream::Stdout).await.trim().parse().unwrap();
        // The root and what overlayfs makes count as well; a volume rounds up.
        assert!((150..=1024).contains(&made), "{made} by {:?}", world.config.disk);
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_total_counts_the_image_too() {
    for world in worlds().await {
        let mut spec = world.spec("total");
        spec.limits = limits(16 << 20, DiskScope::Total);
        spec.image_bytes = 12 << 20;
        let script = "dd if=/dev/zero of=/a bs=1M count=3 2>/dev/null && echo 3 fit
            dd if=/dev/zero of=/b bs=1M count=5 2>/dev/null || echo 8 do not";
        world.run_with(spec, sh(script)).await;
        world.exit("total").await;
        assert_eq!(world.log("total", LogStream::Stdout).await, "3 fit\n8 do not\n");

        let mut spec = world.spec("image");
        spec.limits = limits(16 << 20, DiskScope::Total);
        spec.image_bytes = 16 << 20;
        let error = world.runtime().create(spec).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid disk limit of container image: the image's layers take 16777216 bytes, and \
             the limit for both is 16777216"
        );
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_counted_and_still_is_by_the_next_node() {
    for mut world in worlds().await {
        let mut spec = world.spec("count");
        spec.limits = limits(32 << 20, DiskScope::Exclusive);
        let script = "echo up; read x </tmp/fifo; dd if=/dev/urandom of=/tmp/a bs=1M count=10 \
                      2>/dev/null; i=0; while [ $i -lt 50 ]; do : >/tmp/$i; i=$((i+1)); done; \
                      sync; echo down; sleep 1000";
        let script = format!("mkfifo /tmp/fifo; {script}");
        world.run_with(spec, sh(&script)).await;
        world.line("count", "up").await;
        let before = world.runtime().stats(&id("count")).unwrap();
        let pid = world.pid("count");
        std::fs::write(format!("/proc/{pid}/root/tmp/fifo"), "\n").unwrap();
        world.line("count", "down").await;
        let after = world.runtime().stats(&id("count")).unwrap();
        let grown = |of: fn(&Stats) -> Option<u64>| of(&after).unwrap() - of(&before).unwrap();
        let bytes = grown(|stats| stats.disk_bytes);
        assert!((10 << 20..11 << 20).contains(&bytes), "{bytes} by {:?}", world.config.disk);
        let inodes = grown(|stats| stats.inodes);
        assert_eq!(inodes, 51, "by {:?}", world.config.disk);
        assert!(after.age_ms >= before.age_ms && after.age_ms.unwrap() < 600_000, "{after:?}");

        world.reopen().await;
        let again = world.runtime().stats(&id("count")).unwrap();
        assert_eq!((again.disk_bytes, again.inodes), (after.disk_bytes, after.inodes));
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_cannot_be_enforced_is_ignored_only_if_that_is_configured() {
    let world = World::open_with(|config| config.disk = DiskEnforcement::None).await;
    let mut spec = world.spec("ignored");
    spec.limits = limits(1 << 20, DiskScope::Exclusive);
    world.run_with(spec, sh("dd if=/dev/zero of=/a bs=1M count=4")).await;
    assert_eq!(world.exit("ignored").await.status, ExitStatus::Code(0));
    assert_eq!(world.runtime().stats(&id("ignored")).unwrap().disk_bytes, None);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_made_is_said_and_leaves_nothing() {
    let world = World::open_with(|config| config.disk = DiskEnforcement::Volumes).await;
    std::fs::write(world.config.dir.join("volumes"), "in the way").unwrap();
    let mut spec = world.spec("none");
    spec.limits = limits(1 << 20, DiskScope::Exclusive);
    let error = world.runtime().create(spec.clone()).await.unwrap_err().to_string();
    assert!(error.starts_with("make the writable layer of container none: "), "{error}");
    assert_eq!(world.traces(), world.network_traces());
    std::fs::remove_file(world.config.dir.join("volumes")).unwrap();
    world.run_with(spec, sh("true")).await;
    world.exit("none").await;
    world.close().await;
}
