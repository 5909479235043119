//! The steps of a recipe, one kind a file (executor.md section 5).
//!
//! A step is a future: it is told to end by a token, says that it is ready by [`Ready`], and
//! answers how it ended. It may be dropped at any await, as the node may die at any moment; what
//! it has noted by then is where it goes on.

mod attempt;
mod codependent;
mod download;
mod parallel;
mod progress;
mod run;
mod serial;
mod timeout;
mod upload;

pub(crate) use codependent::{Bond, codependent};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use model::Action;
use model::action::{ManyActions, Nested};
use tokio_util::sync::CancellationToken;

use crate::failure::{Ending, Failure};
use crate::place::{Buffer, Notes, Place, Sink};
use crate::ready::Ready;
use crate::recipe::Recipe;
use crate::sandbox::Sandbox;
use crate::services::Services;

/// What the steps of one recipe work with.
#[derive(Debug)]
pub(crate) struct Scene<'a, S> {
    pub(crate) sandbox: &'a S,
    pub(crate) recipe: &'a Recipe,
    pub(crate) services: &'a Services,
    /// Whether they are a monitor's, which run over and over and note nothing.
    pub(crate) is_monitor: bool,
}

impl<'a, S: Sandbox> Scene<'a, S> {
    fn notes<'b>(&'b self, key: &'b str) -> Notes<'b, S> {
        if self.is_monitor { Notes::none(self.sandbox, key) } else { Notes::new(self.sandbox, key) }
    }

    /// Takes one step, with all that are within it, until it has ended.
    pub(crate) fn step<'b>(
        &'b self,
        action: &'b Action,
        place: Place,
        stop: CancellationToken,
        ready: Ready,
    ) -> BoxFuture<'b, Ending> {
        match action {
            Action::Run(run) => run::run(self, run, place, stop, ready).boxed(),
            Action::Download(it) => download::download(self, it, place, stop, ready).boxed(),
            Action::Upload(upload) => upload::upload(self, upload, place, stop, ready).boxed(),
            Action::Timeout(it) => timeout::timeout(self, it, place, stop, ready).boxed(),
            Action::EmitProgress(it) => progress::emit(self, it, place, stop, ready).boxed(),
            Action::Try(it) => attempt::attempt(self, it, place, stop, ready).boxed(),
            Action::Parallel(many) => parallel::parallel(self, many, place, stop, ready).boxed(),
            Action::Serial(many) => serial::serial(self, many, place, stop, ready).boxed(),
            Action::Codependent(many) => {
                codependent::actions(self, many, place, stop, ready).boxed()
            }
        }
    }

    fn inner<'b>(
        &'b self,
        action: Option<&'b Nested>,
        place: Place,
        stop: CancellationToken,
        ready: Ready,
    ) -> BoxFuture<'b, Ending> {
        self.optional_step(action.map(|Nested(action)| &**action), place, stop, ready)
    }

    /// The same as [`Scene::step`], for an action that may be missing.
    pub(crate) fn optional_step<'b>(
        &'b self,
        action: Option<&'b Action>,
        place: Place,
        stop: CancellationToken,
        ready: Ready,
    ) -> BoxFuture<'b, Ending> {
        match action {
            Some(action) => self.step(action, place, stop, ready),
            // Validation refuses it, in these words.
            None => {
                let failure = Failure::Other("invalid action type".to_owned());
                std::future::ready(Err(failure)).boxed()
            }
        }
    }

    /// The steps of a group that are taken at the same time. In a monitor, what each of them
    /// writes is what is told of its failure.
    fn beside<'b>(
        &'b self,
        many: &'b ManyActions,
        place: &Place,
        stop: &CancellationToken,
        ready: Ready,
    ) -> Vec<BoxFuture<'b, Ending>> {
        let readies = ready.split(many.actions.len());
        let members = many.actions.iter().zip(readies).enumerate();
        let begin = |(index, (action, ready)): (usize, (&'b Option<Nested>, Ready))| {
            let mut within = place.within(index, &many.log_source);
            if !self.is_monitor {
                return self.inner(action.as_ref(), within, stop.clone(), ready);
            }
            let buffer = Buffer::default();
            let source = within.sink.source().to_owned();
            within.sink = Sink::Buffer { source, buffer: buffer.clone() };
            let step = self.inner(action.as_ref(), within, stop.clone(), ready);
            let told = move |failure: Failure| {
                Failure::Emittable(monitor_words(&buffer, &failure.to_string()))
            };
            step.map(|ending| ending.map_err(told)).boxed()
        };
        members.map(begin).collect()
    }
}

/// What is told of a monitor's step that failed for this reason: what it has written, if anything.
fn monitor_words(written: &Buffer, reason: &str) -> String {
    let written = written.text();
    if written.is_empty() { format!("Failed to invoke process: {reason}") } else { written }
}

#[cfg(test)]
mod tests;
