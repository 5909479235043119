//! Making a container: everything but its process.
//!
//! The record on disk comes first; whatever fails after it is undone by the same [`teardown`]
//! that destroys a container, which needs to know nothing but the record.
//!
//! [`teardown`]: super::stop::teardown

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use super::disk::Prepared;
use super::error::{Context as _, Error, Result};
use super::link::{Connection, ShimProcess, spawn_shim, unexpected, watch};
use super::network::HostPort;
use super::runtime::{
    Container, Event, IDS_PER_CONTAINER, Inner, Runtime, blocking, lock, mappings, to_its_end,
};
use super::shim::protocol::{FromShim, Setup, ToShim};
use super::spec::{ContainerInfo, ContainerSpec, ContainerState};
use super::state::{Files, Phase, Record};
use super::stop::teardown;
use crate::limits::{SHIM_MOVE_AFTER, SHIM_REPLY_WAIT_MAX};

impl Runtime {
    /// Makes a container: its directories, id range, root file system, cgroups, namespaces,
    /// address, published ports and egress rules; its own init waits in it for a process.
    ///
    /// If it fails, nothing is left.
    pub async fn create(&self, spec: ContainerSpec) -> Result<ContainerInfo> {
        spec.validate()?;
        let inner = Arc::clone(&self.0);
        to_its_end(async move { inner.create(spec).await }).await
    }
}

impl Inner {
    async fn create(&self, spec: ContainerSpec) -> Result<ContainerInfo> {
        let container = self.reserve(spec)?;
        let mut present = container.present.lock().await;
        match self.make(&container).await {
            Ok(info) => Ok(info),
            Err(error) => {
                match teardown(self, &container).await {
                    Ok(()) => {
                        *present = false;
                        lock(&self.table).containers.remove(&container.record.spec.id);
                    }
                    // It keeps its name, address and ids; `destroy` and the next open try
                    // again.
                    Err(undo) => {
                        let id = &container.record.spec.id;
                        tracing::error!(%id, error = %undo, "undo the making of a container");
                    }
                }
                Err(error)
            }
        }
    }

    /// Takes the container's name, slot and ports; nothing happens yet.
    fn reserve(&self, spec: ContainerSpec) -> Result<Arc<Container>> {
        if spec.privileged && !self.config.privileged {
            return Err(Error::Invalid {
                what: format!("container {}", spec.id),
                reason: "it is privileged, which this node's configuration does not allow"
                    .to_owned(),
            });
        }
        let mut table = lock(&self.table);
        if table.containers.contains_key(&spec.id) {
            return Err(Error::AlreadyExists(spec.id));
        }
        let place = self.disk.place(&spec)?;
        let slot = table.allocate_slot(&self.config)?;
        let host_ports: Vec<HostPort> = table.allocate_ports(&self.config, spec.ports.len())?;
        let record = Record {
            phase: Phase::Creating,
            slot,
            address: self.config.subnet.address(slot),
            id_base: self.config.id_base + slot * IDS_PER_CONTAINER,
            ports: mappings(&spec.ports, &host_ports),
            place,
            spec,
        };
        let id = record.spec.id.clone();
        let container = Arc::new(Container::new(record, self.files(&id), host_ports));
        table.containers.insert(id, Arc::clone(&container));
        Ok(container)
    }

    async fn make(&self, container: &Arc<Container>) -> Result<ContainerInfo> {
        let spec = &container.record.spec;
        let (files, record) = (container.files.clone(), container.record.clone());
        let made = move || make_files(&files, &record).map(|()| (files, record));
        let (files, record) = blocking(made).await?;

        let (disk, cgroups) = (Arc::clone(&self.disk), Arc::clone(&self.cgroups));
        let made = blocking(move || {
            let prepared = disk.make(&record, &files)?;
            cgroups.create(&record.spec.id, &record.spec.limits).map(|()| prepared)
        });
        // Meanwhile its shim starts, which waits to be told.
        let spawned = spawn_shim(&self.config.shim, &spec.id, &container.files);
        let (made, spawned) = tokio::join!(made, spawned);
        let (shim, mut connection) = spawned?;
        let prepared = match made {
            Ok(prepared) => prepared,
            Err(error) => {
                shim.kill().await;
                return Err(error);
            }
        };
        let attachment = container.record.attachment();
        let setup = self.setup(&container.record, &container.files, &prepared);
        let raised = self.raise(container, setup, &mut connection);
        let raised = tokio::time::timeout(SHIM_REPLY_WAIT_MAX, raised);
        let (raised, attached) = tokio::join!(raised, self.network.rules.attach(&attachment));
        let raised = raised.unwrap_or_else(|_| {
            Err(unexpected(&spec.id, &format!("an answer in {SHIM_REPLY_WAIT_MAX:?}"), None))
        });
        match raised.and(attached) {
            Ok(()) => {}
            Err(error) => {
                shim.kill().await;
                return Err(error);
            }
        }
        self.made(container, connection, shim)?;
        let info = container.info().expect("the state was set just now");
        self.publish(Event::Changed(info.clone()));
        Ok(info)
    }

    /// Tells the shim what to build, and gives its network namespace a link meanwhile.
    async fn raise(
        &self,
        container: &Container,
        setup: Setup,
        connection: &mut Connection,
    ) -> Result<()> {
        let Container { record, .. } = container;
        let id = &record.spec.id;
        let failed = |message| match message {
            Some(FromShim::Failed(reason)) => Error::Create { id: id.clone(), reason },
            message => unexpected(id, "progress", message),
        };
        connection.send(&ToShim::Setup(Box::new(setup))).await?;
        match connection.receive().await {
            Some(FromShim::Namespaces { pid }) => {
                container.hold_namespace(pid);
                self.network.connect(record.address, pid).await?;
            }
            message => return Err(failed(message)),
        }
        connection.send(&ToShim::Connected).await?;
        match connection.receive().await {
            Some(FromShim::Created { init_pid }) => {
                container.hold_init(init_pid);
                Ok(())
            }
            message => Err(failed(message)),
        }
    }

    fn setup(&self, record: &Record, files: &Files, prepared: &Prepared) -> Setup {
        Setup {
            dir: files.dir.clone(),
            writable: prepared.writable.clone(),
            layers: record.spec.layers.clone(),
            mounts: record.spec.mounts.clone(),
            hostname: record.spec.hostname.clone(),
            id_base: record.root_id(),
            id_count: IDS_PER_CONTAINER,
            privileged: record.spec.privileged,
            cgroups: self.cgroups.joins(&record.spec.id),
            oom_counter: self.cgroups.groups(&record.spec.id).oom_counter,
            address: record.address,
            gateway: self.config.subnet.gateway(),
            nameservers: self.config.nameservers.clone(),
            log_bytes_max: self.config.log_bytes_max,
            log_rate: record.spec.limits.log_rate,
        }
    }

    fn made(
        &self,
        container: &Arc<Container>,
        connection: Connection,
        shim: ShimProcess,
    ) -> Result<()> {
        let record = Record { phase: Phase::Created, ..container.record.clone() };
        container.files.write_record(&record)?;
        container.state.send_replace(Some(ContainerState::Created));
        if let Some(pid) = shim.id() {
            self.move_shim_later(container, pid);
        }
        watch(self, container, connection, Some(shim));
        Ok(())
    }

    /// Not at once: the kernel lets nobody else make, join or remove a group meanwhile.
    fn move_shim_later(&self, container: &Arc<Container>, pid: u32) {
        let (cgroups, container) = (Arc::clone(&self.cgroups), Arc::downgrade(container));
        drop(tokio::spawn(async move {
            tokio::time::sleep(SHIM_MOVE_AFTER).await;
            // As long as the container has not ended its shim is there, and the number its own.
            let Some(container) = container.upgrade() else { return };
            if !matches!(*container.state.borrow(), None | Some(ContainerState::Exited(_))) {
                blocking(move || cgroups.move_shim(pid)).await;
            }
        }));
    }
}

/// The container's directory, beginning with its record.
fn make_files(files: &Files, record: &Record) -> Result<()> {
    let dir = &files.dir;
    let context = || format!("create {}", dir.display());
    // Only root looks in: the app's files are in there.
    DirBuilder::new().mode(0o700).create(dir).context(context)?;
    files.write_record(record)?;
    for part in ["layers", "rootfs", "log"] {
        fs::create_dir(dir.join(part)).context(context)?;
    }
    fs::File::create_new(files.lock()).context(context)?;
    Ok(())
}
