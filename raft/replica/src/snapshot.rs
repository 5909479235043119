//! Snapshots: built by cloning the state, sent in checked chunks of rows, put down under a
//! generation of their own and installed by one switch.
//!
//! Building costs nothing, because a clone shares all rows with the state it came from, and
//! applying goes on meanwhile. Nothing is written when one is built: the rows on disk already are
//! the persistent form of the state, so the snapshot a restarted node offers is that state.

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard};

use model::{codec, mutant};
use openraft::AsyncRuntime;
use openraft::RaftSnapshotBuilder;
use serde::{Deserialize, Serialize};

use crate::disk::{Batch, Disk};
use crate::raft::{self, SnapshotMeta, Types};
use crate::state::{CurrentSnapshot, Snapshot, put_row, remove_generation};
use crate::wire::{Blob, EffectiveMembership, LogId, Vote};

/// What a snapshot is made of.
#[derive(Clone)]
pub(crate) enum SnapshotData {
    /// A clone of the state, not on disk as such.
    Whole(model::State),
    /// Received, with its rows put down under `generation`.
    Staged { generation: u64, state: model::State },
}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(_) => f.write_str("Whole"),
            Self::Staged { generation, .. } => write!(f, "Staged({generation})"),
        }
    }
}

impl SnapshotData {
    pub(crate) fn state(&self) -> &model::State {
        match self {
            Self::Whole(state) | Self::Staged { state, .. } => state,
        }
    }
}

/// A state that was cloned to become a snapshot.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: model::State,
    pub(crate) current: CurrentSnapshot,
}

impl<RT: AsyncRuntime> RaftSnapshotBuilder<Types<RT>> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let snapshot =
            Snapshot { meta: self.meta.clone(), snapshot: SnapshotData::Whole(self.state.clone()) };
        let mut current = self.current.lock().expect("no holder of the lock panics");
        // A snapshot that was installed meanwhile is newer.
        if current.as_ref().is_none_or(|current| current.meta.last_log_id <= self.meta.last_log_id)
        {
            *current = Some(snapshot.clone());
        }
        Ok(snapshot)
    }
}

/// A piece of a snapshot on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// The vote of the leader that sends it.
    pub vote: Vote,
    /// Tells this transfer from others of the same leader.
    pub transfer: u64,
    /// The place of this chunk, from 0.
    pub sequence: u64,
    /// The last entry the snapshot holds.
    pub last_log_id: Option<LogId>,
    /// The membership as of that entry.
    pub membership: EffectiveMembership,
    /// Rows, each as the lengths of key and value (4 bytes, little endian) and both.
    pub rows: Blob,
    /// The checksum (CRC-32) of the rows of all chunks up to and with this one.
    pub checksum: u32,
    /// Whether this is the last one.
    pub last: bool,
}

/// Cuts a snapshot into chunks.
pub(crate) struct Chunks<'a> {
    head: SnapshotChunk,
    rows: Box<dyn Iterator<Item = (Vec<u8>, Vec<u8>)> + Send + 'a>,
    bytes_max: usize,
    hasher: crc32fast::Hasher,
    done: bool,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(
        vote: Vote,
        transfer: u64,
        meta: &SnapshotMeta,
        state: &'a model::State,
        bytes_max: usize,
    ) -> Self {
        let head = SnapshotChunk {
            vote,
            transfer,
            sequence: 0,
            last_log_id: meta.last_log_id.map(raft::wire_log_id),
            membership: raft::wire_stored_membership(&meta.last_membership),
            rows: Blob([].into()),
            checksum: 0,
            last: false,
        };
        let rows = Box::new(codec::rows(state));
        Self { head, rows, bytes_max, hasher: crc32fast::Hasher::new(), done: false }
    }
}

impl Iterator for Chunks<'_> {
    type Item = SnapshotChunk;

    fn next(&mut self) -> Option<SnapshotChunk> {
        if self.done {
            return None;
        }
        let mut bytes = Vec::new();
        self.done = true;
        for (key, value) in self.rows.by_ref() {
            if mutant!("snapshot-drops-rows") && key.last().is_some_and(|byte| byte % 8 == 3) {
                continue;
            }
            push_row(&mut bytes, &key, &value);
            if bytes.len() >= self.bytes_max {
                self.done = false;
                break;
            }
        }
        self.hasher.update(&bytes);
        let chunk = SnapshotChunk {
            rows: Blob(bytes.into()),
            checksum: self.hasher.clone().finalize(),
            last: self.done,
            ..self.head.clone()
        };
        self.head.sequence += 1;
        Some(chunk)
    }
}

fn push_row(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        let length = u32::try_from(part.len()).expect("a row is far below 4 GiB");
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
}

/// Takes one row off the front.
fn pop_row<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (lengths, rest) = bytes.split_at_checked(8)?;
    let (key, value) = lengths.split_at(4);
    let length = |part: &[u8]| -> Option<usize> {
        usize::try_from(u32::from_le_bytes(part.try_into().ok()?)).ok()
    };
    let (key, rest) = rest.split_at_checked(length(key)?)?;
    let (value, rest) = rest.split_at_checked(length(value)?)?;
    *bytes = rest;
    Some((key, value))
}

/// What became of a chunk.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is put down; the next one may come.
    More,
    /// It was the last one.
    Complete(Box<Snapshot>),
    /// It does not fit: the transfer has to start again.
    Refused(String),
}

/// Where an arriving snapshot is put down. One at a time: a new transfer replaces an older one.
#[derive(Debug)]
pub(crate) struct Staging {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    next_generation: u64,
    arriving: Option<Arriving>,
}

struct Arriving {
    vote: Vote,
    transfer: u64,
    next_sequence: u64,
    generation: u64,
    state: model::State,
    hasher: crc32fast::Hasher,
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving")
            .field("vote", &self.vote)
            .field("transfer", &self.transfer)
            .field("next_sequence", &self.next_sequence)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Staging {
    /// Generations after the current one.
    pub(crate) fn after(generation: u64) -> Self {
        let inner = Inner { next_generation: generation + 1, arriving: None };
        Self { inner: Mutex::new(inner) }
    }

    /// A generation no other rows are under. Larger than all earlier ones, so that installing one
    /// may forget all smaller ones without harming a transfer that began later.
    pub(crate) fn next(&self) -> u64 {
        self.lock().take_generation()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the lock panics")
    }

    /// Puts a chunk down.
    pub(crate) fn accept<D: Disk>(&self, disk: &D, chunk: SnapshotChunk) -> io::Result<Step> {
        let mut inner = self.lock();
        if chunk.sequence == 0 {
            inner.begin(disk, &chunk)?;
        }
        let Some(arriving) = &mut inner.arriving else {
            return Ok(Step::Refused(format!("transfer {} is not under way", chunk.transfer)));
        };
        if (arriving.vote, arriving.transfer) != (chunk.vote, chunk.transfer) {
            return Ok(Step::Refused(format!("transfer {} was replaced", chunk.transfer)));
        }
        if chunk.sequence + 1 == arriving.next_sequence {
            // Sent again because its answer was lost.
            return Ok(Step::More);
        }
        if chunk.sequence != arriving.next_sequence {
            return Ok(Step::Refused(format!(
                "chunk {} came instead of {}",
                chunk.sequence, arriving.next_sequence
            )));
        }
        if let Err(reason) = arriving.add(disk, &chunk)? {
            let generation = arriving.generation;
            inner.arriving = None;
            disk.write(remove_generation(generation))?;
            return Ok(Step::Refused(reason));
        }
        if !chunk.last {
            return Ok(Step::More);
        }
        let arrived = inner.arriving.take().expect("it is the one this chunk belongs to");
        Ok(match snapshot(arrived, chunk) {
            Ok(snapshot) => Step::Complete(Box::new(snapshot)),
            Err(reason) => Step::Refused(reason),
        })
    }
}

impl Inner {
    fn take_generation(&mut self) -> u64 {
        let generation = self.next_generation;
        self.next_generation += 1;
        generation
    }

    fn begin<D: Disk>(&mut self, disk: &D, first: &SnapshotChunk) -> io::Result<()> {
        if let Some(arriving) = &self.arriving {
            if (arriving.vote, arriving.transfer) == (first.vote, first.transfer) {
                return Ok(());
            }
            disk.write(remove_generation(arriving.generation))?;
        }
        let generation = self.take_generation();
        self.arriving = Some(Arriving {
            vote: first.vote,
            transfer: first.transfer,
            next_sequence: 0,
            generation,
            state: model::State::default(),
            hasher: crc32fast::Hasher::new(),
        });
        Ok(())
    }
}

impl Arriving {
    /// Checks a chunk and puts its rows down. The inner error is the chunk's fault, the outer one
    /// the disk's.
    fn add<D: Disk>(&mut self, disk: &D, chunk: &SnapshotChunk) -> io::Result<Result<(), String>> {
        self.hasher.update(&chunk.rows.0);
        if self.hasher.clone().finalize() != chunk.checksum {
            return Ok(Err(format!("chunk {} does not match its checksum", chunk.sequence)));
        }
        let mut changes = Vec::new();
        let mut rest = &*chunk.rows.0;
        while !rest.is_empty() {
            let Some((key, value)) = pop_row(&mut rest) else {
                return Ok(Err(format!("chunk {} ends within a row", chunk.sequence)));
            };
            if let Err(error) = codec::load_row(&mut self.state, key, value) {
                return Ok(Err(format!("chunk {} has a bad row: {error}", chunk.sequence)));
            }
            changes.push(put_row(self.generation, key.to_vec(), value));
        }
        disk.write(Batch(changes))?;
        self.next_sequence += 1;
        Ok(Ok(()))
    }
}

fn snapshot(arrived: Arriving, last: SnapshotChunk) -> Result<Snapshot, String> {
    let Arriving { generation, mut state, .. } = arrived;
    state.take_journal();
    let meta = SnapshotMeta {
        last_log_id: last.last_log_id.map(raft::log_id),
        last_membership: raft::stored_membership(last.membership)?,
    };
    Ok(Snapshot { meta, snapshot: SnapshotData::Staged { generation, state } })
}
