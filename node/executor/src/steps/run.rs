//! Run: a process in the container.

use container::container::{ExitStatus, LogStream};
use model::RunAction;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::failure::{Ending, Failure};
use crate::limits::LOG_SOURCE_BYTES_MAX;
use crate::place::{Buffer, Notes, Place, Sink};
use crate::ready::Ready;
use crate::sandbox::{EndSignal, Output, ProcessEnd, Sandbox};
use crate::units;

/// That the process was about to be started.
const START: &str = "start";
/// When it was told to end.
const TERMINATE: &str = "terminate";
/// That it was killed.
const KILL: &str = "kill";
/// How the step ended.
const END: &str = "end";

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ByItself,
    Terminated,
    Killed,
}

pub(super) async fn run<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &RunAction,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    let place = Place { sink: place.sink.named(&action.log_source), ..place };
    let notes = scene.notes(&place.key);
    let process = Process { scene, action, place: &place, notes: &notes };
    if let Some(ending) = notes.get(END) {
        ready.set();
        return ending;
    }
    if !notes.has(START) && stop.is_cancelled() {
        return Err(Failure::Cancelled);
    }
    notes.set(START, &()).await;
    let started = scene.recipe.process(action);
    if let Err(reason) = scene.sandbox.start(&place.key, started, process.output()).await {
        let ending = Err(Failure::Other(reason.clone()));
        return process.finish(ending, &format!("failed-creating-process: {reason}")).await;
    }
    ready.set();
    match process.wait(&stop).await {
        Some((end, way)) => process.finish_ended(&end, way).await,
        None => process.finish(Err(Failure::DidNotExit), "").await,
    }
}

struct Process<'a, S> {
    scene: &'a Scene<'a, S>,
    action: &'a RunAction,
    place: &'a Place,
    notes: &'a Notes<'a, S>,
}

impl<S: Sandbox> Process<'_, S> {
    /// In a monitor the output is what is told of a failure, and `suppress_log_output` counts for
    /// nothing.
    fn output(&self) -> Output {
        if self.scene.is_monitor {
            Output::Capture
        } else if self.action.suppress_log_output {
            Output::Discard
        } else {
            let source = self.place.sink.source();
            let end = source.floor_char_boundary(LOG_SOURCE_BYTES_MAX);
            Output::Log { source: source[..end].to_owned() }
        }
    }

    /// Waits for the end, and brings it about when told to; none where not even SIGKILL does.
    async fn wait(&self, stop: &CancellationToken) -> Option<(ProcessEnd, Way)> {
        let (sandbox, key) = (self.scene.sandbox, &self.place.key);
        let settings = &self.scene.services.settings;
        let mut ended = std::pin::pin!(sandbox.ended(key));
        if !self.notes.has(TERMINATE) {
            tokio::select! {
                biased;
                end = &mut ended => return Some((end, Way::ByItself)),
                () = stop.cancelled() => {}
            }
        }
        if !self.notes.has(KILL) {
            let begin = self.scene.services.clock.begin(self.notes, TERMINATE).await;
            sandbox.signal(key, EndSignal::Terminate).await;
            let patience = self.scene.services.clock.deadline(begin, settings.graceful_interval);
            tokio::select! {
                biased;
                end = &mut ended => return Some((end, Way::Terminated)),
                () = sleep_until(patience) => {}
            }
        }
        self.notes.set(KILL, &()).await;
        sandbox.signal(key, EndSignal::Kill).await;
        let end = timeout(settings.exit_wait, ended).await.ok()?;
        Some((end, Way::Killed))
    }

    async fn finish_ended(&self, end: &ProcessEnd, way: Way) -> Ending {
        let (is_monitor, sink) = (self.scene.is_monitor, &self.place.sink);
        let code = end.status.code();
        // Of a monitor's processes only what they write is told.
        let (mut line, mut reason) = if is_monitor {
            (String::new(), String::new())
        } else {
            (format!("Exit status {code}"), format!("{}: Exited with status {code}", sink.source()))
        };
        if way == Way::Killed {
            let interval = units::duration(self.scene.services.settings.graceful_interval);
            line.push_str(&format!(" (exceeded {interval} graceful shutdown interval)"));
        }
        if end.status != ExitStatus::Code(0) && end.oom_killed {
            line.push_str(" (out of memory)");
            reason.push_str(" (out of memory)");
        }
        if is_monitor {
            match sink {
                Sink::Buffer { buffer, .. } => buffer.append(&end.output),
                Sink::Log { .. } => reason = own_words(&end.output, &reason),
            }
            self.scene.sandbox.forget(&self.place.key).await;
        }
        let ending = match way {
            Way::Killed => Err(Failure::KilledAfterGrace),
            Way::Terminated => Err(Failure::Cancelled),
            Way::ByItself if code != 0 => Err(Failure::Emittable(reason)),
            Way::ByItself => Ok(()),
        };
        self.finish(ending, &line).await
    }

    /// Notes how the step ended, and says so: once, whatever becomes of the node between the two.
    async fn finish(&self, ending: Ending, line: &str) -> Ending {
        self.notes.set(END, &ending).await;
        let is_silent = self.action.suppress_log_output && !self.scene.is_monitor;
        if !is_silent && !line.is_empty() {
            self.place.sink.write(self.scene.sandbox, LogStream::Stdout, line).await;
        }
        ending
    }
}

/// What a process that a monitor runs by itself, and not beside others, says of its failure.
fn own_words(output: &[u8], reason: &str) -> String {
    let buffer = Buffer::default();
    buffer.append(output);
    super::monitor_words(&buffer, reason)
}
