//! The real world a node runs in: configuration, the driver, and the faces that people and
//! programs speak to, over tokio.

pub mod config;

pub use config::Config;
