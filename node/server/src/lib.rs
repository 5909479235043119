//! The real world a node runs in, over tokio.
//!
//! - [`config`] is what the operator says;
//! - [`driver`] starts a node and ends it;
//! - [`listener`] accepts connections and hands them through the [`door`] to whoever answers:
//!   [`faces`], the replica, or the newcomer that it is before;
//! - [`peers`] carries Raft's messages between nodes;
//! - `egress` is what containers may reach;
//! - `records` follows what the cluster agrees on, for whatever is kept by it;
//! - `names` is what names inside the cluster mean;
//! - [`world`] and [`containers`] are what the agent asks for: the clock, Linux and images;
//! - `security` is TLS, or its absence;
//! - `sessions` are people's ways into containers;
//! - `staging` is what a push asks of a cell;
//! - `callbacks` speaks HTTP to clients whose tasks have ended;
//! - [`faces`] translate requests, and decide nothing.

mod callbacks;
mod capacity;
pub mod config;
pub mod containers;
mod door;
mod driver;
mod egress;
mod faces;
pub mod limits;
mod listener;
mod names;
mod neighbours;
mod peers;
mod records;
pub mod secrets;
mod security;
mod sessions;
mod staging;
mod world;

pub use config::Config;
pub use driver::{Error, run};
