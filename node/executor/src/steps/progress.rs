//! EmitProgress: a step whose way is told in the container's log.

use container::container::LogStream;
use model::action::EmitProgressAction;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::failure::{Ending, Failure};
use crate::place::Place;
use crate::ready::Ready;
use crate::sandbox::Sandbox;

pub(super) async fn emit<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &EmitProgressAction,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let notes = scene.notes(&place.key);
    let sink = place.sink.named(&action.log_source);
    let (sandbox, start) = (scene.sandbox, &action.start_message);
    if !start.is_empty() && notes.is_first("begin").await {
        sink.write(sandbox, LogStream::Stdout, start).await;
    }
    let within = place.within(0, &action.log_source);
    let ending = scene.inner(action.action.as_ref(), within, stop, ready).await;
    let prefix = &action.failure_message_prefix;
    let (stream, message) = match &ending {
        Ok(()) => (LogStream::Stdout, action.success_message.clone()),
        Err(Failure::Emittable(reason)) if !prefix.is_empty() => {
            (LogStream::Stderr, format!("{prefix}: {reason}"))
        }
        Err(_) => (LogStream::Stderr, prefix.clone()),
    };
    if !message.is_empty() && notes.is_first("end").await {
        sink.write(sandbox, stream, &message).await;
    }
    ending
}
