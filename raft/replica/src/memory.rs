//! A [`Disk`] in memory, for simulators and tests: it tells written from synced, syncs when told
//! to, and crashes by losing what was not synced. It knows no time and no chance of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Batch, Change, Disk, Done, LogRecord, Meta, Row};

/// A disk in memory. Clones share the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Everything written.
    live: Tables,
    /// Everything that survives any crash.
    synced: Tables,
    /// Written and not yet synced, oldest first.
    unsynced: Vec<Batch>,
    /// Syncs that were asked for while they are held back, oldest first.
    held: Option<Vec<Done<()>>>,
    /// Set by [`MemoryDisk::fail`].
    failed: Option<String>,
    syncs: u64,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("log_entries", &self.live.log.len())
            .field("rows", &self.live.rows.len())
            .field("unsynced", &self.unsynced.len())
            .field("held", &self.held.as_ref().map(Vec::len))
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default)]
struct Tables {
    log: BTreeMap<u64, Vec<u8>>,
    meta: BTreeMap<Meta, Vec<u8>>,
    rows: BTreeMap<(u64, Vec<u8>), Vec<u8>>,
}

impl Tables {
    fn change(&mut self, change: &Change) {
        match change {
            Change::PutLog { index, bytes } => {
                self.log.insert(*index, bytes.clone());
            }
            Change::TruncateLog { index } => {
                self.log.split_off(index);
            }
            Change::PurgeLog { index } => {
                self.log = self.log.split_off(&index.saturating_add(1));
            }
            Change::PutMeta { meta, bytes } => {
                self.meta.insert(*meta, bytes.clone());
            }
            Change::PutRow { generation, key, value } => {
                self.rows.insert((*generation, key.clone()), value.clone());
            }
            Change::RemoveRow { generation, key } => {
                self.rows.remove(&(*generation, key.clone()));
            }
            Change::RemoveGenerations { generations } => {
                self.rows.retain(|(of, _), _| !generations.contains(of));
            }
        }
    }
}

impl MemoryDisk {
    /// An empty disk that syncs at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on syncs wait for [`MemoryDisk::release_syncs`].
    pub fn hold_syncs(&self) {
        let mut inner = self.lock();
        if inner.held.is_none() {
            inner.held = Some(Vec::new());
        }
    }

    /// Completes the syncs held back so far, in their order, as one; further syncs happen at once.
    pub fn release_syncs(&self) {
        let held = {
            let mut inner = self.lock();
            let held = inner.held.take().unwrap_or_default();
            inner.settle();
            held
        };
        for done in held {
            done(Ok(()));
        }
    }

    /// How many syncs wait to be released.
    #[must_use]
    pub fn syncs_held(&self) -> usize {
        self.lock().held.as_ref().map_or(0, Vec::len)
    }

    /// How many times the disk settled.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many batches a crash could lose now.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// From now on every call fails with `reason`.
    pub fn fail(&self, reason: &str) {
        self.lock().failed = Some(reason.to_owned());
    }

    /// The disk as a crash now would leave it, when the `kept` oldest of the unsynced batches
    /// made it. The old disk is left behind as it is; those who wait for its syncs wait forever.
    #[must_use]
    pub fn crashed(&self, kept: usize) -> Self {
        let inner = self.lock();
        let mut tables = inner.synced.clone();
        for batch in inner.unsynced.iter().take(kept) {
            for change in &batch.0 {
                tables.change(change);
            }
        }
        let inner = Inner { live: tables.clone(), synced: tables, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Flips one bit of the value of a log entry. Returns whether it is there.
    pub fn flip_log_bit(&self, index: u64, bit: usize) -> bool {
        let mut inner = self.lock();
        let Some(bytes) = inner.live.log.get_mut(&index) else { return false };
        flip(bytes, bit);
        true
    }

    /// Flips one bit of the value of a single value. Returns whether it is there.
    pub fn flip_meta_bit(&self, meta: Meta, bit: usize) -> bool {
        let mut inner = self.lock();
        let Some(bytes) = inner.live.meta.get_mut(&meta) else { return false };
        flip(bytes, bit);
        true
    }

    /// Flips one bit of the value of the `nth` row. Returns whether it is there.
    pub fn flip_row_bit(&self, nth: usize, bit: usize) -> bool {
        let mut inner = self.lock();
        let Some(bytes) = inner.live.rows.values_mut().nth(nth) else { return false };
        flip(bytes, bit);
        true
    }

    /// How many rows there are, of all generations.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.lock().live.rows.len()
    }

    /// How many entries the log has.
    #[must_use]
    pub fn log_entries(&self) -> usize {
        self.lock().live.log.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the lock panics")
    }
}

impl Inner {
    fn check(&self) -> io::Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    fn settle(&mut self) {
        for batch in std::mem::take(&mut self.unsynced) {
            for change in &batch.0 {
                self.synced.change(change);
            }
        }
        self.syncs += 1;
    }
}

impl Disk for MemoryDisk {
    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut inner = self.lock();
        inner.check()?;
        for change in &batch.0 {
            inner.live.change(change);
        }
        inner.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self, done: Done<()>) {
        let answer = {
            let mut inner = self.lock();
            let checked = inner.check();
            if checked.is_ok() {
                if let Some(held) = &mut inner.held {
                    held.push(done);
                    return;
                }
                inner.settle();
            }
            checked
        };
        done(answer);
    }

    fn meta(&self, meta: Meta) -> io::Result<Option<Vec<u8>>> {
        let inner = self.lock();
        inner.check()?;
        Ok(inner.live.meta.get(&meta).cloned())
    }

    fn last_log(&self) -> io::Result<Option<LogRecord>> {
        let inner = self.lock();
        inner.check()?;
        let last = inner.live.log.last_key_value();
        Ok(last.map(|(index, bytes)| LogRecord { index: *index, bytes: bytes.clone() }))
    }

    fn read_log(&self, indexes: Range<u64>, bytes_max: usize, done: Done<Vec<LogRecord>>) {
        let answer = {
            let inner = self.lock();
            inner.check().map(|()| {
                let mut records = Vec::new();
                let mut total = 0;
                // A reversed range would panic and holds nothing.
                let entries = (indexes.start < indexes.end).then(|| inner.live.log.range(indexes));
                for (index, bytes) in entries.into_iter().flatten() {
                    total += bytes.len();
                    records.push(LogRecord { index: *index, bytes: bytes.clone() });
                    if total >= bytes_max {
                        break;
                    }
                }
                records
            })
        };
        done(answer);
    }

    fn read_rows(
        &self,
        generation: u64,
        after: Option<Vec<u8>>,
        bytes_max: usize,
        done: Done<Vec<Row>>,
    ) {
        let answer = {
            let inner = self.lock();
            inner.check().map(|()| {
                let from = match after {
                    None => Bound::Included((generation, Vec::new())),
                    Some(key) => Bound::Excluded((generation, key)),
                };
                let mut rows = Vec::new();
                let mut total = 0;
                for ((of, key), value) in inner.live.rows.range((from, Bound::Unbounded)) {
                    if *of != generation {
                        break;
                    }
                    total += key.len() + value.len();
                    rows.push(Row { key: key.clone(), value: value.clone() });
                    if total >= bytes_max {
                        break;
                    }
                }
                rows
            })
        };
        done(answer);
    }
}

fn flip(bytes: &mut [u8], bit: usize) {
    let bits = bytes.len() * 8;
    let bit = bit % bits;
    bytes[bit / 8] ^= 1 << (bit % 8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: u64) -> Batch {
        Batch::of(Change::PutLog { index, bytes: vec![u8::try_from(index).unwrap()] })
    }

    #[test]
    fn a_crash_keeps_a_prefix_and_all_that_was_synced() {
        let disk = MemoryDisk::new();
        disk.write(put(0)).unwrap();
        disk.sync(Box::new(|done| done.unwrap()));
        disk.hold_syncs();
        disk.write(put(1)).unwrap();
        disk.write(put(2)).unwrap();
        disk.sync(Box::new(|_| panic!("the crash comes first")));
        for kept in 0..=2 {
            let last = disk.crashed(kept).last_log().unwrap().unwrap();
            assert_eq!(last.index, u64::try_from(kept).unwrap());
        }
    }
}
