//! **A member that forgot takes no part: once a node's disk was emptied, nothing is granted,
//! acknowledged or asked for under its old number.**
//!
//! What it forgot others may count on: it would vote twice in a term, or let be overwritten what
//! was agreed with its help. Source: Raft thesis, section 3.8 (what must survive), 11.7.3 (a server
//! that lost its disk comes back as a new one).

use std::collections::BTreeSet;

use replica::NodeId;
use replica::peers::{Appended, PeerRequest, PeerResponse, Proposed, SnapshotReceived};

use super::Verdict;

pub(super) const NAME: &str = "a member that forgot takes no part";

/// The members whose disks were emptied.
#[derive(Debug, Default)]
pub(super) struct Forgetful(BTreeSet<NodeId>);

impl Forgetful {
    /// The disk of `node` was emptied.
    pub(super) fn forgot(&mut self, node: NodeId) {
        self.0.insert(node);
    }

    /// `by` answered.
    pub(super) fn answered(&self, by: NodeId, response: &PeerResponse) -> Verdict {
        self.judge(by, is_counted(response), || format!("answered {response:?}"))
    }

    /// `from` sent a request.
    pub(super) fn sent(&self, from: NodeId, request: &PeerRequest) -> Verdict {
        let takes_part = match request {
            PeerRequest::AppendEntries(_)
            | PeerRequest::Vote(_)
            | PeerRequest::PreVote(_)
            | PeerRequest::TransferLeader(_)
            | PeerRequest::SnapshotChunk(_) => true,
            PeerRequest::Propose(_)
            | PeerRequest::ReadIndex
            | PeerRequest::Soft(_)
            | PeerRequest::Introduce(_) => false,
        };
        self.judge(from, takes_part, || format!("asked for {}", request.name()))
    }

    fn judge(&self, node: NodeId, takes_part: bool, what: impl FnOnce() -> String) -> Verdict {
        if takes_part && self.0.contains(&node) {
            return Err(format!("node {node}, whose disk was emptied, {}", what()));
        }
        Ok(())
    }
}

/// Whether Raft counts on what an answer says.
pub(super) fn is_counted(response: &PeerResponse) -> bool {
    match response {
        PeerResponse::Vote(voted) => voted.granted,
        PeerResponse::AppendEntries(Appended::All | Appended::Through(Some(_)))
        | PeerResponse::Snapshot(SnapshotReceived::More | SnapshotReceived::Installed(_))
        | PeerResponse::TransferLeader(Ok(()))
        | PeerResponse::Propose(Proposed::Applied(_))
        | PeerResponse::ReadIndex(Ok(_)) => true,
        PeerResponse::AppendEntries(
            Appended::Through(None) | Appended::Conflict | Appended::HigherVote(_),
        )
        | PeerResponse::Snapshot(SnapshotReceived::Refused(_))
        | PeerResponse::TransferLeader(Err(_))
        | PeerResponse::Propose(Proposed::NotLeader(_) | Proposed::Unknown(_))
        | PeerResponse::ReadIndex(Err(_))
        | PeerResponse::Soft(_)
        | PeerResponse::Failed(_)
        | PeerResponse::Introduced(_)
        | PeerResponse::NotHere(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use replica::peers::{Ballot, Voted};
    use replica::wire::Vote;

    use super::*;

    #[test]
    fn a_vote_of_one_that_forgot_is_seen() {
        let vote = Vote { term: 1, node: 2, committed: false };
        let granted = |granted| PeerResponse::Vote(Voted { vote, granted, last_log_id: None });
        let asks =
            PeerRequest::Vote(Ballot { vote, last_log_id: None, leadership_transfer: false });
        let mut forgetful = Forgetful::default();
        assert!(forgetful.answered(2, &granted(true)).is_ok());
        forgetful.forgot(2);
        assert!(forgetful.answered(2, &granted(true)).is_err());
        assert!(forgetful.answered(2, &granted(false)).is_ok());
        assert!(forgetful.answered(1, &granted(true)).is_ok());
        assert!(forgetful.answered(2, &PeerResponse::AppendEntries(Appended::All)).is_err());
        assert!(forgetful.sent(2, &asks).is_err());
        assert!(forgetful.sent(1, &asks).is_ok());
        assert!(forgetful.sent(2, &PeerRequest::ReadIndex).is_ok());
    }
}
