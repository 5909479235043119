//! What node, shim and init say to each other.
//!
//! Node and shim exchange lines of JSON over a stream socket; shim and init exchange one JSON
//! value per packet.
//! A shim can be older than the node that finds it: variants are only ever added.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::logs::LogPosition;
use super::super::spec::{ExitStatus, Process};

/// Everything a shim needs to know to build its container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct Setup {
    /// The container's directory, with `upper`, `work`, `layers`, `rootfs`, `log` and
    /// `shim.lock` in it.
    pub dir: PathBuf,
    pub layers: Vec<PathBuf>,
    pub hostname: String,
    /// First host id of the container, and how many there are.
    pub id_base: u32,
    pub id_count: u32,
    pub shim_cgroups: Vec<PathBuf>,
    pub container_cgroups: Vec<PathBuf>,
    pub oom_counter: PathBuf,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    pub nameservers: Vec<IpAddr>,
    pub log_bytes_max: u64,
}

/// What the node says to the shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) enum ToShim {
    /// The first message of all: build the container.
    Setup(Box<Setup>),
    /// The network namespace has its link.
    Connected,
    /// Answered by `Status`.
    Status,
    /// Answered by `Started` or `StartFailed`.
    Start(Process),
    /// Send this signal to every process of the app.
    Signal(i32),
    /// Kill everything.
    Kill,
    /// Answered by `LogEnd` as soon as the log reaches beyond this.
    AwaitLog(LogPosition),
}

/// What the shim says to the node.
/// When it closes the connection, the container has ended and `exit.json` says how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) enum FromShim {
    /// This process holds the new network namespace, until `Connected`.
    Namespaces {
        pid: u32,
    },
    /// The container is built.
    Created,
    /// It could not be built; the shim is gone.
    Failed(String),
    /// Whether the app's process was started, and when.
    Status {
        running: Option<Running>,
    },
    Started(Running),
    StartFailed(String),
    LogEnd(LogPosition),
}

/// The app's main process.
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
    /// Three descriptors come along: a file with the process as JSON, and its two outputs.
    Start,
    Signal(i32),
}

/// What the container's init says to the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromInit {
    /// The container is built.
    Ready,
    Failed(String),
    /// Said by the new process itself, before it becomes the app: the kernel tells the
    /// receiver its process id.
    Spawned,
    Started,
    StartFailed(String),
    /// The app's main process ended.
    Exited(ExitStatus),
}
