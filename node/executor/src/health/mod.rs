//! Health: whether an instance has started, still lives, and should be sent requests (executor.md
//! section 6). Probes are the cell's own; no shell and no program of the image takes part, except
//! where a monitor action says so.

mod monitor;
mod probe;
mod readiness;

use std::time::Duration;

use container::container::LogStream;
use futures_util::FutureExt;
use futures_util::future::join_all;
use model::Action;
use model::check::{Check, CheckDefinition};
use tokio_util::sync::CancellationToken;

use self::probe::Probe;
pub(crate) use self::readiness::{IsReady, readiness, readiness_probes};
use crate::clock::Begin;
use crate::failure::{Ending, Failure};
use crate::place::{Notes, Sink};
use crate::ready::Ready;
use crate::sandbox::Sandbox;
use crate::services::Settings;
use crate::steps::{Bond, Scene, codependent};
use crate::units;

/// Whose lines a failed check's are, where the check definition says nothing else.
const LOG_SOURCE: &str = "HEALTH";
/// The key that its notes go by.
const KEY: &str = "health";
/// When the monitoring began.
const BEGIN: &str = "begin";
/// That the instance was healthy once.
const HEALTHY: &str = "healthy";
/// How it ended.
const END: &str = "end";

/// What says whether an instance is healthy.
#[derive(Debug)]
pub(crate) enum Health<'a> {
    Declared(Vec<Probe>),
    Monitor(&'a Action),
}

impl<'a> Health<'a> {
    /// A check definition wins over a monitor, also where it has no checks.
    pub(crate) fn of(
        definition: Option<&CheckDefinition>,
        monitor: Option<&'a Action>,
        settings: &Settings,
    ) -> Option<Self> {
        match definition {
            Some(definition) => {
                let probes = probes(&definition.checks, settings);
                (!probes.is_empty()).then_some(Self::Declared(probes))
            }
            None => monitor.map(Self::Monitor),
        }
    }
}

/// Those of the checks that are valid.
fn probes(checks: &[Check], settings: &Settings) -> Vec<Probe> {
    let probe = |check| {
        let probe = Probe::of(check, settings);
        if probe.is_none() {
            tracing::error!(?check, "an invalid check is left out");
        }
        probe
    };
    checks.iter().filter_map(probe).collect()
}

/// Whose lines those of a definition's checks are.
fn sink(definition: Option<&CheckDefinition>, own: &Sink) -> Sink {
    let source = definition.map(|definition| definition.log_source.as_str());
    own.named(source.filter(|source| !source.is_empty()).unwrap_or(LOG_SOURCE))
}

/// Waits for the instance to become healthy, and then for the opposite, which is a failure. It is
/// ready when the instance is healthy for the first time.
pub(crate) async fn health<S: Sandbox>(
    scene: &Scene<'_, S>,
    health: Health<'_>,
    own: Sink,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let clock = scene.services.clock;
    let notes = Notes::new(scene.sandbox, KEY);
    if let Some(ending) = notes.get(END) {
        return ending;
    }
    let begin = clock.begin(&notes, BEGIN).await;
    if !begin.is_former {
        let line = "Starting health monitoring of container";
        own.write(scene.sandbox, LogStream::Stdout, line).await;
    }
    let checks = sink(scene.recipe.check_definition.as_ref(), &own);
    let fail = async |reason: String, text: String, line: String| {
        let ending = Err(Failure::Emittable(reason));
        notes.set(END, &ending).await;
        checks.write(scene.sandbox, LogStream::Stderr, &text).await;
        own.write(scene.sandbox, LogStream::Stderr, &line).await;
        ending
    };
    if !notes.has(HEALTHY) {
        let result = startup(scene, &health, begin, &stop).await;
        if stop.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        if let Err(failure) = result {
            let text = failure.to_string();
            let after = units::duration(rounded(clock.since(begin)));
            let reason = format!("Instance never healthy after {after}: {text}");
            let line = format!("Failed after {after}: startup health check never passed.");
            return fail(reason, text, line).await;
        }
        notes.set(HEALTHY, &()).await;
        own.write(scene.sandbox, LogStream::Stdout, "Container became healthy").await;
    }
    ready.set();
    let failure = liveness(scene, &health, begin, &stop).await;
    if stop.is_cancelled() {
        return Err(Failure::Cancelled);
    }
    let text = failure.to_string();
    let reason = format!("Instance became unhealthy: {text}");
    fail(reason, text, "Container became unhealthy".to_owned()).await
}

/// All checks must pass once. Where `stop` ends it, how it ends says nothing.
async fn startup<S: Sandbox>(
    scene: &Scene<'_, S>,
    health: &Health<'_>,
    begin: Begin,
    stop: &CancellationToken,
) -> Ending {
    let timeout = Some(Duration::from_millis(scene.recipe.start_timeout_ms));
    let timeout = timeout.filter(|timeout| !timeout.is_zero());
    match health {
        Health::Declared(probes) => {
            let deadline =
                timeout.map(|timeout| (timeout, scene.services.clock.deadline(begin, timeout)));
            let interval = scene.services.settings.unhealthy_interval;
            let checks =
                probes.iter().map(|probe| probe.until_passed(scene.sandbox, interval, deadline));
            let Some(results) = stop.run_until_cancelled(join_all(checks)).await else {
                return Err(Failure::Cancelled);
            };
            let failures = results.into_iter().filter_map(Result::err).map(Failure::Emittable);
            Failure::joined(failures.collect())
        }
        Health::Monitor(action) => monitor::until_passed(scene, action, begin, timeout, stop).await,
    }
}

/// The first failure ends all checks. Where `stop` ends it, how it ends says nothing.
async fn liveness<S: Sandbox>(
    scene: &Scene<'_, S>,
    health: &Health<'_>,
    begin: Begin,
    stop: &CancellationToken,
) -> Failure {
    match health {
        Health::Declared(probes) => {
            let stop = stop.child_token();
            let check = async |probe: &Probe| {
                let failed = probe.until_failed(scene.sandbox);
                let text = stop.run_until_cancelled(failed).await.ok_or(Failure::Cancelled)?;
                Err(Failure::Emittable(format!("Liveness check unsuccessful: {text}")))
            };
            let checks = probes.iter().map(|probe| check(probe).boxed()).collect();
            let ending = codependent(checks, &stop, Bond::Leaves).await;
            ending.expect_err("each check ends in a failure")
        }
        Health::Monitor(action) => monitor::until_failed(scene, action, begin, stop).await,
    }
}

/// To the millisecond, half up.
fn rounded(duration: Duration) -> Duration {
    let micros = duration.as_micros() + 500;
    Duration::from_millis(u64::try_from(micros / 1000).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
