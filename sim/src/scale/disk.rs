//! A disk that keeps as little as a replica can run on: single values, and a voter's log.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft_rt::AsyncRuntime;
use replica::disk::{Batch, Change, Disk, Done, LogRecord, Meta, Row};

use crate::disk::Wear;
use crate::runtime::SimRuntime;

/// A node's disk, which it loses with its life.
#[derive(Default)]
pub(super) struct ScaleDisk {
    keeps_log: bool,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    log: BTreeMap<u64, Vec<u8>>,
    meta: BTreeMap<Meta, Vec<u8>>,
}

impl ScaleDisk {
    pub(super) fn new(keeps_log: bool) -> Self {
        Self { keeps_log, tables: Mutex::default() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ScaleDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScaleDisk").finish_non_exhaustive()
    }
}

impl Disk for ScaleDisk {
    fn keeps_rows(&self) -> bool {
        false
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut tables = self.tables();
        for change in batch.0 {
            match change {
                Change::PutLog { index, bytes } if self.keeps_log => {
                    tables.log.insert(index, bytes);
                }
                Change::TruncateLog { index } => {
                    tables.log.split_off(&index);
                }
                Change::PurgeLog { index } => tables.log = tables.log.split_off(&(index + 1)),
                Change::PutMeta { meta, bytes } => {
                    tables.meta.insert(meta, bytes);
                }
                Change::PutLog { .. }
                | Change::PutRow { .. }
                | Change::RemoveRow { .. }
                | Change::RemoveGenerations { .. } => {}
            }
        }
        Ok(())
    }

    fn sync(&self, done: Done<()>) {
        drop(SimRuntime::spawn(async move {
            SimRuntime::sleep(Wear::NEW.sync_max).await;
            done(Ok(()));
        }));
    }

    fn meta(&self, meta: Meta) -> io::Result<Option<Vec<u8>>> {
        Ok(self.tables().meta.get(&meta).cloned())
    }

    fn last_log(&self) -> io::Result<Option<LogRecord>> {
        let tables = self.tables();
        let last = tables.log.last_key_value();
        Ok(last.map(|(index, bytes)| LogRecord { index: *index, bytes: bytes.clone() }))
    }

    fn read_log(&self, indexes: Range<u64>, bytes_max: usize, done: Done<Vec<LogRecord>>) {
        let mut bytes_left = bytes_max;
        let mut records = Vec::new();
        for (index, bytes) in self.tables().log.range(indexes) {
            records.push(LogRecord { index: *index, bytes: bytes.clone() });
            bytes_left = bytes_left.saturating_sub(bytes.len());
            if bytes_left == 0 {
                break;
            }
        }
        let found = match (records.is_empty(), self.keeps_log) {
            (true, false) => Err(io::Error::other("a learner's log is not kept here")),
            _ => Ok(records),
        };
        drop(SimRuntime::spawn(async move {
            SimRuntime::sleep(Duration::from_micros(50)).await;
            done(found);
        }));
    }

    fn read_rows(&self, _: u64, _: Option<Vec<u8>>, _: usize, done: Done<Vec<Row>>) {
        drop(SimRuntime::spawn(async move { done(Ok(Vec::new())) }));
    }
}
