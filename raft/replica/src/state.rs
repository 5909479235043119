//! The applied state: openraft's `RaftStateMachine`. Memory serves, the disk keeps.
//!
//! Entries go through [`model::apply`], the one door. The rows each chunk touched, the applied
//! log id and the membership go to the disk in one batch, and readers get the new state as a
//! cheap clone. That batch need not be synced: the log replays what is lost, and the log is never
//! purged beyond what is durable here (see `log`).

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, TryStreamExt};
use model::{codec, mutant};
use openraft::async_runtime::{OneshotSender, WatchSender};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{WatchReceiverOf, WatchSenderOf};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend};

use crate::disk::{Batch, Change, Disk, Meta, Row};
use crate::events::EventLog;
use crate::frame::{self, damaged};
use crate::log::{answered, put_meta, read_meta, synced};
use crate::memo::{Memo, Step};
use crate::raft::{self, Entry, LogId, SnapshotMeta, StoredMembership, Types};
use crate::snapshot::{Builder, SnapshotData, Staging};
use crate::{limits, wire};

/// The version of the frame around rows; what is inside is the model's affair.
const ROW_VERSION: u8 = 1;

/// A state and how far it has come.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// The index of the last entry that the state holds, if any.
    pub applied: Option<u64>,
    /// The state: a cheap clone that later applying does not change.
    pub state: model::State,
}

pub(crate) type Published<RT> = WatchReceiverOf<Types<RT>, Reading>;
type Publisher<RT> = WatchSenderOf<Types<RT>, Reading>;
pub(crate) type Snapshot = openraft::storage::Snapshot<
    openraft::vote::leader_id_std::CommittedLeaderId<u64>,
    u64,
    wire::Node,
    SnapshotData,
>;
pub(crate) type CurrentSnapshot = Arc<Mutex<Option<Snapshot>>>;

/// The state machine.
pub(crate) struct StateStore<RT: AsyncRuntime, D> {
    disk: Arc<D>,
    state: model::State,
    applied: Option<LogId>,
    membership: StoredMembership,
    generation: u64,
    /// Applied and not yet told.
    happened: Vec<(u64, model::Event)>,
    events: Arc<EventLog>,
    /// In a lock only because a sender need not be `Sync`.
    publisher: Mutex<Publisher<RT>>,
    snapshot: CurrentSnapshot,
    staging: Arc<Staging>,
    memo: Option<Arc<Memo>>,
}

impl<RT: AsyncRuntime, D: fmt::Debug> fmt::Debug for StateStore<RT, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore")
            .field("disk", &self.disk)
            .field("applied", &self.applied)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// What was applied and not yet written.
struct Chunk<RT: AsyncRuntime> {
    answers: Vec<(Option<ApplyResponder<Types<RT>>>, model::Outcome)>,
    bytes: usize,
    /// Whether an entry among them changes the members.
    changes_members: bool,
}

impl<RT: AsyncRuntime> Chunk<RT> {
    fn new() -> Self {
        Self { answers: Vec::new(), bytes: 0, changes_members: false }
    }

    fn is_full(&self) -> bool {
        self.answers.len() >= limits::APPLY_CHUNK_ENTRIES_MAX
            || self.bytes >= limits::APPLY_CHUNK_BYTES_MAX
    }
}

impl<RT: AsyncRuntime, D: Disk> StateStore<RT, D> {
    /// Reads the rows back into memory, and forgets those of unfinished snapshots.
    pub(crate) async fn open(disk: Arc<D>) -> io::Result<Self> {
        let applied: wire::Applied = read_meta(&*disk, Meta::Applied)?.unwrap_or_default();
        let generation = applied.generation;
        disk.write(Batch(vec![
            Change::RemoveGenerations { generations: 0..generation },
            Change::RemoveGenerations { generations: generation + 1..u64::MAX },
        ]))?;
        let state = load::<RT, D>(&disk, generation).await?;
        let reading = Reading { applied: applied.log_id.map(|id| id.index), state: state.clone() };
        let (publisher, _) = Types::<RT>::watch_channel(reading);
        let membership: wire::EffectiveMembership =
            read_meta(&*disk, Meta::Membership)?.unwrap_or_default();
        let membership = raft::stored_membership(membership)
            .map_err(|error| damaged(format!("the membership cannot be read: {error}")))?;
        Ok(Self {
            disk,
            state,
            applied: applied.log_id.map(raft::log_id),
            membership,
            generation,
            happened: Vec::new(),
            events: Arc::new(EventLog::after(applied.log_id.map(|id| id.index))),
            publisher: Mutex::new(publisher),
            snapshot: Arc::default(),
            staging: Arc::new(Staging::after(generation)),
            memo: None,
        })
    }

    /// The same, sharing what it applies. Only where no rows are kept: a state that comes from
    /// another replica does not say which rows this one has yet to write.
    pub(crate) fn sharing(self, memo: Option<Arc<Memo>>) -> Self {
        let memo = memo.filter(|_| !self.disk.keeps_rows());
        Self { memo, ..self }
    }

    /// Where readers find the newest state.
    pub(crate) fn published(&self) -> Published<RT> {
        self.publisher.lock().expect("no holder of the lock panics").subscribe()
    }

    /// What happened lately.
    pub(crate) fn events(&self) -> Arc<EventLog> {
        self.events.clone()
    }

    /// Where arriving snapshots are put down.
    pub(crate) fn staging(&self) -> Arc<Staging> {
        self.staging.clone()
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }

    fn apply_entry(&mut self, entry: &Entry) -> io::Result<model::Outcome> {
        let id = entry.log_id;
        assert!(self.applied < Some(id), "entry {id} is applied after {:?}", self.applied);
        let outcome = match &entry.payload {
            EntryPayload::Blank => model::Outcome(Vec::new()),
            EntryPayload::Membership(membership) => {
                if !mutant!("membership-not-applied") {
                    self.membership = StoredMembership::new(Some(id), membership.clone());
                }
                model::Outcome(Vec::new())
            }
            EntryPayload::Normal(payload) => self.apply_proposal(id, &payload.0)?,
        };
        self.applied = Some(id);
        Ok(outcome)
    }

    /// An entry that cannot be read was written by a newer program, or the checksum lied: the
    /// node stops rather than go on with another truth than its peers.
    fn apply_proposal(&mut self, id: LogId, bytes: &Arc<[u8]>) -> io::Result<model::Outcome> {
        let found = self.memo.as_ref().and_then(|memo| memo.find(id.index, &self.state, bytes));
        if let Some(Step { after, outcome, .. }) = found {
            self.state = after;
            return Ok(outcome);
        }
        let proposal = codec::decode_proposal(bytes)
            .map_err(|error| damaged(format!("log entry {id} cannot be applied: {error}")))?;
        let before = self.memo.is_some().then(|| self.state.clone());
        let (outcome, events) = model::apply_proposal(&mut self.state, id.index, proposal);
        if let (Some(memo), Some(before)) = (&self.memo, before) {
            self.state.take_journal();
            memo.keep(id.index, before, bytes.clone(), &self.state, &outcome);
            return Ok(outcome);
        }
        self.happened.extend(events.into_iter().map(|event| (id.index, event)));
        Ok(outcome)
    }

    /// Writes what the chunk did, shows it to readers, and answers those who wait.
    fn commit(&mut self, chunk: &mut Chunk<RT>) -> io::Result<()> {
        if chunk.answers.is_empty() {
            return Ok(());
        }
        let mut changes = Vec::new();
        for row in self.state.take_journal() {
            let key = codec::row_key(&row);
            changes.push(match codec::row_value(&self.state, &row) {
                Some(value) => put_row(self.generation, key, &value),
                None => Change::RemoveRow { generation: self.generation, key },
            });
        }
        if std::mem::take(&mut chunk.changes_members) {
            changes.push(self.put_membership());
        }
        if mutant!("rows-after-applied") {
            self.disk.write(Batch::of(self.put_applied()))?;
        } else {
            changes.push(self.put_applied());
        }
        self.disk.write(Batch(changes))?;
        // Before the state is shown, so that whoever sees an index finds its events.
        self.events.push(self.happened.drain(..), self.applied.map(|id| id.index));
        self.publish();
        chunk.bytes = 0;
        for (responder, outcome) in chunk.answers.drain(..) {
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    fn put_applied(&self) -> Change {
        let applied = wire::Applied {
            log_id: self.applied.map(raft::wire_log_id),
            generation: self.generation,
        };
        put_meta(Meta::Applied, &applied)
    }

    fn put_membership(&self) -> Change {
        put_meta(Meta::Membership, &raft::wire_stored_membership(&self.membership))
    }

    fn publish(&mut self) {
        let reading =
            Reading { applied: self.applied.map(|id| id.index), state: self.state.clone() };
        let publisher = self.publisher.get_mut().expect("no holder of the lock panics");
        publisher.send_if_modified(|current| {
            *current = reading;
            true
        });
    }

    /// Puts every row of `state` down under a generation of its own.
    fn stage(&self, state: &model::State) -> io::Result<u64> {
        let generation = self.staging.next();
        let mut changes = Vec::new();
        let mut bytes = 0;
        for (key, value) in codec::rows(state) {
            bytes += key.len() + value.len();
            changes.push(put_row(generation, key, &value));
            if bytes >= limits::STATE_PAGE_BYTES_MAX {
                self.disk.write(Batch(std::mem::take(&mut changes)))?;
                bytes = 0;
            }
        }
        self.disk.write(Batch(changes))?;
        Ok(generation)
    }
}

/// Forgets the rows of a snapshot that is not to be.
pub(crate) fn remove_generation(generation: u64) -> Batch {
    Batch::of(Change::RemoveGenerations { generations: generation..generation + 1 })
}

/// The change that keeps one row, framed.
pub(crate) fn put_row(generation: u64, key: Vec<u8>, value: &[u8]) -> Change {
    let value = frame::seal(&key, ROW_VERSION, value);
    Change::PutRow { generation, key, value }
}

/// The state that the rows of a generation amount to.
pub(crate) async fn load<RT: AsyncRuntime, D: Disk>(
    disk: &D,
    generation: u64,
) -> io::Result<model::State> {
    let mut state = model::State::default();
    let mut after = None;
    loop {
        let (sender, receiver) = Types::<RT>::oneshot();
        let done = Box::new(move |answer| {
            let _gone = sender.send(answer);
        });
        disk.read_rows(generation, after, limits::STATE_PAGE_BYTES_MAX, done);
        let rows: Vec<Row> = answered(receiver.await)?;
        let Some(last) = rows.last() else { break };
        after = Some(last.key.clone());
        for row in &rows {
            load_row(&mut state, row)?;
        }
    }
    // What is on disk is not news to the disk.
    state.take_journal();
    Ok(state)
}

/// How far the rows of a disk have come and their digest, read from the disk alone: equal to the
/// [`model::codec::digest`] of any member's state at that index.
///
/// # Errors
/// The disk failed or is damaged.
pub async fn stored_digest<RT: AsyncRuntime, D: Disk>(disk: &D) -> io::Result<(Option<u64>, u64)> {
    let applied: wire::Applied = read_meta(disk, Meta::Applied)?.unwrap_or_default();
    let state = load::<RT, D>(disk, applied.generation).await?;
    Ok((applied.log_id.map(|id| id.index), codec::digest(&state)))
}

fn load_row(state: &mut model::State, row: &Row) -> io::Result<()> {
    let what = || format!("the row of key {}", hex(&row.key));
    let value = frame::open(&what(), &row.key, ROW_VERSION, &row.value)?;
    codec::load_row(state, &row.key, value)
        .map_err(|error| damaged(format!("{} cannot be read: {error}", what())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<RT: AsyncRuntime, D: Disk> RaftStateMachine<Types<RT>> for StateStore<RT, D> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types<RT>>>> + Unpin + OptionalSend,
    {
        let mut chunk = Chunk::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_entry(&entry)?;
            chunk.bytes += raft::weight(&entry);
            chunk.changes_members |= matches!(entry.payload, EntryPayload::Membership(_));
            chunk.answers.push((responder, outcome));
            if chunk.is_full() {
                self.commit(&mut chunk)?;
            }
        }
        self.commit(&mut chunk)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            state: self.state.clone(),
            current: self.snapshot.clone(),
        }
    }

    /// Switches to the snapshot's rows in one batch: before it the old state stands, after it
    /// the new one, and a crash between leaves rows of no generation for the next start to clear.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        if meta.last_log_id <= self.applied {
            // Entries overtook the snapshot on its way: what is here is newer.
            if let SnapshotData::Staged { generation, .. } = snapshot {
                self.disk.write(remove_generation(generation))?;
            }
            return Ok(());
        }
        let (generation, state) = match snapshot {
            SnapshotData::Staged { generation, state } => (generation, state),
            SnapshotData::Whole(state) => (self.stage(&state)?, state),
        };
        self.generation = generation;
        self.state = state;
        self.applied = meta.last_log_id;
        if !mutant!("snapshot-without-membership") {
            self.membership = meta.last_membership.clone();
        }
        let forget = Change::RemoveGenerations { generations: 0..generation };
        self.disk.write(Batch(vec![self.put_applied(), self.put_membership(), forget]))?;
        synced::<RT, D>(&self.disk).await?;
        self.events.jump(meta.last_log_id.map(|id| id.index));
        self.publish();
        let current =
            Snapshot { meta: meta.clone(), snapshot: SnapshotData::Whole(self.state.clone()) };
        *self.snapshot.lock().expect("no holder of the lock panics") = Some(current);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshot.lock().expect("no holder of the lock panics").clone())
    }
}
