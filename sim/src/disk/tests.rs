//! What a disk keeps, and what a crash takes.

use std::collections::BTreeSet;

use openraft_rt::OneshotSender as _;

use super::*;
use crate::runtime::{Clock, Oneshot};

/// Numbers in the order in which they were written.
#[derive(Clone, Default)]
struct Numbers(Vec<u64>);

impl Image for Numbers {
    type Batch = Vec<u64>;

    fn change(&mut self, batch: &Vec<u64>) {
        self.0.extend(batch);
    }
}

fn disk(wear: Wear, seed: u64) -> Disk<Numbers> {
    Disk::new(wear, Rng::stream(seed, "disk"))
}

async fn synced(disk: &Disk<Numbers>) -> Result<(), DiskError> {
    let (sender, receiver) = <Oneshot as openraft_rt::Oneshot>::channel();
    disk.sync(move |done| sender.send(done).expect("the test waits for it"));
    receiver.await.expect("a sync that is not crashed answers")
}

fn run<F: Future>(test: F) -> F::Output {
    SimRuntime::with_seed(1).block_on(test)
}

#[test]
fn a_write_is_readable_at_once() {
    run(async {
        let disk = disk(Wear::NEW, 1);
        disk.write(vec![1, 2]).unwrap();
        assert_eq!(disk.read(|numbers| numbers.0.clone()), Ok(vec![1, 2]));
    });
}

#[test]
fn a_crash_keeps_all_that_was_synced_and_a_prefix_of_the_rest() {
    let mut kept_lengths = BTreeSet::new();
    for seed in 0..100 {
        run(async {
            let disk = disk(Wear::NEW, seed);
            disk.write(vec![1]).unwrap();
            disk.write(vec![2]).unwrap();
            synced(&disk).await.unwrap();
            for n in 3..=6 {
                disk.write(vec![n, n]).unwrap();
            }
            let crashed = disk.crash();
            assert_eq!(crashed.kept + crashed.lost, 4);
            let kept = disk.open().read(|numbers| numbers.0.clone()).unwrap();
            let all = [1, 2, 3, 3, 4, 4, 5, 5, 6, 6];
            assert_eq!(kept, all[..kept.len()], "not a prefix");
            assert_eq!(kept.len() as u64, 2 + 2 * crashed.kept, "a batch was torn");
            kept_lengths.insert(kept.len());
        });
    }
    assert_eq!(kept_lengths, BTreeSet::from([2, 4, 6, 8, 10]), "some crash never happened");
}

#[test]
fn a_crash_during_a_sync_may_lose_what_it_was_for() {
    let lost = (0..50).filter(|seed| {
        run(async {
            let disk = disk(Wear::NEW, *seed);
            disk.write(vec![1]).unwrap();
            let group = runtime::new_group("node", Clock::default());
            let syncing = disk.clone();
            drop(runtime::spawn_in(group, async move {
                synced(&syncing).await.unwrap();
                panic!("the crash comes first");
            }));
            SimRuntime::sleep(Duration::from_micros(10)).await;
            let crashed = disk.crash();
            runtime::kill(group);
            SimRuntime::sleep(Duration::from_secs(1)).await;
            assert_eq!(runtime::panics(), []);
            crashed.lost == 1
        })
    });
    assert!((10..40).contains(&lost.count()));
}

#[test]
fn a_hold_ends_with_its_life() {
    run(async {
        let disk = disk(Wear::NEW, 1);
        let old = disk.open();
        disk.crash();
        assert_eq!(old.write(vec![1]), Err(DiskError::Gone));
        assert_eq!(old.read(|_| ()), Err(DiskError::Gone));
        assert_eq!(synced(&old).await, Err(DiskError::Gone));
        assert_eq!(disk.open().write(vec![1]), Ok(()));
    });
}

#[test]
fn after_a_failed_sync_nothing_succeeds_until_a_restart() {
    run(async {
        let disk = disk(Wear { fail: PerMillion::ALWAYS, ..Wear::NEW }, 1);
        disk.write(vec![1]).unwrap();
        assert_eq!(synced(&disk).await, Err(DiskError::Failed));
        assert!(disk.has_failed());
        disk.set_wear(Wear::NEW);
        assert_eq!(synced(&disk).await, Err(DiskError::Failed));
        assert_eq!(disk.write(vec![2]), Err(DiskError::Failed));
        disk.crash();
        assert_eq!(synced(&disk.open()).await, Ok(()));
    });
}

#[test]
fn syncs_take_time_and_may_overtake_each_other() {
    let wear = Wear { slow: PerMillion(300_000), slow_max: Duration::from_secs(1), ..Wear::NEW };
    run(async {
        let disk = disk(wear, 1);
        let order = Arc::new(Mutex::new(Vec::new()));
        for n in 0..20 {
            disk.write(vec![n]).unwrap();
            let order = order.clone();
            disk.sync(move |done| {
                done.unwrap();
                order.lock().unwrap().push(n);
            });
        }
        assert!(order.lock().unwrap().is_empty(), "a sync was done in no time");
        SimRuntime::sleep(Duration::from_secs(2)).await;
        let order = order.lock().unwrap();
        assert_eq!(order.len(), 20);
        assert!(!order.is_sorted());
    });
}

#[test]
fn a_disk_that_is_never_synced_fills_up() {
    let disk = disk(Wear::NEW, 1);
    for _ in 0..limits::DISK_UNSYNCED_BATCHES_MAX {
        disk.write(Vec::new()).unwrap();
    }
    assert_eq!(disk.write(Vec::new()), Err(DiskError::Unsynced));
}
