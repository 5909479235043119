//! Nodes that are started one by one, each by a file of its own, as on machines of their own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::cluster::program;
use crate::eventually;
use crate::host::Host;

/// How long nodes may take to follow one of them.
const READY_MAX: Duration = Duration::from_secs(60);
/// How many there are.
pub const NODES: u16 = 3;

/// `gavel node`, three times.
#[derive(Debug)]
pub struct Nodes {
    host: Host,
    port: u16,
    running: Vec<Child>,
}

impl Nodes {
    /// A host with no node on it yet.
    #[must_use]
    pub fn new() -> Self {
        // As for `Cluster`: what is not in a namespace differs between those that run at a time.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 10;
        let port = 7600 + number * NODES;
        let mut host = Host::new();
        for at in 0..NODES {
            host.owns_cgroup(format!("gavel/node-{}", port + at));
        }
        Self { host, port, running: Vec::new() }
    }

    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// `HOST:PORT` of the first, the second or the third.
    #[must_use]
    pub fn endpoint(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.port + number - 1)
    }

    /// A node's file, with further lines of `[cell]` and whole tables.
    ///
    /// # Panics
    ///
    /// The directory cannot be written to.
    #[must_use]
    pub fn configure(&self, number: u16, listen: &str, cell: &str, tables: &str) -> PathBuf {
        let dir = self.host.dir();
        let mut text = format!(
            "node_id = {number}\nname = \"node-{number}\"\nlisten = \"{listen}\"\n\
             advertise = \"{}\"\ndata_dir = \"{}/node-{number}\"\nstop_containers_on_exit = true\n",
            self.endpoint(number),
            dir.display()
        );
        for member in 1..=NODES {
            let address = self.endpoint(member);
            let _ = write!(
                text,
                "[[members]]\nnode_id = {member}\nname = \"node-{member}\"\naddress = \"{address}\"\n"
            );
        }
        let port = self.port + number - 1;
        let (first, last) = (62_000 + number * 100, 62_099 + number * 100);
        let id = 0x6000_0000 + 0x0400_0000 * u32::from(number);
        let _ = write!(
            text,
            "[cell]\nmemory_mb = 2000\ndisk_mb = 2000\nbridge = \"gvl{port}\"\n\
             subnet = \"10.90.{number}.0/24\"\nhost_ports = [{first}, {last}]\n\
             first_host_id = {id}\ncgroup = \"gavel/node-{port}\"\n{cell}\n{tables}\n"
        );
        let path = dir.join(format!("node-{number}.toml"));
        fs::write(&path, text).expect("the directory is ours");
        path
    }

    /// Starts a node; it ends with this.
    ///
    /// # Panics
    ///
    /// It does not start.
    pub fn start(&mut self, config: &PathBuf) {
        let said = File::create(config.with_extension("log")).expect("the directory is ours");
        let mut command = self.host.command(program());
        command.args(["node", "--config"]).arg(config).stderr(said);
        self.running.push(command.spawn().expect("nsenter (Debian: util-linux) starts"));
    }

    /// A client command at these nodes, not started yet.
    pub fn gavel(&self, words: &[&str]) -> Command {
        let endpoints: Vec<String> = (1..=NODES).map(|number| self.endpoint(number)).collect();
        let mut command = self.host.command(program());
        command.args(words).env("GAVEL_ENDPOINTS", endpoints.join(","));
        command
    }

    /// Waits until all cells take work, as this client sees it.
    ///
    /// # Panics
    ///
    /// They do not for too long; with what the nodes have said.
    pub fn until_ready(&self, client: impl Fn(&[&str]) -> Command) {
        eventually("three cells take work", READY_MAX, || {
            let output = client(&["cells", "--json"]).output().expect("nsenter starts");
            let cells = String::from_utf8_lossy(&output.stdout).lines().count();
            if cells == usize::from(NODES) { Ok(()) } else { Err(self.said(&output.stderr)) }
        });
    }

    fn said(&self, stderr: &[u8]) -> String {
        let mut said = String::from_utf8_lossy(stderr).into_owned();
        for number in 1..=NODES {
            let log = self.host.dir().join(format!("node-{number}.log"));
            said.push_str(&fs::read_to_string(log).unwrap_or_default());
        }
        said
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.running {
            // Ended already, where a test has done so.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}
