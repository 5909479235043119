//! Tells all subscribers of this node what has changed, written once for all of them.
//!
//! It follows this node's own copy of the records, so a stream goes on whoever leads. Who does not
//! keep up is cut off: nobody waits for a subscriber.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::bbs::event::{self, About, Form, Told};
use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{DesiredLrp, Event, ProcessGuid};
use openraft_rt_tokio::TokioRuntime;
use replica::events::{Events, Indexed};
use replica::status::Watcher;
use tokio::sync::broadcast::{self, Sender};

use crate::limits::{HUB_EVENTS_AT_ONCE_MAX, SUBSCRIBER_EVENTS_MAX};
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
    fn all() -> [Self; STREAMS] {
        let of_form = |form| [Of::Instances, Of::Groups, Of::Tasks].map(|of| Self { of, form });
        let ([a, b, c], [d, e, f]) = (of_form(Form::Current), of_form(Form::WithoutLayers));
        [a, b, c, d, e, f]
    }

    fn at(self) -> usize {
        Self::all().iter().position(|stream| *stream == self).expect("they are all there")
    }
}

/// An event as it is sent, but for its number, which each stream counts for itself.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) about: About,
    /// The lines `event` and `data`, and the empty one.
    pub(super) text: Bytes,
}

/// Clones are handles of the same hub.
#[derive(Clone, Debug)]
pub(crate) struct Hub(Arc<Mutex<[Sender<Arc<Frame>>; STREAMS]>>);

impl Hub {
    /// Begins to follow; until the replica stops.
    pub(super) fn follow(agent: NodeAgent) -> Self {
        let hub = Self(Arc::new(Mutex::new(channels())));
        // From here on: a client that has subscribed is told what comes after that.
        let watcher = agent.replica().watch();
        let known = agent.read_stale().applied;
        tokio::spawn(run(hub.clone(), agent, watcher, known));
        hub
    }

    /// Whoever subscribes to it is told all that changes from then on.
    pub(super) fn stream(&self, stream: Stream) -> Sender<Arc<Frame>> {
        self.senders()[stream.at()].clone()
    }

    fn senders(&self) -> [Sender<Arc<Frame>>; STREAMS] {
        self.0.lock().expect("no holder of the lock panics").clone()
    }

    /// Ends every stream: what should come next is not known.
    fn cut_off(&self) {
        *self.0.lock().expect("no holder of the lock panics") = channels();
    }
}

fn channels() -> [Sender<Arc<Frame>>; STREAMS] {
    std::array::from_fn(|_| broadcast::channel(SUBSCRIBER_EVENTS_MAX).0)
}

async fn run(
    hub: Hub,
    agent: NodeAgent,
    mut watcher: Watcher<TokioRuntime>,
    mut known: Option<u64>,
) {
    loop {
        match agent.replica().events_after(known, HUB_EVENTS_AT_ONCE_MAX) {
            Events::All { events, through } => {
                if !events.is_empty() {
                    tell(&hub, &agent, events);
                }
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

/// Entry by entry. Nothing is written for streams that nobody reads.
fn tell(hub: &Hub, agent: &NodeAgent, events: Vec<Indexed>) {
    let senders = hub.senders();
    let streams = Stream::all().into_iter().zip(&senders);
    let read: Vec<_> = streams.filter(|(_, sender)| sender.receiver_count() > 0).collect();
    if read.is_empty() {
        return;
    }
    let state = agent.read_stale().state;
    let gone = removed(&events);
    let desired = |guid: &ProcessGuid| state.desired_lrp(guid).or_else(|| gone.get(guid)).cloned();
    for entry in events.chunk_by(|(one, _), (next, _)| one == next) {
        let entry: Vec<Event> = entry.iter().map(|(_, event)| event.clone()).collect();
        for event in event::in_order(&entry) {
            for (Stream { of, form }, sender) in &read {
                let told = match of {
                    Of::Instances => event::of_instances(event, &desired, *form),
                    Of::Groups => event::of_groups(event, &desired, *form),
                    Of::Tasks => event::of_tasks(event, *form).into_iter().collect(),
                };
                for told in told {
                    // An error is that nobody reads it any more.
                    let _ = sender.send(Arc::new(frame(told)));
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

fn frame(Told { name, message, about }: Told) -> Frame {
    let text = format!("event: {name}\ndata: {}\n\n", STANDARD.encode(message));
    Frame { about, text: text.into() }
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
}
