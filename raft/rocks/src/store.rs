//! The disk: one RocksDB with a column family each for the log, the single values and the rows.
//!
//! The promise that a crash leaves a prefix of the batches rests on RocksDB's one write-ahead log
//! for all column families: a batch is one record of it, in the order of the writes, and before
//! RocksDB lets go of a part of that log it has synced it, whichever family made it do so.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use replica::disk::{Batch, Change, Disk, Done, LogRecord, Meta, Row};
use rocksdb::{ColumnFamily, DB, ErrorKind, IteratorMode, ReadOptions, WriteBatch};

use crate::open::{self, LOG, META, OpenError, STATE};
use crate::worker::Workers;

/// A [`Disk`] in a directory.
#[derive(Debug)]
pub struct RocksDisk {
    // First, so that its threads have ended when the database closes.
    workers: Workers,
    database: Arc<Database>,
}

/// A key and its value, as RocksDB hands them out.
type KeyValue = (Box<[u8]>, Box<[u8]>);

/// The database, shared with the threads.
pub(crate) struct Database {
    db: DB,
    path: PathBuf,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RocksDisk {
    /// Opens the directory `path`, and makes it if there is none. Blocks: for start only.
    ///
    /// # Errors
    /// See [`OpenError`]; each names the directory and what to do.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let database = Arc::new(Database { db: open::open(path)?, path: path.to_owned() });
        let workers = Workers::start(&database).map_err(|error| OpenError::Failed {
            path: path.to_owned(),
            reason: format!("its threads cannot be started: {error}"),
        })?;
        Ok(Self { workers, database })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.database.path
    }
}

impl Database {
    /// Makes all that was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.db.flush_wal(true).map_err(|error| self.failed("synced", &error))
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every column family is opened by name")
    }

    fn failed(&self, what: &str, error: &rocksdb::Error) -> io::Error {
        let path = self.path.display();
        if error.kind() == ErrorKind::Corruption {
            let message = format!("{path} is damaged: {error}; {}", open::WAY_OUT);
            return io::Error::new(io::ErrorKind::InvalidData, message);
        }
        io::Error::other(format!("{path} cannot be {what}: {error}"))
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let (log, meta, state) = (self.family(LOG), self.family(META), self.family(STATE));
        let mut writes = WriteBatch::default();
        for change in batch.0 {
            match change {
                Change::PutLog { index, bytes } => writes.put_cf(log, index.to_be_bytes(), bytes),
                Change::TruncateLog { index } => {
                    writes.delete_range_cf(log, index.to_be_bytes(), u64::MAX.to_be_bytes());
                }
                // One range from the very start: each new tombstone covers all older ones, so
                // that they do not add up, and no read ever starts before it.
                Change::PurgeLog { index } => {
                    let end = index.saturating_add(1);
                    writes.delete_range_cf(log, 0u64.to_be_bytes(), end.to_be_bytes());
                }
                Change::PutMeta { meta: value, bytes } => {
                    writes.put_cf(meta, [value as u8], bytes);
                }
                Change::PutRow { generation, key, value } => {
                    writes.put_cf(state, row_key(generation, &key), value);
                }
                Change::RemoveRow { generation, key } => {
                    writes.delete_cf(state, row_key(generation, &key));
                }
                Change::RemoveGenerations { generations } => {
                    self.remove_generations(&mut writes, &generations)?;
                }
            }
        }
        self.db.write(writes).map_err(|error| self.failed("written to", &error))
    }

    /// Leaves no tombstone where there is nothing, as is usual at a start.
    fn remove_generations(
        &self,
        writes: &mut WriteBatch,
        generations: &Range<u64>,
    ) -> io::Result<()> {
        let (start, end) = (generations.start.to_be_bytes(), generations.end.to_be_bytes());
        let mut first = self.iterate(STATE, &start, Some(&end));
        match first.next() {
            None => {}
            Some(Ok(_)) => writes.delete_range_cf(self.family(STATE), start, end),
            Some(Err(error)) => return Err(self.failed("read", &error)),
        }
        Ok(())
    }

    fn iterate(
        &self,
        family: &str,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<KeyValue, rocksdb::Error>> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        self.db.iterator_cf_opt(self.family(family), options, IteratorMode::Start)
    }

    fn read_log(&self, indexes: &Range<u64>, bytes_max: usize) -> io::Result<Vec<LogRecord>> {
        let (start, end) = (indexes.start.to_be_bytes(), indexes.end.to_be_bytes());
        let mut records = Vec::new();
        let mut total = 0;
        if indexes.start >= indexes.end {
            return Ok(records);
        }
        for entry in self.iterate(LOG, &start, Some(&end)) {
            let (key, bytes) = entry.map_err(|error| self.failed("read", &error))?;
            total += bytes.len();
            records.push(LogRecord { index: self.index(&key)?, bytes: bytes.into_vec() });
            if total >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    fn last_log(&self) -> io::Result<Option<LogRecord>> {
        let mut entries = self.db.iterator_cf(self.family(LOG), IteratorMode::End);
        let Some(entry) = entries.next() else { return Ok(None) };
        let (key, bytes) = entry.map_err(|error| self.failed("read", &error))?;
        Ok(Some(LogRecord { index: self.index(&key)?, bytes: bytes.into_vec() }))
    }

    fn index(&self, key: &[u8]) -> io::Result<u64> {
        key.try_into().map(u64::from_be_bytes).map_err(|_| self.misplaced(key))
    }

    fn misplaced(&self, key: &[u8]) -> io::Error {
        let message = format!("{} has a key that is not its own: {key:02x?}", self.path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    }

    fn read_rows(
        &self,
        generation: u64,
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> io::Result<Vec<Row>> {
        let mut start = row_key(generation, after.unwrap_or_default());
        if after.is_some() {
            // The next possible key.
            start.push(0);
        }
        let end = generation.checked_add(1).map(u64::to_be_bytes);
        let mut rows = Vec::new();
        let mut total = 0;
        for row in self.iterate(STATE, &start, end.as_ref().map(<[u8; 8]>::as_slice)) {
            let (key, value) = row.map_err(|error| self.failed("read", &error))?;
            let Some((_, key)) = key.split_at_checked(size_of::<u64>()) else {
                return Err(self.misplaced(&key));
            };
            total += key.len() + value.len();
            rows.push(Row { key: key.to_vec(), value: value.into_vec() });
            if total >= bytes_max {
                break;
            }
        }
        Ok(rows)
    }
}

fn row_key(generation: u64, key: &[u8]) -> Vec<u8> {
    [&generation.to_be_bytes(), key].concat()
}

impl Disk for RocksDisk {
    fn write(&self, batch: Batch) -> io::Result<()> {
        self.database.write(batch)
    }

    fn sync(&self, done: Done<()>) {
        self.workers.sync(done);
    }

    fn meta(&self, meta: Meta) -> io::Result<Option<Vec<u8>>> {
        let database = &self.database;
        let family = database.family(META);
        database.db.get_cf(family, [meta as u8]).map_err(|error| database.failed("read", &error))
    }

    fn last_log(&self) -> io::Result<Option<LogRecord>> {
        self.database.last_log()
    }

    fn read_log(&self, indexes: Range<u64>, bytes_max: usize, done: Done<Vec<LogRecord>>) {
        self.workers.read(Box::new(move |database| done(database.read_log(&indexes, bytes_max))));
    }

    fn read_rows(
        &self,
        generation: u64,
        after: Option<Vec<u8>>,
        bytes_max: usize,
        done: Done<Vec<Row>>,
    ) {
        self.workers.read(Box::new(move |database| {
            done(database.read_rows(generation, after.as_deref(), bytes_max));
        }));
    }
}
