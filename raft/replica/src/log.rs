//! The log and the vote, on a [`Disk`]: openraft's `RaftLogStorage`.
//!
//! Recent entries stay in a bounded cache, so that replicating and applying read memory. An
//! append is readable when it returns and is acknowledged by the disk's sync, which may serve
//! many appends at once.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, stream};
use openraft::async_runtime::OneshotSender;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{AsyncRuntime, OptionalSend, RaftLogReader};

use model::mutant;

use crate::disk::{Batch, Change, Disk, LogRecord, Meta};
use crate::frame::damaged;
use crate::raft::{self, Entry, LogId, Types, Vote};
use crate::{limits, wire};

/// The log. Clones share it.
pub(crate) struct LogStore<RT, D> {
    disk: Arc<D>,
    hot: Arc<Mutex<Hot>>,
    runtime: PhantomData<fn() -> RT>,
}

/// What is known without asking the disk. Always equal to what the disk would say.
#[derive(Debug, Default)]
struct Hot {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    cache: Cache,
}

/// The newest entries, consecutive, ending with the last of the log.
#[derive(Debug, Default)]
struct Cache {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl<RT, D> Clone for LogStore<RT, D> {
    fn clone(&self) -> Self {
        Self { disk: self.disk.clone(), hot: self.hot.clone(), runtime: PhantomData }
    }
}

impl<RT, D: fmt::Debug> fmt::Debug for LogStore<RT, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime, D: Disk> LogStore<RT, D> {
    /// Reads where the log stands. Blocks on the disk: for start only.
    pub(crate) fn open(disk: Arc<D>) -> io::Result<Self> {
        let vote: Option<wire::Vote> = read_meta(&*disk, Meta::Vote)?;
        let committed: Option<wire::LogId> = read_meta(&*disk, Meta::Committed)?;
        let purged: Option<wire::LogId> = read_meta(&*disk, Meta::Purged)?;
        let last = match disk.last_log()? {
            None => None,
            Some(record) => Some(decode(&record)?.log_id),
        };
        let purged = purged.map(raft::log_id);
        let hot = Hot {
            vote: vote.map(raft::vote),
            committed: committed.map(raft::log_id),
            purged,
            // `None` is less than any id.
            last: last.max(purged),
            cache: Cache::default(),
        };
        Ok(Self { disk, hot: Arc::new(Mutex::new(hot)), runtime: PhantomData })
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.hot().purged
    }

    /// Whether the log has this very entry; false if it was purged.
    pub(crate) async fn has(&self, id: LogId) -> io::Result<bool> {
        let found = self.read(id.index..id.index.saturating_add(1), 1).await?;
        Ok(found.first().is_some_and(|entry| entry.log_id == id))
    }

    fn hot(&self) -> MutexGuard<'_, Hot> {
        self.hot.lock().expect("no holder of the lock panics")
    }

    /// Waits until everything written so far is durable.
    pub(crate) async fn synced(&self) -> io::Result<()> {
        synced::<RT, D>(&self.disk).await
    }

    async fn read(&self, indexes: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if indexes.start >= indexes.end {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.hot().cache.read(&indexes, bytes_max) {
            return Ok(entries);
        }
        let (sender, receiver) = Types::<RT>::oneshot();
        let done = Box::new(move |answer| {
            // The reader may have gone away; then nobody wants the answer.
            let _gone = sender.send(answer);
        });
        self.disk.read_log(indexes.clone(), bytes_max, done);
        let records = answered(receiver.await)?;
        let entries = records.iter().map(decode).collect::<io::Result<Vec<_>>>()?;
        for pair in entries.windows(2) {
            if pair[0].log_id.index + 1 != pair[1].log_id.index {
                return Err(damaged(format!(
                    "the log misses entries between {} and {}",
                    pair[0].log_id, pair[1].log_id
                )));
            }
        }
        Ok(entries)
    }
}

/// Waits until everything written to `disk` so far is durable.
pub(crate) async fn synced<RT: AsyncRuntime, D: Disk>(disk: &D) -> io::Result<()> {
    let (sender, receiver) = Types::<RT>::oneshot();
    disk.sync(Box::new(move |answer| {
        let _gone = sender.send(answer);
    }));
    answered(receiver.await)
}

/// The answer of a disk, of which a dropped one is a failure too.
pub(crate) fn answered<T, E>(received: Result<io::Result<T>, E>) -> io::Result<T> {
    received.unwrap_or_else(|_| Err(io::Error::other("the disk went away without an answer")))
}

/// Reads and checks one single value.
pub(crate) fn read_meta<T: serde::de::DeserializeOwned>(
    disk: &impl Disk,
    meta: Meta,
) -> io::Result<Option<T>> {
    let Some(framed) = disk.meta(meta)? else { return Ok(None) };
    wire::from_disk(meta_name(meta), &[meta as u8], &framed).map(Some)
}

/// The change that keeps one single value.
pub(crate) fn put_meta(meta: Meta, value: &impl serde::Serialize) -> Change {
    Change::PutMeta { meta, bytes: wire::to_disk(&[meta as u8], value) }
}

fn meta_name(meta: Meta) -> &'static str {
    match meta {
        Meta::Vote => "the vote",
        Meta::Committed => "the committed log id",
        Meta::Purged => "the purged log id",
        Meta::Applied => "the applied log id",
        Meta::Membership => "the membership",
        Meta::Identity => "the disk's identity",
    }
}

fn encode(entry: &Entry) -> Vec<u8> {
    wire::to_disk(&entry.log_id.index.to_be_bytes(), &raft::wire_entry(entry))
}

fn decode(record: &LogRecord) -> io::Result<Entry> {
    let what = format!("log entry {}", record.index);
    let entry: wire::Entry = wire::from_disk(&what, &record.index.to_be_bytes(), &record.bytes)?;
    if entry.log_id.index != record.index {
        return Err(damaged(format!("{what} claims to be {}", entry.log_id)));
    }
    raft::entry(entry).map_err(|error| damaged(format!("{what} cannot be read: {error}")))
}

impl Cache {
    /// The entries of `indexes`, if all that exist of them are here.
    fn read(&self, indexes: &Range<u64>, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.log_id.index;
        let skipped = usize::try_from(indexes.start.checked_sub(first)?).ok()?;
        let wanted = usize::try_from(indexes.end - indexes.start).unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.iter().skip(skipped).take(wanted) {
            bytes += raft::weight(entry);
            entries.push(entry.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Some(entries)
    }

    fn push(&mut self, entry: Entry) {
        let follows = self
            .entries
            .back()
            .is_none_or(|last| last.log_id.index.checked_add(1) == Some(entry.log_id.index));
        if !follows {
            // A snapshot moved the log ahead.
            self.entries.clear();
            self.bytes = 0;
        }
        self.bytes += raft::weight(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > limits::LOG_CACHE_ENTRIES_MAX
            || self.bytes > limits::LOG_CACHE_BYTES_MAX
        {
            if !self.pop_front() {
                break;
            }
        }
    }

    fn pop_front(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.bytes -= raft::weight(&entry);
        true
    }

    fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|last| last.log_id.index >= index) {
            let last = self.entries.pop_back().expect("there is a last entry");
            self.bytes -= raft::weight(&last);
        }
    }

    fn purge_through(&mut self, index: u64) {
        while self.entries.front().is_some_and(|first| first.log_id.index <= index) {
            self.pop_front();
        }
    }
}

fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl<RT: AsyncRuntime, D: Disk> RaftLogReader<Types<RT>> for LogStore<RT, D> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(indexes(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, limits::APPEND_BYTES_MAX).await
    }

    /// Entries to apply: read piece by piece, because a node that was away has many.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        struct Pieces {
            rest: Range<u64>,
            read: std::vec::IntoIter<Entry>,
        }
        let log = self.clone();
        let pieces = Pieces { rest: indexes(&range), read: Vec::new().into_iter() };
        let entries = stream::try_unfold((log, pieces), |(log, mut pieces)| async move {
            if let Some(entry) = pieces.read.next() {
                return Ok(Some((entry, (log, pieces))));
            }
            let read = log.read(pieces.rest.clone(), limits::APPLY_READ_BYTES_MAX).await?;
            if let Some(last) = read.last() {
                pieces.rest.start = last.log_id.index + 1;
            }
            pieces.read = read.into_iter();
            Ok(pieces.read.next().map(|entry| (entry, (log, pieces))))
        });
        Box::pin(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.hot().vote)
    }
}

impl<RT: AsyncRuntime, D: Disk> RaftLogStorage<Types<RT>> for LogStore<RT, D> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<RT>>> {
        let hot = self.hot();
        Ok(LogState { last_purged_log_id: hot.purged, last_log_id: hot.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.disk.write(Batch::of(put_meta(Meta::Vote, &raft::wire_vote(vote))))?;
        if !mutant!("vote-unsynced") {
            self.synced().await?;
        }
        self.hot().vote = Some(*vote);
        Ok(())
    }

    /// Not synced: it only spares a restarted node to look older than it was, and the disk keeps
    /// it at least as well as the rows that were applied after it.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(id) = committed else { return Ok(()) };
        self.disk.write(Batch::of(put_meta(Meta::Committed, &raft::wire_log_id(id))))?;
        self.hot().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.hot().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<RT>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let put =
            |entry: &Entry| Change::PutLog { index: entry.log_id.index, bytes: encode(entry) };
        self.disk.write(Batch(entries.iter().map(put).collect()))?;
        {
            let mut hot = self.hot();
            for entry in entries {
                hot.last = Some(entry.log_id);
                hot.cache.push(entry);
            }
        }
        if mutant!("append-unsynced") {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.disk.sync(Box::new(move |answer| callback.io_completed(answer)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        if !mutant!("truncate-in-memory-only") {
            self.disk.write(Batch::of(Change::TruncateLog { index: from }))?;
        }
        let mut hot = self.hot();
        hot.cache.truncate_from(from);
        // There may be nothing after it.
        hot.last = hot.last.min(last);
        Ok(())
    }

    /// Syncs first: what the entries did to the state is durable before they go. (The disk's
    /// promise about prefixes already says so; a purge is rare enough to say it twice.)
    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.synced().await?;
        let purged = put_meta(Meta::Purged, &raft::wire_log_id(id));
        let through = if mutant!("purge-too-far") { id.index + 2 } else { id.index };
        self.disk.write(Batch(vec![purged, Change::PurgeLog { index: through }]))?;
        let mut hot = self.hot();
        hot.cache.purge_through(id.index);
        hot.purged = Some(id);
        hot.last = hot.last.max(Some(id));
        Ok(())
    }
}
