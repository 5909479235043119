//! **One vote: a member votes for at most one candidate in a given term, whatever crashes.**
//!
//! A candidate that asks has voted for itself; who grants has voted for the one who asked. A vote
//! that is not on disk before it is given is given twice after a crash. Source: Raft thesis,
//! section 3.4 and figure 3.1 (votedFor is persistent).

use std::collections::BTreeMap;

use replica::NodeId;
use replica::wire::Vote;

use super::Verdict;

pub(super) const NAME: &str = "one vote";

/// Who voted for whom, by term and voter.
#[derive(Debug, Default)]
pub(super) struct OneVote(BTreeMap<(u64, NodeId), NodeId>);

impl OneVote {
    /// `voter` has given `vote`.
    pub(super) fn voted(&mut self, voter: NodeId, vote: Vote) -> Verdict {
        let first = *self.0.entry((vote.term, voter)).or_insert(vote.node);
        if first == vote.node {
            return Ok(());
        }
        Err(format!(
            "node {voter} voted for node {first} and for node {} in term {}",
            vote.node, vote.term
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_vote_is_seen() {
        let vote = |term, node| Vote { term, node, committed: false };
        let mut votes = OneVote::default();
        assert!(votes.voted(1, vote(1, 2)).is_ok());
        assert!(votes.voted(1, vote(1, 2)).is_ok(), "the same vote again is no second one");
        assert!(votes.voted(3, vote(1, 4)).is_ok());
        assert!(votes.voted(1, vote(2, 4)).is_ok());
        assert!(votes.voted(1, vote(1, 4)).is_err());
    }
}
