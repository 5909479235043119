//! **Durable answers: a follower says that it has an entry only when its disk has synced it.**
//!
//! Source: Raft thesis, section 3.8 (persisted before the answer) and 10.2.1.

use replica::NodeId;
use replica::peers::{Appended, PeerRequest, PeerResponse, SnapshotReceived};

use super::Verdict;

pub(super) const NAME: &str = "durable answers";

/// `by` answered a request, when its disk had synced entries, or rows that contain them, up to
/// `durable_log`, ever.
#[expect(clippy::wildcard_enum_match_arm, reason = "a request that the answer does not fit")]
pub(super) fn answered(
    by: NodeId,
    request: &PeerRequest,
    response: &PeerResponse,
    durable_log: Option<u64>,
) -> Verdict {
    let claimed = match response {
        PeerResponse::AppendEntries(Appended::All) => match request {
            PeerRequest::AppendEntries(append) => append.entries.last().map(|entry| entry.log_id),
            _ => None,
        },
        PeerResponse::AppendEntries(Appended::Through(id)) => *id,
        PeerResponse::Snapshot(SnapshotReceived::Installed(vote)) => match request {
            // Another vote than the leader's says that nothing was installed.
            PeerRequest::SnapshotChunk(chunk) if chunk.vote == *vote => chunk.last_log_id,
            _ => None,
        },
        PeerResponse::AppendEntries(Appended::Conflict | Appended::HigherVote(_))
        | PeerResponse::Vote(_)
        | PeerResponse::TransferLeader(_)
        | PeerResponse::Snapshot(SnapshotReceived::More | SnapshotReceived::Refused(_))
        | PeerResponse::Propose(_)
        | PeerResponse::ReadIndex(_)
        | PeerResponse::Soft(_)
        | PeerResponse::Failed(_)
        | PeerResponse::Introduced(_)
        | PeerResponse::NotHere(_) => None,
    };
    match claimed {
        Some(id) if Some(id.index) > durable_log => Err(format!(
            "node {by} says that it has entry {id}, and its disk has synced up to {durable_log:?}"
        )),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use replica::peers::AppendEntries;
    use replica::wire::{Body, Entry, LogId, Vote};

    use super::*;

    #[test]
    fn an_answer_before_the_sync_is_seen() {
        let log_id = LogId { term: 1, index: 7 };
        let append = AppendEntries {
            vote: Vote { term: 1, node: 1, committed: true },
            previous: None,
            entries: vec![Entry { log_id, body: Body::Blank }],
            committed: None,
        };
        let append = PeerRequest::AppendEntries(append);
        let all = PeerResponse::AppendEntries(Appended::All);
        let conflict = PeerResponse::AppendEntries(Appended::Conflict);
        assert!(answered(2, &append, &all, Some(7)).is_ok());
        assert!(answered(2, &append, &all, Some(6)).is_err());
        assert!(answered(2, &append, &all, None).is_err());
        assert!(answered(2, &append, &conflict, None).is_ok());
    }
}
