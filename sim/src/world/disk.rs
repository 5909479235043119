//! A replica's disk in the simulated world: its tables on a [`Disk`](crate::disk::Disk).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::{Bound, Range};

use replica::disk::{Batch, Change, Done, LogRecord, Meta, Row};
use replica::inspect;
use replica::wire::LogId;

use crate::disk::{Disk, DiskError, Image};
use crate::rng::Rng;
use crate::runtime;

/// What a replica keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    log: BTreeMap<u64, Vec<u8>>,
    meta: BTreeMap<Meta, Vec<u8>>,
    rows: BTreeMap<(u64, Vec<u8>), Vec<u8>>,
    /// The highest index ever put into the log, whether it is there yet or not.
    log_highest: Option<u64>,
    /// The highest index that the rows have ever contained.
    applied_highest: Option<u64>,
    /// An entry that was put before one that was there, and was not dropped first.
    inserted: Option<u64>,
}

impl Tables {
    /// The highest index that is, or ever was, here as an entry or in the rows.
    pub(super) fn highest(&self) -> Option<u64> {
        self.log_highest.max(self.applied_highest)
    }

    /// What is wrong with the log, as a row of entries that grows at its end only.
    pub(super) fn tear(&self) -> Option<String> {
        if let Some(index) = self.inserted {
            return Some(format!("entry {index} was put before one that should have been dropped"));
        }
        let records = self.log.iter();
        let records =
            records.map(|(index, bytes)| LogRecord { index: *index, bytes: bytes.clone() });
        // What has rotted is for the replica to find.
        let ids: Vec<LogId> = records.filter_map(|it| inspect::entry_id(&it).ok()).collect();
        let is_whole = ids.len() == self.log.len();
        let follows = |pair: &&[LogId]| {
            (pair[0].index + 1 == pair[1].index || !is_whole) && pair[0].term <= pair[1].term
        };
        let torn = ids.windows(2).find(|pair| !follows(pair))?;
        Some(format!("entry {} follows entry {}", torn[1], torn[0]))
    }
}

impl Image for Tables {
    type Batch = Batch;

    fn change(&mut self, batch: &Batch) {
        for change in &batch.0 {
            match change {
                Change::PutLog { index, bytes } => {
                    if self.log.range(index + 1..).next().is_some() {
                        self.inserted = Some(*index);
                    }
                    self.log.insert(*index, bytes.clone());
                    self.log_highest = self.log_highest.max(Some(*index));
                }
                Change::TruncateLog { index } => {
                    self.log.split_off(index);
                }
                Change::PurgeLog { index } => {
                    self.log = self.log.split_off(&index.saturating_add(1));
                }
                Change::PutMeta { meta, bytes } => {
                    if *meta == Meta::Applied {
                        let applied = inspect::applied(bytes).expect("a replica wrote these bytes");
                        let index = applied.log_id.map(|id| id.index);
                        self.applied_highest = self.applied_highest.max(index);
                    }
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
}

/// A record of which a bit has flipped for good.
#[derive(Clone, Debug)]
pub(super) struct Rotten {
    place: Place,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Place {
    Log(u64),
    Meta(Meta),
    Row(u64, Vec<u8>),
}

impl fmt::Display for Rotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Log(index) => write!(f, "log entry {index}"),
            Place::Meta(meta) => write!(f, "the {meta:?}"),
            Place::Row(generation, key) => write!(f, "row {key:02x?} of generation {generation}"),
        }
    }
}

impl Tables {
    fn record(&mut self, place: &Place) -> Option<&mut Vec<u8>> {
        match place {
            Place::Log(index) => self.log.get_mut(index),
            Place::Meta(meta) => self.meta.get_mut(meta),
            Place::Row(generation, key) => self.rows.get_mut(&(*generation, key.clone())),
        }
    }

    /// Whether what has rotted is there still, and not written over since.
    pub(super) fn is_rotten(&self, Rotten { place, bytes }: &Rotten) -> bool {
        let held = match place {
            Place::Log(index) => self.log.get(index),
            Place::Meta(meta) => self.meta.get(meta),
            Place::Row(generation, key) => self.rows.get(&(*generation, key.clone())),
        };
        held == Some(bytes)
    }

    /// A bit of something that is synced flips for good. None if there is nothing.
    pub(super) fn rot(live: &mut Self, synced: &mut Self, rng: &mut Rng) -> Option<Rotten> {
        let mut places: Vec<Place> = match rng.below(3) {
            0 => synced.log.keys().map(|index| Place::Log(*index)).collect(),
            1 => synced.meta.keys().map(|meta| Place::Meta(*meta)).collect(),
            _ => synced.rows.keys().map(|(at, key)| Place::Row(*at, key.clone())).collect(),
        };
        // What is about to be written over is not looked at again.
        places.retain(|place| live.record(place) == synced.record(place));
        if places.is_empty() {
            return None;
        }
        let place = rng.pick(&places).clone();
        let bytes = synced.record(&place).expect("it was listed");
        let (at, bit) = (rng.index(bytes.len()), rng.below(8));
        bytes[at] ^= 1 << bit;
        let bytes = bytes.clone();
        live.record(&place).expect("it is the same here").clone_from(&bytes);
        Some(Rotten { place, bytes })
    }

    /// Whether it is, and a replica reads it when it starts: the single values, the rows of the
    /// current generation and the last entry.
    pub(super) fn is_rotten_at_a_start(&self, rotten: &Rotten) -> bool {
        let is_read = match &rotten.place {
            Place::Log(index) => self.log.last_key_value().is_some_and(|(last, _)| last == index),
            Place::Meta(_) => true,
            Place::Row(generation, _) => {
                let applied = self.meta.get(&Meta::Applied).map(|bytes| inspect::applied(bytes));
                let current = applied.and_then(Result::ok).map_or(0, |it| it.generation);
                current == *generation
            }
        };
        is_read && self.is_rotten(rotten)
    }
}

/// One life's hold on a replica's disk.
#[derive(Clone)]
pub(super) struct SimDisk(pub(super) Disk<Tables>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

fn failed(error: DiskError) -> io::Error {
    io::Error::other(error)
}

/// Takes items until they weigh `bytes_max`, the first in any case.
fn page<T>(
    items: impl Iterator<Item = T>,
    weigh: impl Fn(&T) -> usize,
    bytes_max: usize,
) -> Vec<T> {
    let mut total = 0;
    let mut page = Vec::new();
    for item in items {
        total += weigh(&item);
        page.push(item);
        if total >= bytes_max {
            break;
        }
    }
    page
}

impl replica::disk::Disk for SimDisk {
    fn write(&self, batch: Batch) -> io::Result<()> {
        for change in &batch.0 {
            match change {
                Change::TruncateLog { index } => {
                    runtime::event("log_truncated", &[("from", *index)]);
                }
                Change::PurgeLog { index } => {
                    runtime::event("log_purged", &[("through", *index)]);
                }
                Change::PutLog { .. }
                | Change::PutMeta { .. }
                | Change::PutRow { .. }
                | Change::RemoveRow { .. }
                | Change::RemoveGenerations { .. } => {}
            }
        }
        self.0.write(batch).map_err(failed)
    }

    fn sync(&self, done: Done<()>) {
        self.0.sync(|synced| done(synced.map_err(failed)));
    }

    fn meta(&self, meta: Meta) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = self.0.read(|tables| tables.meta.get(&meta).cloned()).map_err(failed)?;
        if let Some(bytes) = &mut bytes {
            self.0.wear_out(bytes);
        }
        Ok(bytes)
    }

    fn last_log(&self) -> io::Result<Option<LogRecord>> {
        let last = |tables: &Tables| {
            let last = tables.log.last_key_value();
            last.map(|(index, bytes)| LogRecord { index: *index, bytes: bytes.clone() })
        };
        let mut last = self.0.read(last).map_err(failed)?;
        if let Some(record) = &mut last {
            self.0.wear_out(&mut record.bytes);
        }
        Ok(last)
    }

    fn read_log(&self, indexes: Range<u64>, bytes_max: usize, done: Done<Vec<LogRecord>>) {
        let read = |tables: &Tables| {
            // A reversed range would panic and holds nothing.
            let entries = (indexes.start < indexes.end).then(|| tables.log.range(indexes));
            let records = entries
                .into_iter()
                .flatten()
                .map(|(index, bytes)| LogRecord { index: *index, bytes: bytes.clone() });
            page(records, |record| record.bytes.len(), bytes_max)
        };
        let disk = self.0.clone();
        self.0.read_later(read, move |records| {
            let mut records = records.map_err(failed);
            if let Ok([record, ..]) = records.as_deref_mut() {
                disk.wear_out(&mut record.bytes);
            }
            done(records);
        });
    }

    fn read_rows(
        &self,
        generation: u64,
        after: Option<Vec<u8>>,
        bytes_max: usize,
        done: Done<Vec<Row>>,
    ) {
        let read = |tables: &Tables| {
            let from = match after {
                None => Bound::Included((generation, Vec::new())),
                Some(key) => Bound::Excluded((generation, key)),
            };
            let rows = tables
                .rows
                .range((from, Bound::Unbounded))
                .take_while(|((of, _), _)| *of == generation)
                .map(|((_, key), value)| Row { key: key.clone(), value: value.clone() });
            page(rows, |row| row.key.len() + row.value.len(), bytes_max)
        };
        let disk = self.0.clone();
        self.0.read_later(read, move |rows| {
            let mut rows = rows.map_err(failed);
            if let Ok([row, ..]) = rows.as_deref_mut() {
                disk.wear_out(&mut row.value);
            }
            done(rows);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use openraft_rt::AsyncRuntime;
    use replica::disk::Disk as _;

    use super::*;
    use crate::disk::Wear;
    use crate::rng::Rng;
    use crate::runtime::SimRuntime;

    fn row(generation: u64, key: u8) -> Change {
        Change::PutRow { generation, key: vec![key], value: vec![key; 10] }
    }

    #[test]
    fn rows_are_read_in_pages_of_one_generation() {
        SimRuntime::with_seed(1).block_on(async {
            let disk = SimDisk(Disk::new(Wear::NEW, Rng::stream(1, "disk")));
            disk.write(Batch(vec![row(1, 1), row(2, 3), row(2, 1), row(2, 2), row(3, 9)])).unwrap();
            let read = async |after: Option<Vec<u8>>, bytes_max| {
                let found = Arc::new(Mutex::new(Vec::new()));
                let into = found.clone();
                let done: Done<Vec<Row>> = Box::new(move |rows| {
                    into.lock().unwrap().extend(rows.unwrap().into_iter().map(|row| row.key[0]));
                });
                disk.read_rows(2, after, bytes_max, done);
                SimRuntime::sleep(2 * Wear::NEW.read_max).await;
                found.lock().unwrap().clone()
            };
            assert_eq!(read(None, 1000).await, [1, 2, 3]);
            assert_eq!(read(None, 12).await, [1, 2]);
            assert_eq!(read(Some(vec![2]), 12).await, [3]);
            assert_eq!(read(Some(vec![3]), 12).await, [0_u8; 0]);
        });
    }

    #[test]
    fn the_log_is_cut_at_both_ends() {
        let disk = SimDisk(Disk::new(Wear::NEW, Rng::stream(1, "disk")));
        SimRuntime::with_seed(1).block_on(async {
            for index in 0..10 {
                disk.write(Batch::of(Change::PutLog { index, bytes: vec![0] })).unwrap();
            }
            disk.write(Batch::of(Change::PurgeLog { index: 3 })).unwrap();
            disk.write(Batch::of(Change::TruncateLog { index: 7 })).unwrap();
        });
        assert_eq!(disk.last_log().unwrap().map(|record| record.index), Some(6));
        let kept = disk.0.inspect(|tables| tables.log.keys().copied().collect::<Vec<_>>());
        assert_eq!(kept, [4, 5, 6]);
        assert_eq!(disk.0.inspect(Tables::highest), Some(9));
    }
}
