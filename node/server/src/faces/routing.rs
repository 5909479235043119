//! Keeps the router's table by this node's own copy of the records, which it follows without asking
//! anybody.

use std::sync::{Arc, PoisonError, RwLock};

use replica::events::Events;
use router::Table;
use router::proxy::SharedTable;

use crate::limits::ROUTER_EVENTS_AT_ONCE_MAX;
use crate::world::NodeAgent;

/// A table that [`follow`] keeps.
pub(crate) fn table() -> SharedTable {
    Arc::new(RwLock::new(Table::default()))
}

/// Runs until the replica stops.
pub(crate) async fn follow(agent: NodeAgent, table: SharedTable) {
    let mut watcher = agent.replica().watch();
    let mut known: Option<Option<u64>> = None;
    loop {
        known = Some(catch_up(&agent, &table, known));
        if watcher.changed().await.is_none() {
            return;
        }
    }
}

/// Follows the events since, or begins anew where these are not known any more; up to where.
fn catch_up(agent: &NodeAgent, table: &SharedTable, known: Option<Option<u64>>) -> Option<u64> {
    let mut known = known;
    loop {
        if let Some(index) = known {
            let events = agent.replica().events_after(index, ROUTER_EVENTS_AT_ONCE_MAX);
            if let Events::All { events, through } = events {
                if !events.is_empty() {
                    // A table is whole after each change.
                    let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
                    events.iter().for_each(|(_, event)| table.apply(event));
                }
                if through == index {
                    return index;
                }
                known = Some(through);
                continue;
            }
        }
        let reading = agent.read_stale();
        // Made before it is put there: requests do not wait for it.
        let anew = Table::of(&reading.state);
        *table.write().unwrap_or_else(PoisonError::into_inner) = anew;
        known = Some(reading.applied);
    }
}
