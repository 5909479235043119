//! `gavel dev` on a host, and the client commands typed at it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::eventually;
use crate::host::Host;

/// How long a cluster may take to take work, or to stop.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long instances may take to be as they should.
const CONVERGED_MAX: Duration = Duration::from_secs(60);
/// The sample that `gavel dev` offers.
pub const SAMPLE: &str = "127.0.0.1:7450/hello";

/// A cluster of three nodes on a machine of its own.
#[derive(Debug)]
pub struct Cluster {
    host: Host,
    port: u16,
    options: Vec<String>,
    dev: Option<Child>,
}

/// One instance of an app that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub index: u64,
    pub instance_guid: String,
    pub cell_id: String,
    /// Where its first port is reached.
    pub address: SocketAddr,
}

impl Cluster {
    /// A cluster that takes work.
    ///
    /// # Panics
    ///
    /// It does not come about; with what it said.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Cluster::start`], with further options of `gavel dev`.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        // The cgroup trees are this machine's, and the places in them follow from the port: those
        // of clusters that run at the same time differ, and all differ from the usual one's.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 10;
        Self::start_at(7470 + number * 3, options)
    }

    /// Beside the clusters of tests that run at the same time, whose places in the cgroup trees it
    /// does not take: for a bench, one at a time.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start_apart() -> Self {
        Self::start_at(7500, &[])
    }

    fn start_at(port: u16, options: &[&str]) -> Self {
        let mut host = Host::new();
        for node in 0..3 {
            let place = (port + node - 7440) % 50 + 1;
            host.owns_cgroup(format!("gavel/dev-{place}"));
        }
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut cluster = Self { host, port, options, dev: None };
        cluster.resume();
        cluster
    }

    /// Starts `gavel dev` on what is there, and waits until it takes work.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    pub fn resume(&mut self) {
        assert!(self.dev.is_none(), "it runs");
        let said = self.host.dir().join("dev.out");
        let out = File::create(&said).expect("the directory is ours");
        let dev = self
            .host
            .command(program())
            .args(["dev", "--port", &self.port.to_string()])
            .args(&self.options)
            .stdout(out.try_clone().expect("an open file"))
            .stderr(out)
            .spawn()
            .expect("nsenter (Debian: util-linux) starts");
        let dev = self.dev.insert(dev);
        eventually("gavel dev takes work", READY_MAX, || {
            let said = fs::read_to_string(&said).unwrap_or_default();
            if let Ok(Some(status)) = dev.try_wait() {
                panic!("gavel dev ended with {status}:\n{said}");
            }
            if said.contains("takes work") { Ok(()) } else { Err(said) }
        });
    }

    /// Ctrl-C, and the wait until everything has stopped.
    ///
    /// # Panics
    ///
    /// It does not stop, or not well.
    pub fn interrupt(&mut self) {
        let mut dev = self.dev.take().expect("it runs");
        for pid in self.host.processes("dev --port") {
            kill(pid, Signal::SIGINT).expect("it runs");
        }
        let status = eventually("gavel dev stops", READY_MAX, || {
            dev.try_wait().ok().flatten().ok_or_else(|| "it runs".to_owned())
        });
        assert!(status.success(), "{status}: {}", self.said());
    }

    /// SIGKILL for `gavel dev` and all nodes at once, as when a machine loses its power but for
    /// its disk's cache. The containers go on.
    ///
    /// # Panics
    ///
    /// They do not end.
    pub fn kill_all(&mut self) {
        let mut dev = self.dev.take().expect("it runs");
        // The nodes first: one that outlives gavel dev is asked to stop, and stops its containers.
        let mut pids = self.host.processes("node --config");
        pids.extend(self.host.processes("dev --port"));
        for pid in pids {
            kill(pid, Signal::SIGKILL).expect("it runs");
        }
        dev.wait().expect("it is ours");
        eventually("the nodes are gone", READY_MAX, || {
            match self.host.processes("node --config").len() {
                0 => Ok(()),
                count => Err(format!("{count} run")),
            }
        });
    }

    /// SIGKILL for one node; `gavel dev` starts it again.
    ///
    /// # Panics
    ///
    /// It does not run.
    pub fn kill_node(&self, name: &str) {
        let pid = self.node_process(name);
        kill(pid, Signal::SIGKILL).expect("it runs");
        eventually("the node is gone", READY_MAX, || {
            if self.host.processes(&format!("/{name}.toml")).contains(&pid) {
                Err(pid.to_string())
            } else {
                Ok(())
            }
        });
    }

    /// Signals one node.
    ///
    /// # Panics
    ///
    /// It does not run.
    pub fn signal_node(&self, name: &str, signal: Signal) {
        kill(self.node_process(name), signal).expect("it runs");
    }

    fn node_process(&self, name: &str) -> Pid {
        eventually("the node runs", READY_MAX, || {
            let pids = self.host.processes(&format!("/{name}.toml"));
            pids.first().copied().ok_or_else(|| "no such process".to_owned())
        })
    }

    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What a node keeps: `node-1` has its own directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.host.dir().join("gavel-data")
    }

    /// What `gavel dev` has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.host.dir().join("dev.out")).unwrap_or_default()
    }

    /// A client command, not started yet.
    pub fn gavel(&self, words: &[&str]) -> Command {
        let port = self.port;
        let endpoints = format!("127.0.0.1:{port},127.0.0.1:{},127.0.0.1:{}", port + 1, port + 2);
        let mut command = self.host.command(program());
        command.args(words).env("GAVEL_ENDPOINTS", endpoints);
        command
    }

    /// What a client command prints.
    ///
    /// # Panics
    ///
    /// It fails; with what it says.
    #[must_use]
    pub fn done(&self, words: &[&str]) -> String {
        let Said { status, stdout, stderr } = self.output(words);
        assert!(status.success(), "gavel {}: {status}\n{stdout}{stderr}", words.join(" "));
        stdout
    }

    /// What a client command says that is refused or fails, with exit status 1.
    ///
    /// # Panics
    ///
    /// It ends otherwise.
    #[must_use]
    pub fn fails(&self, words: &[&str]) -> String {
        let Said { status, stdout, stderr } = self.output(words);
        assert_eq!(status.code(), Some(1), "gavel {}:\n{stdout}{stderr}", words.join(" "));
        stderr
    }

    fn output(&self, words: &[&str]) -> Said {
        let output: Output = self
            .gavel(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("nsenter starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The objects of a command with `--json`.
    ///
    /// # Panics
    ///
    /// It fails, or prints something else.
    #[must_use]
    pub fn json(&self, words: &[&str]) -> Vec<Value> {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let text = self.done(&words);
        text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }

    /// `HOST:PORT` of a node.
    ///
    /// # Panics
    ///
    /// There is no such node.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> String {
        let number: u16 = name.strip_prefix("node-").and_then(|n| n.parse().ok()).expect("node-N");
        format!("127.0.0.1:{}", self.port + number - 1)
    }

    /// Who leads, by name.
    ///
    /// # Panics
    ///
    /// Nobody does for too long.
    #[must_use]
    pub fn leader(&self) -> String {
        eventually("somebody leads", READY_MAX, || {
            let status = self.json(&["cluster", "status"]).remove(0);
            let leader = status["leader"].as_u64().ok_or_else(|| status.to_string())?;
            Ok(format!("node-{leader}"))
        })
    }

    /// The instances of an app that run now; of one index there may be several.
    ///
    /// # Panics
    ///
    /// As [`Cluster::json`].
    #[must_use]
    pub fn running(&self, app: &str) -> Vec<Instance> {
        self.json(&["actual-lrps", "-p", app]).iter().filter_map(instance).collect()
    }

    /// Waits until so many instances of an app run, and no others are there.
    ///
    /// # Panics
    ///
    /// They do not for too long.
    #[must_use]
    pub fn instances(&self, app: &str, count: usize) -> Vec<Instance> {
        eventually(&format!("{count} instances of {app} run"), CONVERGED_MAX, || {
            let rows = self.json(&["actual-lrps", "-p", app]);
            let running: Vec<Instance> = rows.iter().filter_map(instance).collect();
            if running.len() == count && rows.len() == count {
                Ok(running)
            } else {
                Err(rows.iter().map(|row| format!("{row}\n")).collect())
            }
        })
    }

    /// Waits until every instance of an app answers HTTP, and returns what each says.
    ///
    /// # Panics
    ///
    /// They do not for too long.
    #[must_use]
    pub fn answers(&self, app: &str, count: usize) -> Vec<String> {
        let instances = self.instances(app, count);
        let answer = |instance: &Instance| {
            eventually(&format!("{app}/{} answers", instance.index), CONVERGED_MAX, || {
                self.host.http_get(instance.address, "/")
            })
        };
        instances.iter().map(answer).collect()
    }
}

#[derive(Debug)]
struct Said {
    status: std::process::ExitStatus,
    stdout: String,
    stderr: String,
}

/// The instance in a row of `actual-lrps` if it runs.
fn instance(row: &Value) -> Option<Instance> {
    if row["state"] != "RUNNING" {
        return None;
    }
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    let (address, port) = (text("address")?, &row["ports"][0]["host_port"]);
    Some(Instance {
        index: row["index"].as_u64()?,
        instance_guid: text("instance_guid")?,
        cell_id: text("cell_id")?,
        address: format!("{address}:{port}").parse().ok()?,
    })
}

/// The program under test: beside this one, or where `GAVEL` says.
///
/// # Panics
///
/// There is none.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("GAVEL") {
        return program.into();
    }
    let this = std::env::current_exe().expect("Linux tells");
    let dir = this.parent().and_then(Path::parent).expect("target/PROFILE/deps/this");
    let program = dir.join("gavel");
    assert!(program.exists(), "{} is missing: cargo build -p gavel", program.display());
    program
}
