//! Starting processes in a container, and what is done with those that run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{Error, Result};
use super::link::{ask, unexpected};
use super::logs::LogStream;
use super::process::{Ends, Launch, Process, ProcessExit, ProcessState, Program, Stdio};
use super::runtime::{Inner, Runtime, blocking, to_its_end};
use super::shim::protocol::{FromShim, ToShim};
use super::spec::{ContainerId, ContainerState};
use super::state::now_ns;
use crate::limits::{EXIT_WAIT_MAX, LOG_LINE_BYTES_MAX, SHIM_MESSAGE_BYTES_MAX};

/// The name of the process that [`Runtime::start`] starts.
const MAIN: &str = "main";

impl Runtime {
    /// Starts the container's main process, its first; returns when the program was executed.
    ///
    /// When it ends, everything else in the container is killed and the container has exited.
    /// A failure to start (no such program, user or directory) leaves the container as it was.
    pub async fn start(&self, id: &ContainerId, process: Process) -> Result<()> {
        let launch = Launch {
            name: MAIN.to_owned(),
            program: Program::Image(process),
            stdio: Stdio::Log { source: String::new() },
            essential: true,
        };
        self.launch(id, launch).await.map(drop)
    }

    /// Starts a process; returns when it was executed, with our ends of its standard files.
    ///
    /// # Errors
    ///
    /// [`Error::Start`]: there is no such program, user or directory. [`Error::ProcessExists`]:
    /// one of this name was started before, and is not forgotten.
    pub async fn launch(&self, id: &ContainerId, launch: Launch) -> Result<Ends> {
        launch.validate()?;
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        to_its_end(async move { inner.launch(&id, launch).await }).await
    }

    /// Every process that was started and is not forgotten, by name.
    pub fn processes(&self, id: &ContainerId) -> Result<BTreeMap<String, ProcessState>> {
        Ok(self.0.find(id)?.processes.borrow().clone())
    }

    /// Waits until a process has ended; the container's end is its end too.
    pub async fn process_ended(&self, id: &ContainerId, name: &str) -> Result<ProcessExit> {
        let container = self.0.find(id)?;
        let (mut processes, mut state) =
            (container.processes.subscribe(), container.state.subscribe());
        loop {
            let known = processes.borrow_and_update().get(name).copied();
            if let Some(ProcessState::Exited(exit)) = known {
                return Ok(exit);
            }
            if let Some(ContainerState::Exited(exit)) = *state.borrow_and_update() {
                let (status, oom_killed, at_ms) = (exit.status, exit.oom_killed, exit.at_ms);
                return Ok(ProcessExit { status, oom_killed, at_ms });
            }
            if known.is_none() {
                return Err(Error::NoProcess { id: id.clone(), name: name.to_owned() });
            }
            // The senders are in `container`: they cannot be gone.
            tokio::select! {
                _ = processes.changed() => {}
                _ = state.changed() => {}
            }
        }
    }

    /// Signals a process and its group, if it runs.
    pub async fn signal_process(&self, id: &ContainerId, name: &str, signal: i32) -> Result<()> {
        self.tell(id, ToShim::SignalProcess { name: name.to_owned(), signal }).await
    }

    /// Signals every process of the container, whoever started it.
    pub async fn signal(&self, id: &ContainerId, signal: i32) -> Result<()> {
        self.tell(id, ToShim::Signal(signal)).await
    }

    /// Forgets a process that has ended, so that its name is free; one that runs stays.
    pub async fn forget_process(&self, id: &ContainerId, name: &str) -> Result<()> {
        let container = self.0.find(id)?;
        container.processes.send_modify(|processes| {
            if matches!(processes.get(name), Some(ProcessState::Exited(_))) {
                processes.remove(name);
            }
        });
        self.tell(id, ToShim::Forget { name: name.to_owned() }).await
    }

    /// Adds lines to the container's log, while it runs; the source is cut to 255 bytes, each line
    /// to what a line of the app's may have.
    pub async fn log(
        &self,
        id: &ContainerId,
        stream: LogStream,
        source: &str,
        text: &str,
    ) -> Result<()> {
        let source = &source[..source.floor_char_boundary(usize::from(u8::MAX))];
        let text = &text[..text.floor_char_boundary(LOG_LINE_BYTES_MAX)];
        let (source, text) = (source.to_owned(), text.to_owned());
        self.tell(id, ToShim::Log { at_ns: now_ns(), stream, source, text }).await
    }

    async fn tell(&self, id: &ContainerId, message: ToShim) -> Result<()> {
        if let Some(link) = self.0.find(id)?.link() {
            link.tell(message).await;
        }
        Ok(())
    }
}

impl Inner {
    async fn launch(&self, id: &ContainerId, launch: Launch) -> Result<Ends> {
        let container = self.find(id)?;
        let present = container.present.lock().await;
        if !*present {
            return Err(Error::NotFound(id.clone()));
        }
        let state = *container.state.borrow();
        match state {
            Some(ContainerState::Created | ContainerState::Running { .. }) => {}
            None => return Err(Error::NotFound(id.clone())),
            Some(state @ ContainerState::Exited(_)) => {
                let (state, wanted) = (state.name(), "running");
                return Err(Error::WrongState { id: id.clone(), state, wanted });
            }
        }
        let name = launch.name.clone();
        let message = ToShim::Launch(Box::new(launch));
        let bytes = serde_json::to_vec(&message).map_or(usize::MAX, |json| json.len());
        if bytes >= SHIM_MESSAGE_BYTES_MAX {
            let reason = "arguments and environment are too long".to_owned();
            return Err(Error::Start { id: id.clone(), reason });
        }
        let mut messages = vec![message];
        if !container.processes.borrow().contains_key(&name) {
            // Its forgetting may still be on its way, on the link, which this would overtake. What
            // the shim has launched and we do not know was forgotten: launches are one at a time,
            // and each ends when the link has told of it.
            messages.insert(0, ToShim::Forget { name: name.clone() });
        }
        let files = container.files.clone();
        match blocking(move || ask(&files, &messages)).await {
            Ok((FromShim::Launched, ends)) => {
                // Told to the link before the answer was given here.
                let (mut processes, mut state) =
                    (container.processes.subscribe(), container.state.subscribe());
                tokio::select! {
                    _ = processes.wait_for(|processes| processes.contains_key(&name)) => {}
                    _ = state.wait_for(|state| matches!(state, Some(ContainerState::Exited(_)))) => {}
                }
                Ok(Ends::of(ends))
            }
            Ok((FromShim::LaunchFailed(reason), _)) => Err(Error::Start { id: id.clone(), reason }),
            Ok((FromShim::Exists, _)) => Err(Error::ProcessExists { id: id.clone(), name }),
            Ok((other, _)) => Err(unexpected(id, "the start of a process", Some(other))),
            // The container ends at this moment, or its shim is sick.
            Err(error) => match tokio::time::timeout(EXIT_WAIT_MAX, container.exited()).await {
                Ok(()) => {
                    let (state, wanted) = ("exited", "running");
                    Err(Error::WrongState { id: id.clone(), state, wanted })
                }
                Err(_) => {
                    let reason = format!("start of process {name:?}: {error}");
                    Err(Error::Shim { id: id.clone(), reason })
                }
            },
        }
    }
}
