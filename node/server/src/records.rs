//! Follows this node's own copy of the records without asking anybody, for whatever is kept by
//! them: the router's table, what other routers are told, the cluster's names.

use model::State;
use replica::events::{Events, Indexed};

use crate::world::NodeAgent;

/// What is to be followed.
pub(crate) enum News<'a> {
    /// What changed, in order.
    Events(&'a [Indexed]),
    /// Everything, where the events since are not known any more, and at first.
    Anew(&'a State),
}

/// How far somebody has followed.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// The last entry that was followed; nothing before the first.
    known: Option<Option<u64>>,
}

impl Follower {
    /// Tells what has happened since this was last called, about `most` events at a time.
    pub(crate) fn catch_up(
        &mut self,
        agent: &NodeAgent,
        most: usize,
        mut tell: impl FnMut(News<'_>),
    ) {
        loop {
            if let Some(index) = self.known
                && let Events::All { events, through } = agent.replica().events_after(index, most)
            {
                if !events.is_empty() {
                    tell(News::Events(&events));
                }
                self.known = Some(through);
                if through == index {
                    return;
                }
                continue;
            }
            let reading = agent.read_stale();
            tell(News::Anew(&reading.state));
            self.known = Some(reading.applied);
        }
    }
}
