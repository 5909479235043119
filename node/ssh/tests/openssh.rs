//! OpenSSH's client, by way of the proxy, to OpenSSH's daemon.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod scene;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use ssh::Settings;
use ssh::limits::TRIES_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use self::scene::{PASSWORD, PATIENCE, Scene, curt, echo, free_port};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_and_its_end_is_told() {
    let scene = Scene::new().await;
    let done = scene.ssh(&["cat; echo err >&2; exit 7"], b"hello").await;
    assert_eq!(done, (Some(7), "hello".to_owned(), "err\n".to_owned()));
    let done = scene.ssh(&["true"], b"").await;
    assert_eq!(done, (Some(0), String::new(), String::new()));
    // By a signal: the client says 255 for what is no exit status.
    let (status, _, error) = scene.ssh(&["-v", "kill -TERM $$"], b"").await;
    assert_eq!(status, Some(255));
    assert!(error.contains("rtype exit-signal"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_has_a_terminal_and_variables() {
    let scene = Scene::new().await;
    let words = ["-tt", "-o", "SetEnv=LC_GAVEL=yes", "tty; echo $LC_GAVEL; exit 3"];
    let (status, out, _) = scene.ssh(&words, b"").await;
    assert_eq!(status, Some(3));
    let mut lines = out.lines();
    assert!(lines.next().unwrap().starts_with("/dev/pts/"), "{out}");
    assert_eq!(lines.next().unwrap().trim_end(), "yes");
    let (status, out, _) = scene.ssh(&["-tt"], b"echo $((6*7))\nexit 4\n").await;
    assert_eq!(status, Some(4));
    assert!(out.contains("42"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_both_ways() {
    let scene = Scene::new().await;
    let mut bytes = vec![0; 5 << 20];
    rand::rng().fill(&mut bytes[..]);
    let at = |name: &str| scene.dir.path().join(name);
    fs::write(at("here"), &bytes).unwrap();
    // By SFTP, as scp does it now, and by scp's own way.
    for (way, name) in [("-s", "sftp"), ("-O", "scp")] {
        let there = format!("127.0.0.1:{}", at(name).display());
        let here = at("here").display().to_string();
        let back = at("back").display().to_string();
        let (status, _, error) = scene.run("scp", &["-q", way, &here, &there], b"").await;
        assert_eq!(status, Some(0), "{error}");
        let (status, _, error) = scene.run("scp", &["-q", way, &there, &back], b"").await;
        assert_eq!(status, Some(0), "{error}");
        assert!(fs::read(at("back")).unwrap() == bytes, "{way}");
        fs::remove_file(at("back")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_while_it_is_still_told_holds_nobody_up() {
    let scene = Scene::new().await;
    let mut bytes = vec![0; 48 << 20];
    rand::rng().fill(&mut bytes[..]);
    let out = scene.ssh_bytes(&["cat"], bytes.clone()).await;
    assert!(out == bytes, "{} of {} bytes", out.len(), bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_talks_before_it_listens_is_heard() {
    let scene = Scene::new().await;
    let command = "head -c 30000000 /dev/zero; cat > /dev/null; echo end";
    let out = scene.ssh_bytes(&[command], vec![1; 16 << 20]).await;
    assert_eq!(out.len(), 30_000_004);
    assert!(out.ends_with(b"\0end\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_without_listening_is_over() {
    let scene = Scene::new().await;
    let begun = Instant::now();
    let done = scene.ssh(&["head -c 3; exit 9"], &[b'x'; 32 << 20]).await;
    assert_eq!(done, (Some(9), "xxx".to_owned(), String::new()));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_loses_nothing() {
    let scene = Scene::new().await;
    let mut command = scene.command("ssh", &["head -c 30000000 /dev/zero"]);
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut read = Vec::new();
    tokio::time::timeout(PATIENCE, out.read_to_end(&mut read)).await.unwrap().unwrap();
    assert_eq!(read.len(), 30_000_000);
    assert!(child.wait().await.unwrap().success());
}

async fn echoes(port: u16, word: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
            stream.write_all(word.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
                return answer == word;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_there_and_back() {
    let scene = Scene::new().await;
    let echo = echo().await;
    for way in ["-L", "-R"] {
        let port = free_port();
        let forward = format!("127.0.0.1:{port}:127.0.0.1:{echo}");
        let words = ["-N", "-o", "ExitOnForwardFailure=yes", way, &forward];
        let mut command = scene.command("ssh", &words);
        let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        for word in ["one", "two"] {
            assert!(echoes(port, word).await, "{way} {word}");
        }
        child.kill().await.unwrap();
    }
    let (_, _, error) = scene.ssh(&["-W", "127.0.0.1:1"], b"").await;
    assert!(error.contains("connect failed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_one_connection_do_not_end_each_other() {
    let scene = Scene::new().await;
    let socket = format!("ControlPath={}", scene.dir.path().join("mux").display());
    let mut master = scene.command("ssh", &["-N", "-o", "ControlMaster=yes", "-o", &socket]);
    let mut master = master.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !scene.dir.path().join("mux").exists() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut endless = scene.command("ssh", &["-o", &socket, "yes"]);
    let mut endless = endless.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut some = vec![0; 1 << 20];
    endless.stdout.as_mut().unwrap().read_exact(&mut some).await.unwrap();
    // Beside one that is not read, and after it.
    for word in ["beside", "after"] {
        if word == "after" {
            endless.kill().await.unwrap();
        }
        for _ in 0..5 {
            let done = scene.ssh(&["-o", &socket, "cat"], word.as_bytes()).await;
            assert_eq!(done, (Some(0), word.to_owned(), String::new()));
        }
    }
    master.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_command_is_told_though_its_output_ended_before() {
    let scene = Scene::new().await;
    let command = "echo x; exec >&- 2>&-; sleep 0.3; exit 6";
    assert_eq!(scene.ssh(&[command], b"").await, (Some(6), "x\n".to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_are_answered() {
    let scene = Scene::new().await;
    let words =
        ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1", "sleep 4; echo alive"];
    let (status, out, _) = scene.ssh(&words, b"").await;
    assert_eq!((status, out.as_str()), (Some(0), "alive\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_daemon_than_the_one_that_is_meant_is_not_spoken_to() {
    let scene = Scene::new().await;
    for fingerprint in scene.fingerprints() {
        scene.route(|route| route.host_fingerprint.clone_from(&fingerprint));
        let (status, out, error) = scene.ssh(&["echo in"], b"").await;
        assert_eq!((status, out.as_str()), (Some(0), "in\n"), "{fingerprint}: {error}");
    }
    for mut fingerprint in scene.fingerprints() {
        let last = fingerprint.pop().unwrap();
        fingerprint.push(if last == '0' { '1' } else { '0' });
        scene.route(|route| route.host_fingerprint.clone_from(&fingerprint));
        let (status, out, error) = scene.ssh(&["echo in"], b"").await;
        assert_eq!((status, out.as_str()), (Some(255), ""), "{fingerprint}");
        assert!(error.contains("host key is not the one of the diego-ssh route"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_hears_little() {
    let scene = Scene::new().await;
    let denied = |error: &str| error.contains("Permission denied (password)");
    for user in ["diego:app/1", "diego:other/0", "diego:routeless/0", "cf:app/0", "root"] {
        let (status, _, error) = scene.ssh_as(user, PASSWORD, &["true"]).await;
        assert_eq!(status, Some(255), "{user}");
        assert!(denied(&error), "{user}: {error}");
    }
    let (status, _, error) = scene.ssh_as("diego:app/0", "wrong", &["true"]).await;
    assert_eq!(status, Some(255));
    assert!(denied(&error), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_visitor() {
    let scene = Scene::new().await;
    assert_eq!(scene.ssh(&["true"], b"").await.0, Some(0));
    let mut command = scene.command("ssh", &["yes"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut some = vec![0; 1 << 20];
    child.stdout.as_mut().unwrap().read_exact(&mut some).await.unwrap();
    assert_eq!(scene.daemons(), 1);
    // Without a word.
    child.kill().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while scene.daemons() > 0 {
        assert!(Instant::now() < deadline, "the daemon's connection is closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_not_tried_without_end() {
    let scene = Scene::new().await;
    let words = ["-o", "NumberOfPasswordPrompts=50", "true"];
    let (status, _, error) = scene.ssh_as("diego:app/0", "wrong", &words).await;
    assert_eq!(status, Some(255));
    let tries = error.matches("Permission denied, please try again").count();
    assert!((1..=TRIES_MAX).contains(&tries), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_have_a_key_of_any_kind() {
    let scene = Scene::new().await;
    for words in [
        // Not a whole number of bytes, nor of words.
        &["-t", "rsa", "-b", "2014", "-m", "PEM"][..],
        &["-t", "rsa", "-b", "1024", "-m", "PEM"],
        &["-t", "ecdsa"],
        &["-t", "ed25519"],
    ] {
        scene.user_key(words);
        let (status, out, error) = scene.ssh(&["echo", "in"], b"").await;
        assert_eq!((status, out.as_str()), (Some(0), "in\n"), "{words:?} {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_let_the_proxy_in_is_named() {
    let scene = Scene::new().await;
    scene.route(|route| route.private_key = String::new());
    let (status, _, error) = scene.ssh(&["true"], b"").await;
    assert_eq!(status, Some(255));
    assert!(error.contains("does not let user"), "{error}");
    scene.route(|route| route.private_key = "none".to_owned());
    let (_, _, error) = scene.ssh(&["true"], b"").await;
    assert!(error.contains("private key of the diego-ssh route cannot be read"), "{error}");
    scene.route(|route| route.address.set_port(free_port()));
    let (_, _, error) = scene.ssh(&["true"], b"").await;
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_ended_when_it_is_idle() {
    let idle_max = Duration::from_millis(1500);
    let scene = Scene::with(Settings { idle_max, ..Scene::settings() }).await;
    let begun = Instant::now();
    let (status, _, error) = scene.ssh(&["sleep 60"], b"").await;
    assert_eq!(status, Some(255));
    assert!(error.contains("it was idle"), "{error}");
    assert!(begun.elapsed() >= idle_max && begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_ends_and_says_so() {
    let scene = Scene::new().await;
    let mut command = scene.command("ssh", &["echo in; sleep 60"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut word = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut word).await.unwrap();
    let begun = Instant::now();
    scene.proxy.end().await;
    let done = child.wait_with_output().await.unwrap();
    assert_eq!(done.status.code(), Some(255));
    let error = String::from_utf8(done.stderr).unwrap();
    assert!(error.contains("the proxy ends"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ssh_ends_itself_alone() {
    let login_max = Duration::from_millis(700);
    let scene = Scene::with(Settings { login_max, ..Scene::settings() }).await;
    let mut rubbish = vec![0; 100_000];
    rand::rng().fill(&mut rubbish[..]);
    for first in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"SSH-1.5-x\r\n", b"\0"] {
        let mut stream = TcpStream::connect(scene.address).await.unwrap();
        let mut bytes = first.to_vec();
        bytes.extend_from_slice(&rubbish);
        // It may hang up on the way.
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{first:?}: it is hung up on");
    }
    // Who says nothing, and who does not log in.
    for greeting in [&b""[..], b"SSH-2.0-x\r\n"] {
        let mut stream = TcpStream::connect(scene.address).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{greeting:?}");
    }
    let done = scene.ssh(&["echo in"], b"").await;
    assert_eq!(done, (Some(0), "in\n".to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_closed() {
    let scene = Scene::with(Settings { connections_max: 1, ..Scene::settings() }).await;
    let mut held = TcpStream::connect(scene.address).await.unwrap();
    let mut greeting = [0; 4];
    held.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-");
    let mut second = TcpStream::connect(scene.address).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, second.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"");
    drop(held);
    let deadline = Instant::now() + PATIENCE;
    while scene.ssh(&["true"], b"").await.0 != Some(0) {
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_goes_ends_its_visitors() {
    let scene = Scene::new().await;
    // Something that takes the connection and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    scene.route(|route| route.address.set_port(port));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let (status, _, error) = scene.ssh(&["true"], b"").await;
    assert_eq!(status, Some(255));
    assert!(error.contains("cannot be reached: the daemon"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_s_password_is_given_and_last_words_are_heard() {
    let scene = Scene::new().await;
    let port = curt().await;
    scene.route(|route| {
        route.address.set_port(port);
        route.user = "vcap".to_owned();
        route.private_key = String::new();
        route.password = "secret".to_owned();
    });
    let (status, out, error) = scene.ssh(&["word"], b"").await;
    assert_eq!((status, out.len()), (Some(5), 4000), "{error}");
    scene.route(|route| route.password = "other".to_owned());
    let (status, _, error) = scene.ssh(&["word"], b"").await;
    assert_eq!(status, Some(255));
    assert!(error.contains("does not let user \"vcap\" of the diego-ssh route in"), "{error}");
}
