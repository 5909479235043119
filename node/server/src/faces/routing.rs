//! Keeps the router's table, and what other routers are told, by this node's own copy of the
//! records.

use std::sync::{Arc, PoisonError, RwLock};

use router::Table;
use router::proxy::SharedTable;

use super::nats::SharedFeed;
use crate::limits::ROUTER_EVENTS_AT_ONCE_MAX;
use crate::records::{Follower, News};
use crate::world::NodeAgent;

/// A table that [`follow`] keeps.
pub(crate) fn table() -> SharedTable {
    Arc::new(RwLock::new(Table::default()))
}

/// Runs until the replica stops.
pub(crate) async fn follow(
    agent: NodeAgent,
    table: Option<SharedTable>,
    feed: Option<Arc<SharedFeed>>,
) {
    let mut watcher = agent.replica().watch();
    let mut follower = Follower::default();
    loop {
        follower.catch_up(&agent, ROUTER_EVENTS_AT_ONCE_MAX, |news| {
            if let Some(table) = &table {
                keep(table, &news);
            }
            if let Some(feed) = &feed {
                feed.follow(&news);
            }
        });
        if watcher.changed().await.is_none() {
            return;
        }
    }
}

fn keep(table: &SharedTable, news: &News<'_>) {
    match news {
        News::Events(events) => {
            // A table is whole after each change.
            let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
            events.iter().for_each(|(_, event)| table.apply(event));
        }
        News::Anew(state) => {
            // Made before it is put there: requests do not wait for it.
            let anew = Table::of(state);
            *table.write().unwrap_or_else(PoisonError::into_inner) = anew;
        }
    }
}
