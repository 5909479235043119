//! Ways into containers: commands, terminals and ports, from any node.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use tests::cluster::{Cluster, Instance};
use tests::eventually;
use tests::registry::{REGISTRY, Registry};
use tests::terminal::Terminal;

/// How long what is expected may take to be seen.
const PATIENCE: Duration = Duration::from_secs(30);

/// `shell`, an app of three instances with busybox in its image, one on each cell.
fn with_shell(cluster: &Cluster) -> Vec<Instance> {
    let registry = Registry::start(cluster.host());
    registry.push("shell", "oci");
    let image = format!("{REGISTRY}/shell");
    let _ = cluster.done(&["push", "shell", "-o", &image, "-i", "3"]);
    let instances = cluster.instances("shell", 3);
    let _ = cluster.answers("shell", 3);
    instances
}

/// What a command does with this input, asked of one node.
fn run(cluster: &Cluster, node: &str, words: &[&str], input: &[u8]) -> Output {
    let mut child = cluster
        .gavel(words)
        .env("GAVEL_ENDPOINTS", cluster.endpoint(node))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter starts");
    let (mut stdin, input) = (child.stdin.take().expect("it is piped"), input.to_vec());
    // It may end before it has read all.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    child.wait_with_output().expect("it is ours")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn eventually_gone(cluster: &Cluster, instance: &Instance, words: &str) {
    let container = format!("lrp-{}", instance.instance_guid);
    eventually(&format!("{words} is gone"), PATIENCE, || {
        match cluster.host().processes_of_container(&container, words).len() {
            0 => Ok(()),
            count => Err(format!("{count} run")),
        }
    });
}

fn eventually_there(cluster: &Cluster, instance: &Instance, words: &str) {
    let container = format!("lrp-{}", instance.instance_guid);
    eventually(&format!("{words} runs"), PATIENCE, || {
        match cluster.host().processes_of_container(&container, words).len() {
            0 => Err("it does not".to_owned()),
            _ => Ok(()),
        }
    });
}

#[test]
fn commands_terminals_and_ports_of_any_instance_are_reached_by_any_node() {
    let cluster = Cluster::start();
    with_shell(&cluster);
    commands_are_as_if_they_ran_here(&cluster);
    what_cannot_be_is_said(&cluster);
    a_terminal_is_the_processes_own(&cluster);
    ports_are_brought_here(&cluster);
}

fn commands_are_as_if_they_ran_here(cluster: &Cluster) {
    for node in ["node-1", "node-2", "node-3"] {
        for index in 0..3 {
            let script = "echo $CF_INSTANCE_INDEX $GREETING $(id -u) $(pwd); echo oops >&2; exit 3";
            let instance = format!("shell/{index}");
            let done = run(cluster, node, &["exec", &instance, "--", "sh", "-c", script], b"");
            assert_eq!(text(&done.stdout), format!("{index} moin 1234 /app\n"), "{done:?}");
            assert_eq!((text(&done.stderr).as_str(), done.status.code()), ("oops\n", Some(3)));
        }
    }
    let exec = |words: &[&str], input: &[u8]| {
        let words = [&["exec", "shell/1", "--"], words].concat();
        run(cluster, "node-1", &words, input)
    };
    assert_eq!(text(&exec(&["tr", "a-z", "A-Z"], b"hello").stdout), "HELLO");
    // More than all windows and pipes together hold, there and back, each byte once.
    let long: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let back = exec(&["busybox", "cat"], &long);
    assert!(back.stdout == long, "{} bytes: {}", back.stdout.len(), text(&back.stderr));
    let deaf = exec(&["sh", "-c", "exec <&-; echo done"], &long);
    assert_eq!((text(&deaf.stdout).as_str(), deaf.status.code()), ("done\n", Some(0)));
    // What has ended is over, although a child of it holds its output open.
    let parent = exec(&["sh", "-c", "busybox sleep 3333 & echo parent"], b"");
    assert_eq!((text(&parent.stdout).as_str(), parent.status.code()), ("parent\n", Some(0)));
    let killed = exec(&["sh", "-c", "kill -9 $$"], b"");
    assert_eq!(killed.status.code(), Some(137));
    assert_eq!(text(&killed.stderr), "shell/1: killed by signal 9\n");
    let root = run(cluster, "node-2", &["exec", "shell", "--user", "root", "--", "id", "-u"], b"");
    assert_eq!(text(&root.stdout), "0\n", "{root:?}");
    let line = run(cluster, "node-2", &["ssh", "shell/2", "-c", "echo $CF_INSTANCE_INDEX"], b"");
    assert_eq!(text(&line.stdout), "2\n", "{line:?}");
    let shell = run(cluster, "node-3", &["ssh", "shell/2"], b"echo $USER\nexit 4\n");
    assert_eq!((text(&shell.stdout).as_str(), shell.status.code()), ("web\n", Some(4)));
    a_signal_reaches_the_command(cluster);

    let logs = cluster.done(&["logs", "shell", "--recent"]);
    for expected in [
        "Successful remote access by 127.0.0.1:",
        ": exec: tr a-z A-Z",
        "Remote access ended for 127.0.0.1:",
        ": exec as root: id -u: exited with status 0 after ",
        ": killed by signal 9 after ",
    ] {
        assert!(logs.contains(expected), "{expected}: {logs}");
    }
}

fn a_signal_reaches_the_command(cluster: &Cluster) {
    let script = "trap 'echo bye; exit 9' INT; echo ready; while :; do busybox sleep 0.05; done";
    let mut child = cluster
        .gavel(&["exec", "shell/2", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter starts");
    let mut said = [0; 6];
    let stdout = child.stdout.as_mut().expect("it is piped");
    stdout.read_exact(&mut said).expect("it says so");
    assert_eq!(&said, b"ready\n");
    for pid in cluster.host().processes("exec shell/2 --") {
        kill(pid, Signal::SIGINT).expect("it runs");
    }
    let done = child.wait_with_output().expect("it is ours");
    assert_eq!((text(&done.stdout).as_str(), done.status.code()), ("bye\n", Some(9)));
}

fn what_cannot_be_is_said(cluster: &Cluster) {
    let unplaced = r#"{"process_guid":"unplaced","domain":"d","rootfs":"docker:///127.0.0.1:5000/shell",
        "rootfs_digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "instances":1,"memory_mb":900000,"action":{"run":{"path":"/app","user":"root"}}}"#;
    let _ = cluster.done(&["create-desired-lrp", unplaced]);
    for (words, expected) in [
        (&["nobody", "--", "ls"][..], "ResourceNotFound: desired LRP nobody could not be found"),
        (&["shell/9", "--", "ls"], "ResourceNotFound: actual LRP shell/9 could not be found"),
        (&["unplaced", "--", "ls"], "unplaced/0 does not run: it is UNCLAIMED"),
        (&["shell/0", "--", "/no/such"], "execute \"/no/such\": No such file"),
        (&["shell/1", "--user", "ghost", "--", "sh"], "user \"ghost\" is not in"),
    ] {
        let words = [&["exec"], words].concat();
        let failed = run(cluster, "node-1", &words, b"");
        assert_eq!(failed.status.code(), Some(1), "{words:?}: {failed:?}");
        assert!(text(&failed.stderr).contains(expected), "{words:?}: {}", text(&failed.stderr));
    }
    let _ = cluster.done(&["delete-desired-lrp", "unplaced"]);
    let nobody = cluster
        .gavel(&["exec", "shell", "--", "ls"])
        .env("GAVEL_ENDPOINTS", "127.0.0.1:1")
        .output()
        .expect("nsenter starts");
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
}

fn a_terminal_is_the_processes_own(cluster: &Cluster) {
    let mut terminal = Terminal::start(&cluster.gavel(&["exec", "shell/1", "--", "sh"]), 31, 97);
    terminal.press("busybox stty size; echo $TERM; busybox tty\n");
    terminal.shows("31 97\r\nxterm-256color\r\n/dev/pts/0\r\n");
    assert!(!terminal.is_cooked());
    terminal.resize(40, 120);
    // It gets there beside what is typed: asked too early, the answer is the old one.
    eventually("the size is 40 120", PATIENCE, || {
        terminal.press("busybox stty size\n");
        std::thread::sleep(Duration::from_millis(100));
        let shown = terminal.shown();
        if shown.contains("40 120\r\n") { Ok(()) } else { Err(shown) }
    });
    // Ctrl-C ends what is in front, and not the shell.
    terminal.press("echo before; busybox sleep 1000\n");
    terminal.shows("\r\nbefore\r\n");
    terminal.press("\x03");
    terminal.press("echo it was $?\n");
    terminal.shows("it was 130");
    terminal.press("exit 7\n");
    assert_eq!(terminal.ended().code(), Some(7));
    assert!(terminal.is_cooked(), "as it was before");

    // Ctrl-D ends a shell, which is bash where there is one.
    let mut terminal = Terminal::start(&cluster.gavel(&["ssh", "shell/2"]), 24, 80);
    terminal.press("echo index $CF_INSTANCE_INDEX\n");
    terminal.shows("index 2");
    terminal.press("\x04");
    assert_eq!(terminal.ended().code(), Some(0));
}

/// A command that goes on in the background, and is ended with its test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ports_are_brought_here(cluster: &Cluster) {
    let background = |words: &[&str]| {
        let mut command = cluster.gavel(words);
        Background(
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter starts"),
        )
    };
    let serve = "mkdir -p /tmp/w; echo inside >/tmp/w/index.html; \
                 exec busybox httpd -f -p 127.0.0.1:9090 -h /tmp/w";
    let _inside = background(&["exec", "shell/1", "--", "sh", "-c", serve]);
    let forward = ["ssh", "shell/1", "-N"];
    let rules = ["-L", "9000:8080", "-L", "127.0.0.1:9001:9090", "-L", "9002:localhost:9090"];
    let refused = ["-L", "9003:4444"];
    let _forward = background(&[&forward[..], &rules, &refused].concat());
    let get = |port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually(&format!("{address} answers"), PATIENCE, || {
            cluster.host().http_get(address, "/")
        })
    };
    assert!(get(9000).contains("index 1\n"));
    assert_eq!(get(9001), "inside\n");
    assert_eq!(get(9002), "inside\n");
    // Many at once, and one after the other: none stays.
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(get(9001), "inside\n"));
        }
    });
    for _ in 0..100 {
        assert_eq!(get(9001), "inside\n");
    }
    let refused = SocketAddr::from(([127, 0, 0, 1], 9003));
    assert!(cluster.host().http_get(refused, "/").is_err());
    let taken = cluster.fails(&["ssh", "shell/1", "-N", "-L", "9000:8080"]);
    assert!(taken.contains("cannot listen on 127.0.0.1:9000: "), "{taken}");
}

#[test]
fn who_has_gone_leaves_no_process_and_a_node_that_restarts_no_session() {
    let cluster = Cluster::start();
    let instances = with_shell(&cluster);
    // One that ends when it is asked to, one that does not, and one at a terminal: on each cell,
    // so that some are reached by way of another node.
    for (instance, number) in instances.iter().zip([4711, 4721, 4731]) {
        let name = format!("shell/{}", instance.index);
        let [mild, stubborn, typed] =
            [0, 1, 2].map(|offset| format!("busybox sleep {}", number + offset));
        let exec = |line: &str| {
            cluster
                .gavel(&["exec", &name, "--", "sh", "-c", line])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("nsenter starts")
        };
        let mut clients =
            [exec(&format!("{mild}; true")), exec(&format!("trap '' TERM HUP; {stubborn}; true"))];
        let mut terminal = Terminal::start(&cluster.gavel(&["ssh", &name]), 24, 80);
        terminal.press(&format!("{typed}\n"));
        for words in [&mild, &stubborn, &typed] {
            eventually_there(&cluster, instance, words);
        }
        for line in [format!("exec {name}"), format!("ssh {name}")] {
            for pid in cluster.host().processes(&line) {
                kill(pid, Signal::SIGKILL).unwrap();
            }
        }
        for words in [&mild, &stubborn, &typed] {
            eventually_gone(&cluster, instance, words);
        }
        for client in &mut clients {
            client.wait().unwrap();
        }
        terminal.ended();
    }
    a_node_that_is_killed_ends_sessions_and_no_app(&cluster, &instances);
}

fn a_node_that_is_killed_ends_sessions_and_no_app(cluster: &Cluster, instances: &[Instance]) {
    let instance = &instances[0];
    let line = "trap '' HUP; echo here; busybox sleep 4799; true";
    let mut child = cluster
        .gavel(&["exec", "shell/0", "--", "sh", "-c", line])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter starts");
    // A client that has not heard that its process runs would ask another node.
    let mut heard = [0; 5];
    child.stdout.as_mut().expect("it is piped").read_exact(&mut heard).expect("it says so");
    assert_eq!(&heard, b"here\n");
    eventually_there(cluster, instance, "busybox sleep 4799");
    cluster.kill_node(&instance.cell_id);
    let lost = child.wait_with_output().expect("it is ours");
    assert_eq!(lost.status.code(), Some(1), "{lost:?}");
    assert!(text(&lost.stderr).contains("the connection was lost"), "{lost:?}");
    eventually_gone(cluster, instance, "busybox sleep 4799");
    assert_eq!(cluster.instances("shell", 3), instances);
    let again = run(cluster, "node-1", &["ssh", "shell/0", "-c", "echo again"], b"");
    assert_eq!(text(&again.stdout), "again\n", "{again:?}");
}
