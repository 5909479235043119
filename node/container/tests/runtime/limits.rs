//! Memory, processes, processors.

use std::fs;
use std::time::Duration;

use container::container::{ExitStatus, Limits, LogRate, LogStream, Process};

use super::world::{PATIENCE, World, args, id, sh};

#[tokio::test(flavor = "multi_thread")]
async fn exceeding_the_memory_limit_is_reported() {
    let world = World::open().await;
    let mut spec = world.spec("hog");
    spec.limits = Limits { memory_bytes: Some(32 << 20), ..Limits::default() };
    // Holds what it reads.
    world.run_with(spec, args(&["/bin/tail", "-c", "500000000", "/dev/zero"])).await;
    let exit = world.exit("hog").await;
    assert_eq!(exit.status, ExitStatus::Signal(9));
    assert!(exit.oom_killed);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_is_an_oom_kill_too_and_its_parent_goes_on() {
    let world = World::open().await;
    let mut spec = world.spec("child");
    spec.limits = Limits { memory_bytes: Some(32 << 20), ..Limits::default() };
    world.run_with(spec, sh("tail -c 500000000 /dev/zero; echo status $?; exit 5")).await;
    let exit = world.exit("child").await;
    assert_eq!((exit.status, exit.oom_killed), (ExitStatus::Code(5), true));
    assert_eq!(world.log("child", LogStream::Stdout).await, "status 137\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_limit_holds_a_fork_bomb() {
    let world = World::open().await;
    let mut spec = world.spec("bomb");
    spec.limits = Limits { pids: Some(5), ..Limits::default() };
    // The shell is one, so four more fit. `wait` would wait for ever.
    let script = "for i in 1 2 3 4; do sleep 1000 & done; echo four; sleep 1000 & echo five";
    world.run_with(spec, sh(script)).await;
    let exit = world.exit("bomb").await;
    let (out, errors) =
        (world.log("bomb", LogStream::Stdout).await, world.log("bomb", LogStream::Stderr).await);
    assert_eq!(out, "four\n");
    assert!(errors.contains("can't fork"), "{errors}");
    assert_ne!(exit.status, ExitStatus::Code(0));
    world.close().await;
}

/// In each hierarchy that limits or that a service manager kills by, nothing of a container is left
/// in the group of the node that made it.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_container_leaves_the_groups_of_its_node() {
    let world = World::open().await;
    world.run("c", "sleep 1000 & sleep 1000").await;
    let parent = &world.config.cgroup_parent;
    let app = world.pid("c");
    let init = parent_of(app);
    let mut waited = Duration::ZERO;
    for (pid, is_shim) in [(app, false), (init, false), (parent_of(init), true)] {
        let wrong = loop {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let wrong = misplaced(&groups, parent, is_shim);
            // The shim's group of version 2 is joined a moment later.
            if wrong.is_empty() || !is_shim || waited > PATIENCE {
                break wrong;
            }
            waited += Duration::from_millis(10);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(wrong, Vec::<String>::new(), "of process {pid}");
    }
    world.close().await;
}

/// The lines of /proc/pid/cgroup (cgroups(7)) that name another group than they should.
fn misplaced(groups: &str, parent: &str, is_shim: bool) -> Vec<String> {
    let version_1_too = groups.lines().any(|line| line.contains(":memory:"));
    let is_wrong = |line: &&str| {
        let (controllers, group) = line.split_once(':').unwrap().1.split_once(':').unwrap();
        let of_manager = controllers == "name=systemd" || controllers.is_empty() && version_1_too;
        let limits =
            ["memory", "pids", "cpu"].iter().any(|it| controllers.split(',').any(|c| c == *it))
                || controllers.is_empty();
        let wanted = match (is_shim || of_manager, limits || of_manager) {
            (_, false) => return false,
            (true, true) => format!("/{parent}/shims"),
            (false, true) => format!("/{parent}/containers/c"),
        };
        group != wanted
    };
    groups.lines().filter(is_wrong).map(str::to_owned).collect()
}

fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn use_is_counted() {
    let world = World::open().await;
    let mut spec = world.spec("stats");
    spec.limits = Limits {
        memory_bytes: Some(64 << 20),
        pids: Some(20),
        cpu_shares: Some(512),
        ..Limits::default()
    };
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo up; sleep 1000";
    world.run_with(spec, sh(script)).await;
    world.line("stats", "up").await;
    let stats = world.runtime().stats(&id("stats")).unwrap();
    assert!((10_000..64 << 20).contains(&stats.memory_bytes), "{stats:?}");
    assert!(stats.cpu_ns > 1_000_000, "{stats:?}");
    assert!((2..=3).contains(&stats.pids), "init, shell, and sleep if it was quick: {stats:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logs_too_fast_is_told_and_not_heard_for_a_second() {
    let world = World::open().await;
    let mut spec = world.spec("flood");
    let bytes_per_second = Some(2000);
    spec.limits.log_rate = LogRate { bytes_per_second, lines_per_second: None };
    // Lines of 100 bytes, on either output; what the container waits for is time.
    let script = "line=$(printf '%099d' 0); i=0
        while [ $i -lt 100 ]; do echo 1$line; echo 2$line >&2; i=$((i+1)); done
        sleep 1.2; echo heard again";
    world.run_with(spec, sh(script)).await;
    world.exit("flood").await;
    let out = world.log("flood", LogStream::Stdout).await;
    let all = out.clone() + &world.log("flood", LogStream::Stderr).await;
    let passed = all.lines().filter(|line| line.len() == 100).count();
    // What comes back while it writes is a little more, on a slow machine.
    assert!((20..60).contains(&passed), "{passed} lines: {all}");
    let notice = "app instance exceeded log rate limit (2000 bytes/sec)";
    assert!(out.lines().any(|line| line == notice), "{out}");
    assert!(out.ends_with("heard again\n"), "{out}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_files_are_limited_by_the_process() {
    let world = World::open().await;
    let process = Process { nofile: Some(99), ..sh("ulimit -n; ulimit -Hn") };
    world.run_with(world.spec("nofile"), process).await;
    world.exit("nofile").await;
    assert_eq!(world.log("nofile", LogStream::Stdout).await, "99\n99\n");
    world.close().await;
}
