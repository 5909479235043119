//! The bytes that stay: entries on disk and messages between replicas. A change here is a change
//! of format.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};

use super::node;
use crate::peers::{
    Acquaintance, Addressee, AppendEntries, Ballot, Envelope, Introduced, Introduction,
    PeerRequest, PeerResponse, Proposed, SnapshotChunk,
};
use crate::wire::{
    self, Blob, Body, DiskId, EffectiveMembership, Entry, Identity, LogId, Membership, Node, Vote,
};

fn check(bytes: &[u8], expected: Expect) {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    expected.assert_eq(&hex.join(" "));
}

const VOTE: Vote = Vote { term: 3, node: 2, committed: true };
const ID: LogId = LogId { term: 3, index: 7 };

fn membership() -> Membership {
    Membership {
        voters: vec![BTreeSet::from([1, 2]), BTreeSet::from([1])],
        nodes: BTreeMap::from([(1, node(1)), (2, Node { disk: DiskId(0x1234), ..node(2) })]),
    }
}

#[test]
fn entries_on_disk() {
    let framed = |body| wire::to_disk(&7u64.to_be_bytes(), &Entry { log_id: ID, body });
    check(&framed(Body::Blank), expect!["0f 9d 47 96 03 03 07 00"]);
    check(
        &framed(Body::Proposal(Blob(b"abc"[..].into()))),
        expect!["d4 15 08 cf 03 03 07 01 03 61 62 63"],
    );
    check(
        &framed(Body::Membership(membership())),
        expect![
            "95 e7 81 08 03 03 07 02 02 02 01 02 01 01 02 01 06 6e 6f 64 65 2d 31 08 6d 65 6d 6f 72 79 3a 31 00 02 06 6e 6f 64 65 2d 32 08 6d 65 6d 6f 72 79 3a 32 b4 24"
        ],
    );
    check(&wire::to_disk(&[1], &VOTE), expect!["0e 9d 80 ae 03 03 02 01"]);
    let identity = Identity { disk: DiskId(0x1234), name: "a".to_owned(), member: Some(2) };
    check(&wire::to_disk(&[6], &identity), expect!["cb 82 03 21 03 b4 24 01 61 01 02"]);
}

/// As it travels to one whose disk is known.
fn travels(request: PeerRequest) -> Vec<u8> {
    let to = Some(Addressee { node: 2, disk: DiskId(0x1234) });
    Envelope { to, request }.encode()
}

#[test]
fn messages() {
    let entries = vec![Entry { log_id: ID, body: Body::Proposal(Blob(b"abc"[..].into())) }];
    let append = AppendEntries { vote: VOTE, previous: None, entries, committed: Some(ID) };
    check(
        &travels(PeerRequest::AppendEntries(append)),
        expect!["02 01 02 b4 24 00 03 02 01 00 01 03 07 01 03 61 62 63 01 03 07"],
    );
    let ballot = Ballot { vote: VOTE, last_log_id: Some(ID), leadership_transfer: true };
    check(
        &travels(PeerRequest::Vote(ballot.clone())),
        expect!["02 01 02 b4 24 01 03 02 01 01 03 07 01"],
    );
    check(
        &travels(PeerRequest::PreVote(ballot)),
        expect!["02 01 02 b4 24 02 03 02 01 01 03 07 01"],
    );
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
        &travels(PeerRequest::SnapshotChunk(chunk)),
        expect![
            "02 01 02 b4 24 04 03 02 01 04 01 01 03 07 01 03 07 02 02 01 02 01 01 02 01 06 6e 6f 64 65 2d 31 08 6d 65 6d 6f 72 79 3a 31 00 02 06 6e 6f 64 65 2d 32 08 6d 65 6d 6f 72 79 3a 32 b4 24 04 72 6f 77 73 ef fd b6 f5 0d 01"
        ],
    );
    check(
        &travels(PeerRequest::Propose(Blob(b"abc"[..].into()))),
        expect!["02 01 02 b4 24 05 03 61 62 63"],
    );
    check(&travels(PeerRequest::ReadIndex), expect!["02 01 02 b4 24 06"]);
    check(
        &travels(PeerRequest::Soft(Blob(b"abc"[..].into()))),
        expect!["02 01 02 b4 24 07 03 61 62 63"],
    );
    let applied = Proposed::Applied(model::Outcome(vec![Ok(true), Ok(false)]));
    check(&PeerResponse::Propose(applied).encode(), expect!["02 04 00 02 00 01 00 00"]);
    check(&PeerResponse::Failed("why".to_owned()).encode(), expect!["02 07 03 77 68 79"]);
}

#[test]
fn introductions() {
    let me = Introduction { node: 3, name: "c".to_owned(), disk: DiskId(0x77) };
    let request = PeerRequest::Introduce(me);
    check(&Envelope { to: None, request }.encode(), expect!["02 00 08 03 01 63 77"]);
    let newcomer = Introduced {
        node: 2,
        name: "b".to_owned(),
        disk: DiskId(0x88),
        newcomer: Some(BTreeSet::from([1, 2])),
        you: Acquaintance::NoRecord,
        leads: false,
    };
    let leader = Introduced {
        newcomer: None,
        you: Acquaintance::AnotherDisk(3),
        leads: true,
        ..newcomer.clone()
    };
    check(
        &PeerResponse::Introduced(newcomer).encode(),
        expect!["02 08 02 01 62 88 01 01 02 01 02 00 00"],
    );
    check(&PeerResponse::Introduced(leader).encode(), expect!["02 08 02 01 62 88 01 00 02 03 01"]);
    check(&PeerResponse::NotHere("why".to_owned()).encode(), expect!["02 09 03 77 68 79"]);
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let error = |bytes: &[u8]| Envelope::decode(bytes).unwrap_err().to_string();
    assert_eq!(error(&[]), "a peer's message cannot be read: it is empty");
    assert_eq!(
        error(&[1, 0, 6]),
        "a peer's message cannot be read: it is of version 1, this program speaks version 2"
    );
    let mut whole = travels(PeerRequest::ReadIndex);
    whole.push(0);
    assert_eq!(error(&whole), "a peer's message cannot be read: 1 bytes too many");
    let whole = travels(PeerRequest::Soft(Blob(b"abc"[..].into())));
    for length in 0..whole.len() {
        assert!(Envelope::decode(&whole[..length]).is_err(), "cut at {length}");
    }
    assert!(Envelope::decode(&[2, 0, 200]).is_err());
}
