//! Containers on the real kernel, as root: one promise a test.
//!
//! Each test has a runtime of its own and ends by comparing the host with what it was before.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod content;
mod disk;
mod egress;
mod errors;
mod files;
mod isolation;
mod life;
mod limits;
mod mounts;
mod network;
mod other;
mod processes;
mod recovery;
mod spoofing;
mod world;
