//! What a disk brings back: after crashes with syncs held back, and after damage.

use std::sync::Arc;

use super::{Cluster, config, domain, has_domain, wait};
use crate::disk::Meta;
use crate::memory::MemoryDisk;
use crate::replica::StartError;
use crate::testing::Switchboard;

/// A disk with a vote, a log, rows, and nothing purged.
async fn used_disk() -> MemoryDisk {
    let mut cluster = Cluster::new(1).await;
    for name in ["a", "b", "c"] {
        cluster.member(1).propose(&domain(name)).await.unwrap();
    }
    let disk = cluster.disks[&1].crashed(usize::MAX);
    cluster.crash(1).await;
    disk
}

async fn start(disk: &MemoryDisk) -> Result<(), StartError> {
    let board = Switchboard::<super::Runtime>::default();
    let line = Arc::new(board.line(1));
    let member = super::Member::start(&config(1), Arc::new(disk.clone()), line).await?;
    member.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_crash_point_keeps_what_was_acknowledged() {
    // The rows of acknowledged proposals may be unsynced: the log replays them.
    let cluster = Cluster::new(1).await;
    let mut crashes = Vec::new();
    for number in 0..6 {
        cluster.member(1).propose(&domain(&format!("domain-{number}"))).await.unwrap();
        let unsynced = cluster.disks[&1].unsynced();
        for kept in 0..=unsynced {
            crashes.push((number, cluster.disks[&1].crashed(kept)));
        }
    }
    assert!(crashes.len() > 6, "some batches wait for the next sync");
    for (acknowledged, disk) in crashes {
        let mut again = Cluster::new(0).await;
        again.start(1, disk).await;
        let state = again.member(1).read_linearizable().await.unwrap().state;
        for number in 0..=acknowledged {
            assert!(has_domain(&state, &format!("domain-{number}")), "of {acknowledged}");
        }
        again.converge().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_before_it_is_synced() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    cluster.converge().await;
    for disk in cluster.disks.values() {
        disk.hold_syncs();
    }
    let member = cluster.member(leader).clone();
    let proposal = tokio::spawn(async move { member.propose(&domain("held")).await });
    // The entry is in all three logs, and counts for nothing.
    let written = async {
        while cluster.disks.values().any(|disk| disk.syncs_held() == 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, written).await.unwrap();
    assert!(!proposal.is_finished());
    for id in [1, 2, 3] {
        assert!(!has_domain(&cluster.member(id).read_stale().state, "held"));
    }
    // All lose power: the entry may be gone, and nobody was told otherwise.
    let mut disks = Vec::new();
    for id in [1, 2, 3] {
        disks.push((id, cluster.crash(id).await));
    }
    assert!(proposal.await.unwrap().is_err());
    for (id, disk) in disks {
        cluster.start(id, disk).await;
    }
    assert!(!has_domain(&cluster.converge().await, "held"));
}

#[tokio::test(start_paused = true)]
async fn all_members_restart_with_equal_states() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    for number in 0..40 {
        cluster.member(leader).propose(&domain(&format!("domain-{number}"))).await.unwrap();
    }
    let before = model::codec::digest(&cluster.converge().await);
    let mut disks = Vec::new();
    for id in [1, 2, 3] {
        disks.push((id, cluster.crash(id).await));
    }
    for (id, disk) in disks {
        cluster.start(id, disk).await;
    }
    assert_eq!(model::codec::digest(&cluster.converge().await), before);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_member_that_purged_its_log_still_serves_snapshots() {
    let mut cluster = Cluster::configured(1, |config| {
        config.snapshot_entries = 20;
        config.snapshot_entries_kept = 0;
        config.purge_entries_min = 1;
    })
    .await;
    for number in 0..100 {
        cluster.member(1).propose(&domain(&format!("domain-{number}"))).await.unwrap();
    }
    assert!(cluster.member(1).status().purged > Some(50));
    assert!(cluster.disks[&1].log_entries() < 60);
    let disk = cluster.crash(1).await;
    cluster.start(1, disk).await;
    cluster.leader().await;
    cluster.let_in(1, 2).await;
    let state = cluster.converge().await;
    assert_eq!(state.domains().count(), 100);
    assert!(cluster.board.calls("snapshot_chunk") > 0);
}

#[tokio::test(start_paused = true)]
async fn rows_of_an_unfinished_snapshot_are_cleared_at_the_next_start() {
    use crate::disk::{Batch, Change, Disk};
    let disk = used_disk().await;
    let rows = disk.rows();
    for generation in [1, 5] {
        let row = Change::PutRow { generation, key: b"half".to_vec(), value: b"way".to_vec() };
        disk.write(Batch::of(row)).unwrap();
    }
    start(&disk).await.unwrap();
    assert_eq!(disk.rows(), rows);
}

#[tokio::test(start_paused = true)]
async fn damage_is_named_and_never_believed() {
    let disk = used_disk().await;
    let last = disk.crashed(usize::MAX);
    let end = u64::try_from(last.log_entries()).unwrap() - 1;
    assert!(last.flip_log_bit(end, 77));
    assert_eq!(
        start(&last).await.unwrap_err().to_string(),
        format!(
            "the replica's disk cannot be used: log entry {end} does not match its checksum: the \
             disk is damaged; check the disk, and if it is lost let the cluster replace this \
             member: gavel cluster replace NAME"
        )
    );
    for (meta, name) in [
        (Meta::Vote, "the vote"),
        (Meta::Applied, "the applied log id"),
        (Meta::Membership, "the membership"),
        (Meta::Identity, "the disk's identity"),
    ] {
        for bit in [0, 33, 50] {
            let damaged = disk.crashed(usize::MAX);
            assert!(damaged.flip_meta_bit(meta, bit));
            let error = start(&damaged).await.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("checksum"), "{error}");
        }
    }
    let row = disk.crashed(usize::MAX);
    assert!(row.flip_row_bit(1, 99));
    let error = start(&row).await.unwrap_err().to_string();
    assert!(error.contains("the row of key") && error.contains("checksum"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_behind_its_purged_log_is_refused() {
    use crate::disk::{Batch, Change, Disk};
    let disk = used_disk().await;
    let purged = crate::log::put_meta(Meta::Purged, &crate::wire::LogId { term: 9, index: 99 });
    disk.write(Batch(vec![purged, Change::PurgeLog { index: 99 }])).unwrap();
    let error = start(&disk).await.unwrap_err();
    assert!(matches!(error, StartError::StateLost { purged: 99, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_disk_fails_stops_and_the_others_go_on() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    cluster.disks[&leader].fail("input/output error");
    let _unknown = cluster.member(leader).propose(&domain("doomed")).await;
    let reason = tokio::time::timeout(super::PATIENCE, cluster.member(leader).stopped()).await;
    assert!(reason.unwrap().contains("input/output error"));
    cluster.board.unplug(leader);
    let next = cluster.leader_but(&[leader]).await;
    cluster.member(next).propose(&domain("after")).await.unwrap();
    wait(cluster.member(next), |standing| standing.leads).await;
}
