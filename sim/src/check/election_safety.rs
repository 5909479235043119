//! **Election safety: at most one leader is elected in a given term.**
//!
//! Whoever sends entries, heartbeats or snapshots leads in the term of its vote. Source: Raft
//! thesis, figure 3.2.

use std::collections::BTreeMap;

use replica::NodeId;
use replica::wire::Vote;

use super::Verdict;

pub(super) const NAME: &str = "election safety";

/// Who led in which term.
#[derive(Debug, Default)]
pub(super) struct ElectionSafety(BTreeMap<u64, NodeId>);

impl ElectionSafety {
    /// `node` acts as a leader on the strength of `vote`.
    pub(super) fn leads(&mut self, node: NodeId, vote: Vote) -> Verdict {
        if vote.node != node {
            return Err(format!("node {node} leads by the vote of node {}", vote.node));
        }
        if !vote.committed {
            return Err(format!("node {node} leads term {} without being elected", vote.term));
        }
        let first = *self.0.entry(vote.term).or_insert(node);
        if first != node {
            return Err(format!("nodes {first} and {node} both lead term {}", vote.term));
        }
        Ok(())
    }

    /// How many terms had a leader.
    pub(super) fn terms(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_seen() {
        let vote = |term, node| Vote { term, node, committed: true };
        let mut safety = ElectionSafety::default();
        assert!(safety.leads(1, vote(1, 1)).is_ok());
        assert!(safety.leads(2, vote(2, 2)).is_ok());
        assert!(safety.leads(1, vote(1, 1)).is_ok());
        assert!(safety.leads(2, vote(1, 2)).is_err());
        assert!(safety.leads(3, vote(4, 1)).is_err());
        assert!(safety.leads(3, Vote { term: 5, node: 3, committed: false }).is_err());
        assert_eq!(safety.terms(), 2);
    }
}
