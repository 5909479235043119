//! Tells all subscribers of this node what has changed, written once for all of them.
//!
//! It follows this node's own copy of the records, so a stream goes on whoever leads. Who does not
//! keep up is cut off: nobody waits for a subscriber.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api::bbs::event::{self, About, Desired, Form, Told};
use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{CellId, DesiredLrp, Event, ProcessGuid, State};
use openraft_rt_tokio::TokioRuntime;
use replica::Reading;
use replica::events::{Events, Indexed};
use replica::status::Watcher;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::time::{Instant, sleep};

use crate::limits::{
    HUB_ENTRIES_BEHIND_MAX, HUB_EVENTS_AT_ONCE_MAX, HUB_LOOK, HUB_PATIENCE, SUBSCRIBER_EVENTS_MANY,
    SUBSCRIBER_EVENTS_MAX,
};
use crate::world::NodeAgent;

/// Which changes a stream is of, and in which form recipes are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) of: Of,
    pub(super) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Desired LRPs and instances.
    Instances,
    /// Desired LRPs and instances in groups: the old form.
    Groups,
    Tasks,
}

const STREAMS: usize = 6;

impl Stream {
    pub(super) const fn new(of: Of) -> Self {
        Self { of, form: Form::Current }
    }

    /// For clients that know no image layers.
    pub(super) const fn old(of: Of) -> Self {
        Self { of, form: Form::WithoutLayers }
    }

    fn all() -> [Self; STREAMS] {
        let all = [Of::Instances, Of::Groups, Of::Tasks];
        let ([a, b, c], [d, e, f]) = (all.map(Self::new), all.map(Self::old));
        [a, b, c, d, e, f]
    }

    fn at(self) -> usize {
        Self::all().iter().position(|stream| *stream == self).expect("they are all there")
    }
}

/// An event as it is sent, but for its number, which each subscriber counts for itself.
pub(super) type Frame = Bytes;

/// Clones are handles of the same hub.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    channels: Arc<Mutex<[Channels; STREAMS]>>,
    /// How many there are.
    subscribers: Arc<AtomicU32>,
    /// Tells subscribers that rest that many events wait.
    many_wait: Arc<Notify>,
}

/// The subscribers of one stream. Who watches one cell waits with those of that cell only: each
/// cell's route-emitter is one, and would be woken for what happens on a thousand others.
#[derive(Debug)]
pub(super) struct Channels {
    all: Sender<Frame>,
    cells: BTreeMap<CellId, Sender<Frame>>,
}

/// What a subscriber is told of, from now on.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) events: Receiver<Frame>,
    /// Of this node, in any stream.
    subscribers: Arc<AtomicU32>,
    many_wait: Arc<Notify>,
}

impl Subscription {
    fn new(events: Receiver<Frame>, hub: &Hub) -> Self {
        hub.subscribers.fetch_add(1, Ordering::Relaxed);
        let (subscribers, many_wait) = (Arc::clone(&hub.subscribers), Arc::clone(&hub.many_wait));
        Self { events, subscribers, many_wait }
    }

    /// Subscribers of this node, itself among them.
    pub(super) fn subscribers(&self) -> u32 {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// Rests until then, or until so many events wait that some could be lost.
    pub(super) async fn rest(&self, until: Instant) {
        let many_wait = self.many_wait.notified();
        if self.events.len() < SUBSCRIBER_EVENTS_MANY {
            let _ = tokio::time::timeout_at(until, many_wait).await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    pub(super) fn new() -> Self {
        let channels = Arc::new(Mutex::new(channels()));
        Self { channels, subscribers: Arc::default(), many_wait: Arc::default() }
    }

    /// Begins to follow; until the replica stops.
    pub(super) fn follow(agent: NodeAgent) -> Self {
        let hub = Self::new();
        // From here on: a client that has subscribed is told what comes after that.
        let watcher = agent.replica().watch();
        let known = agent.read_stale().applied;
        tokio::spawn(run(hub.clone(), agent, watcher, known));
        hub
    }

    /// Of one cell, or of all where it is empty.
    pub(super) fn subscribe(&self, stream: Stream, cell_id: &str) -> Subscription {
        let events = self.lock()[stream.at()].subscribe(cell_id);
        Subscription::new(events, self)
    }

    /// For tests of who listens.
    #[cfg(test)]
    pub(super) fn send(&self, stream: Stream, about: &About, frame: &Frame) {
        self.lock()[stream.at()].send(about, frame);
    }

    fn lock(&self) -> MutexGuard<'_, [Channels; STREAMS]> {
        self.channels.lock().expect("no holder of the lock panics")
    }

    /// Ends every stream: what should come next is not known.
    pub(super) fn cut_off(&self) {
        *self.lock() = channels();
    }

    /// Nothing is written for streams that nobody reads.
    fn tell(&self, events: &[&Event], desired: Desired<'_>) {
        // Whoever subscribes meanwhile waits for it.
        let channels = self.lock();
        let streams = Stream::all().into_iter().zip(&*channels);
        let read: Vec<_> = streams.filter(|(_, channels)| channels.is_read()).collect();
        for event in events {
            for (Stream { of, form }, channels) in &read {
                let told = match of {
                    Of::Instances => event::of_instances(event, desired, *form),
                    Of::Groups => event::of_groups(event, desired, *form),
                    Of::Tasks => event::of_tasks(event, *form).into_iter().collect(),
                };
                for told in told {
                    channels.send(&told.about, &frame(&told));
                }
            }
        }
    }

    /// Wakes those for whom many events wait, and with patience waits for them: but not for long,
    /// and not where one is lost already.
    async fn make_room(&self, is_patient: bool) {
        let patience = if is_patient { HUB_PATIENCE } else { Duration::ZERO };
        let until = Instant::now() + patience;
        loop {
            let waiting = self.most_waiting();
            if waiting < SUBSCRIBER_EVENTS_MANY {
                return;
            }
            self.many_wait.notify_waiters();
            if waiting >= SUBSCRIBER_EVENTS_MAX || Instant::now() >= until {
                return tokio::task::yield_now().await;
            }
            sleep(HUB_LOOK).await;
        }
    }

    /// Events that wait for the subscriber for whom most do.
    fn most_waiting(&self) -> usize {
        self.lock().iter().map(Channels::most_waiting).max().unwrap_or_default()
    }
}

impl Channels {
    fn new() -> Self {
        Self { all: channel(), cells: BTreeMap::new() }
    }

    fn subscribe(&mut self, cell_id: &str) -> Receiver<Frame> {
        if cell_id.is_empty() {
            return self.all.subscribe();
        }
        self.cells.retain(|_, sender| sender.receiver_count() > 0);
        self.cells.entry(cell_id.into()).or_insert_with(channel).subscribe()
    }

    fn is_read(&self) -> bool {
        self.senders().any(|sender| sender.receiver_count() > 0)
    }

    fn most_waiting(&self) -> usize {
        self.senders().map(Sender::len).max().unwrap_or_default()
    }

    fn senders(&self) -> impl Iterator<Item = &Sender<Frame>> {
        std::iter::once(&self.all).chain(self.cells.values())
    }

    /// An error in sending is that nobody reads it any more.
    fn send(&self, about: &About, frame: &Frame) {
        let _ = self.all.send(frame.clone());
        let told: &mut dyn Iterator<Item = _> = match about {
            About::Everyone => &mut self.cells.values(),
            About::Cells(cells) => &mut cells.iter().filter_map(|cell| self.cells.get(cell)),
        };
        for sender in told {
            let _ = sender.send(frame.clone());
        }
    }
}

fn channel() -> Sender<Frame> {
    broadcast::channel(SUBSCRIBER_EVENTS_MAX).0
}

fn channels() -> [Channels; STREAMS] {
    std::array::from_fn(|_| Channels::new())
}

async fn run(
    hub: Hub,
    agent: NodeAgent,
    mut watcher: Watcher<TokioRuntime>,
    mut known: Option<u64>,
) {
    let mut teller = Teller { hub: hub.clone(), told: 0 };
    loop {
        match agent.replica().events_after(known, HUB_EVENTS_AT_ONCE_MAX) {
            Events::All { events, through } => {
                let Reading { state, applied } = agent.read_stale();
                // Otherwise events would be forgotten before they are told.
                let is_patient = applied < through.map(|index| index + HUB_ENTRIES_BEHIND_MAX);
                teller.tell(&state, &events, is_patient).await;
                if through != known {
                    known = through;
                    continue;
                }
            }
            Events::Missed => {
                hub.cut_off();
                known = agent.read_stale().applied;
                continue;
            }
        }
        if watcher.changed().await.is_none() {
            // The node ends, and its streams with it.
            return hub.cut_off();
        }
    }
}

/// Tells a hub's subscribers.
#[derive(Debug)]
struct Teller {
    hub: Hub,
    /// Events since room was made last.
    told: usize,
}

impl Teller {
    /// Entry by entry. With patience, nobody who reads is cut off because much happened at once.
    async fn tell(&mut self, state: &State, events: &[Indexed], is_patient: bool) {
        if !self.hub.lock().iter().any(Channels::is_read) {
            return;
        }
        let gone = removed(events);
        let desired =
            |guid: &ProcessGuid| state.desired_lrp(guid).or_else(|| gone.get(guid)).cloned();
        for entry in events.chunk_by(|(one, _), (next, _)| one == next) {
            let entry: Vec<Event> = entry.iter().map(|(_, event)| event.clone()).collect();
            for events in event::in_order(&entry).chunks(HUB_EVENTS_AT_ONCE_MAX) {
                self.hub.tell(events, &desired);
                self.told += events.len();
                if self.told >= HUB_EVENTS_AT_ONCE_MAX {
                    self.told = 0;
                    self.hub.make_room(is_patient).await;
                }
            }
        }
    }
}

/// What the events remove: an instance that goes with its LRP had its routes and tags till then.
fn removed(events: &[Indexed]) -> BTreeMap<ProcessGuid, Arc<DesiredLrp>> {
    let mut gone = BTreeMap::new();
    for (_, event) in events {
        if let Event::DesiredLrpRemoved(lrp) = event {
            gone.insert(lrp.process_guid.clone(), Arc::clone(lrp));
        }
    }
    gone
}

/// The lines `event` and `data`, and the empty one.
fn frame(Told { name, message, .. }: &Told) -> Frame {
    format!("event: {name}\ndata: {}\n\n", STANDARD.encode(message)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_goes_with_its_lrp_is_told_with_what_that_had() {
        let lrp = Arc::new(DesiredLrp {
            process_guid: "app".into(),
            trace_id: "trace".to_owned(),
            ..DesiredLrp::default()
        });
        let other = Arc::new(DesiredLrp::default());
        let events =
            [(7, Event::DesiredLrpCreated(other)), (8, Event::DesiredLrpRemoved(Arc::clone(&lrp)))];
        assert_eq!(removed(&events), [("app".into(), lrp)].into());
    }

    /// All that waits for a subscriber.
    fn heard(events: &mut Receiver<Frame>) -> Vec<Frame> {
        std::iter::from_fn(|| events.try_recv().ok()).collect()
    }

    /// An operation with so many changes.
    fn much(count: u32) -> Vec<Indexed> {
        let created = |number: u32| {
            let process_guid = number.to_string().as_str().into();
            let lrp = DesiredLrp { process_guid, ..DesiredLrp::default() };
            (1, Event::DesiredLrpCreated(Arc::new(lrp)))
        };
        (0..count).map(created).collect()
    }

    /// Reads until the stream ends, resting as long as it may; how many it was told.
    async fn read(mut subscription: Subscription) -> u32 {
        let mut told = 0;
        loop {
            subscription.rest(Instant::now() + Duration::from_secs(60)).await;
            if subscription.events.recv().await.is_err() {
                return told;
            }
            told += 1;
            while subscription.events.try_recv().is_ok() {
                told += 1;
            }
        }
    }

    const STREAM: Stream = Stream::new(Of::Instances);

    #[tokio::test(start_paused = true)]
    async fn who_reads_is_told_of_much_that_happens_at_once() {
        let hub = Hub::new();
        let readers = [(); 10].map(|()| tokio::spawn(read(hub.subscribe(STREAM, ""))));
        let mut teller = Teller { hub: hub.clone(), told: 0 };
        teller.tell(&State::new(), &much(10_000), true).await;
        // Little by little.
        for _ in 0..1000 {
            teller.tell(&State::new(), &much(10), true).await;
        }
        // Their last rests end.
        sleep(Duration::from_secs(60)).await;
        hub.cut_off();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), 20_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_not_waited_for_for_long() {
        for is_patient in [true, false] {
            let hub = Hub::new();
            let mut silent = hub.subscribe(STREAM, "");
            let begun = Instant::now();
            let mut teller = Teller { hub: hub.clone(), told: 0 };
            teller.tell(&State::new(), &much(10_000), is_patient).await;
            // Until it is lost.
            let steps = u32::try_from(SUBSCRIBER_EVENTS_MAX / HUB_EVENTS_AT_ONCE_MAX).unwrap();
            let most = if is_patient { HUB_PATIENCE * steps } else { Duration::ZERO };
            assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
            assert!(silent.events.recv().await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_costs_no_other_its_stream() {
        let hub = Hub::new();
        let mut teller = Teller { hub: hub.clone(), told: 0 };
        let mut silent = hub.subscribe(STREAM, "");
        teller.tell(&State::new(), &much(10_000), true).await;
        let readers = [(); 10].map(|()| tokio::spawn(read(hub.subscribe(STREAM, ""))));
        for _ in 0..1000 {
            teller.tell(&State::new(), &much(10), true).await;
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_secs(60)).await;
        hub.cut_off();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), 10_000);
        }
        assert!(silent.events.recv().await.is_err());
    }

    #[test]
    fn who_watches_one_cell_hears_of_that_one_and_of_what_all_hear() {
        let mut channels = Channels::new();
        assert!(!channels.is_read());
        let mut all = channels.subscribe("");
        let (mut a, mut b) = (channels.subscribe("a"), channels.subscribe("b"));
        let cells =
            |cells: &[&str]| About::Cells(cells.iter().map(|cell| (*cell).into()).collect());
        for (about, frame) in [
            (About::Everyone, "desired"),
            (cells(&["a"]), "of a"),
            (cells(&["a", "b"]), "moved"),
            (cells(&[]), "of none"),
            (cells(&["c"]), "of c"),
        ] {
            channels.send(&about, &Frame::from_static(frame.as_bytes()));
        }
        assert_eq!(heard(&mut all), ["desired", "of a", "moved", "of none", "of c"]);
        assert_eq!(heard(&mut a), ["desired", "of a", "moved"]);
        assert_eq!(heard(&mut b), ["desired", "moved"]);
    }

    #[test]
    fn cells_that_nobody_watches_any_more_take_no_room() {
        let mut channels = Channels::new();
        for cell in 0..100 {
            drop(channels.subscribe(&cell.to_string()));
        }
        assert!(!channels.is_read());
        let _a = channels.subscribe("a");
        assert!(channels.is_read());
        assert_eq!(channels.cells.len(), 1);
    }
}
