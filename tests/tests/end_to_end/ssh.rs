//! Diego's SSH proxy, with OpenSSH's client before it and OpenSSH's daemon behind it, in a container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::eventually;
use tests::nodes::{NODES, Nodes};
use tests::registry::{REGISTRY, Registry, SSHD};

const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "pass word";

/// Where a node's proxy is.
fn port(number: u16) -> u16 {
    2200 + number
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A key as Diego makes them, in PKCS#1; its public half is beside it.
fn keygen(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-t", "rsa", "-m", "PEM", "-f"]).arg(path);
    assert!(command.status().expect("Debian: openssh-client").success());
}

/// MD5 in hexadecimal with colons, which Diego writes into routes.
fn fingerprint(public: &Path) -> String {
    let shown = Command::new("ssh-keygen").args(["-l", "-E", "md5", "-f"]).arg(public).output();
    let shown = text(&shown.expect("Debian: openssh-client").stdout);
    let word = shown.split(' ').nth(1).and_then(|word| word.strip_prefix("MD5:"));
    word.unwrap_or_else(|| panic!("{shown}")).to_owned()
}

/// Three nodes that are proxies with one key, and who visits them.
struct Scene {
    nodes: Nodes,
    dir: PathBuf,
}

impl Scene {
    fn start() -> Self {
        let mut nodes = Nodes::new();
        let dir = nodes.host().dir().to_owned();
        for key in ["proxy", "daemon", "user"] {
            keygen(&dir.join(key));
        }
        let mut known = String::new();
        let public = fs::read_to_string(dir.join("proxy.pub")).expect("it was made");
        for number in 1..=NODES {
            known.push_str(&format!("[127.0.0.1]:{} {public}", port(number)));
            let proxy = format!(
                "[ssh_proxy]\nlisten = \"127.0.0.1:{}\"\npassword = \"{PASSWORD}\"\n\
                 host_key = \"{}\"",
                port(number),
                dir.join("proxy").display()
            );
            let config = nodes.configure(number, &nodes.endpoint(number), "", &proxy);
            // There is a password in it.
            fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("it is ours");
            nodes.start(&config);
        }
        fs::write(dir.join("known_hosts"), known).expect("the directory is ours");
        let ask = dir.join("askpass");
        fs::write(&ask, "#!/bin/sh\nprintf '%s\\n' \"$GAVEL_PASSWORD\"\n").expect("it is ours");
        fs::set_permissions(&ask, fs::Permissions::from_mode(0o700)).expect("it is ours");
        nodes.until_ready(|words| nodes.gavel(words));
        Self { nodes, dir }
    }

    fn gavel(&self, words: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            self.nodes.gavel(words).output().expect("nsenter starts");
        assert!(status.success(), "{words:?}: {}{}", text(&stdout), text(&stderr));
        text(&stdout)
    }

    /// The route of the daemon in the image.
    fn route(&self) -> Value {
        json!({
            "container_port": 2222,
            "host_fingerprint": fingerprint(&self.dir.join("daemon.pub")),
            "user": "vcap",
            "private_key": fs::read_to_string(self.dir.join("user")).expect("it was made"),
        })
    }

    /// What a visitor is told who runs a command by way of a node: status, output, errors.
    fn visit(
        &self,
        number: u16,
        login: &str,
        password: &str,
        words: &str,
    ) -> (i32, String, String) {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut ssh = self.nodes.host().command("ssh");
        ssh.env("SSH_ASKPASS", at("askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("GAVEL_PASSWORD", password)
            .env_remove("SSH_AUTH_SOCK")
            .args(["-F", "none", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", at("known_hosts"))])
            .args(["-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1"])
            .args(["-p", &port(number).to_string(), "-l", login, "127.0.0.1", words])
            .stdin(Stdio::null());
        let Output { status, stdout, stderr } = ssh.output().expect("nsenter starts");
        (status.code().expect("it exits"), text(&stdout), text(&stderr))
    }
}

#[test]
fn visitors_of_any_node_reach_the_daemon_in_the_container_that_they_name() {
    let scene = Scene::start();
    scene.gavel(&["enable-feature-flag", "diego_docker"]);
    {
        let registry = Registry::start(scene.nodes.host());
        registry.push_sshd("sshd", &scene.dir.join("daemon"), &scene.dir.join("user.pub"));
        let desired = json!({
            "process_guid": "daemon",
            "domain": "test",
            "rootfs": format!("docker://{REGISTRY}/sshd"),
            "instances": 3,
            "memory_mb": 64,
            "disk_mb": 64,
            "ports": [2222],
            "action": {"run": {"path": SSHD[0], "args": SSHD[1..], "user": "vcap"}},
            "check_definition": {"checks": [{"tcp_check": {"port": 2222}}]},
            "routes": {"diego-ssh": scene.route()},
        });
        scene.gavel(&["create-desired-lrp", &desired.to_string()]);
        eventually("three daemons run", PATIENCE, || {
            let rows = scene.gavel(&["actual-lrps", "--json"]);
            let running = rows.lines().filter(|row| row.contains("RUNNING")).count();
            if running == 3 { Ok(()) } else { Err(rows) }
        });
    }
    a_command_runs_in_the_instance_that_is_named(&scene);
    who_may_not_come_in_is_sent_away(&scene);
}

fn a_command_runs_in_the_instance_that_is_named(scene: &Scene) {
    for number in 1..=NODES {
        let index = number - 1;
        let login = format!("diego:daemon/{index}");
        let words = format!("id -un; touch /tmp/was-in-{index}; echo moin >&2; exit 7");
        let done = scene.visit(number, &login, PASSWORD, &words);
        assert_eq!(done, (7, "vcap\n".to_owned(), "moin\n".to_owned()), "by node {number}");
    }
    // Each has only its own: every proxy leads to every cell, and to the right one.
    for number in 1..=NODES {
        for index in 0..3 {
            let login = format!("diego:daemon/{index}");
            let done = scene.visit(number, &login, PASSWORD, "ls /tmp");
            assert_eq!(done, (0, format!("was-in-{index}\n"), String::new()), "by node {number}");
        }
    }
}

fn who_may_not_come_in_is_sent_away(scene: &Scene) {
    for (login, password) in [
        ("diego:daemon/0", "wrong"),
        ("diego:daemon/3", PASSWORD),
        ("diego:nobody/0", PASSWORD),
        ("cf:daemon/0", PASSWORD),
        ("vcap", PASSWORD),
    ] {
        let (status, said, error) = scene.visit(2, login, password, "id");
        assert_eq!((status, said.as_str()), (255, ""), "{login}: {error}");
        assert!(error.contains("Permission denied"), "{login}: {error}");
    }
    // A daemon that is not the one that the route names gets nobody.
    let mut route = scene.route();
    route["host_fingerprint"] = json!("00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff");
    let update = json!({"routes": {"diego-ssh": route}});
    scene.gavel(&["update-desired-lrp", "daemon", &update.to_string()]);
    eventually("it is taken for another daemon", PATIENCE, || {
        let (status, _, error) = scene.visit(3, "diego:daemon/1", PASSWORD, "id");
        let is_told = status == 255 && error.contains("host key");
        if is_told { Ok(()) } else { Err(format!("{status}: {error}")) }
    });
    scene.gavel(&["delete-desired-lrp", "daemon"]);
    eventually("nobody is led to what is gone", PATIENCE, || {
        let (status, _, error) = scene.visit(1, "diego:daemon/0", PASSWORD, "id");
        let is_refused = status == 255 && error.contains("Permission denied");
        if is_refused { Ok(()) } else { Err(format!("{status}: {error}")) }
    });
}
