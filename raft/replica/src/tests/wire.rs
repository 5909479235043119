//! The bytes that stay: entries on disk and messages between replicas. A change here is a change
//! of format.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};

use super::node;
use crate::peers::{AppendEntries, Ballot, PeerRequest, PeerResponse, Proposed, SnapshotChunk};
use crate::wire::{self, Blob, Body, EffectiveMembership, Entry, LogId, Membership, Vote};

fn check(bytes: &[u8], expected: Expect) {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    expected.assert_eq(&hex.join(" "));
}

const VOTE: Vote = Vote { term: 3, node: 2, committed: true };
const ID: LogId = LogId { term: 3, index: 7 };

fn membership() -> Membership {
    Membership {
        voters: vec![BTreeSet::from([1, 2]), BTreeSet::from([1])],
        nodes: BTreeMap::from([(1, node(1)), (2, node(2))]),
    }
}

#[test]
fn entries_on_disk() {
    let framed = |body| wire::to_disk(&7u64.to_be_bytes(), &Entry { log_id: ID, body });
    check(&framed(Body::Blank), expect!["6a fa fb 2e 02 03 07 00"]);
    check(
        &framed(Body::Proposal(Blob(b"abc"[..].into()))),
        expect!["4a 15 a2 03 02 03 07 01 03 61 62 63"],
    );
    check(
        &framed(Body::Membership(membership())),
        expect![
            "89 67 ea f8 02 03 07 02 02 02 01 02 01 01 02 01 06 6e 6f 64 65 2d 31 08 6d 65 6d 6f 72 79 3a 31 02 06 6e 6f 64 65 2d 32 08 6d 65 6d 6f 72 79 3a 32"
        ],
    );
    check(&wire::to_disk(&[1], &VOTE), expect!["6b fa 3c 16 02 03 02 01"]);
}

#[test]
fn messages() {
    let entries = vec![Entry { log_id: ID, body: Body::Proposal(Blob(b"abc"[..].into())) }];
    let append = AppendEntries { vote: VOTE, previous: None, entries, committed: Some(ID) };
    check(
        &PeerRequest::AppendEntries(append).encode(),
        expect!["01 00 03 02 01 00 01 03 07 01 03 61 62 63 01 03 07"],
    );
    let ballot = Ballot { vote: VOTE, last_log_id: Some(ID), leadership_transfer: true };
    check(&PeerRequest::Vote(ballot.clone()).encode(), expect!["01 01 03 02 01 01 03 07 01"]);
    check(&PeerRequest::PreVote(ballot).encode(), expect!["01 02 03 02 01 01 03 07 01"]);
    let chunk = SnapshotChunk {
        vote: VOTE,
        transfer: 4,
        sequence: 1,
        last_log_id: Some(ID),
        membership: EffectiveMembership { log_id: Some(ID), membership: membership() },
        rows: Blob(b"rows"[..].into()),
        checksum: 0xdead_beef,
        last: true,
    };
    check(
        &PeerRequest::SnapshotChunk(chunk).encode(),
        expect![
            "01 04 03 02 01 04 01 01 03 07 01 03 07 02 02 01 02 01 01 02 01 06 6e 6f 64 65 2d 31 08 6d 65 6d 6f 72 79 3a 31 02 06 6e 6f 64 65 2d 32 08 6d 65 6d 6f 72 79 3a 32 04 72 6f 77 73 ef fd b6 f5 0d 01"
        ],
    );
    check(&PeerRequest::Propose(Blob(b"abc"[..].into())).encode(), expect!["01 05 03 61 62 63"]);
    check(&PeerRequest::ReadIndex.encode(), expect!["01 06"]);
    check(&PeerRequest::Soft(Blob(b"abc"[..].into())).encode(), expect!["01 07 03 61 62 63"]);
    let applied = Proposed::Applied(model::Outcome(vec![Ok(true), Ok(false)]));
    check(&PeerResponse::Propose(applied).encode(), expect!["01 04 00 02 00 01 00 00"]);
    check(&PeerResponse::Failed("why".to_owned()).encode(), expect!["01 07 03 77 68 79"]);
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let error = |bytes: &[u8]| PeerRequest::decode(bytes).unwrap_err().to_string();
    assert_eq!(error(&[]), "a peer's message cannot be read: it is empty");
    assert_eq!(
        error(&[9, 6]),
        "a peer's message cannot be read: it is of version 9, this program speaks version 1"
    );
    let mut whole = PeerRequest::ReadIndex.encode();
    whole.push(0);
    assert_eq!(error(&whole), "a peer's message cannot be read: 1 bytes too many");
    let whole = PeerRequest::Soft(Blob(b"abc"[..].into())).encode();
    for length in 0..whole.len() {
        assert!(PeerRequest::decode(&whole[..length]).is_err(), "cut at {length}");
    }
    assert!(PeerRequest::decode(&[1, 200]).is_err());
}
