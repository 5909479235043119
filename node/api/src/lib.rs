//! How programs speak to a node.
//!
//! - [`admin`]: the tarpc service, and the types that only it has;
//! - [`error`]: what a call can fail with, and which failures leave the outcome unknown;
//! - [`wire`]: how the service travels over a byte stream;
//! - [`json`]: the nouns as `cfdot` prints and reads them.

pub mod admin;
pub mod error;
pub mod json;
pub mod limits;
pub mod wire;

pub use admin::{Admin, AdminClient};
pub use error::Error;
