//! What is kept on disk of a container, so that a node that was killed at any moment finds out
//! at its next start what there was.
//!
//! The record is written before the first side effect and is the last thing to go.
//! It need survive the node's death, not the machine's: after a reboot nothing that it
//! describes is left but files, and a record torn by one reads as "half-made".

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::disk::Place;
use super::error::{Context as _, Error, Result};
use super::network::Attachment;
use super::spec::{ContainerSpec, PortMapping};

/// The name of the socket where a shim listens, in its container's directory.
pub(super) const SOCKET: &str = "shim.sock";

/// How far the making or unmaking got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Side effects may be there in any number.
    Creating,
    /// Everything is there.
    Created,
    /// Side effects may be gone in any number.
    Destroying,
}

/// What a container was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub phase: Phase,
    pub spec: ContainerSpec,
    /// Its number on this node: decides address and user ids.
    pub slot: u32,
    pub address: Ipv4Addr,
    /// First of its range of host ids, which are nobody else's.
    pub id_base: u32,
    pub ports: Vec<PortMapping>,
    /// Where its writable layer is.
    #[serde(default)]
    pub place: Place,
}

impl Record {
    /// The host's user and group id of the container's root.
    pub(super) fn root_id(&self) -> u32 {
        if self.spec.privileged { 0 } else { self.id_base }
    }

    pub(super) fn attachment(&self) -> Attachment {
        Attachment {
            id: self.spec.id.clone(),
            address: self.address,
            ports: self.ports.clone(),
            egress: self.spec.egress.clone(),
        }
    }
}

/// In a container's directory, where the kernel could not show the image's files with the
/// container's ids: copies of them that have an owner and no content.
pub(super) const SHIFTED: &str = "shifted/upper";

/// The files of one container.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub dir: PathBuf,
}

impl Files {
    pub(super) fn record(&self) -> PathBuf {
        self.dir.join("state.json")
    }
    /// Written by the shim when the container has ended.
    pub(super) fn exit(&self) -> PathBuf {
        self.dir.join("exit.json")
    }
    /// Locked by the shim as long as it lives.
    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("shim.lock")
    }
    /// What the shim says if it panics.
    pub(super) fn stderr(&self) -> PathBuf {
        self.dir.join("shim.err")
    }
    /// Where the writable layer is mounted by those that look at it; or is itself.
    pub(super) fn writable(&self) -> PathBuf {
        self.dir.join("writable")
    }
    /// The writable layer's volume, where it has one.
    pub(super) fn volume(&self) -> PathBuf {
        self.dir.join("volume.ext4")
    }
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(super) fn read_record(&self) -> Result<Option<Record>> {
        read_json(&self.record())
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.record();
        write_json(&path, record, false).context(|| format!("write {}", path.display()))
    }
}

/// `None` if the file is absent or not whole.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { what: format!("read {}", path.display()), source }),
    }
}

/// Replaces a file as a whole; `durable` also against the loss of power.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T, durable: bool) -> io::Result<()> {
    let next = path.with_extension("tmp");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&next, path)?;
    if durable && let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// Nanoseconds since the Unix epoch; good until the year 2554.
pub(super) fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
