//! Serial: steps one after the other, until one fails.

use model::action::ManyActions;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::failure::Ending;
use crate::place::Place;
use crate::ready::Ready;
use crate::sandbox::Sandbox;

/// How many of the steps have succeeded.
const DONE: &str = "done";

/// When it is told to end, so is the current step, and how that ends counts: there is no further
/// one. It is ready when its last step is. Its own `log_source` counts for nothing.
pub(super) async fn serial<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &ManyActions,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let notes = scene.notes(&place.key);
    let mut done = notes.get(DONE).unwrap_or(0);
    let mut ready = Some(ready);
    while let Some(current) = action.actions.get(done) {
        let is_last = done + 1 == action.actions.len();
        let current_ready = ready.take_if(|_| is_last).unwrap_or_else(Ready::ignored);
        let within = place.within(done, "");
        scene.inner(current.as_ref(), within, stop.clone(), current_ready).await?;
        if is_last || stop.is_cancelled() {
            break;
        }
        done += 1;
        notes.set(DONE, &done).await;
    }
    Ok(())
}
