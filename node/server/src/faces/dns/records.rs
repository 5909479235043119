//! The cluster's names by a node's own copy of its records, which it follows without asking
//! anybody.

use std::sync::Mutex;

use container::container::AddressRange;
use rand::seq::SliceRandom as _;

use super::Book;
use super::message::Answer;
use crate::limits::DNS_EVENTS_AT_ONCE_MAX;
use crate::names::{Here, Names};
use crate::records::{Follower, News};
use crate::world::NodeAgent;

/// The names by a node's copy of the records.
pub(crate) struct Records {
    agent: NodeAgent,
    here: Here,
    known: Mutex<(Follower, Names)>,
}

impl Records {
    pub(crate) fn new(agent: NodeAgent, container_networks: Vec<AddressRange>) -> Self {
        let here = Here { cell_id: agent.cell().cell_id.clone(), container_networks };
        Self { agent, here, known: Mutex::default() }
    }
}

impl Book for Records {
    fn look_up(&self, labels: &[String]) -> Answer {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        let (follower, names) = &mut *known;
        follower.catch_up(&self.agent, DNS_EVENTS_AT_ONCE_MAX, |news| match news {
            News::Events(events) => events.iter().for_each(|(_, event)| names.apply(event)),
            News::Anew(state) => *names = Names::of(state),
        });
        let state = self.agent.read_stale().state;
        let meaning = names.find(&state, labels);
        drop(known);
        let Some(meaning) = meaning else { return Answer::Unknown };
        let mut addresses = meaning.addresses(&self.here);
        let mut services = meaning.services(&self.here);
        // Many have more than one answer has room for, and clients take the first.
        addresses.shuffle(&mut rand::rng());
        services.shuffle(&mut rand::rng());
        Answer::Known { addresses, services }
    }
}
