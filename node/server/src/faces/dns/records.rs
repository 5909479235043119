//! The cluster's names by a node's own copy of its records, which it follows without asking
//! anybody.

use std::sync::Mutex;

use container::container::AddressRange;
use rand::seq::SliceRandom as _;
use replica::events::Events;

use super::Book;
use super::message::Answer;
use crate::limits::DNS_EVENTS_AT_ONCE_MAX;
use crate::names::{Here, Names};
use crate::world::NodeAgent;

/// The names by a node's copy of the records.
pub(crate) struct Records {
    agent: NodeAgent,
    here: Here,
    /// As they were after the entry of this index.
    known: Mutex<Option<(Option<u64>, Names)>>,
}

impl Records {
    pub(crate) fn new(agent: NodeAgent, container_networks: Vec<AddressRange>) -> Self {
        let here = Here { cell_id: agent.cell().cell_id.clone(), container_networks };
        Self { agent, here, known: Mutex::default() }
    }

    /// Follows the events since, or begins anew where these are not known any more.
    fn follow(&self, known: &mut Option<(Option<u64>, Names)>) {
        loop {
            if let Some((index, names)) = known {
                let events = self.agent.replica().events_after(*index, DNS_EVENTS_AT_ONCE_MAX);
                if let Events::All { events, through } = events {
                    events.iter().for_each(|(_, event)| names.apply(event));
                    let is_done = through == *index;
                    *index = through;
                    if is_done {
                        return;
                    }
                    continue;
                }
            }
            let reading = self.agent.read_stale();
            *known = Some((reading.applied, Names::of(&reading.state)));
        }
    }
}

impl Book for Records {
    fn look_up(&self, labels: &[String]) -> Answer {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        self.follow(&mut known);
        let state = self.agent.read_stale().state;
        let names = known.as_ref().map(|(_, names)| names);
        let meaning = names.and_then(|names| names.find(&state, labels));
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
