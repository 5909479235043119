//! Readiness: whether routers may send requests to an instance that runs. It never ends one.

use container::container::LogStream;
use futures_util::FutureExt;
use futures_util::future::{join_all, select_all};
use model::check::CheckDefinition;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::probe::Probe;
use super::{BEGIN, probes, sink};
use crate::failure::{Ending, Failure};
use crate::outcome::Progress;
use crate::place::{Notes, Sink};
use crate::sandbox::Sandbox;
use crate::services::Settings;
use crate::steps::Scene;

/// The key that its notes go by.
const KEY: &str = "readiness";
/// What the checks have found last.
const STATE: &str = "state";

/// Whether the checks have passed, or since failed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IsReady(pub(crate) bool);

impl IsReady {
    /// What was found in a former life of the node; not ready where nothing was.
    pub(crate) fn noted(sandbox: &impl Sandbox) -> Self {
        Notes::new(sandbox, KEY).get(STATE).unwrap_or(Self(false))
    }
}

/// The valid readiness checks of a definition.
pub(crate) fn readiness_probes(definition: &CheckDefinition, settings: &Settings) -> Vec<Probe> {
    probes(&definition.readiness_checks, settings)
}

/// Tells `progress`, once the instance runs, whenever all checks have passed and whenever one has
/// failed after that, until `stop`.
pub(crate) async fn readiness<S: Sandbox>(
    scene: &Scene<'_, S>,
    probes: Vec<Probe>,
    own: Sink,
    progress: &watch::Sender<Progress>,
    stop: CancellationToken,
) -> Ending {
    let watch = watch_readiness(scene, &probes, &own, progress);
    stop.run_until_cancelled(watch).await;
    Err(Failure::Cancelled)
}

async fn watch_readiness<S: Sandbox>(
    scene: &Scene<'_, S>,
    probes: &[Probe],
    own: &Sink,
    progress: &watch::Sender<Progress>,
) {
    let sandbox = scene.sandbox;
    let notes = Notes::new(sandbox, KEY);
    let sink = sink(scene.recipe.check_definition.as_ref(), own);
    let tell = async |line| sink.write(sandbox, LogStream::Stdout, line).await;
    if notes.is_first(BEGIN).await {
        tell("Starting readiness health monitoring of container").await;
    }
    let mut state = IsReady::noted(sandbox);
    loop {
        if state.0 {
            let failed = probes.iter().map(|probe| probe.until_failed(sandbox).boxed());
            select_all(failed).await;
        } else {
            let interval = scene.services.settings.unhealthy_interval;
            join_all(probes.iter().map(|probe| probe.until_passed(sandbox, interval, None))).await;
        }
        let mut running = progress.subscribe();
        let is_running = |progress: &Progress| matches!(progress, Progress::Running { .. });
        running.wait_for(is_running).await.expect("its sender is here");
        state = IsReady(!state.0);
        notes.set(STATE, &state).await;
        progress.send_replace(Progress::Running { routable: state.0 });
        tell(if state.0 { PASSED } else { FAILED }).await;
    }
}

const PASSED: &str = "Container passed the readiness health check. Container marked ready and \
                      added to route pool.";
const FAILED: &str = "Container failed the readiness health check. Container marked not ready and \
                      removed from route pool.";
