//! **Log matching: entries of one index and term are the same entry, and so are all before them.**
//!
//! Taken from every entry that any leader ever sends: what it says, and which entry it follows.
//! Source: Raft thesis, figure 3.2.

use std::collections::BTreeMap;

use replica::peers::AppendEntries;
use replica::wire::{Blob, Body, LogId};

use super::Verdict;

pub(super) const NAME: &str = "log matching";

/// An entry as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// The entry before it.
    pub(super) previous: Option<LogId>,
    /// What it says.
    pub(super) body: Body,
}

impl Sent {
    /// The bytes of the proposal, if it is one.
    pub(super) fn proposal(&self) -> Option<&Blob> {
        match &self.body {
            Body::Proposal(bytes) => Some(bytes),
            Body::Blank | Body::Membership(_) => None,
        }
    }
}

/// Every entry that was ever sent.
#[derive(Debug, Default)]
pub(super) struct LogMatching(BTreeMap<LogId, Sent>);

impl LogMatching {
    /// A leader sends entries.
    pub(super) fn sent(&mut self, append: &AppendEntries) -> Verdict {
        let mut previous = append.previous;
        for entry in &append.entries {
            let expected = previous.map_or(0, |id| id.index + 1);
            if entry.log_id.index != expected {
                return Err(format!("entry {} is sent in place {expected}", entry.log_id));
            }
            let sent = Sent { previous, body: entry.body.clone() };
            if let Some(first) = self.0.get(&entry.log_id)
                && *first != sent
            {
                return Err(format!("entry {} is both {first:?} and {sent:?}", entry.log_id));
            }
            self.0.entry(entry.log_id).or_insert(sent);
            previous = Some(entry.log_id);
        }
        Ok(())
    }

    /// An entry that was sent.
    pub(super) fn get(&self, id: LogId) -> Option<&Sent> {
        self.0.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use replica::wire::{Entry, Vote};

    use super::*;

    fn append(previous: Option<LogId>, ids: &[(u64, u64)], says: u8) -> AppendEntries {
        let entry = |(term, index): &(u64, u64)| Entry {
            log_id: LogId { term: *term, index: *index },
            body: Body::Proposal(Blob([says].into())),
        };
        let vote = Vote { term: 9, node: 1, committed: true };
        let entries = ids.iter().map(entry).collect();
        AppendEntries { vote, previous, entries, committed: None }
    }

    #[test]
    fn one_id_is_one_entry_after_one_entry() {
        let at = |term, index| Some(LogId { term, index });
        let mut log = LogMatching::default();
        assert!(log.sent(&append(None, &[(1, 0), (1, 1)], 7)).is_ok());
        assert!(log.sent(&append(at(1, 0), &[(1, 1), (2, 2)], 7)).is_ok());
        assert!(log.sent(&append(at(1, 0), &[(1, 1)], 8)).is_err(), "another body");
        assert!(log.sent(&append(at(2, 1), &[(2, 2)], 7)).is_err(), "another predecessor");
        assert!(log.sent(&append(at(1, 0), &[(2, 2)], 7)).is_err(), "a hole");
    }
}
