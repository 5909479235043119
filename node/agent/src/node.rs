//! A running node: its loops, and the handle that faces hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use model::{Cell, CellId, Millis, State};
use plan::presence::Sightings;
use plan::report::Report;
use replica::async_runtime::Instant as _;
use replica::{AsyncRuntime, Replica};

use crate::soft::{Answer, Message, Progress};
use crate::world::World;

pub(crate) type InstantOf<W> = <<W as World>::Runtime as AsyncRuntime>::Instant;
pub(crate) type ReplicaOf<W> =
    Replica<<W as World>::Runtime, <W as World>::Disk, <W as World>::Peers>;

/// A node. Clones are handles of the same one.
pub struct Agent<W: World> {
    inner: Arc<Inner<W>>,
}

struct Inner<W: World> {
    world: W,
    replica: ReplicaOf<W>,
    /// What this node offers as a cell.
    cell: Cell,
    soft: Mutex<SoftState<InstantOf<W>>>,
    /// A clone for each callback under way.
    callbacks: CallbackPlace,
}

/// What is known and not agreed.
#[derive(Debug)]
struct SoftState<I> {
    /// When each cell was last heard here; only the leader's counts. By the clock that does not
    /// jump: a date that was set forward would make silent cells of all.
    heard: BTreeMap<CellId, I>,
    /// Of the last turn taken here.
    report: Arc<Report>,
    /// What turns taken here found only by looking at everything.
    overlooked: u64,
}

/// Held by a callback while it is under way.
pub(crate) type CallbackPlace = Arc<()>;

impl<W: World> Clone for Agent<W> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<W: World> std::fmt::Debug for Agent<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("cell", &self.inner.cell.cell_id).finish_non_exhaustive()
    }
}

impl<W: World> Agent<W> {
    /// Starts the loops of a node around its replica. They end when the replica stops.
    pub fn start(cell: Cell, replica: ReplicaOf<W>, world: W) -> Self {
        let soft = SoftState { heard: BTreeMap::new(), report: Arc::default(), overlooked: 0 };
        let soft = Mutex::new(soft);
        let agent = Self {
            inner: Arc::new(Inner { world, replica, cell, soft, callbacks: Arc::default() }),
        };
        drop(W::Runtime::spawn(crate::leader::run(agent.clone())));
        drop(W::Runtime::spawn(crate::cell::run(agent.clone())));
        drop(W::Runtime::spawn(crate::cell::heartbeats(agent.clone())));
        agent
    }

    #[must_use]
    pub fn replica(&self) -> &ReplicaOf<W> {
        &self.inner.replica
    }

    #[must_use]
    pub fn world(&self) -> &W {
        &self.inner.world
    }

    /// What this node offers as a cell.
    #[must_use]
    pub fn cell(&self) -> &Cell {
        &self.inner.cell
    }

    /// Answers another node's soft message.
    pub async fn answer(&self, message: &[u8]) -> Vec<u8> {
        match Message::decode(message) {
            Some(Message::ChangeMembers(change)) => {
                Answer::MembersChanged(self.change_members_here(change).await).encode()
            }
            Some(message) => self.answer_here(message).encode(),
            None => Answer::Malformed.encode(),
        }
    }

    /// What is answered at once.
    pub(crate) fn answer_here(&self, message: Message) -> Answer {
        match message {
            // Takes its time, and nobody asks it of himself so.
            Message::ChangeMembers(_) => Answer::Malformed,
            Message::Sighting(cell_id) => {
                self.hear(cell_id);
                Answer::Heard
            }
            Message::WaitingLrps(process_guid) => {
                let state = self.read_stale().state;
                Answer::WaitingLrps(self.report().explain_lrps(&state, &process_guid))
            }
            Message::WaitingTask(task_guid) => {
                Answer::WaitingTask(self.report().task(&task_guid).cloned())
            }
            Message::Applied => Answer::Applied(Progress {
                applied_index: self.read_stale().applied.unwrap_or(0),
                overlooked: self.overlooked(),
            }),
            Message::TransferLeadership(to) => {
                let agent = self.clone();
                drop(W::Runtime::spawn(async move {
                    if let Err(error) = agent.replica().transfer_leadership(to).await {
                        tracing::warn!(to, %error, "leadership was not transferred");
                    }
                }));
                Answer::Heard
            }
        }
    }

    pub(crate) fn hear(&self, cell_id: CellId) {
        self.soft().heard.insert(cell_id, InstantOf::<W>::now());
    }

    /// What was heard, for a turn at `now`: of cells on record only, so that strangers who speak
    /// cannot fill the memory. A cell that is present and was not heard yet is as good as heard:
    /// it has just registered itself, or this node has just begun to lead.
    pub(crate) fn sightings(&self, state: &State, now: Millis, ttl: Millis) -> Sightings {
        let mut soft = self.soft();
        soft.heard.retain(|cell_id, at| {
            let is_silent = || now - self.date(now, *at) > ttl;
            state.cell(cell_id).is_some_and(|cell| cell.is_present() || !is_silent())
        });
        let mut sightings = Sightings::default();
        for cell in state.cells() {
            let cell_id = &cell.cell_id;
            if cell.is_present() && !soft.heard.contains_key(cell_id) {
                soft.heard.insert(cell_id.clone(), InstantOf::<W>::now());
            }
            if let Some(at) = soft.heard.get(cell_id) {
                sightings.hear(cell_id.clone(), self.date(now, *at));
            }
        }
        sightings
    }

    /// The date of an instant, seen from a date that is now.
    fn date(&self, now: Millis, instant: InstantOf<W>) -> Millis {
        now - self.world().stretch(InstantOf::<W>::now().saturating_duration_since(instant))
    }

    pub(crate) fn forget_sightings(&self) {
        self.soft().heard.clear();
    }

    /// How often turns taken by this node found by looking at everything what an event should
    /// have told them. Anything but 0 is a mistake of ours.
    #[must_use]
    pub fn overlooked(&self) -> u64 {
        self.soft().overlooked
    }

    pub(crate) fn count_overlooked(&self, count: usize) {
        let mut soft = self.soft();
        soft.overlooked = soft.overlooked.saturating_add(count as u64);
    }

    pub(crate) fn take_callback_place(&self) -> CallbackPlace {
        Arc::clone(&self.inner.callbacks)
    }

    /// How many callbacks are under way here.
    pub(crate) fn callbacks(&self) -> usize {
        Arc::strong_count(&self.inner.callbacks) - 1
    }

    pub(crate) fn set_report(&self, report: Report) {
        self.soft().report = Arc::new(report);
    }

    fn report(&self) -> Arc<Report> {
        Arc::clone(&self.soft().report)
    }

    fn soft(&self) -> MutexGuard<'_, SoftState<InstantOf<W>>> {
        self.inner.soft.lock().expect("no holder of the lock panics")
    }
}
