//! **A node whose disk has failed stops: after that it gives no answer that Raft counts.**
//!
//! A disk that failed once is not to be trusted further, and who goes on without one is counted on
//! for what it can never do. Source: `replica::disk::Disk`, promise 4.

use std::time::Duration;

use replica::NodeId;
use replica::peers::PeerResponse;

use super::Verdict;
use super::forgetful::is_counted;
use crate::limits;

pub(super) const NAME: &str = "a node whose disk has failed stops";

/// `by` answered, when its disk had failed for so long.
pub(super) fn answered(
    by: NodeId,
    response: &PeerResponse,
    failed_for: Option<Duration>,
) -> Verdict {
    match failed_for {
        Some(failed_for) if failed_for > limits::STOP_MAX && is_counted(response) => {
            let since = failed_for.as_millis();
            Err(format!("node {by} answers {response:?}, {since} ms after its disk failed"))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use replica::peers::Appended;

    use super::*;

    #[test]
    fn an_answer_without_a_disk_is_seen() {
        let counts = PeerResponse::AppendEntries(Appended::All);
        let late = Some(limits::STOP_MAX + Duration::from_millis(1));
        assert!(answered(1, &counts, None).is_ok());
        assert!(answered(1, &counts, Some(limits::STOP_MAX)).is_ok());
        assert!(answered(1, &counts, late).is_err());
        assert!(answered(1, &PeerResponse::Failed(String::new()), late).is_ok());
    }
}
