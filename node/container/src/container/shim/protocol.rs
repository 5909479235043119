//! What node, shim and init say to each other.
//!
//! Node and shim exchange lines of JSON over a stream socket; shim and init exchange one JSON
//! value per packet.
//! A shim can be older than the node that finds it: variants are only ever added.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::cgroup::Joins;
use super::super::disk::Writable;
use super::super::log_rate::LogRate;
use super::super::logs::{LogPosition, LogStream};
use super::super::mounts::Mount;
use super::super::process::{Launch, ProcessState};
use super::super::spec::ExitStatus;

/// Everything a shim needs to know to build its container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct Setup {
    /// The container's directory, with `writable`, `layers`, `rootfs`, `log` and `shim.lock` in
    /// it.
    pub dir: PathBuf,
    pub writable: Writable,
    pub layers: Vec<PathBuf>,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    pub hostname: String,
    /// First host id of the container, and how many there are.
    pub id_base: u32,
    pub id_count: u32,
    /// Whether it stays in the host's user namespace, with what that gives.
    #[serde(default)]
    pub privileged: bool,
    pub cgroups: Joins,
    pub oom_counter: PathBuf,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub nameservers: Vec<IpAddr>,
    pub log_bytes_max: u64,
    pub log_rate: LogRate,
}

/// What the node says to the shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) enum ToShim {
    /// The first message of all: build the container. Who says it is told of every process.
    Setup(Box<Setup>),
    /// The network namespace has its link.
    Connected,
    /// Answered by `Status`. Who says it is told of every process from then on.
    Status,
    /// Answered by `Launched`, `LaunchFailed` or `Exists`, to be asked on a connection of its own:
    /// with the answer come our ends of the process's standard files, as descriptors.
    Launch(Box<Launch>),
    /// Send this signal to every process of the app.
    Signal(i32),
    /// Send this signal to a process and its group, if it runs.
    SignalProcess { name: String, signal: i32 },
    /// Forget a process that has ended.
    Forget { name: String },
    /// Kill everything.
    Kill,
    /// Answered by `LogEnd` as soon as the log reaches beyond this.
    AwaitLog(LogPosition),
    /// Add a line to the log.
    Log { at_ns: u64, stream: LogStream, source: String, text: String },
}

/// What the shim says to the node.
/// When it closes the connection of a `Setup` or `Status`, the container has ended and `exit.json`
/// says how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) enum FromShim {
    /// This process holds the new network namespace, until `Connected`.
    Namespaces {
        pid: u32,
    },
    /// The container is built.
    Created {
        /// On the host.
        init_pid: u32,
    },
    /// It could not be built; the shim is gone.
    Failed(String),
    Status {
        /// The container's init, on the host.
        init_pid: u32,
        /// The first process that was started, whether it still runs or not.
        first: Option<Running>,
        /// All that are remembered.
        processes: BTreeMap<String, ProcessState>,
    },
    Launched,
    LaunchFailed(String),
    /// A process of that name was started before.
    Exists,
    /// A process was started, or has ended.
    Process {
        name: String,
        state: ProcessState,
    },
    LogEnd(LogPosition),
}

/// The first process of the app.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in super::super) struct Running {
    /// On the host.
    pub pid: u32,
    pub since_ms: u64,
}

/// What the shim says to the container's init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToInit {
    /// You are in your cgroups: go on.
    Go,
    /// You have an `eth0`: go on.
    Connected,
    /// A file with the `Launch` as JSON comes along, and unless it is to have a terminal or
    /// nothing, its two outputs and perhaps its input. Answered before the next is looked at.
    Start,
    /// To every process.
    Signal(i32),
    SignalProcess {
        name: String,
        signal: i32,
    },
}

/// What the container's init says to the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromInit {
    /// The container is built.
    Ready,
    Failed(String),
    /// The master side of the new process's terminal comes along.
    Terminal,
    /// Said by the new process itself, before it becomes the app: the kernel tells the
    /// receiver its process id.
    Spawned,
    Started,
    StartFailed(String),
    /// A process that was started has ended.
    Exited {
        name: String,
        status: ExitStatus,
    },
}
