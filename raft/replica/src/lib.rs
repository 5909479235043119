//! What is agreed: openraft wired to the model, over narrow [`disk::Disk`] and [`peers::Peers`]
//! traits. Reading order:
//!
//! - [`wire`] says in plain values what Raft's nouns are, on disk and between nodes;
//! - [`disk`] is what log and state ask of a disk, [`memory`] the disk of simulators and tests;
//! - [`peers`] is what one replica asks of another;
//! - `log`, `state` and `snapshot` are the log, the applied state and its transfer, [`events`]
//!   what happened lately;
//! - `network` sends, `receive` answers;
//! - [`identity`] says whose disk it is, [`newcomer`] finds out for a new one;
//! - [`replica`] is the door: start, propose, read; [`membership`] and [`status`] are its halls.
//!
//! `testing` (a feature) holds a disk's conformance suite and replicas wired in memory.
//!
//! Deliberately absent: clocks, randomness, sockets, threads, files, `HashMap`. Time, tasks and
//! chance come from the [`AsyncRuntime`] the world supplies, so the same code runs under a
//! simulator that repeats a run byte for byte.

pub mod disk;
pub mod events;
mod frame;
pub mod identity;
pub mod inspect;
pub mod limits;
mod log;
pub mod membership;
pub mod memo;
pub mod memory;
mod network;
pub mod newcomer;
pub mod peers;
mod raft;
mod receive;
pub mod replica;
mod snapshot;
pub mod state;
pub mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod wire;

pub use openraft::{AsyncRuntime, async_runtime};

pub use crate::newcomer::Newcomer;
pub use crate::replica::{Config, Replica};
pub use crate::state::{Reading, stored_digest};
pub use crate::wire::{DiskId, Node, NodeId};
