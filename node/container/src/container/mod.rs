//! Containers: one verb or concern a file.
//!
//! Reading order: [`spec`] says what a container is; [`create`], [`run`], [`stop`] are the verbs
//! of its life, [`process`] says what may run in it, [`probe`] speaks to what does, and
//! [`read_file`] takes a file out of it, and
//! [`recover`] finds it again after the node's own death; [`cgroup`],
//! [`disk`], [`network`] and [`limits`] are what it is made of on the node's side; [`shim`] is the small
//! re-executed program on the other side, which builds the namespaces and outlives the node.
//!
//! What is deliberately absent: images (layers are directories here), the cluster, and threads
//! or polling per container.

mod cgroup;
mod create;
mod disk;
mod error;
mod limits;
mod link;
mod log_rate;
mod logs;
mod mounts;
mod network;
mod preflight;
mod probe;
mod process;
mod read_file;
mod recover;
mod run;
mod runtime;
pub mod shim;
mod spec;
mod state;
mod stop;

pub use disk::DiskEnforcement;
pub use error::{Error, Result};
pub use limits::{DiskLimit, DiskScope, Limits};
pub use log_rate::LogRate;
pub use logs::{LogBatch, LogLine, LogPosition, LogStream};
pub use mounts::{Mount, MountSource};
pub use network::{AddressRange, EgressProtocol, EgressRule, NetworkPolicy, PortRange, Subnet};
pub use process::{Ends, Launch, Process, ProcessExit, ProcessState, Program, Stdio};
pub use runtime::{Event, Events, Runtime, RuntimeConfig, Shim};
pub use spec::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, Exit, ExitStatus, PortMapping, Stats,
};
