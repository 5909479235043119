//! What stored bytes say, without a replica: for those who check a disk from outside.

use std::io;

use crate::disk::{LogRecord, Meta};
use crate::wire::{self, LogId};

/// The id of a stored entry.
///
/// # Errors
/// The bytes are damaged.
pub fn entry_id(record: &LogRecord) -> io::Result<LogId> {
    let what = format!("log entry {}", record.index);
    let entry: wire::Entry = wire::from_disk(&what, &record.index.to_be_bytes(), &record.bytes)?;
    Ok(entry.log_id)
}

/// What the stored rows amount to, from the value of [`Meta::Applied`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The last entry in them.
    pub log_id: Option<LogId>,
    /// Which generation of rows is the current one.
    pub generation: u64,
}

/// The value of [`Meta::Applied`].
///
/// # Errors
/// The bytes are damaged.
pub fn applied(bytes: &[u8]) -> io::Result<Applied> {
    let wire::Applied { log_id, generation } =
        wire::from_disk("the applied log id", &[Meta::Applied as u8], bytes)?;
    Ok(Applied { log_id, generation })
}
