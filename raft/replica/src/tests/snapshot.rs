//! Snapshots in chunks: put down whole or not at all.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;

use super::{Runtime, domain};
use crate::memory::MemoryDisk;
use crate::peers::{
    AppendEntries, Appended, PeerRequest, PeerResponse, SnapshotChunk, SnapshotReceived,
};
use crate::raft::{self, SnapshotMeta};
use crate::snapshot::{Chunks, Staging, Step};
use crate::state::StateStore;
use crate::testing::Switchboard;
use crate::wire::{Blob, Body, Entry, LogId, Vote};
use crate::{limits, stored_digest};

const VOTE: Vote = Vote { term: 3, node: 2, committed: true };

/// A state whose rows take several chunks.
fn state() -> model::State {
    let mut state = model::State::default();
    let rows = u64::try_from(3 * limits::SNAPSHOT_CHUNK_BYTES_MAX / 200).unwrap();
    for number in 0..rows {
        let name = format!("{number:0>100}");
        let (outcome, _) = model::apply_proposal(&mut state, number, domain(&name));
        assert_eq!(outcome.0, [Ok(true)]);
    }
    state
}

fn chunks(state: &model::State, transfer: u64) -> Vec<SnapshotChunk> {
    let last_log_id = Some(raft::log_id(LogId { term: 3, index: 50 }));
    let meta = SnapshotMeta { last_log_id, ..SnapshotMeta::default() };
    Chunks::new(VOTE, transfer, &meta, state, limits::SNAPSHOT_CHUNK_BYTES_MAX).collect()
}

fn refusal(step: Step) -> String {
    match step {
        Step::Refused(reason) => reason,
        Step::More | Step::Complete(_) => panic!("it is accepted: {step:?}"),
    }
}

#[tokio::test]
async fn a_snapshot_in_chunks_is_the_state_it_was() {
    let state = state();
    let disk = Arc::new(MemoryDisk::new());
    let mut store = StateStore::<Runtime, _>::open(disk.clone()).await.unwrap();
    let chunks = chunks(&state, 1);
    assert!(chunks.len() > 2);
    for chunk in &chunks {
        assert!(chunk.rows.0.len() < limits::SNAPSHOT_CHUNK_BYTES_MAX + 1_000);
    }
    let (last, first) = chunks.split_last().unwrap();
    for chunk in first {
        let step = store.staging().accept(&*disk, chunk.clone()).unwrap();
        assert!(matches!(step, Step::More), "{step:?}");
        // Its answer is lost, and it is sent again.
        let step = store.staging().accept(&*disk, chunk.clone()).unwrap();
        assert!(matches!(step, Step::More), "{step:?}");
    }
    let before = disk.crashed(usize::MAX);
    let step = store.staging().accept(&*disk, last.clone()).unwrap();
    let Step::Complete(snapshot) = step else { panic!("it is whole: {step:?}") };
    store.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();

    let expected = (Some(50), model::codec::digest(&state));
    assert_eq!(stored_digest::<Runtime, _>(&*disk).await.unwrap(), expected);
    let after = disk.crashed(0);
    assert_eq!(stored_digest::<Runtime, _>(&after).await.unwrap(), expected, "it is synced");
    // A crash before the switch leaves the old state.
    let nothing = (None, model::codec::digest(&model::State::default()));
    assert_eq!(stored_digest::<Runtime, _>(&before).await.unwrap(), nothing);
}

#[tokio::test]
async fn a_snapshot_older_than_the_state_changes_nothing() {
    let disk = Arc::new(MemoryDisk::new());
    let mut store = StateStore::<Runtime, _>::open(disk.clone()).await.unwrap();
    let mut install = async |index| {
        let mut state = model::State::default();
        model::apply_proposal(&mut state, index, domain(&format!("of-{index}")));
        let mut chunks = chunks(&state, index);
        let mut chunk = chunks.pop().unwrap();
        chunk.last_log_id = Some(LogId { term: 3, index });
        let step = store.staging().accept(&*disk, chunk).unwrap();
        let Step::Complete(snapshot) = step else { panic!("it is whole: {step:?}") };
        store.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        (stored_digest::<Runtime, _>(&*disk).await.unwrap(), disk.rows())
    };
    let newer = install(50).await;
    assert_eq!(install(40).await, newer);
    assert_ne!(install(60).await, newer);
}

#[test]
fn chunks_that_do_not_fit_are_refused_and_leave_nothing() {
    let state = state();
    let disk = MemoryDisk::new();
    let staging = Staging::after(0);
    let chunks = chunks(&state, 1);
    let accept = |chunk: &SnapshotChunk| staging.accept(&disk, chunk.clone()).unwrap();

    assert_eq!(refusal(accept(&chunks[1])), "transfer 1 is not under way");
    accept(&chunks[0]);
    assert_eq!(refusal(accept(&chunks[2])), "chunk 2 came instead of 1");
    assert!(disk.rows() > 0);

    let mut damaged = chunks[1].clone();
    let mut rows = damaged.rows.0.to_vec();
    rows[99] ^= 1;
    damaged.rows = Blob(rows.into());
    assert_eq!(refusal(accept(&damaged)), "chunk 1 does not match its checksum");
    assert_eq!(disk.rows(), 0, "the transfer is over and its rows are gone");

    // A checksum that fits rows that do not.
    let rows = &chunks[0].rows.0[..chunks[0].rows.0.len() - 1];
    let cut = SnapshotChunk {
        rows: Blob(rows.into()),
        checksum: crc32fast::hash(rows),
        ..chunks[0].clone()
    };
    assert_eq!(refusal(accept(&cut)), "chunk 0 ends within a row");
    assert_eq!(disk.rows(), 0);
}

#[test]
fn a_new_transfer_replaces_an_older_one() {
    let state = state();
    let disk = MemoryDisk::new();
    let staging = Staging::after(0);
    let (older, newer) = (chunks(&state, 1), chunks(&state, 2));
    staging.accept(&disk, older[0].clone()).unwrap();
    let rows = disk.rows();
    staging.accept(&disk, newer[0].clone()).unwrap();
    assert_eq!(disk.rows(), rows, "the rows of the older one are gone");
    let late = staging.accept(&disk, older[1].clone()).unwrap();
    assert_eq!(refusal(late), "transfer 1 was replaced");
    let step = staging.accept(&disk, newer[1].clone()).unwrap();
    assert!(matches!(step, Step::More), "{step:?}");
}

/// Found by the simulator: the leader had not heard of the last entries' arrival, and purged.
#[tokio::test]
async fn a_snapshot_that_ends_within_the_log_changes_nothing() {
    let disk = Arc::new(MemoryDisk::new());
    let line = Arc::new(Switchboard::<Runtime>::default().line(1));
    let member = super::Member::start(&super::config(1), disk.clone(), line).await.unwrap();
    let entry = |index| Entry { log_id: LogId { term: 3, index }, body: Body::Blank };
    let entries = (0..=60).map(entry).collect();
    let append = AppendEntries { vote: VOTE, previous: None, entries, committed: None };
    let answer = member.handle(PeerRequest::AppendEntries(append)).await;
    assert_eq!(answer, PeerResponse::AppendEntries(Appended::All));

    let chunk = chunks(&model::State::default(), 1).pop().unwrap();
    assert_eq!(chunk.last_log_id.map(|id| id.index), Some(50));
    let answer = member.handle(PeerRequest::SnapshotChunk(chunk)).await;
    assert_eq!(answer, PeerResponse::Snapshot(SnapshotReceived::Installed(VOTE)));
    assert_eq!(disk.rows(), 0, "what was put down is gone");
    let status = member.status();
    assert_eq!((status.last_log, status.applied, status.stopped), (Some(60), None, None));
    member.shutdown().await;
}

/// Found by the simulator (seed 55): it went on, and each further try of the leader's failed.
#[tokio::test]
async fn a_disk_that_fails_under_an_arriving_snapshot_stops_the_replica() {
    let disk = Arc::new(MemoryDisk::new());
    let line = Arc::new(Switchboard::<Runtime>::default().line(1));
    let member = super::Member::start(&super::config(1), disk.clone(), line).await.unwrap();
    disk.fail("no space left on device");
    let chunk = chunks(&state(), 1).swap_remove(0);
    let answer = member.handle(PeerRequest::SnapshotChunk(chunk)).await;
    let reason = "the disk failed: no space left on device";
    assert_eq!(answer, PeerResponse::Failed(reason.to_owned()));
    assert_eq!(member.stopped().await, reason);
    assert_eq!(member.status().stopped.as_deref(), Some(reason));
}
