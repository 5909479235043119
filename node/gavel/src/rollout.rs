//! Waits until what was desired runs, and says on the way and at the end what stands in its way.

use std::time::{Duration, Instant};

use api::admin::Consistency;
use model::{ActualState, ProcessGuid};

use crate::app::{App, describe_state};
use crate::cli::Caller;
use crate::failure::Failure;
use crate::limits::{RETRY_WAIT_MAX, RETRY_WAIT_MIN};
use crate::output::Progress;
use crate::units;

/// Waits until every desired instance of an app runs; returns the app as it then is.
///
/// A node that is lost meanwhile does not end the wait.
///
/// # Errors
///
/// [`Failure::Failed`] when the time is up, or when nothing is left that could start by itself
/// soon: the rest has crashed. The app stays desired.
pub(crate) async fn until_running(
    caller: &mut Caller,
    guid: &ProcessGuid,
    timeout: Duration,
) -> Result<App, Failure> {
    let give_up = Instant::now() + timeout;
    let mut progress = caller.screen.progress();
    let mut last = None;
    let outcome = tokio::time::timeout_at(
        give_up.into(),
        look_until_settled(caller, guid, &mut progress, &mut last),
    )
    .await;
    drop(progress);
    match outcome {
        Ok(Ok(app)) if app.running() >= app.desired.indices().len() => Ok(app),
        Ok(Ok(app)) => Err(given_up(&app, "some instances have crashed")),
        Ok(Err(failure)) => Err(failure),
        Err(_) => {
            let why = format!("not all instances run after {}", units::duration(timeout));
            // Why instances wait is asked once more: the leader's reasons are in no record.
            match App::look(&mut caller.client, guid, Consistency::Linearizable).await {
                Ok(app) => Err(given_up(&app, &why)),
                Err(failure) if failure.may_pass() => Err(last.unwrap_or(failure)),
                Err(failure) => Err(failure),
            }
        }
    }
}

/// Returns when all run, or when only a back-off could still change something. `last` keeps why
/// the cluster could not be asked, while it cannot.
async fn look_until_settled(
    caller: &mut Caller,
    guid: &ProcessGuid,
    progress: &mut Progress,
    last: &mut Option<Failure>,
) -> Result<App, Failure> {
    let mut pause = RETRY_WAIT_MIN;
    loop {
        match look_and_wait(caller, guid, progress).await {
            Ok(Some(app)) => return Ok(app),
            Ok(None) => {
                *last = None;
                pause = RETRY_WAIT_MIN;
            }
            Err(failure) if failure.may_pass() => {
                progress.say("waiting for a node to answer");
                *last = Some(failure);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_WAIT_MAX);
            }
            Err(failure) => return Err(failure),
        }
    }
}

async fn look_and_wait(
    caller: &mut Caller,
    guid: &ProcessGuid,
    progress: &mut Progress,
) -> Result<Option<App>, Failure> {
    // The index is asked for first, so that what changes after the look ends the wait.
    let index = caller.client.applied_index().await?;
    let app = App::look(&mut caller.client, guid, Consistency::Linearizable).await?;
    progress.say(&tell(&app));
    if is_settled(&app) {
        return Ok(Some(app));
    }
    caller.client.news(index).await?;
    Ok(None)
}

fn is_settled(app: &App) -> bool {
    let desired = app.desired.indices().len();
    let crashed = app.ordinary().filter(|lrp| lrp.state == ActualState::Crashed).count();
    app.running() + crashed >= desired
}

/// `1 of 3 running, 1 starting, 1 waiting`.
fn tell(app: &App) -> String {
    let count = |name: &str| {
        let count = app.ordinary().filter(|lrp| describe_state(&lrp.state) == name).count();
        if count == 0 { String::new() } else { format!(", {count} {name}") }
    };
    let others: String = ["starting", "waiting", "crashed"].map(count).concat();
    let guid = &app.desired.process_guid;
    format!("{guid}: {} of {} running{others}", app.running(), app.desired.instances)
}

fn given_up(app: &App, why: &str) -> Failure {
    let guid = &app.desired.process_guid;
    let troubles: String = app.troubles().iter().map(|trouble| format!("\n  {trouble}")).collect();
    let (running, desired) = (app.running(), app.desired.instances);
    Failure::Failed(format!(
        "{guid}: {why}; {running} of {desired} run{troubles}\n\
         {guid} stays desired; see more with: gavel app {guid}, gavel logs {guid} --recent"
    ))
}
