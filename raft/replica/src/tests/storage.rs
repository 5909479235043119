//! The log and state stores against openraft's suite, and the memory disk against its own.

use std::sync::Arc;

use futures_util::StreamExt;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorageExt;

use super::Runtime;
use crate::log::LogStore;
use crate::memory::MemoryDisk;
use crate::raft::{self, Entry};
use crate::{limits, testing, wire};

#[tokio::test]
async fn the_stores_keep_openrafts_rules() {
    testing::storage_suite::<Runtime, _, _>(|| ((), Arc::new(MemoryDisk::new()))).await;
}

#[test]
fn the_memory_disk_keeps_its_promises() {
    testing::disk_suite(&MemoryDisk::new());
}

/// Blank entries `0..count` of term 1.
fn blanks(count: u64) -> impl Iterator<Item = Entry> {
    (0..count).map(|index| {
        let log_id = wire::LogId { term: 1, index };
        raft::entry(wire::Entry { log_id, body: wire::Body::Blank }).unwrap()
    })
}

#[tokio::test]
async fn entries_that_left_the_cache_are_read_from_the_disk() {
    let disk = MemoryDisk::new();
    let mut log = LogStore::<Runtime, _>::open(Arc::new(disk.clone())).unwrap();
    let count = u64::try_from(limits::LOG_CACHE_ENTRIES_MAX).unwrap() + 100;
    log.blocking_append(blanks(count)).await.unwrap();
    let all = log.try_get_log_entries(..).await.unwrap();
    assert!(all.iter().map(|entry| entry.log_id.index).eq(0..count));
    let streamed = log.entries_stream(..count).await;
    let streamed: Vec<Entry> = streamed.map(Result::unwrap).collect().await;
    assert_eq!(streamed, all);

    // What is recent needs no disk.
    disk.fail("gone");
    let recent = log.try_get_log_entries(count - 10..count).await.unwrap();
    assert_eq!(recent, all[all.len() - 10..]);
    let old = log.try_get_log_entries(0..10).await.unwrap_err();
    assert_eq!(old.to_string(), "gone");
}

#[tokio::test]
async fn an_append_to_a_follower_is_bounded_in_bytes() {
    let mut log = LogStore::<Runtime, _>::open(Arc::new(MemoryDisk::new())).unwrap();
    let big = (0..20).map(|index| {
        let body = wire::Body::Proposal(wire::Blob(vec![7; limits::APPEND_BYTES_MAX / 4].into()));
        raft::entry(wire::Entry { log_id: wire::LogId { term: 1, index }, body }).unwrap()
    });
    log.blocking_append(big).await.unwrap();
    assert_eq!(log.limited_get_log_entries(0, 20).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_hole_in_the_log_is_noticed() {
    let disk = MemoryDisk::new();
    let mut log = LogStore::<Runtime, _>::open(Arc::new(disk.clone())).unwrap();
    log.blocking_append(blanks(5)).await.unwrap();
    log.blocking_append(blanks(9).skip(7)).await.unwrap();
    let mut log = LogStore::<Runtime, _>::open(Arc::new(disk)).unwrap();
    let error = log.try_get_log_entries(0..9).await.unwrap_err();
    assert_eq!(error.to_string(), "the log misses entries between 1.4 and 1.7");
}
