//! One recipe that is being executed in its container: how far it is, and how it ended.

use std::sync::Arc;

use container::container::{ContainerId, Runtime};
use executor::{Outcome, Progress, Recipe, Services, execute};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::sandbox::ContainerSandbox;
use crate::limits::STOP_NOW;

/// A recipe under execution. Dropped, it goes on no further; the container is left as it is.
#[derive(Debug)]
pub(super) struct Execution {
    sandbox: ContainerSandbox,
    stop: CancellationToken,
    progress: watch::Receiver<Progress>,
    outcome: watch::Receiver<Option<Outcome>>,
    task: AbortHandle,
}

impl Execution {
    /// Begins a recipe, or goes on with it; once it has ended, so does its container. `changed` is
    /// called whenever something has come of it.
    pub(super) fn begin(
        runtime: &Runtime,
        id: &ContainerId,
        sandbox: ContainerSandbox,
        recipe: Recipe,
        services: Arc<Services>,
        changed: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let (progress, progressed) = watch::channel(Progress::Starting);
        let (ended, outcome) = watch::channel(None);
        let (mut heard, tell) = (progressed.clone(), changed.clone());
        let (runtime, id) = (runtime.clone(), id.clone());
        let (its_sandbox, its_stop) = (sandbox.clone(), stop.clone());
        let task = tokio::spawn(async move {
            // On the heap: what a recipe's future holds is as deep as the recipe.
            let mut executed = Box::pin(execute(its_sandbox, recipe, services, its_stop, progress));
            let outcome = loop {
                tokio::select! {
                    outcome = &mut executed => break outcome,
                    Ok(()) = heard.changed() => tell(),
                }
            };
            // Daemons, and whatever else it has left.
            if let Err(error) = runtime.stop(&id, STOP_NOW).await {
                tracing::warn!(container = %id, %error, "not stopped");
            }
            ended.send_replace(Some(outcome));
            changed();
        });
        let task = task.abort_handle();
        Self { sandbox, stop, progress: progressed, outcome, task }
    }

    pub(super) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// How it ended; none while it has not, or its container has not.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    /// Asks it to end, and says how one waits for that.
    pub(super) fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        let (sandbox, stop, mut outcome) =
            (self.sandbox.clone(), self.stop.clone(), self.outcome.clone());
        async move {
            // Everybody is asked, and only once: also daemons, which the recipe does not know.
            sandbox.terminate_all().await;
            stop.cancel();
            // Gone with its execution, it has nothing to wait for.
            let _ = outcome.wait_for(Option::is_some).await;
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.task.abort();
    }
}
