//! Ending a container's processes, and taking the container away.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;

use super::error::{Context as _, Error, Result};
use super::link::ShimLink;
use super::network::Network;
use super::recover::kill_shim;
use super::runtime::{Container, Event, Inner, Runtime, blocking, lock, to_its_end};
use super::shim::protocol::ToShim;
use super::spec::{ContainerId, ContainerState};
use super::state::{Phase, Record};
use crate::limits::EXIT_WAIT_MAX;

impl Runtime {
    /// SIGTERM to every process of the container, and SIGKILL to what is left after `grace`;
    /// returns when the container has exited, and goes on if its future is dropped.
    ///
    /// A container that has exited is left alone; one whose process was never started is
    /// killed at once.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let container = self.0.find(id)?;
        let id = id.clone();
        to_its_end(async move { stop(&id, &container, grace).await }).await
    }

    /// Takes everything of a container away: processes, mounts, namespaces, link, published
    /// ports, egress rules, cgroups, files, and with them its ids and address.
    ///
    /// Done if there is no such container; waits for another verb that is changing it.
    /// A failure leaves the container listed, to be tried again.
    pub async fn destroy(&self, id: &ContainerId) -> Result<()> {
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        to_its_end(async move { inner.destroy(&id).await }).await
    }
}

async fn stop(id: &ContainerId, container: &Container, grace: Duration) -> Result<()> {
    let state = *container.state.borrow();
    let Some(link) = container.link() else { return Ok(()) };
    match state {
        None | Some(ContainerState::Exited(_)) => return Ok(()),
        Some(ContainerState::Created) => {}
        Some(ContainerState::Running { .. }) => {
            let ended = async {
                link.tell(ToShim::Signal(libc::SIGTERM)).await;
                container.exited().await;
            };
            if tokio::time::timeout(grace, ended).await.is_ok() {
                return Ok(());
            }
        }
    }
    end(id, container, &link).await
}

/// Kills a container and waits until it is gone; a shim that does not do its part is killed
/// too.
async fn end(id: &ContainerId, container: &Container, link: &ShimLink) -> Result<()> {
    let ended = async {
        link.tell(ToShim::Kill).await;
        container.exited().await;
    };
    if tokio::time::timeout(EXIT_WAIT_MAX, ended).await.is_ok() {
        return Ok(());
    }
    tracing::warn!(%id, "the container's shim does not answer and is killed");
    let files = container.files.clone();
    blocking(move || kill_shim(&files)).await?;
    tokio::time::timeout(EXIT_WAIT_MAX, container.exited()).await.map_err(|_| Error::Shim {
        id: id.clone(),
        reason: format!("the container outlived its killed shim for {EXIT_WAIT_MAX:?}"),
    })
}

impl Inner {
    async fn destroy(&self, id: &ContainerId) -> Result<()> {
        let Ok(container) = self.find(id) else { return Ok(()) };
        let mut present = container.present.lock().await;
        if !*present {
            return Ok(());
        }
        teardown(self, &container).await?;
        *present = false;
        lock(&self.table).containers.remove(id);
        self.publish(Event::Removed(id.clone()));
        Ok(())
    }
}

/// Takes away whatever there is of a container; the caller has it to itself.
///
/// Goes by the record alone and takes nothing for granted, so that it undoes a container at
/// any stage of its making or unmaking.
/// All steps are tried; the first failure is told.
pub(super) async fn teardown(inner: &Inner, container: &Container) -> Result<()> {
    let id = &container.record.spec.id;
    let files = container.files.clone();
    if files.dir.exists() {
        let record = Record { phase: Phase::Destroying, ..container.record.clone() };
        files.write_record(&record)?;
    }
    // First, and before the namespace goes: a caller is served or refused, and never left waiting.
    let attachment = container.record.attachment();
    let detached = inner.network.rules.detach(&attachment).await;
    if let Some(link) = container.link() {
        end(id, container, &link).await?;
    }
    lock(&container.namespace).take();
    lock(&container.init).take();
    let (cgroups, owned_id) = (Arc::clone(&inner.cgroups), id.clone());
    let (groups, disconnected) = tokio::join!(
        blocking(move || cgroups.remove(&owned_id)),
        Network::disconnect(attachment.address),
    );
    groups.and(disconnected).and(detached)?;
    // Last, for the record is in it.
    let (disk, record) = (Arc::clone(&inner.disk), container.record.clone());
    blocking(move || {
        disk.remove(&record, &files)?;
        match std::fs::remove_dir_all(&files.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
        .context(|| format!("remove {}", files.dir.display()))
    })
    .await
}
