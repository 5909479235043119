//! How programs speak to a node.
//!
//! - [`admin`]: the tarpc service, and the types that only it has;
//! - [`attach`]: processes in containers and connections to their ports, as streams of bytes;
//! - [`bbs`]: the messages of Diego's own API;
//! - [`error`]: what a call can fail with, and which failures leave the outcome unknown;
//! - [`tls`]: certificates, and who shows one;
//! - [`wire`]: how connections are made, and how the service travels on one;
//! - [`json`]: the nouns as `cfdot` prints and reads them.

pub mod admin;
pub mod attach;
pub mod bbs;
pub mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod json;
pub mod limits;
pub mod tls;
pub mod wire;

pub use admin::{Admin, AdminClient};
pub use error::Error;
