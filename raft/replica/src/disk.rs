//! What the log and the state ask of a disk: nothing of RocksDB's, nothing of files.
//!
//! A disk holds three tables (the log by index, a handful of [`Meta`] values, and the rows of the
//! state under a generation) and changes them by [`Batch`]es. It never looks into the bytes.

use std::fmt;
use std::io;
use std::ops::Range;

/// Called once with the answer of a request, from any thread.
pub type Done<T> = Box<dyn FnOnce(io::Result<T>) + Send>;

/// The single values a replica keeps beside log and rows. The numbers are the persisted keys:
/// append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Meta {
    /// The vote: term, for whom, and whether it won.
    Vote = 1,
    /// The last log id known to be committed.
    Committed = 2,
    /// The last log id purged from the log.
    Purged = 3,
    /// What the rows of the state amount to: applied log id and generation.
    Applied = 4,
    /// The members as of the applied entry. By itself, because of a thousand members there is much
    /// to say, and it seldom changes.
    Membership = 5,
    /// Whose disk it is.
    Identity = 6,
}

/// One change within a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Keep an entry of the log at its index, over any that is there.
    PutLog { index: u64, bytes: Vec<u8> },
    /// Forget every entry at `index` and after it.
    TruncateLog { index: u64 },
    /// Forget every entry up to `index`, inclusive.
    PurgeLog { index: u64 },
    /// Keep a single value.
    PutMeta { meta: Meta, bytes: Vec<u8> },
    /// Keep a row of a generation of the state.
    PutRow { generation: u64, key: Vec<u8>, value: Vec<u8> },
    /// Forget a row of a generation.
    RemoveRow { generation: u64, key: Vec<u8> },
    /// Forget all rows of these generations.
    RemoveGenerations { generations: Range<u64> },
}

/// Changes that happen together or not at all, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch(pub Vec<Change>);

impl Batch {
    /// A batch of one change.
    #[must_use]
    pub fn of(change: Change) -> Self {
        Self(vec![change])
    }
}

/// An entry of the log as the disk holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place in the log.
    pub index: u64,
    /// The bytes once given to [`Change::PutLog`].
    pub bytes: Vec<u8>,
}

/// A row of the state as the disk holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key, without the generation.
    pub key: Vec<u8>,
    /// The bytes once given to [`Change::PutRow`].
    pub value: Vec<u8>,
}

/// A disk. All of its promises:
///
/// 1. A batch is atomic, and readable by every call made after [`Disk::write`] returned.
/// 2. Batches take effect in the order of the calls, and what survives a crash is a *prefix* of
///    that order: a batch is never kept when an earlier one was lost. Purging the log relies on
///    this: the purge of an entry cannot outlive the loss of the rows it produced.
/// 3. When the `done` of [`Disk::sync`] is called with `Ok`, every batch written before that call
///    of `sync` survives any crash. After a failed sync no later one succeeds.
/// 4. An error of any call means that the disk is not to be trusted further: the node stops.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Whether rows are kept. The replica of a disk that keeps none cannot start again, and may
    /// share its state with others ([`crate::memo`]): to measure clusters whose rows no machine
    /// could hold for all.
    fn keeps_rows(&self) -> bool {
        true
    }

    /// Writes a batch. Returns when it is readable, which says nothing about durability.
    ///
    /// # Errors
    /// The disk failed; nothing of the batch may be assumed.
    fn write(&self, batch: Batch) -> io::Result<()>;

    /// Calls `done` once all batches written so far are durable. Never blocks on the disk itself:
    /// many calls may share one sync.
    fn sync(&self, done: Done<()>);

    /// One single value, read at start only.
    ///
    /// # Errors
    /// The disk failed.
    fn meta(&self, meta: Meta) -> io::Result<Option<Vec<u8>>>;

    /// The last entry of the log, read at start only.
    ///
    /// # Errors
    /// The disk failed.
    fn last_log(&self) -> io::Result<Option<LogRecord>>;

    /// Entries of `indexes` that exist, in order, as they are at one moment: at least one if there
    /// is one, and no further entry once `bytes_max` is passed.
    fn read_log(&self, indexes: Range<u64>, bytes_max: usize, done: Done<Vec<LogRecord>>);

    /// Rows of a generation in the order of their keys, after key `after`, bounded as
    /// [`Disk::read_log`] is. Empty means the end.
    fn read_rows(
        &self,
        generation: u64,
        after: Option<Vec<u8>>,
        bytes_max: usize,
        done: Done<Vec<Row>>,
    );
}
