//! Codependent: steps at the same time, of which none goes on when another has ended.

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use model::action::ManyActions;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::failure::{Ending, Failure};
use crate::place::Place;
use crate::ready::Ready;
use crate::sandbox::Sandbox;

/// What a member's success means for the others. Its failure ends them always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bond {
    /// It is a failure: that it ended is what must not happen.
    Fails,
    /// It ends them.
    Ends,
    /// Nothing.
    Leaves,
}

pub(super) async fn actions<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &ManyActions,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let stop = stop.child_token();
    codependent(scene.beside(action, &place, &stop, ready), &stop, Bond::Fails).await
}

/// Waits for all members, whom `stop` ends, and ends them when one has ended. Failures are told
/// in the order in which they happened.
pub(crate) async fn codependent(
    members: Vec<BoxFuture<'_, Ending>>,
    stop: &CancellationToken,
    bond: Bond,
) -> Ending {
    let mut members: FuturesUnordered<_> = members.into_iter().collect();
    let mut failures = Vec::new();
    while let Some(ending) = members.next().await {
        match (ending, bond) {
            (Ok(()), Bond::Leaves) => continue,
            (Ok(()), Bond::Ends) => {}
            (Ok(()), Bond::Fails) => {
                failures.push(Failure::Other("Codependent step exited".to_owned()));
            }
            (Err(failure), _) => failures.push(failure),
        }
        stop.cancel();
    }
    Failure::joined(failures)
}
