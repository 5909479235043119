//! The monitor action: a step of the image's own, taken over and over.

use std::time::Duration;

use model::Action;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock::Begin;
use crate::failure::{Ending, Failure};
use crate::place::{Place, Sink};
use crate::ready::Ready;
use crate::sandbox::Sandbox;
use crate::steps::Scene;

/// Waits and runs, until a run succeeds. The first that fails after its time is over is a failure.
///
/// A process that a former life of the node has started is found again, and what it wrote by then
/// is lost: of what began in a former life, no failure of this life's first run counts.
pub(super) async fn until_passed<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &Action,
    begin: Begin,
    timeout: Option<Duration>,
    stop: &CancellationToken,
) -> Ending {
    let mut counts = !begin.is_former;
    loop {
        let failure = match wait_and_run(scene, action, stop, Pace::Unhealthy).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let is_over = timeout.is_some_and(|timeout| scene.services.clock.since(begin) > timeout);
        if (is_over && counts) || stop.is_cancelled() {
            return Err(failure);
        }
        counts = true;
    }
}

/// Waits and runs, until a run fails; as to this life's first, see [`until_passed`].
pub(super) async fn until_failed<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &Action,
    begin: Begin,
    stop: &CancellationToken,
) -> Failure {
    let mut counts = !begin.is_former;
    loop {
        let mut ending = wait_and_run(scene, action, stop, Pace::Healthy).await;
        if ending.is_err() && !counts && !stop.is_cancelled() {
            ending = run(scene, action, stop).await;
        }
        counts = true;
        if let Err(failure) = ending {
            return failure;
        }
    }
}

/// How long it is waited before a run.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Unhealthy,
    Healthy,
}

async fn wait_and_run<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &Action,
    stop: &CancellationToken,
    pace: Pace,
) -> Ending {
    let settings = &scene.services.settings;
    let interval = match pace {
        Pace::Unhealthy => settings.unhealthy_interval,
        Pace::Healthy => settings.healthy_interval,
    };
    if stop.run_until_cancelled(sleep(interval)).await.is_none() {
        return Err(Failure::Cancelled);
    }
    run(scene, action, stop).await
}

async fn run<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &Action,
    stop: &CancellationToken,
) -> Ending {
    let slot = stop.run_until_cancelled(scene.services.monitor_slots.acquire()).await;
    let _slot = slot.ok_or(Failure::Cancelled)?.expect("nobody closes it");
    let scene = Scene { is_monitor: true, ..*scene };
    let sink = Sink::Log { source: scene.recipe.log_source().to_owned() };
    let place = Place { key: "monitor".to_owned(), sink };
    scene.step(action, place, stop.clone(), Ready::ignored()).await
}
