//! Try: a step whose failure does not count.

use model::action::TryAction;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::failure::Ending;
use crate::place::Place;
use crate::ready::Ready;
use crate::sandbox::Sandbox;

pub(super) async fn attempt<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &TryAction,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let within = place.within(0, &action.log_source);
    if let Err(failure) = scene.inner(action.action.as_ref(), within, stop, ready).await {
        tracing::debug!(key = place.key, %failure, "tried in vain");
    }
    Ok(())
}
