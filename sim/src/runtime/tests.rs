//! The runtime's promises: openraft's suite, determinism, crashes, clocks.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex};

use openraft_rt::{WatchReceiver, WatchSender};
use rand::RngExt;

use super::*;

type Rt = SimRuntime;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn openrafts_own_suite_passes() {
    openraft_rt::testing::Suite::<SimRuntime>::test_all();
}

/// Tasks that contend, sleep and draw: enough for any leak of order to show.
fn busy_world(seed: u64) -> (u64, u64, Vec<u64>) {
    let mut runtime = SimRuntime::with_seed(seed);
    let order = runtime.block_on(async {
        let order = Arc::new(StdMutex::new(Vec::new()));
        let (tx, rx) = <Watch as openraft_rt::Watch>::channel(0_u64);
        let tasks: Vec<_> = (0..20_u64)
            .map(|n| {
                let (order, mut rx) = (order.clone(), rx.clone());
                Rt::spawn(async move {
                    let nap = Rt::thread_rng().random_range(0..5);
                    Rt::sleep(Duration::from_millis(nap)).await;
                    rx.changed().await.unwrap();
                    order.lock().unwrap().push(n);
                    event("arrived", &[("n", n)]);
                })
            })
            .collect();
        Rt::sleep(Duration::from_millis(3)).await;
        tx.send(1).unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        order.lock().unwrap().clone()
    });
    runtime.trace(|trace| (trace.hash(), trace.polls(), order))
}

#[test]
fn one_seed_is_one_run() {
    let runs: Vec<_> = (0..20).map(busy_world).collect();
    for (seed, run) in (0..).zip(&runs) {
        assert_eq!(*run, busy_world(seed), "seed {seed} gave two different runs");
    }
    let mut hashes: Vec<u64> = runs.iter().map(|run| run.0).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), runs.len(), "two seeds gave the same run");
}

#[test]
fn time_passes_only_in_sleeps_and_costs_nothing() {
    let mut runtime = SimRuntime::with_seed(1);
    runtime.block_on(async {
        Rt::sleep(secs(100 * 24 * 3600)).await;
        assert_eq!(true_time(), secs(100 * 24 * 3600));
    });
    assert_eq!(runtime.trace(Trace::polls), 2);
}

struct OnDrop(Arc<AtomicU64>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_kill_drops_tasks_wherever_they_wait() {
    let dropped = Arc::new(AtomicU64::new(0));
    let outlived = Arc::new(AtomicU64::new(0));
    SimRuntime::with_seed(2).block_on(async {
        let group = new_group("node", Clock::default());
        for n in 0..5 {
            let (guard, outlived) = (OnDrop(dropped.clone()), outlived.clone());
            spawn_in(group, async move {
                let _guard = guard;
                let child = Rt::spawn(Rt::sleep(secs(1000)));
                Rt::sleep(Duration::from_millis(n)).await;
                let _ = child.await;
                outlived.fetch_add(1, Ordering::Relaxed);
            });
        }
        Rt::sleep(Duration::from_millis(2)).await;
        assert_eq!(tasks_of(group), 10, "a task's children are in its group");
        kill(group);
        assert_eq!(tasks_of(group), 0);
        assert_eq!(dropped.load(Ordering::Relaxed), 5);
        let refused = spawn_in(group, async {}).await;
        assert_eq!(refused, Err(JoinError::Killed));
        Rt::sleep(secs(2000)).await;
    });
    assert_eq!(outlived.load(Ordering::Relaxed), 0);
}

#[test]
fn a_task_can_kill_its_own_group() {
    SimRuntime::with_seed(3).block_on(async {
        let group = new_group("node", Clock::default());
        let handle = spawn_in(group, async move {
            kill(group);
            std::future::pending::<()>().await;
        });
        assert_eq!(handle.await, Err(JoinError::Killed));
        assert_eq!(tasks_of(group), 0);
    });
}

#[test]
fn what_a_dying_task_spawns_dies_too() {
    struct SpawnOnDrop(Arc<AtomicU64>);
    impl Drop for SpawnOnDrop {
        fn drop(&mut self) {
            let ran = self.0.clone();
            drop(Rt::spawn(async move { ran.fetch_add(1, Ordering::Relaxed) }));
        }
    }
    let ran = Arc::new(AtomicU64::new(0));
    SimRuntime::with_seed(4).block_on(async {
        let group = new_group("node", Clock::default());
        let guard = SpawnOnDrop(ran.clone());
        spawn_in(group, async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        Rt::sleep(secs(1)).await;
        kill(group);
        Rt::sleep(secs(1)).await;
    });
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[test]
fn a_panic_is_kept_and_told_to_the_joiner() {
    let mut runtime = SimRuntime::with_seed(5);
    let told = runtime.block_on(async {
        let group = new_group("node-7", Clock::default());
        spawn_in(group, async { panic!("the log has a hole") }).await
    });
    assert_eq!(told, Err::<(), _>(JoinError::Panicked("the log has a hole".into())));
    assert_eq!(runtime.panics().len(), 1);
    assert_eq!(runtime.panics()[0].group, "node-7");
}

#[test]
fn each_group_has_its_own_clock() {
    SimRuntime::with_seed(6).block_on(async {
        let woke_after = |drift_ppm| async move {
            let group = new_group("node", Clock::drifting(drift_ppm));
            spawn_in(group, async {
                let began = true_time();
                Rt::sleep(secs(10)).await;
                true_time() - began
            })
            .await
            .unwrap()
        };
        assert_eq!(woke_after(0).await, secs(10));
        assert!(woke_after(100_000).await < secs(10), "a fast clock wakes early");
        assert!(woke_after(-100_000).await > secs(11), "a slow clock wakes late");
    });
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let mut runtime = SimRuntime::with_seed(7);
    runtime.block_on(async {
        let slept = Rt::timeout(secs(1), Rt::sleep(secs(3600))).await;
        assert_eq!(slept, Err(Elapsed));
    });
    let deadlock = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(std::future::pending::<()>());
    }));
    assert!(deadlock.is_err(), "a timer was left, so waiting for ever was not seen");
    assert_eq!(runtime.elapsed(), secs(1));
}

#[test]
fn watchers_wake_in_the_order_they_began_to_wait() {
    // Polled by hand, so that the schedule's own shuffling does not hide the channel's order.
    thread_local! { static WOKEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) }; }
    struct Note(u64);
    impl std::task::Wake for Note {
        fn wake(self: Arc<Self>) {
            WOKEN.with_borrow_mut(|woken| woken.push(self.0));
        }
    }
    let (tx, rx) = <Watch as openraft_rt::Watch>::channel(0_u64);
    let mut receivers: Vec<_> = (0..10).map(|_| rx.clone()).collect();
    let mut waits: Vec<_> = receivers.iter_mut().map(|rx| Box::pin(rx.changed())).collect();
    for (n, wait) in (0..).zip(&mut waits) {
        let waker = std::task::Waker::from(Arc::new(Note(n)));
        let polled = wait.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    drop(waits.remove(4)); // who gave up waiting is not woken
    tx.send(1).unwrap();
    assert_eq!(WOKEN.take(), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
}
