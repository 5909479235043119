//! Timeout: a step that is ended when it takes too long.

use std::time::Duration;

use model::action::TimeoutAction;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::failure::{Ending, Failure};
use crate::place::Place;
use crate::ready::Ready;
use crate::sandbox::Sandbox;
use crate::units;

/// When the step began.
const BEGIN: &str = "begin";
/// That its time is over.
const EXPIRED: &str = "expired";

pub(super) async fn timeout<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &TimeoutAction,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let notes = scene.notes(&place.key);
    let long = Duration::from_millis(u64::try_from(action.timeout_ms).unwrap_or(0));
    let begin = scene.services.clock.begin(&notes, BEGIN).await;
    let deadline = scene.services.clock.deadline(begin, long);
    let stop_inner = stop.child_token();
    let within = place.within(0, &action.log_source);
    let inner = scene.inner(action.action.as_ref(), within, stop_inner.clone(), ready);
    let mut inner = std::pin::pin!(inner);
    if !notes.has(EXPIRED) {
        tokio::select! {
            biased;
            ending = &mut inner => return ending,
            // What was told to end from outside is no longer late.
            () = stop.cancelled() => return inner.await,
            () = sleep_until(deadline) => notes.set(EXPIRED, &()).await,
        }
    }
    stop_inner.cancel();
    let mut reason = format!("exceeded {} timeout", units::duration(long));
    if let Err(Failure::Emittable(inner)) = inner.await {
        reason.push_str("; ");
        reason.push_str(&inner);
    }
    Err(Failure::Emittable(reason))
}
