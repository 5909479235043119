//! **Leader completeness: what is agreed in one term is in the log of every later leader.**
//!
//! The first entry of a leader's own term stands above everything of earlier terms that was agreed
//! when that leader first spoke; that it follows the same entries is `log_matching` and
//! `state_machine`. A leader may first speak when it has been deposed already, so what was agreed
//! in later terms does not count.
//! Source: Raft thesis, figure 3.2 and section 3.6.3.

use std::collections::BTreeMap;

use replica::peers::AppendEntries;

use super::Verdict;

pub(super) const NAME: &str = "leader completeness";

/// What was agreed when the leader of a term first spoke.
#[derive(Debug, Default)]
pub(super) struct LeaderCompleteness(BTreeMap<u64, Option<u64>>);

impl LeaderCompleteness {
    /// A leader sends entries, while of earlier terms everything through `agreed` is known to be
    /// agreed.
    pub(super) fn sent(&mut self, append: &AppendEntries, agreed: Option<u64>) -> Verdict {
        let term = append.vote.term;
        let agreed = *self.0.entry(term).or_insert(agreed);
        let own = append.entries.iter().find(|entry| entry.log_id.term == term);
        let follows_older = |index| match append.previous {
            Some(previous) if index == previous.index + 1 => previous.term < term,
            Some(_) | None => true,
        };
        match own {
            Some(first)
                if follows_older(first.log_id.index) && Some(first.log_id.index) <= agreed =>
            {
                Err(format!(
                    "the leader of term {term} begins at entry {}, and entry {} was agreed before",
                    first.log_id,
                    agreed.unwrap_or_default()
                ))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use replica::wire::{Body, Entry, LogId, Vote};

    use super::*;

    fn first_entry_at(index: u64, agreed: u64) -> Verdict {
        let previous = Some(LogId { term: 1, index: index - 1 });
        let entry = Entry { log_id: LogId { term: 2, index }, body: Body::Blank };
        let vote = Vote { term: 2, node: 1, committed: true };
        let append = AppendEntries { vote, previous, entries: vec![entry], committed: None };
        LeaderCompleteness::default().sent(&append, Some(agreed))
    }

    #[test]
    fn a_leader_that_lacks_what_was_agreed_is_seen() {
        assert!(first_entry_at(8, 7).is_ok());
        assert!(first_entry_at(9, 7).is_ok());
        assert!(first_entry_at(7, 7).is_err());
        assert!(first_entry_at(3, 7).is_err());
    }

    #[test]
    fn what_is_agreed_in_its_own_term_does_not_count() {
        let mut completeness = LeaderCompleteness::default();
        let vote = Vote { term: 2, node: 1, committed: true };
        let append = |previous: LogId, index| AppendEntries {
            vote,
            previous: Some(previous),
            entries: vec![Entry { log_id: LogId { term: 2, index }, body: Body::Blank }],
            committed: None,
        };
        let first = append(LogId { term: 1, index: 7 }, 8);
        assert!(completeness.sent(&first, Some(7)).is_ok());
        // Sent again to a slower follower when it is agreed already.
        assert!(completeness.sent(&first, Some(8)).is_ok());
        let second = append(LogId { term: 2, index: 8 }, 9);
        assert!(completeness.sent(&second, Some(8)).is_ok());
    }
}
