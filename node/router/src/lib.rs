//! HTTP by host to the instances that answer there.
//!
//! - [`route`] reads an LRP's `cf-router` routes;
//! - [`table`] says which instances a host and a path lead to, and follows what the cluster
//!   agrees on;
//! - [`choice`] picks one of them for a request: stickiness, tries, the words of refusals;
//! - [`proxy`] carries the bytes, on pingora.
//!
//! All but [`proxy`] is pure, and knows nothing of HTTP libraries: another router can be fed from
//! the same table.
//!
//! Deliberately absent: the agent. Whoever has the records keeps the table.

pub mod choice;
pub mod limits;
pub mod proxy;
pub mod route;
pub mod table;

pub use proxy::{Router, Settings};
pub use table::Table;
