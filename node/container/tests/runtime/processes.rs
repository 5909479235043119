//! Many processes in one container, and what is done with each.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use container::container::{
    Ends, Error, ExitStatus, Launch, LogPosition, LogStream, Process, ProcessExit, ProcessState,
    Program, Stdio,
};

use super::world::{PATIENCE, World, id, sh};

fn launch(name: &str, process: Process) -> Launch {
    Launch {
        name: name.to_owned(),
        program: Program::Image(process),
        stdio: Stdio::Log { source: format!("APP/{name}") },
        essential: false,
    }
}

async fn ended(world: &World, container: &str, name: &str) -> ProcessExit {
    let container = id(container);
    let ended = world.runtime().process_ended(&container, name);
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends").unwrap()
}

/// Lines of the log as `source: text`.
async fn lines(world: &World, container: &str) -> Vec<String> {
    let batch = world.runtime().logs(&id(container), LogPosition::START, 1000).await.unwrap();
    let line = |line: &container::container::LogLine| {
        format!("{}: {}", line.source, String::from_utf8_lossy(&line.text))
    };
    batch.lines.iter().map(line).collect()
}

/// Starts a process with pipes, gives it its input, and waits until it closes its output.
async fn piped(
    world: &World,
    container: &str,
    name: &str,
    program: Program,
    input: &[u8],
) -> (Vec<u8>, String) {
    let launch = Launch { name: name.to_owned(), program, stdio: Stdio::Pipes, essential: false };
    let ends = world.runtime().launch(&id(container), launch).await.unwrap();
    let Ends::Pipes { mut stdin, mut stdout, mut stderr } = ends else { panic!("{ends:?}") };
    let input = input.to_vec();
    tokio::task::spawn_blocking(move || {
        // It may end before it has read all.
        let _ = stdin.write_all(&input);
        drop(stdin);
        let (mut output, mut errors) = (Vec::new(), String::new());
        stdout.read_to_end(&mut output).unwrap();
        stderr.read_to_string(&mut errors).unwrap();
        (output, errors)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_run_in_one_container_each_with_its_own_end_and_source() {
    let world = World::open().await;
    world.runtime().create(world.spec("many")).await.unwrap();
    for (name, script) in [("one", "echo first; exit 3"), ("two", "echo second; printf rest")] {
        world.runtime().launch(&id("many"), launch(name, sh(script))).await.unwrap();
        ended(&world, "many", name).await;
    }
    assert_eq!(ended(&world, "many", "one").await.status, ExitStatus::Code(3));
    assert_eq!(ended(&world, "many", "two").await.status, ExitStatus::Code(0));
    // In the log before anybody hears of the end, also the line without one.
    let lines = lines(&world, "many").await;
    assert_eq!(lines, ["APP/one: first", "APP/two: second", "APP/two: rest"]);
    // The container goes on, and its processes share it.
    world.runtime().launch(&id("many"), launch("three", sh("echo 3 >/tmp/x"))).await.unwrap();
    ended(&world, "many", "three").await;
    world
        .runtime()
        .launch(&id("many"), launch("four", sh("cat /tmp/x; sleep 1000")))
        .await
        .unwrap();
    world.line("many", "3").await;
    world.runtime().stop(&id("many"), Duration::ZERO).await.unwrap();
    let status = ended(&world, "many", "four").await.status;
    assert!(matches!(status, ExitStatus::Signal(15 | 9)), "{status:?}");
    assert_eq!(ended(&world, "many", "one").await.status, ExitStatus::Code(3));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_free_again_when_its_process_is_forgotten() {
    let world = World::open().await;
    let runtime = world.runtime();
    runtime.create(world.spec("names")).await.unwrap();
    runtime.launch(&id("names"), launch("p", sh("echo one"))).await.unwrap();
    ended(&world, "names", "p").await;
    let again = runtime.launch(&id("names"), launch("p", sh("echo two"))).await;
    assert!(matches!(again, Err(Error::ProcessExists { .. })), "{again:?}");
    // Each round by two connections to the shim, which may overtake one another.
    let mut said = vec!["APP/p: one".to_owned()];
    for round in 0..30 {
        runtime.forget_process(&id("names"), "p").await.unwrap();
        let gone = runtime.process_ended(&id("names"), "p").await;
        assert!(matches!(gone, Err(Error::NoProcess { .. })), "{gone:?}");
        runtime.launch(&id("names"), launch("p", sh(&format!("echo {round}")))).await.unwrap();
        ended(&world, "names", "p").await;
        said.push(format!("APP/p: {round}"));
    }
    assert_eq!(lines(&world, "names").await, said);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_leaves_the_others_alone() {
    let world = World::open().await;
    let runtime = world.runtime();
    runtime.create(world.spec("fails")).await.unwrap();
    runtime.launch(&id("fails"), launch("good", sh("echo up; sleep 1000"))).await.unwrap();
    for (process, reason) in [
        (Process { user: "nobody-here".into(), ..sh("") }, "user \"nobody-here\" is not in"),
        (super::world::args(&["/no/such"]), "execute \"/no/such\": No such file"),
    ] {
        let failed = runtime.launch(&id("fails"), launch("bad", process)).await.unwrap_err();
        assert!(failed.to_string().contains(reason), "{failed}");
    }
    let known = runtime.processes(&id("fails")).unwrap();
    assert_eq!(known.keys().collect::<Vec<_>>(), ["good"]);
    assert!(matches!(known["good"], ProcessState::Running { .. }));
    world.line("fails", "up").await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_one_process_and_its_group_only() {
    let world = World::open().await;
    let runtime = world.runtime();
    runtime.create(world.spec("signals")).await.unwrap();
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    for name in ["left", "right"] {
        runtime.launch(&id("signals"), launch(name, sh(script))).await.unwrap();
    }
    while lines(&world, "signals").await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    runtime.signal_process(&id("signals"), "left", 15).await.unwrap();
    assert_eq!(ended(&world, "signals", "left").await.status, ExitStatus::Code(0));
    assert!(lines(&world, "signals").await.contains(&"APP/left: bye".to_owned()));
    let known = runtime.processes(&id("signals")).unwrap();
    assert!(matches!(known["right"], ProcessState::Running { .. }), "{known:?}");
    // One that has ended is no longer there to be signalled.
    runtime.signal_process(&id("signals"), "left", 9).await.unwrap();
    runtime.signal_process(&id("signals"), "right", 9).await.unwrap();
    assert_eq!(ended(&world, "signals", "right").await.status, ExitStatus::Signal(9));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_lead_to_who_started_it() {
    let world = World::open().await;
    world.runtime().create(world.spec("pipes")).await.unwrap();
    let script = Program::Image(sh("tr a-z A-Z; echo oops >&2"));
    let long = vec![b'x'; 1 << 20];
    let (output, errors) = tokio::time::timeout(PATIENCE, async {
        let echo = piped(&world, "pipes", "short", script.clone(), b"hello").await;
        assert_eq!(echo, (b"HELLO".to_vec(), "oops\n".to_owned()));
        // More than a pipe holds, to one that reads none of it.
        piped(&world, "pipes", "deaf", Program::Image(sh("exec <&-; echo done")), &long).await
    })
    .await
    .unwrap();
    assert_eq!((output, errors), (b"done\n".to_vec(), String::new()));
    assert_eq!(lines(&world, "pipes").await, Vec::<String>::new());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_a_name_and_a_hang_up() {
    let world = World::open().await;
    world.runtime().create(world.spec("tty")).await.unwrap();
    let script = "trap 'exit 5' HUP; tty; stty size; read line; echo got $line; sleep 1000 & wait";
    let launch = Launch {
        name: "sh".to_owned(),
        program: Program::Image(Process { user: "web".into(), ..sh(script) }),
        stdio: Stdio::Terminal { rows: 31, columns: 97 },
        essential: false,
    };
    let ends = world.runtime().launch(&id("tty"), launch).await.unwrap();
    let Ends::Terminal(mut terminal) = ends else { panic!("{ends:?}") };
    let said = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        let mut read_until = |terminal: &mut std::fs::File, wanted: &str| {
            while !String::from_utf8_lossy(&said).contains(wanted) {
                let mut bytes = [0; 256];
                let length = terminal.read(&mut bytes).unwrap();
                said.extend_from_slice(&bytes[..length]);
            }
        };
        // The terminal echoes what is typed wherever that falls, also between a word and the end
        // of its line: so only when both lines are there.
        read_until(&mut terminal, "31 97\r\n");
        terminal.write_all(b"abc\n").unwrap();
        read_until(&mut terminal, "got abc");
        String::from_utf8(said).unwrap()
    });
    let said = tokio::time::timeout(PATIENCE, said).await.unwrap().unwrap();
    assert!(said.starts_with("/dev/pts/0\r\n31 97\r\n"), "{said:?}");
    // Its master side was closed just now.
    assert_eq!(ended(&world, "tty", "sh").await.status, ExitStatus::Code(5));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_unpacked_as_the_user_and_stays_inside() {
    let world = World::open().await;
    world.runtime().create(world.spec("tar")).await.unwrap();
    world.runtime().launch(&id("tar"), launch("own", sh("chown web /home/web"))).await.unwrap();
    ended(&world, "tar", "own").await;
    let unpack = |user: &str, directory: &str| Program::Unpack {
        user: user.to_owned(),
        directory: directory.to_owned(),
    };
    let archive = |path: &str, content: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o751);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap()
    };
    let good = archive("bin/app", b"hello");
    let done = piped(&world, "tar", "good", unpack("web", "app/here"), &good).await;
    assert_eq!(done, (Vec::new(), String::new()));
    assert_eq!(ended(&world, "tar", "good").await.status, ExitStatus::Code(0));
    let look = Program::Image(sh("ls -n /home/web/app/here/bin/app | cut -c1-10,12-24; id -u web"));
    let (seen, _) = piped(&world, "tar", "look", look, b"").await;
    assert!(String::from_utf8_lossy(&seen).starts_with("-rwxr-x--x"), "{seen:?}");
    let owner = Program::Image(sh("stat -c %u:%g /home/web/app/here/bin/app"));
    assert_eq!(piped(&world, "tar", "owner", owner, b"").await.0, b"1000:1000\n");

    // What leads out of the directory is left out; what is broken or forbidden is said.
    let evil = archive("../../escaped", b"x");
    piped(&world, "tar", "evil", unpack("root", "/d"), &evil).await;
    let gone = Program::Image(sh("ls /escaped /d 2>&1; true"));
    let (seen, _) = piped(&world, "tar", "gone", gone, b"").await;
    assert!(String::from_utf8_lossy(&seen).contains("/escaped: No such file"), "{seen:?}");
    for (name, user, directory, bytes, reason) in [
        ("short", "root", "/s", &good[..good.len() / 3], "unpack into /s: "),
        ("rubbish", "root", "/r", &[0x55; 4096][..], "unpack into /r: "),
        ("denied", "web", "/root/x", &good[..], "Permission denied"),
    ] {
        let (_, errors) = piped(&world, "tar", name, unpack(user, directory), bytes).await;
        assert!(errors.contains(reason), "{name}: {errors}");
        assert_eq!(ended(&world, "tar", name).await.status, ExitStatus::Code(1), "{name}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_as_the_user() {
    let world = World::open().await;
    world.runtime().create(world.spec("read")).await.unwrap();
    let script = "mkdir /d /e; echo two >/d/b; echo one >/d/a; mkfifo /d/0; echo s >/root/s; \
                  chmod 700 /root";
    world.runtime().launch(&id("read"), launch("make", sh(script))).await.unwrap();
    ended(&world, "read", "make").await;
    let read = async |name: &str, user: &str, path: &str| {
        let program = Program::ReadFile { user: user.to_owned(), path: path.to_owned() };
        piped(&world, "read", name, program, b"").await
    };
    assert_eq!(read("file", "web", "/d/b").await, (b"two\n".to_vec(), String::new()));
    assert_eq!(read("directory", "web", "/d").await.0, b"one\n");
    for (name, path, reason) in [
        ("empty", "/e", "read /e: no file is in it"),
        ("missing", "/x", "read /x: No such file"),
        ("secret", "/root/s", "Permission denied"),
        ("fifo", "/d/0", "it is not a regular file"),
    ] {
        let (output, errors) = read(name, "web", path).await;
        assert!(output.is_empty() && errors.contains(reason), "{name}: {errors}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_reached_from_inside_its_network() {
    let world = World::open().await;
    let runtime = world.runtime();
    runtime.create(world.spec("probe")).await.unwrap();
    let connect = async |port| runtime.connect(&id("probe"), port).await.unwrap();
    let refused = connect(8080).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let serve = "while :; do echo hi | nc -l -p 8080; done";
    runtime.launch(&id("probe"), launch("nc", sh(serve))).await.unwrap();
    // Its loopback is not this machine's.
    let serve = "exec busybox httpd -f -p 127.0.0.1:8081 -h /tmp";
    runtime.launch(&id("probe"), launch("loopback", sh(serve))).await.unwrap();
    let address = "127.0.0.1:8081".parse().unwrap();
    let connect_to = async || runtime.connect_to(&id("probe"), address).await.unwrap();
    let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    tokio::time::timeout(PATIENCE, async {
        while connect(8080).await.is_err() || connect_to().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_knows_its_processes_notes_and_network() {
    let mut world = World::open().await;
    let name = id("back");
    world.runtime().create(world.spec("back")).await.unwrap();
    world.runtime().launch(&name, launch("over", sh("exit 4"))).await.unwrap();
    ended(&world, "back", "over").await;
    let script = "echo up; while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 6";
    world.runtime().launch(&name, launch("on", sh(script))).await.unwrap();
    world.runtime().log(&name, LogStream::Stderr, "CELL", "two\nlines").await.unwrap();
    world.runtime().set_label(&name, "note", "kept").await.unwrap();
    world.line("back", "lines").await;

    world.reopen().await;
    let info = world.runtime().get(&name).unwrap();
    assert_eq!(info.labels["note"], "kept");
    let known = world.runtime().processes(&name).unwrap();
    assert!(matches!(known["on"], ProcessState::Running { .. }), "{known:?}");
    assert_eq!(ended(&world, "back", "over").await.status, ExitStatus::Code(4));
    let refused = world.runtime().connect(&name, 1).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let again = world.runtime().launch(&name, launch("over", sh("exit 5"))).await;
    assert!(matches!(again, Err(Error::ProcessExists { .. })), "{again:?}");
    // Ends while nobody is there.
    world.runtime().launch(&name, launch("go", sh("sleep 0.1; touch /tmp/go"))).await.unwrap();
    world.forget();
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.reopen().await;
    assert_eq!(ended(&world, "back", "on").await.status, ExitStatus::Code(6));
    let said = lines(&world, "back").await;
    assert!(said.contains(&"CELL: two".to_owned()) && said.contains(&"CELL: lines".to_owned()));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_nobody_polls_on_keeps_no_other_waiting() {
    let world = World::open().await;
    let (runtime, name) = (world.runtime().clone(), id("notes"));
    runtime.create(world.spec("notes")).await.unwrap();
    for number in 0..50_u8 {
        let left = runtime.set_label(&name, "left", "1");
        let mut left = std::pin::pin!(left);
        // Polled once, and held on to.
        let _ = tokio::time::timeout(Duration::ZERO, left.as_mut()).await;
        let next = runtime.set_label(&name, "next", "2");
        tokio::time::timeout(PATIENCE, next).await.expect("it is not kept").unwrap();
        assert_eq!(runtime.get(&name).unwrap().labels["next"], "2", "{number}");
    }
    world.close().await;
}
