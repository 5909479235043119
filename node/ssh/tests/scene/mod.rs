//! A proxy, OpenSSH's daemon behind it, and OpenSSH's clients before it, on loopback.

mod daemon;

use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command as StdCommand, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ssh::{Directory, HostKey, Login, NotFound, Proxy, Settings, Target};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;

pub(crate) use self::daemon::curt;

pub(crate) const PASSWORD: &str = "pass word";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Knows the instance `app/0`.
#[derive(Clone)]
pub(crate) struct OneApp(Arc<Mutex<Target>>);

impl Directory for OneApp {
    fn find(&self, login: &Login) -> Result<Target, NotFound> {
        match (login.process_guid.as_str(), login.index) {
            ("app", 0) => Ok(self.0.lock().unwrap().clone()),
            ("app", _) => Err(NotFound::NoInstance),
            ("routeless", _) => Err(NotFound::NoRoute),
            _ => Err(NotFound::NoApp),
        }
    }
}

pub(crate) struct Scene {
    pub(crate) dir: TempDir,
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    target: OneApp,
    daemon: Child,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Says what it hears, at this port.
pub(crate) async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    port
}

fn keygen(path: &Path, words: &[&str]) {
    let mut command = StdCommand::new("ssh-keygen");
    let made = command.args(["-q", "-N", "", "-f"]).arg(path).args(words).status();
    assert!(made.expect("Debian's openssh-client is installed").success());
}

fn start_daemon(dir: &Path, port: u16) -> Child {
    let at = |name: &str| dir.join(name).display().to_string();
    keygen(&dir.join("daemon_key"), &["-t", "rsa"]);
    // As Diego makes them: PKCS#1.
    keygen(&dir.join("user_key"), &["-t", "rsa", "-m", "PEM"]);
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
         StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nAcceptEnv LC_*\n\
         PidFile none\nMaxSessions 100\nSubsystem sftp internal-sftp\n",
        at("daemon_key"),
        at("user_key.pub"),
    );
    fs::write(dir.join("sshd_config"), config).unwrap();
    // Where it locks itself up, which a service would make.
    let _ = fs::create_dir_all("/run/sshd");
    let mut command = StdCommand::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
    let log = fs::File::create(dir.join("sshd.log")).unwrap();
    let child = command.stdin(Stdio::null()).stderr(log).spawn();
    let child = child.expect("Debian's openssh-server is installed");
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = fs::read_to_string(dir.join("sshd.log")).unwrap();
        assert!(Instant::now() < deadline, "{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

impl Scene {
    pub(crate) fn settings() -> Settings {
        Settings { refusal: Duration::from_millis(10), ..Settings::default() }
    }

    pub(crate) async fn new() -> Self {
        Self::with(Self::settings()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let daemon = start_daemon(dir.path(), port);
        let user = StdCommand::new("id").arg("-un").output().unwrap().stdout;
        let target = OneApp(Arc::new(Mutex::new(Target {
            address: SocketAddrV4::new([127, 0, 0, 1].into(), port),
            host_fingerprint: String::new(),
            user: String::from_utf8(user).unwrap().trim().to_owned(),
            password: String::new(),
            private_key: fs::read_to_string(dir.path().join("user_key")).unwrap(),
        })));
        let key = HostKey::read_or_make(&dir.path().join("proxy_key")).unwrap();
        let proxy = Proxy::new(&key, PASSWORD, settings, target.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(proxy.clone().serve(listener));
        let known = format!("[127.0.0.1]:{} {}\n", address.port(), key.public());
        fs::write(dir.path().join("known_hosts"), known).unwrap();
        let ask = dir.path().join("askpass");
        fs::write(&ask, "#!/bin/sh\nprintf '%s\\n' \"$GAVEL_PASSWORD\"\n").unwrap();
        fs::set_permissions(&ask, fs::Permissions::from_mode(0o700)).unwrap();
        Self { dir, proxy, address, target, daemon }
    }

    /// Another key for the user, whom the daemon lets in by it.
    pub(crate) fn user_key(&self, words: &[&str]) {
        let path = self.dir.path().join("user_key");
        let _ = fs::remove_file(&path);
        keygen(&path, words);
        self.route(|route| route.private_key = fs::read_to_string(&path).unwrap());
    }

    pub(crate) fn route(&self, change: impl FnOnce(&mut Target)) {
        change(&mut self.target.0.lock().unwrap());
    }

    /// Of OpenSSH's daemon, one for each connection.
    pub(crate) fn daemons(&self) -> usize {
        let pid = self.daemon.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().count()
    }

    /// The daemon's, as `ssh-keygen` shows them, and SHA-1 as Diego writes it.
    pub(crate) fn fingerprints(&self) -> Vec<String> {
        let key = self.dir.path().join("daemon_key.pub");
        ["md5", "sha1", "sha256"]
            .iter()
            .map(|form| {
                let mut command = StdCommand::new("ssh-keygen");
                let shown = command.args(["-l", "-E", form, "-f"]).arg(&key).output().unwrap();
                let shown = String::from_utf8(shown.stdout).unwrap();
                let shown = shown.split(' ').nth(1).unwrap();
                let (name, text) = shown.split_once(':').unwrap();
                if name == "SHA1" { hexadecimal(text) } else { text.to_owned() }
            })
            .collect()
    }

    /// One of OpenSSH's programs, which goes to the instance.
    pub(crate) fn command(&self, program: &str, words: &[&str]) -> Command {
        self.command_as(program, "diego:app/0", PASSWORD, words)
    }

    fn command_as(&self, program: &str, user: &str, password: &str, words: &[&str]) -> Command {
        let at = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(program);
        command
            .env("SSH_ASKPASS", at("askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("GAVEL_PASSWORD", password)
            .env_remove("SSH_AUTH_SOCK")
            .args(["-F", "none", "-o", "StrictHostKeyChecking=yes"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", at("known_hosts").display()))
            .args(["-o", "PreferredAuthentications=password"])
            .args(["-o", "LogLevel=INFO", "-o", &format!("User={user}")])
            .args(["-o", &format!("Port={}", self.address.port())])
            .kill_on_drop(true);
        if program == "ssh" {
            // Which takes options behind the host too.
            command.arg("127.0.0.1");
        }
        command.args(words);
        command
    }

    pub(crate) async fn run(
        &self,
        program: &str,
        words: &[&str],
        input: &[u8],
    ) -> (Option<i32>, String, String) {
        finish(self.command(program, words), input.to_vec()).await
    }

    pub(crate) async fn ssh(&self, words: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
        self.run("ssh", words, input).await
    }

    pub(crate) async fn ssh_as(
        &self,
        user: &str,
        password: &str,
        words: &[&str],
    ) -> (Option<i32>, String, String) {
        finish(self.command_as("ssh", user, password, words), Vec::new()).await
    }

    pub(crate) async fn ssh_bytes(&self, words: &[&str], input: Vec<u8>) -> Vec<u8> {
        outcome(self.command("ssh", words), input).await.stdout
    }
}

async fn outcome(mut command: Command, input: Vec<u8>) -> std::process::Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("Debian's openssh-client is installed");
    let mut stdin = child.stdin.take().unwrap();
    let told = tokio::spawn(async move {
        // It may have gone before it has heard all.
        let _ = stdin.write_all(&input).await;
    });
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    told.abort();
    output.expect("it ends").unwrap()
}

async fn finish(command: Command, input: Vec<u8>) -> (Option<i32>, String, String) {
    let output = outcome(command, input).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn hexadecimal(base64: &str) -> String {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = String::new();
    for digit in base64.chars() {
        let value = DIGITS.find(digit).unwrap();
        bits.push_str(&format!("{value:06b}"));
    }
    let byte = |at: usize| u8::from_str_radix(&bits[at * 8..at * 8 + 8], 2).unwrap();
    (0..bits.len() / 8).map(|at| format!("{:02x}", byte(at))).collect::<Vec<_>>().join(":")
}
