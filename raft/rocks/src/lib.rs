//! The [`replica::disk::Disk`] trait on RocksDB, with one flush thread that coalesces syncs. The
//! only crate that links RocksDB.
//!
//! - [`open`](mod@open) opens a directory, or says why not;
//! - `store` changes and reads it;
//! - `worker` holds its two threads: one syncs, one reads.
//!
//! Deliberately absent: any look into the bytes it keeps. Whether an entry is what was once
//! written is for the frames of `replica` to tell; RocksDB's own checksums come on top.

pub mod limits;
pub mod open;
mod store;
mod worker;

pub use crate::open::OpenError;
pub use crate::store::RocksDisk;
