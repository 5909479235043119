//! What can go wrong with a container; every message names the thing and the reason.

use std::io;
use std::net::Ipv4Addr;

use super::network::Subnet;
use super::spec::ContainerId;

/// The result of a runtime's verbs.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the container runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's specification or configuration cannot be honoured by any machine.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// What was looked at.
        what: String,
        /// The rule it breaks.
        reason: String,
    },
    /// No container has this id.
    #[error("container {0} not found")]
    NotFound(ContainerId),
    /// A container with this id is there already, or is being made or destroyed.
    #[error("container {0} already exists")]
    AlreadyExists(ContainerId),
    /// The verb does not fit the container's state.
    #[error("container {id} is {state}, not {wanted}")]
    WrongState {
        /// The container.
        id: ContainerId,
        /// What it is.
        state: &'static str,
        /// What the verb needs.
        wanted: &'static str,
    },
    /// Every address of the subnet is taken.
    #[error("no free container address in {subnet}")]
    AddressesExhausted {
        /// The node's subnet.
        subnet: Subnet,
    },
    /// Every range of host user ids is taken.
    #[error("no free user id range: all {ranges} from {base} are taken")]
    IdsExhausted {
        /// The first host id.
        base: u32,
        /// How many ranges there are.
        ranges: u32,
    },
    /// Fewer host ports are free than the container asks for.
    #[error("no free host port in {first}-{last}: {wanted} wanted, {free} free")]
    PortsExhausted {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// Ports the container asks for.
        wanted: usize,
        /// Ports that could be had.
        free: usize,
    },
    /// The container could not be made.
    #[error("create container {id}: {reason}")]
    Create {
        /// The container.
        id: ContainerId,
        /// The failing step and the kernel's answer.
        reason: String,
    },
    /// A process of this name was started in the container before.
    #[error("container {id} has a process {name:?} already")]
    ProcessExists {
        /// The container.
        id: ContainerId,
        /// The name.
        name: String,
    },
    /// No process of this name was started in the container, or it is forgotten.
    #[error("container {id} has no process {name:?}")]
    NoProcess {
        /// The container.
        id: ContainerId,
        /// The name.
        name: String,
    },
    /// The process could not be started in the container.
    #[error("start container {id}: {reason}")]
    Start {
        /// The container.
        id: ContainerId,
        /// The failing step and the kernel's answer.
        reason: String,
    },
    /// The container's shim did not do its part.
    #[error("shim of container {id}: {reason}")]
    Shim {
        /// The container.
        id: ContainerId,
        /// What was expected of it.
        reason: String,
    },
    /// Another runtime works on the same directory.
    #[error("{0} is in use by another runtime")]
    InUse(std::path::PathBuf),
    /// The network must not go while containers use it.
    #[error("network of bridge {bridge} still has {containers} containers")]
    NetworkInUse {
        /// The bridge.
        bridge: String,
        /// How many containers.
        containers: usize,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("{what}: {reason}")]
    Netlink {
        /// The change.
        what: String,
        /// The kernel's answer.
        reason: String,
    },
    /// The subnet of this runtime is on another interface already.
    #[error("address {address} of bridge {bridge}: {reason}")]
    Address {
        /// The bridge.
        bridge: String,
        /// Its address.
        address: Ipv4Addr,
        /// The kernel's answer.
        reason: String,
    },
    /// A file or a kernel interface did not work.
    #[error("{what}: {source}")]
    Io {
        /// The operation and its path.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Names the operation that an I/O error belongs to.
pub(super) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source: source.into() })
    }
}
