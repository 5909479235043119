//! Starting the app's process in a container.

use std::sync::Arc;

use super::error::{Error, Result};
use super::link::unexpected;
use super::runtime::{Inner, Runtime, to_its_end};
use super::spec::{ContainerId, ContainerState, Process};
use crate::limits::SHIM_REPLY_WAIT_MAX;

impl Runtime {
    /// Starts the container's one process, its main one; returns when the program was
    /// executed.
    ///
    /// When it ends, everything else in the container is killed and the container has exited.
    /// A failure to start (no such program, user or directory) leaves the container as it was.
    pub async fn start(&self, id: &ContainerId, process: Process) -> Result<()> {
        process.validate()?;
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        to_its_end(async move { inner.start(&id, process).await }).await
    }
}

impl Inner {
    async fn start(&self, id: &ContainerId, process: Process) -> Result<()> {
        let container = self.find(id)?;
        let present = container.present.lock().await;
        if !*present {
            return Err(Error::NotFound(id.clone()));
        }
        let state = *container.state.borrow();
        match state {
            Some(ContainerState::Created) => {}
            None => return Err(Error::NotFound(id.clone())),
            Some(state @ (ContainerState::Running { .. } | ContainerState::Exited(_))) => {
                let (state, wanted) = (state.name(), "created");
                return Err(Error::WrongState { id: id.clone(), state, wanted });
            }
        }
        let Some(link) = container.link() else {
            return Err(unexpected(id, "a connection", None));
        };
        match tokio::time::timeout(SHIM_REPLY_WAIT_MAX, link.start(process)).await {
            Ok(Some(Ok(_running))) => Ok(()),
            Ok(Some(Err(reason))) => Err(Error::Start { id: id.clone(), reason }),
            Ok(None) => Err(unexpected(id, "the start of its process", None)),
            Err(_) => Err(unexpected(id, &format!("an answer in {SHIM_REPLY_WAIT_MAX:?}"), None)),
        }
    }
}
