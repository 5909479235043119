//! What the containers of every world promise the agent, as tests: those of Linux and those of the
//! simulator are held to the same words, or what the simulator proves would be proven of
//! something else.
//!
//! Nothing here names a clock: each waits for changes only, and a world that never changes hangs
//! its test.

use plan::cell::{Container, Handle, Work};

use crate::world::Containers;

/// Waits until the container of this name is as wanted; none if there is none of it.
async fn until<C: Containers>(
    containers: &C,
    handle: &Handle,
    wanted: impl Fn(Option<&Container>) -> bool,
) {
    let mut seen = 0;
    loop {
        // Before the look: what comes after it is a change.
        seen = containers.changed(seen).await;
        if wanted(find(containers, handle).as_ref()) {
            return;
        }
    }
}

fn find<C: Containers>(containers: &C, handle: &Handle) -> Option<Container> {
    let found: Vec<_> =
        containers.list().into_iter().filter(|found| found.handle == *handle).collect();
    assert!(found.len() <= 1, "{handle} is listed once: {found:?}");
    found.into_iter().next().map(|found| found.container)
}

fn is_running(container: Option<&Container>) -> bool {
    matches!(container, Some(Container::Running { .. }))
}

/// An instance that never ends by itself is there as soon as it is made, runs, is not made twice,
/// has ended when its stop returns, and is gone when its removal does.
///
/// # Panics
///
/// The promise is broken.
pub async fn an_instance_runs_until_it_is_stopped<C: Containers>(
    containers: &C,
    handle: &Handle,
    work: &Work,
) {
    assert_eq!(find(containers, handle), None);
    assert_eq!(containers.create(handle, work).await, Ok(()));
    let made = find(containers, handle);
    assert!(
        matches!(made, Some(Container::Starting | Container::Running { .. })),
        "made, and nothing else: {made:?}"
    );
    until(containers, handle, is_running).await;

    let again = containers.create(handle, work).await;
    assert!(again.is_err(), "one of a name");
    assert!(is_running(find(containers, handle).as_ref()), "and the first is left alone");

    containers.stop(handle).await;
    let ended = find(containers, handle);
    assert!(matches!(ended, Some(Container::Exited { .. })), "stopped: {ended:?}");
    removal_is_whole_and_idempotent(containers, handle).await;
}

/// What runs may be removed without having been stopped.
///
/// # Panics
///
/// The promise is broken.
pub async fn what_runs_may_be_removed<C: Containers>(containers: &C, handle: &Handle, work: &Work) {
    assert_eq!(containers.create(handle, work).await, Ok(()));
    until(containers, handle, is_running).await;
    removal_is_whole_and_idempotent(containers, handle).await;
}

/// A task's process that ends well is told of as such, and stays until it is removed.
///
/// # Panics
///
/// The promise is broken.
pub async fn a_task_that_ends_stays_until_it_is_removed<C: Containers>(
    containers: &C,
    handle: &Handle,
    work: &Work,
) {
    assert_eq!(containers.create(handle, work).await, Ok(()));
    until(containers, handle, |container| matches!(container, Some(Container::Exited { .. })))
        .await;
    let ended = find(containers, handle);
    assert!(matches!(ended, Some(Container::Exited { failed: false, .. })), "{ended:?}");
    // Nothing is left to be stopped.
    containers.stop(handle).await;
    assert_eq!(find(containers, handle), ended);
    removal_is_whole_and_idempotent(containers, handle).await;
}

/// What cannot be made says why, and leaves nothing.
///
/// # Panics
///
/// The promise is broken.
pub async fn what_cannot_be_made_leaves_nothing<C: Containers>(
    containers: &C,
    handle: &Handle,
    work: &Work,
) {
    let failure = containers.create(handle, work).await.expect_err("it cannot be made");
    assert!(!failure.reason.is_empty(), "{failure:?}");
    assert_eq!(find(containers, handle), None);
    removal_is_whole_and_idempotent(containers, handle).await;
}

async fn removal_is_whole_and_idempotent<C: Containers>(containers: &C, handle: &Handle) {
    for _ in 0..2 {
        assert_eq!(containers.destroy(handle).await, Ok(()));
        assert_eq!(find(containers, handle), None);
        // There is nothing to be stopped any more, and nobody waits for it.
        containers.stop(handle).await;
    }
}
