//! A runtime with a neighbour in it, and what attackers are given.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use container::container::{
    ContainerSpec, ContainerState, DiskEnforcement, DiskLimit, DiskScope, Exit, Limits, LogStream,
    Process,
};

use super::world::{World, args, command, id, sh};

/// How long the neighbour may take to answer. Unharmed it takes a few milliseconds; the rest is
/// for machines with other work.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(20);

const SECRET: &str = "the neighbour's own";

/// What the neighbour's program gets, in `attack/exhaust.rs`.
const ORDINARY: &str =
    "inotify done\nsignal done\ntimer done\nqueue done\nfile done\nprocess done\n";

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) neighbour: Ipv4Addr,
}

impl Scene {
    pub(crate) async fn open() -> Self {
        let world = World::open_with(|config| config.disk = DiskEnforcement::Detect).await;
        add_attack(&world.layer());
        let script = format!(
            "mkdir -p /srv/cgi-bin; echo \"{SECRET}\" >/srv/secret; chmod 600 /srv/secret
             printf '#!/bin/sh\\necho Content-Type: text/plain; echo; exec /attack ordinary\\n' \
                >/srv/cgi-bin/ordinary
             chmod 755 /srv/cgi-bin/ordinary; httpd -p 8080 -h /srv; echo up; sleep 100000"
        );
        let spec = limited(world.spec("neighbour"));
        let neighbour = world.run_with(spec, sh(&script)).await.address;
        world.line("neighbour", "up").await;
        let scene = Self { world, neighbour };
        scene.check().await;
        scene
    }

    /// That the neighbour has not noticed.
    pub(crate) async fn check(&self) {
        let info = self.world.runtime().get(&id("neighbour")).unwrap();
        assert!(matches!(info.state, ContainerState::Running { .. }), "{info:?}");
        let address = SocketAddr::from((self.neighbour, 8080));
        for (path, wanted) in
            [("/secret", format!("{SECRET}\n")), ("/cgi-bin/ordinary", ORDINARY.to_owned())]
        {
            let begun = Instant::now();
            let body = tokio::task::spawn_blocking(move || get(address, path)).await.unwrap();
            assert_eq!(body.unwrap(), wanted, "{path}");
            assert!(begun.elapsed() < ANSWER_MAX, "{path} took {:?}", begun.elapsed());
        }
    }

    /// Runs a shell script as an attacker to its end; its exit, and its standard output.
    pub(crate) async fn attack(&self, name: &str, script: &str) -> (Exit, String) {
        self.start(name, sh(script)).await;
        self.end(name).await
    }

    /// Starts an attacker with ordinary limits.
    pub(crate) async fn start(&self, name: &str, process: Process) {
        self.start_with(limited(self.world.spec(name)), process).await;
    }

    pub(crate) async fn start_with(&self, spec: ContainerSpec, process: Process) {
        self.world.run_with(spec, process).await;
    }

    pub(crate) async fn end(&self, name: &str) -> (Exit, String) {
        let exit = self.world.exit(name).await;
        (exit, self.world.log(name, LogStream::Stdout).await)
    }

    /// Runs an attack that takes all of something and holds it; how much it got.
    pub(crate) async fn take(&self, name: &str, what: &str) -> u64 {
        let process = Process { nofile: Some(1024), ..args(&["/attack", what]) };
        self.start(name, process).await;
        let line = self.world.find_line(name, |line| line.starts_with("had "), "had ").await;
        line.strip_prefix("had ").unwrap().parse().unwrap()
    }

    pub(crate) async fn close(self) {
        self.check().await;
        self.world.close().await;
    }
}

pub(crate) fn limited(mut spec: ContainerSpec) -> ContainerSpec {
    spec.limits = Limits {
        memory_bytes: Some(64 << 20),
        pids: Some(64),
        cpu_shares: Some(1024),
        disk: Some(DiskLimit { bytes: 16 << 20, scope: DiskScope::Exclusive }),
        inodes: Some(1000),
        ..Limits::default()
    };
    spec
}

/// Puts the attack program into a layer, with the libraries that it is linked with.
fn add_attack(layer: &Path) {
    let program = Path::new(env!("CARGO_BIN_EXE_container-test-attack"));
    fs::copy(program, layer.join("attack")).unwrap();
    for word in command("ldd", &[program.to_str().unwrap()]).split_whitespace() {
        if let Some(relative) = word.strip_prefix('/') {
            let to = layer.join(relative);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(word, to).unwrap();
        }
    }
}

/// The body of what a server of HTTP/1.0 answers.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    // A program's own head has plain line ends.
    let answer = answer.replace('\r', "");
    let (_, body) = answer.split_once("\n\n").unwrap_or(("", &answer));
    Ok(body.to_owned())
}

/// A file of the host's own, with what is in it and how it looks, to be compared afterwards.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
    changed: (i64, i64),
}

impl Witness {
    pub(crate) fn of(path: &Path) -> Self {
        let meta = fs::metadata(path).unwrap();
        Self {
            path: path.to_owned(),
            content: fs::read(path).unwrap(),
            mode: meta.permissions().mode(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    pub(crate) fn unchanged(&self) {
        assert_eq!(Self::of(&self.path), *self);
    }
}
