//! **What has rotted is never believed: a replica does not start on a disk of which anything that
//! a start reads is not what was written.**
//!
//! What a start does not read is read later, for a follower that is behind: that it was not
//! believed then either, log matching says. Source: Protocol-Aware Recovery (FAST '18), section 2:
//! a replica that cannot tell a damaged entry from one never written may lose what was agreed.

use replica::NodeId;

use super::Verdict;

pub(super) const NAME: &str = "what has rotted is never believed";

/// A node has started. `rotten` is what had rotted of that which a start reads.
pub(super) fn started(node: NodeId, rotten: Option<&str>) -> Verdict {
    match rotten {
        None => Ok(()),
        Some(what) => Err(format!("node {node} started, and {what} had rotted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_on_a_rotten_disk_is_seen() {
        assert!(started(1, None).is_ok());
        let seen = started(1, Some("the vote")).unwrap_err();
        assert_eq!(seen, "node 1 started, and the vote had rotted");
    }
}
