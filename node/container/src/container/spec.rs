//! What a container is: what is asked for, what there is, and how it ended.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::limits::Limits;
use super::mounts::{self, Mount};
use super::network::EgressRule;
use crate::limits::{CONTAINER_ID_BYTES_MAX, CONTAINER_PORTS_MAX, EGRESS_RULES_MAX, LAYERS_MAX};

/// Names one container on this machine; also the name of its directory and its cgroups.
///
/// 1 to 128 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit, so that it is always one
/// component of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks the rules above.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        let invalid = |reason: &str| Error::Invalid {
            what: format!("container id {id:?}"),
            reason: reason.to_owned(),
        };
        if id.len() > CONTAINER_ID_BYTES_MAX {
            return Err(invalid("longer than 128 bytes"));
        }
        if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(invalid("does not begin with a letter or digit"));
        }
        if !id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(invalid("has a character that is not a letter, digit, '.', '_' or '-'"));
        }
        Ok(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = Error;
    fn from_str(id: &str) -> Result<Self> {
        Self::new(id)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = Error;
    fn try_from(id: String) -> Result<Self> {
        Self::new(id)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// A container to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name, new on this runtime.
    pub id: ContainerId,
    /// Directories of the root file system, lowest first, with files owned by the image's own
    /// user ids (0 to 65535).
    /// They are never written to and may be shared by any number of containers.
    pub layers: Vec<PathBuf>,
    /// What the layers take on disk: counted by [`DiskScope::Total`](super::DiskScope::Total).
    #[serde(default)]
    pub image_bytes: u64,
    /// What else it sees, in this order: a later one may lie in an earlier one.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// What the container calls itself.
    pub hostname: String,
    /// Whether it is garden's privileged container: its root is the host's, with nearly all
    /// capabilities, every system call and nothing masked. It can take its machine over; only a
    /// runtime that is [configured so](super::RuntimeConfig::privileged) makes it.
    #[serde(default)]
    pub privileged: bool,
    /// What it may use.
    pub limits: Limits,
    /// TCP ports to publish, each on a host port of the runtime's choice.
    pub ports: Vec<u16>,
    /// What it may reach besides what the node's policy lets all containers.
    #[serde(default)]
    pub egress: Vec<EgressRule>,
    /// The caller's own notes, kept and listed, never interpreted.
    pub labels: BTreeMap<String, String>,
}

impl ContainerSpec {
    pub(super) fn validate(&self) -> Result<()> {
        let invalid =
            |reason: String| Err(Error::Invalid { what: format!("container {}", self.id), reason });
        if self.layers.is_empty() {
            return invalid("it has no layers".to_owned());
        }
        if self.layers.len() > LAYERS_MAX {
            return invalid(format!("{} layers, {LAYERS_MAX} at most", self.layers.len()));
        }
        if let Some(layer) = self.layers.iter().find(|layer| !layer.is_absolute()) {
            return invalid(format!("layer {} is not an absolute path", layer.display()));
        }
        // 64 bytes: Linux's HOST_NAME_MAX.
        if self.hostname.is_empty() || self.hostname.len() > 64 {
            return invalid(format!("host name {:?} is not of 1 to 64 bytes", self.hostname));
        }
        if !self.hostname.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return invalid(format!("host name {:?} has a forbidden character", self.hostname));
        }
        if self.ports.len() > CONTAINER_PORTS_MAX {
            return invalid(format!("{} ports, {CONTAINER_PORTS_MAX} at most", self.ports.len()));
        }
        if let Some(fault) = mounts::fault(&self.mounts) {
            return invalid(fault);
        }
        if self.ports.contains(&0) {
            return invalid("port 0 cannot be published".to_owned());
        }
        let rules = self.egress.iter().map(EgressRule::size).fold(0, usize::saturating_add);
        if rules > EGRESS_RULES_MAX {
            return invalid(format!(
                "its egress rules have {rules} pairs of destination and port, \
                 {EGRESS_RULES_MAX} at most"
            ));
        }
        Ok(())
    }
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// What the app listens on.
    pub container: u16,
    /// Where the host offers it, on each of its own addresses and on 127.0.0.1.
    pub host: u16,
}

/// What there is of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Its name.
    pub id: ContainerId,
    /// How far it got.
    pub state: ContainerState,
    /// Its own address on the node's bridge.
    pub address: Ipv4Addr,
    /// Its published ports, in the order asked for.
    pub ports: Vec<PortMapping>,
    /// The host's user and group id of the container's root; 0 of a privileged one.
    pub id_base: u32,
    /// The caller's notes.
    pub labels: BTreeMap<String, String>,
}

/// How far a container got; it only moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Everything is set up; no process of the app yet.
    Created,
    /// Processes were started in it; this is the first.
    Running {
        /// Its process id on the host.
        pid: u32,
        /// When it started, milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// Nothing of it runs any more; its files, log and address are kept until it is destroyed.
    Exited(Exit),
}

impl ContainerState {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Exited(_) => "exited",
        }
    }
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What the app's main process answered.
    pub status: ExitStatus,
    /// Whether the kernel killed any of the container's processes for want of memory.
    pub oom_killed: bool,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What a process answered at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It ended with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The one number that a shell, and Diego, would show: a signal is 128 and its number.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// What a container uses right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory in bytes, without the page cache that the kernel would give up first.
    pub memory_bytes: u64,
    /// Processor time since the start, in nanoseconds.
    pub cpu_ns: u64,
    /// Tasks, the container's init included.
    pub pids: u64,
    /// Bytes on disk that the container has written; `None` where nothing counts them: see
    /// [`DiskEnforcement`](super::DiskEnforcement).
    pub disk_bytes: Option<u64>,
    /// Inodes that it has made; `None` as for `disk_bytes`.
    pub inodes: Option<u64>,
    /// Milliseconds since it was made; `None` once it has exited.
    pub age_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_path_component() {
        for good in ["a", "0", "app-1.web_2", &"x".repeat(128)] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a\0", "ä", &"x".repeat(129)] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<ContainerId>("\"../x\"").is_err());
    }
}
