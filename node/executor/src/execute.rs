//! The whole of a recipe, from its beginning, or from where a former life of the node left it, to
//! its outcome (executor.md section 4).

use std::sync::Arc;

use container::container::LogStream;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use model::Action;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::cell_lines::CellLines;
use crate::failure::{Ending, Failure};
use crate::health::{Health, IsReady, health, readiness, readiness_probes};
use crate::outcome::{Outcome, Progress};
use crate::place::{Notes, Place, Sink};
use crate::ready::Ready;
use crate::recipe::Recipe;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::steps::{Bond, Scene, codependent};

/// The key that its notes go by.
const KEY: &str = "recipe";
/// That it has begun.
const BEGUN: &str = "begun";
/// That its setup has succeeded.
const SET_UP: &str = "setup";
/// That every member was ready.
const RUNNING: &str = "running";
/// That it was told to stop.
const STOPPED: &str = "stopped";
/// What became of it.
const OUTCOME: &str = "outcome";

/// Executes a recipe in its container until it has ended, by itself or because of `stop`, and
/// tells `progress` how far it is.
///
/// It may be dropped at any time, as if the node had died. When it is called again with the same
/// recipe on the same container it goes on: nothing is started, logged or waited for twice. Once
/// the outcome is known, every further call returns it.
pub async fn execute<S: Sandbox>(
    sandbox: S,
    recipe: Recipe,
    services: Arc<Services>,
    stop: CancellationToken,
    progress: watch::Sender<Progress>,
) -> Outcome {
    let notes = Notes::new(&sandbox, KEY);
    if let Some(outcome) = notes.get(OUTCOME) {
        return outcome;
    }
    let outcome = if stop.is_cancelled() && !notes.has(BEGUN) {
        Outcome::stopped_before_running()
    } else {
        notes.is_first(BEGUN).await;
        let scene =
            Scene { sandbox: &sandbox, recipe: &recipe, services: &services, is_monitor: false };
        let ending = watched(&scene, &notes, &stop, &progress).await;
        Outcome::new(&ending, notes.has(STOPPED))
    };
    notes.set(OUTCOME, &outcome).await;
    outcome
}

/// Drives the recipe, and meanwhile hears when it is ready and when it is told to stop.
async fn watched<S: Sandbox>(
    scene: &Scene<'_, S>,
    notes: &Notes<'_, S>,
    stop: &CancellationToken,
    progress: &watch::Sender<Progress>,
) -> Ending {
    let whole = Arc::new(Notify::new());
    let stop_whole = CancellationToken::new();
    let plan = plan(scene, notes, progress, stop_whole.clone(), Ready::of(&whole));
    let mut plan = std::pin::pin!(plan);
    let mut is_running = notes.has(RUNNING);
    if is_running {
        progress.send_replace(running(scene));
    }
    if notes.has(STOPPED) {
        stop_whole.cancel();
    }
    loop {
        tokio::select! {
            biased;
            ending = &mut plan => return ending,
            () = whole.notified(), if !is_running => {
                is_running = true;
                notes.set(RUNNING, &()).await;
                progress.send_replace(running(scene));
            }
            () = stop.cancelled(), if !stop_whole.is_cancelled() => {
                notes.set(STOPPED, &()).await;
                let lines =
                    CellLines { cell_id: scene.recipe.cell_id(), guid: scene.recipe.guid() };
                let source = scene.recipe.log_source();
                scene.sandbox.log(LogStream::Stdout, source, &lines.stopping()).await;
                stop_whole.cancel();
            }
        }
    }
}

/// Where there are readiness checks, an instance is routable only once they have passed.
fn running<S: Sandbox>(scene: &Scene<'_, S>) -> Progress {
    let definition = scene.recipe.check_definition.as_ref();
    let has_readiness = definition.is_some_and(|definition| {
        !readiness_probes(definition, &scene.services.settings).is_empty()
    });
    let routable = !has_readiness || IsReady::noted(scene.sandbox).0;
    Progress::Running { routable }
}

/// Diego's plan: the setup, and then all that lives long.
async fn plan<S: Sandbox>(
    scene: &Scene<'_, S>,
    notes: &Notes<'_, S>,
    progress: &watch::Sender<Progress>,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let Some(action) = &scene.recipe.action else {
        return Err(Failure::Other("container cannot have empty action".to_owned()));
    };
    if let Some(setup) = &scene.recipe.setup
        && !notes.has(SET_UP)
    {
        let place = place(scene.recipe, "setup".to_owned());
        scene.step(setup, place, stop.clone(), Ready::ignored()).await?;
        if stop.is_cancelled() {
            return Ok(());
        }
        notes.set(SET_UP, &()).await;
    }
    long_lived(scene, action, progress, stop, ready).await
}

/// The action, and what goes on beside it. Whatever fails ends the rest; what succeeds does so
/// only where there are sidecars.
async fn long_lived<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &Action,
    progress: &watch::Sender<Progress>,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let Scene { recipe, services, .. } = scene;
    let settings = &services.settings;
    let definition = recipe.check_definition.as_ref();
    let own = Sink::Log { source: recipe.log_source().to_owned() };
    let checks = Health::of(definition, recipe.monitor.as_ref(), settings);
    let probes = definition.map(|definition| readiness_probes(definition, settings));
    let probes = probes.filter(|probes| !probes.is_empty());

    // Readiness is ready at once: it is no member that is waited for.
    let awaited = 1 + recipe.sidecars.len() + usize::from(checks.is_some());
    let mut readies = ready.split(awaited).into_iter();
    let mut ready = || readies.next().expect("there is one for each");
    let stop = stop.child_token();
    let mut members: Vec<BoxFuture<'_, Ending>> = Vec::new();
    let place_of_action = place(recipe, "action".to_owned());
    members.push(scene.step(action, place_of_action, stop.clone(), ready()));
    for (index, sidecar) in recipe.sidecars.iter().enumerate() {
        let place = place(recipe, format!("sidecar/{index}"));
        members.push(scene.optional_step(sidecar.as_ref(), place, stop.clone(), ready()));
    }
    if let Some(checks) = checks {
        members.push(health(scene, checks, own.clone(), stop.clone(), ready()).boxed());
    }
    if let Some(probes) = probes {
        members.push(readiness(scene, probes, own, progress, stop.clone()).boxed());
    }
    if let [_] = members.as_slice() {
        return members.remove(0).await;
    }
    let bond = if recipe.sidecars.is_empty() { Bond::Leaves } else { Bond::Ends };
    codependent(members, &stop, bond).await
}

fn place(recipe: &Recipe, key: String) -> Place {
    Place { key, sink: Sink::Log { source: recipe.log_source().to_owned() } }
}

#[cfg(test)]
mod tests;
