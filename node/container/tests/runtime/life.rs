//! Start, output, exit, stop, destroy.

use std::fs;
use std::time::{Duration, Instant};

use container::container::{
    ContainerState, Event, ExitStatus, LogPosition, LogStream, Process, Runtime,
};

use super::world::{PATIENCE, World, args, event, id, sh};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_runs_and_its_output_and_exit_are_kept() {
    let world = World::open().await;
    let (exit, out) = world.output("echo", "echo hello; echo oops >&2; exit 7").await;
    assert_eq!(exit.status, ExitStatus::Code(7));
    assert_eq!(exit.status.code(), 7);
    assert!(!exit.oom_killed);
    assert_eq!(out, "hello\n");
    assert_eq!(world.log("echo", LogStream::Stderr).await, "oops\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_an_event_and_in_the_list() {
    let world = World::open().await;
    let mut events = world.runtime().events();
    let mut spec = world.spec("events");
    spec.labels.insert("guid".into(), "abc".into());
    let created = world.runtime().create(spec).await.unwrap();
    assert_eq!(created.state, ContainerState::Created);
    assert_eq!(created.labels["guid"], "abc");
    assert_eq!(world.runtime().list(), std::slice::from_ref(&created));
    assert_eq!(events.next().await, Some(Event::Changed(created)));

    world.runtime().start(&id("events"), sh("echo up; sleep 1000")).await.unwrap();
    // A program has no arguments in /proc before it is loaded whole.
    world.line("events", "up").await;
    let Some(Event::Changed(running)) = events.next().await else { panic!("no change") };
    let ContainerState::Running { pid, .. } = running.state else { panic!("{running:?}") };
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(line.replace('\0', " ").contains("sleep 1000"), "{line:?}");

    world.runtime().stop(&id("events"), Duration::ZERO).await.unwrap();
    let Some(Event::Changed(exited)) = events.next().await else { panic!("no change") };
    assert!(matches!(exited.state, ContainerState::Exited(_)), "{exited:?}");
    world.destroy("events").await;
    assert_eq!(events.next().await, Some(Event::Removed(id("events"))));
    assert_eq!(world.runtime().list(), []);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_from_scratch_needs_no_file_but_its_program() {
    let world = World::open().await;
    let layer = world.path().join("scratch");
    fs::create_dir(&layer).unwrap();
    fs::copy("/bin/busybox", layer.join("busybox")).unwrap();
    let mut spec = world.spec("scratch");
    spec.layers = vec![layer];
    let process = Process { user: "4711:4712".into(), ..args(&["/busybox", "id"]) };
    world.run_with(spec, process).await;
    assert_eq!(world.exit("scratch").await.status, ExitStatus::Code(0));
    assert_eq!(world.log("scratch", LogStream::Stdout).await, "uid=4711 gid=4712 groups=4712\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_stacked_and_never_written_to() {
    let world = World::open().await;
    let upper = world.path().join("upper-layer");
    fs::create_dir_all(upper.join("etc")).unwrap();
    fs::write(upper.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(upper.join("etc/new"), "from above\n").unwrap();
    let mut spec = world.spec("layers");
    spec.layers.push(upper.clone());
    let script = "cat /etc/new /etc/passwd; echo changed >/etc/new; rm /etc/passwd; echo >/x";
    world.run_with(spec, sh(script)).await;
    assert_eq!(world.exit("layers").await.status, ExitStatus::Code(0));
    let out = world.log("layers", LogStream::Stdout).await;
    assert_eq!(out, "from above\nroot:x:0:0::/:/bin/sh\n");
    assert_eq!(fs::read_to_string(upper.join("etc/new")).unwrap(), "from above\n");
    assert!(upper.join("etc/passwd").exists());
    assert!(!upper.join("x").exists() && !world.layer().join("x").exists());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_its_user_directory_and_environment() {
    let world = World::open().await;
    let script = "id; pwd; ls -ld . | cut -d' ' -f1; env | sort; ls -n -d /a | awk '{print $3,$4}'";
    let process = Process {
        user: "web".into(),
        working_dir: Some("/a/b".into()),
        env: vec![("APP".into(), "1".into()), ("APP".into(), "2".into())],
        ..sh(script)
    };
    world.run_with(world.spec("user"), process).await;
    world.exit("user").await;
    assert_eq!(
        world.log("user", LogStream::Stdout).await,
        "uid=1000(web) gid=1000(web) groups=10(wheel),1000(web)\n\
         /a/b\ndrwxr-xr-x\n\
         APP=2\nHOME=/home/web\nPATH=/usr/local/bin:/usr/bin:/bin\nPWD=/a/b\nSHLVL=1\nUSER=web\n\
         1000 1000\n"
    );
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_files_of_the_image_are_replaced() {
    let world = World::open().await;
    let etc = world.layer().join("etc");
    std::os::unix::fs::symlink("/nowhere/resolv.conf", etc.join("resolv.conf")).unwrap();
    let info = world.run("names", "cat /etc/hosts /etc/hostname /etc/resolv.conf; hostname").await;
    world.exit("names").await;
    assert_eq!(
        world.log("names", LogStream::Stdout).await,
        format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{}\tnames\nnames\n\
             nameserver 192.0.2.53\nnames\n",
            info.address
        )
    );
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_lets_an_app_end_by_itself() {
    let world = World::open().await;
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    world.run("polite", script).await;
    world.line("polite", "up").await;
    let before = Instant::now();
    world.runtime().stop(&id("polite"), PATIENCE).await.unwrap();
    assert!(before.elapsed() < PATIENCE / 2);
    let exit = world.exit("polite").await;
    assert_eq!(exit.status, ExitStatus::Code(3));
    assert_eq!(world.log("polite", LogStream::Stdout).await, "up\nbye\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_kills_after_the_grace_what_will_not_end() {
    let world = World::open().await;
    world.run("stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done").await;
    world.line("stubborn", "up").await;
    let (before, grace) = (Instant::now(), Duration::from_millis(300));
    world.runtime().stop(&id("stubborn"), grace).await.unwrap();
    assert!(before.elapsed() >= grace);
    assert_eq!(world.exit("stubborn").await.status, ExitStatus::Signal(9));
    assert_eq!(world.exit("stubborn").await.status.code(), 137);
    // Stopping again is no error and changes nothing.
    world.runtime().stop(&id("stubborn"), grace).await.unwrap();
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_reaches_every_process_of_the_app() {
    let world = World::open().await;
    // The parent's trap comes first: "up" says that both are set.
    let script = "trap 'wait; echo parent; exit' TERM; \
                  (trap 'echo child; exit' TERM; echo up; while :; do sleep 0.05; done) & \
                  while :; do sleep 0.05; done";
    world.run("family", script).await;
    world.line("family", "up").await;
    world.runtime().stop(&id("family"), PATIENCE).await.unwrap();
    assert_eq!(world.log("family", LogStream::Stdout).await, "up\nchild\nparent\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_an_unstarted_container_ends_it() {
    let world = World::open().await;
    world.runtime().create(world.spec("idle")).await.unwrap();
    world.runtime().stop(&id("idle"), PATIENCE).await.unwrap();
    assert_eq!(world.exit("idle").await.status, ExitStatus::Signal(9));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_goes_on_when_nobody_waits_for_it() {
    let world = World::open().await;
    world.run("alone", "trap '' TERM; echo up; while :; do sleep 0.05; done").await;
    world.line("alone", "up").await;
    let stop_id = id("alone");
    let stop = world.runtime().stop(&stop_id, Duration::from_millis(100));
    // Polled once, and dropped.
    assert!(tokio::time::timeout(Duration::from_millis(1), stop).await.is_err());
    assert_eq!(world.exit("alone").await.status, ExitStatus::Signal(9));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_left_behind_die_with_the_main_process() {
    let world = World::open().await;
    // A daemon in a session of its own, that holds the output open.
    world.run("daemon", "setsid sh -c 'echo daemon; sleep 1000' & sleep 0.2; exit 0").await;
    assert_eq!(world.exit("daemon").await.status, ExitStatus::Code(0));
    let traces = world.traces();
    assert!(!traces.iter().any(|trace| trace.starts_with("process")), "{traces:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zombies_are_reaped() {
    let world = World::open().await;
    let script = "for i in 1 2 3 4 5; do (sleep 0.01 & ) ; done; sleep 0.5; \
                  grep -l '^State:.Z' /proc/[0-9]*/status; echo done";
    let (_, out) = world.output("zombies", script).await;
    assert_eq!(out, "done\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_all_lines_as_they_come_and_the_end() {
    let world = World::open().await;
    world.run("follow", "for i in 1 2 3 4 5; do echo line $i; sleep 0.02; done; printf tail").await;
    let read = |runtime: Runtime| async move {
        let (mut lines, mut from) = (Vec::new(), LogPosition::START);
        while let Some(batch) = runtime.logs_follow(&id("follow"), from, 2).await.unwrap() {
            assert!(!batch.lost);
            lines.extend(batch.lines.into_iter().map(|l| String::from_utf8(l.text).unwrap()));
            from = batch.next;
        }
        lines
    };
    let followers =
        async { tokio::join!(read(world.runtime().clone()), read(world.runtime().clone())) };
    let (one, two) = tokio::time::timeout(PATIENCE, followers).await.unwrap();
    assert_eq!(one, ["line 1", "line 2", "line 3", "line 4", "line 5", "tail"]);
    assert_eq!(one, two);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_a_destroyed_container_is_let_go() {
    let world = World::open().await;
    world.run("gone", "sleep 1000").await;
    let (runtime, follow_id) = (world.runtime().clone(), id("gone"));
    let follower = tokio::spawn(async move {
        runtime.logs_follow(&follow_id, LogPosition::START, 1).await.unwrap()
    });
    world.destroy("gone").await;
    assert_eq!(tokio::time::timeout(PATIENCE, follower).await.unwrap().unwrap(), None);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_bounded_on_disk_and_blocks_nobody() {
    let world = World::open().await;
    let script = "yes 0123456789012345678901234567890123456789 | head -c 30000000; echo; echo end";
    let (exit, _) = world.output("flood", script).await;
    assert_eq!(exit.status, ExitStatus::Code(0));
    let log = world.config.dir.join("containers/flood/log");
    let kept: u64 = fs::read_dir(log).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(kept <= world.config.log_bytes_max, "{kept} bytes kept");
    assert!(world.log("flood", LogStream::Stdout).await.ends_with("\nend\n"));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_containers_come_and_go_at_once() {
    let world = World::open().await;
    let lives = (0..10).map(|number| {
        let (runtime, name) = (world.runtime().clone(), format!("many-{number}"));
        let mut spec = world.spec(&name);
        spec.ports = vec![8080, 9090];
        let mut events = runtime.events();
        tokio::spawn(async move {
            let info = runtime.create(spec).await.unwrap();
            runtime.start(&info.id, sh("echo hello; exit 4")).await.unwrap();
            event(&mut events, |event| match event {
                Event::Changed(now) => {
                    now.id == info.id && matches!(now.state, ContainerState::Exited(_))
                }
                Event::Removed(_) | Event::Lagged => false,
            })
            .await;
            let batch = runtime.logs(&info.id, LogPosition::START, 10).await.unwrap();
            assert_eq!(batch.lines[0].text, b"hello");
            runtime.destroy(&info.id).await.unwrap();
            // Twice is as good as once.
            runtime.destroy(&info.id).await.unwrap();
            info
        })
    });
    let mut addresses = std::collections::BTreeSet::new();
    for life in lives.collect::<Vec<_>>() {
        addresses.insert(life.await.unwrap().address);
    }
    assert_eq!(addresses.len(), 10, "each had its own");
    assert_eq!(world.runtime().list(), []);
    assert_eq!(world.traces(), world.network_traces());
    world.close().await;
}
