//! Parallel: steps at the same time. All are waited for, also when one fails.

use futures_util::future::join_all;
use model::action::ManyActions;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::failure::{Ending, Failure};
use crate::place::Place;
use crate::ready::Ready;
use crate::sandbox::Sandbox;

pub(super) async fn parallel<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &ManyActions,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let endings = join_all(scene.beside(action, &place, &stop, ready)).await;
    Failure::joined(endings.into_iter().filter_map(Result::err).collect())
}
