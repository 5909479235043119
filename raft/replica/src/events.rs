//! What happened lately, for those who watch: the newest events in the order they were applied,
//! bounded. Kept in memory only; who missed some reads the state again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use model::Event;

use crate::limits;

/// An event and the entry that caused it.
pub type Indexed = (u64, Event);

/// What [`crate::Replica::events_after`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Events {
    /// All events of the entries after the index asked for, up to and with entry `through`.
    All {
        /// In order, several for one entry where it had several.
        events: Vec<Indexed>,
        /// The index to ask with next; none when nothing was ever applied.
        through: Option<u64>,
    },
    /// Some are no longer known: read the state, and go on from its index.
    Missed,
}

/// The newest events.
#[derive(Debug)]
pub(crate) struct EventLog {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    events: VecDeque<Indexed>,
    /// Events of entries up to this one are no longer known.
    forgotten: Option<u64>,
    /// The last entry that was told, with or without events.
    through: Option<u64>,
}

impl EventLog {
    pub(crate) fn after(applied: Option<u64>) -> Self {
        let inner = Inner { events: VecDeque::new(), forgotten: applied, through: applied };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the lock panics")
    }

    /// Adds the events of entries up to and with `through`.
    pub(crate) fn push(&self, events: impl Iterator<Item = Indexed>, through: Option<u64>) {
        let mut inner = self.lock();
        inner.events.extend(events);
        inner.through = through;
        while inner.events.len() > limits::EVENTS_KEPT_MAX {
            if let Some((index, _)) = inner.events.pop_front() {
                inner.forgotten = Some(index);
            }
        }
    }

    /// A snapshot replaced the state: what led to it is not known.
    pub(crate) fn jump(&self, applied: Option<u64>) {
        *self.lock() = Inner { events: VecDeque::new(), forgotten: applied, through: applied };
    }

    /// The events of entries after `index`, at most about `max` of them but never half an entry.
    pub(crate) fn after_index(&self, index: Option<u64>, max: usize) -> Events {
        let inner = self.lock();
        if index < inner.forgotten {
            return Events::Missed;
        }
        let start = inner.events.partition_point(|(of, _)| Some(*of) <= index);
        let mut events: Vec<Indexed> = Vec::new();
        let mut through = inner.through.max(index);
        for (of, event) in inner.events.range(start..) {
            if events.len() >= max.max(1) && events.last().is_some_and(|(last, _)| last != of) {
                through = events.last().map(|(last, _)| *last);
                break;
            }
            events.push((*of, event.clone()));
        }
        Events::All { events, through }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::ClusterInitialised
    }

    #[test]
    fn watchers_get_whole_entries_in_order() {
        let log = EventLog::after(Some(4));
        log.push([(5, event()), (5, event()), (7, event())].into_iter(), Some(9));
        let all = |events: &[u64], through| Events::All {
            events: events.iter().map(|index| (*index, event())).collect(),
            through: Some(through),
        };
        assert_eq!(log.after_index(Some(4), 100), all(&[5, 5, 7], 9));
        assert_eq!(log.after_index(Some(4), 1), all(&[5, 5], 5));
        assert_eq!(log.after_index(Some(5), 1), all(&[7], 9));
        assert_eq!(log.after_index(Some(9), 1), all(&[], 9));
    }

    #[test]
    fn who_is_too_far_behind_is_told() {
        let log = EventLog::after(Some(4));
        assert_eq!(log.after_index(Some(3), 1), Events::Missed);
        assert_eq!(log.after_index(None, 1), Events::Missed);
        let count = u64::try_from(limits::EVENTS_KEPT_MAX).unwrap() + 1;
        log.push((0..count).map(|offset| (5 + offset, event())), Some(4 + count));
        assert_eq!(log.after_index(Some(4), 1), Events::Missed);
        assert!(matches!(log.after_index(Some(5), 1), Events::All { .. }));
        log.jump(Some(1_000_000));
        assert_eq!(log.after_index(Some(5), 1), Events::Missed);
    }
}
