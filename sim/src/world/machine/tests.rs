//! The simulated containers are held to the same contract as those of Linux.

use agent::contract;
use model::actual_lrp::InstanceKey;
use model::{ActualLrpKey, DesiredLrp, Millis, Task, TaskDefinition, TaskState};
use openraft_rt::AsyncRuntime as _;

use super::*;
use crate::world::{Run, Scope};

const EVER: PerMillion = PerMillion(1_000_000);

fn instance() -> (Handle, Work) {
    let instance = InstanceKey { instance_guid: "i".into(), cell_id: cell_id(1) };
    let key = ActualLrpKey { process_guid: "app".into(), index: 0, domain: "d".into() };
    let desired = Arc::new(DesiredLrp { process_guid: "app".into(), ..DesiredLrp::default() });
    (Handle::Lrp("i".into()), Work::Lrp { key, instance, desired })
}

fn task() -> (Handle, Work) {
    let task = Task {
        task_guid: "t".into(),
        state: TaskState::Running { cell_id: cell_id(1) },
        domain: "d".into(),
        definition: TaskDefinition::default(),
        created_at: Millis(0),
        updated_at: Millis(0),
        rejection_count: 0,
        rejection_reason: String::new(),
    };
    (Handle::Task("t".into()), Work::Task { task: Arc::new(task) })
}

/// Tells the containers of a machine of such habits, in every one of so many worlds.
fn check(habits: Habits, told: impl AsyncFn(SimContainers)) {
    for seed in 0..20 {
        let world = Arc::new(World::new(&Run::of(seed, Scope::Nodes)));
        let machine = Arc::new(Machine::new(habits, Rng::stream(seed, "contract")));
        let containers = SimContainers { me: 1, world, machine };
        let mut runtime = SimRuntime::with_seed(seed);
        runtime.block_on(told(containers));
        assert!(runtime.panics().is_empty(), "{:?}", runtime.panics());
    }
}

#[test]
fn an_instance_runs_until_it_is_stopped() {
    // Not those that are slow to be healthy: some of them never are.
    for stubborn in [PerMillion::NEVER, EVER] {
        check(Habits { stubborn, ..Habits::CALM }, async |containers| {
            let (handle, work) = instance();
            contract::an_instance_runs_until_it_is_stopped(&containers, &handle, &work).await;
            contract::what_runs_may_be_removed(&containers, &handle, &work).await;
        });
    }
}

#[test]
fn a_task_that_ends_stays_until_it_is_removed() {
    check(Habits::CALM, async |containers| {
        let (handle, work) = task();
        contract::a_task_that_ends_stays_until_it_is_removed(&containers, &handle, &work).await;
    });
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    check(Habits { create_fails: EVER, ..Habits::CALM }, async |containers| {
        let (handle, work) = instance();
        contract::what_cannot_be_made_leaves_nothing(&containers, &handle, &work).await;
    });
}
