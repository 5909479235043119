//! HTTP by host to the instances that answer there.
//!
//! - [`route`] reads an LRP's `cf-router` routes;
//! - [`table`] says which instances a host and a path lead to, and follows what the cluster
//!   agrees on;
//! - [`feed`] says what other routers are told of one cell's instances, and when that changes;
//! - [`choice`] picks one of them for a request: stickiness, tries, the words of refusals;
//! - [`proxy`] carries the bytes, on pingora.
//!
//! All but [`proxy`] is pure, and knows nothing of HTTP libraries.
//!
//! Deliberately absent: the agent. Whoever has the records keeps the table.

pub mod choice;
pub mod feed;
pub mod limits;
pub mod proxy;
pub mod route;
pub mod table;
#[cfg(test)]
mod testing;

pub use feed::Feed;
pub use proxy::{Router, Settings};
pub use table::Table;
