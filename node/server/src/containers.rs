//! The agent's containers on Linux: an image brought here, a container made of it, its process
//! started; and what becomes of it in Diego's words.

mod execution;
pub(crate) mod mounts;
mod sandbox;
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use agent::Containers;
use agent::world::{CreateFailure, Found};
use api::admin::LogLine;
use container::container::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, DiskLimit, DiskScope, Exit, Limits,
    LogPosition, LogRate, LogStream, Process, Runtime, RuntimeConfig, Shim, Subnet,
};
use container::image::{self, Credentials, CredentialsFile, Image, Reference, Registries, Store};
use executor::{
    CellLines, Dependency, Progress, Recipe, Services, Settings, Surroundings, http_client,
};
use model::desired_lrp::LogRateLimit;
use model::egress::EgressRule;
use model::{CellId, NetInfo, PortMapping};
use plan::cell::{Container, Handle, Work};
use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, watch};

use self::execution::Execution;
use self::mounts::Dirs;
use self::sandbox::ContainerSandbox;
use self::staging::{Question, Stagings};
use crate::config::{CellConfig, Config, PreloadedConfig, RegistriesConfig};
use crate::egress;
use crate::limits::{
    EXIT_GRACE, IMAGES_MB_MAX, INODES_MAX, LOG_BYTES_MAX, RESULT_BYTES_MAX, STOP_GRACE,
};
use crate::secrets::{self, KeyFileError, Owner, Secrets};

/// Ids of containers on one cell, and with them how many ranges of host ids it takes.
const ID_RANGES: u32 = 1024;
/// The label that keeps [`Notes`] with a container.
const NOTES_LABEL: &str = "gavel.notes";
/// The label that keeps its [`Recipe`], once it is made.
const RECIPE_LABEL: &str = "gavel.recipe";

/// What is kept with a container, for a node that finds it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Notes {
    handle: Handle,
    /// What its reasons begin with, for instance `APP/PROC/WEB`.
    log_source: String,
    /// Empty for none.
    #[serde(default)]
    result_file: String,
    /// Of the cell's cache, that are mounted in it.
    #[serde(default)]
    dependencies: Vec<PathBuf>,
    /// Digest of the image's manifest; empty where an older node made the container.
    #[serde(default)]
    image: String,
}

/// The containers of this cell.
#[derive(Debug)]
pub struct LinuxContainers {
    runtime: Runtime,
    images: Arc<Store>,
    images_bytes_max: u64,
    /// Root file systems of `preloaded:`, by name; held here, they are never collected.
    preloaded: BTreeMap<String, Image>,
    secrets: Arc<Secrets>,
    cell_id: CellId,
    external_address: Ipv4Addr,
    services: Arc<Services>,
    executions: Mutex<BTreeMap<ContainerId, Execution>>,
    stagings: Stagings,
    dirs: Dirs,
    /// Kept as long as their containers.
    dependencies: Mutex<BTreeMap<ContainerId, Vec<Dependency>>>,
    cell: CellConfig,
    subnet: Subnet,
    versions: watch::Sender<u64>,
    results: Arc<Results>,
    /// Whether the node ends, after which no container is made. Held for reading while one is.
    closed: RwLock<bool>,
}

/// The contents of result files, from the first look after the exit until the container is
/// destroyed; none while one is being read.
type Results = Mutex<BTreeMap<ContainerId, Option<Result<String, String>>>>;

/// Why containers cannot be run here at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("subnet {subnet:?}: {reason}")]
    Subnet { subnet: String, reason: String },
    #[error("cell.network.{0}")]
    Policy(String),
    #[error(transparent)]
    Images(#[from] image::Error),
    #[error("[[preloaded]] name = {name:?}: {error}")]
    Preloaded { name: String, error: image::Error },
    #[error(transparent)]
    Secrets(#[from] KeyFileError),
    #[error(transparent)]
    Credentials(#[from] image::CredentialsError),
    #[error("registries.ca, {path}: {reason}", path = .path.display())]
    Authority { path: PathBuf, reason: String },
    #[error(transparent)]
    Runtime(#[from] container::container::Error),
    #[error(transparent)]
    Executor(#[from] executor::OpenError),
}

impl LinuxContainers {
    /// The containers of the cell that is configured, with what a former life of it left; `shim`
    /// is how this program becomes a container's shim.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: this machine cannot hold containers as it is configured.
    pub async fn open(config: &Config, data_dir: &Path, shim: Shim) -> Result<Self, OpenError> {
        let secrets = Secrets::open(config.registries.seal_key.as_deref())?;
        let mut registries = registries(&config.registries)?;
        registries.proof_key = secrets.proof_key();
        let images = Arc::new(Store::open(&data_dir.join("images"), registries)?);
        let mut preloaded = BTreeMap::new();
        for PreloadedConfig { name, path } in &config.preloaded {
            let image = images.import(path).await;
            let image =
                image.map_err(|error| OpenError::Preloaded { name: name.clone(), error })?;
            tracing::info!(name, digest = %image.digest, path = %path.display(), "preloaded");
            preloaded.insert(name.clone(), image);
        }
        let cell = &config.cell;
        let (first_port, last_port) = cell.host_ports;
        let subnet = subnet(&cell.subnet)?;
        let policy = egress::policy(&cell.network).map_err(OpenError::Policy)?;
        let runtime = Runtime::open(RuntimeConfig {
            dir: data_dir.join("containers"),
            cgroup_parent: cell.cgroup.clone(),
            bridge: cell.bridge.clone(),
            subnet,
            policy,
            host_ports: first_port..=last_port,
            id_base: cell.first_host_id,
            id_ranges: ID_RANGES,
            disk: cell.disk_enforcement,
            privileged: cell.privileged_containers,
            log_bytes_max: LOG_BYTES_MAX,
            nameservers: vec![subnet.gateway().into()],
            shim,
        })
        .await?;
        let mut events = runtime.events();
        let versions = watch::Sender::new(1);
        let changed = versions.clone();
        tokio::spawn(async move {
            while events.next().await.is_some() {
                changed.send_modify(|version| *version += 1);
            }
        });
        let settings = Settings { graceful_interval: STOP_GRACE, ..Settings::default() };
        let http = http_client(&[]).map_err(executor::OpenError::from)?;
        let services = Services::open(&data_dir.join("executor"), settings, http)?;
        let stagings = Stagings::new(Arc::clone(&images), versions.clone());
        let containers = Self {
            runtime,
            images,
            preloaded,
            images_bytes_max: u64::from(config.registries.store_mb.unwrap_or(IMAGES_MB_MAX)) << 20,
            secrets: Arc::new(secrets),
            cell_id: config.name.as_str().into(),
            external_address: cell.external_address,
            services: Arc::new(services),
            executions: Mutex::default(),
            stagings,
            dirs: Dirs::new(data_dir),
            dependencies: Mutex::default(),
            cell: cell.clone(),
            subnet,
            versions,
            results: Arc::default(),
            closed: RwLock::new(false),
        };
        containers.resume();
        Ok(containers)
    }

    /// The containers' addresses.
    pub(crate) fn subnet(&self) -> Subnet {
        self.subnet
    }

    pub(crate) fn images(&self) -> &Store {
        &self.images
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What a process beside the app's own is told: environment, user, directory.
    pub(crate) fn process_beside(&self, id: &ContainerId) -> Result<Process, String> {
        let info = self.runtime.get(id).map_err(|error| error.to_string())?;
        let recipe = info.labels.get(RECIPE_LABEL).ok_or("the container is being made")?;
        let recipe: Recipe = serde_json::from_str(recipe)
            .map_err(|error| format!("container {id}: its recipe cannot be read: {error}"))?;
        Ok(recipe.process_beside())
    }

    /// Up to `lines_max` lines after `position`, and the position after them.
    pub(crate) async fn logs(
        &self,
        container: &str,
        position: u64,
        lines_max: usize,
    ) -> Result<(Vec<LogLine>, u64), container::container::Error> {
        let id = ContainerId::new(container)?;
        let batch = self.runtime.logs(&id, LogPosition::from_u64(position), lines_max).await?;
        let lines = batch.lines.into_iter().map(|line| LogLine {
            at_ns: i64::try_from(line.at_ns).unwrap_or(i64::MAX),
            is_stderr: line.stream == LogStream::Stderr,
            source: line.source,
            text: String::from_utf8_lossy(&line.text).into_owned(),
        });
        Ok((lines.collect(), batch.next.to_u64()))
    }

    /// Ends and removes every container, all at once, and makes no more.
    pub async fn stop_all(&self) {
        *self.closed.write().await = true;
        self.stagings.close();
        let ends = self.runtime.list().into_iter().map(|info| async move {
            let stopped = self.executions().get(&info.id).map(Execution::stop);
            if let Some(stopped) = stopped
                && tokio::time::timeout(EXIT_GRACE, stopped).await.is_err()
            {
                tracing::warn!(container = %info.id, "not stopped in its time");
            }
            self.executions().remove(&info.id);
            if let Err(error) = self.runtime.destroy(&info.id).await {
                tracing::error!(container = %info.id, %error, "not destroyed");
            }
        });
        futures_util::future::join_all(ends).await;
        if let Err(error) = self.runtime.close_network().await {
            tracing::warn!(%error, "the network is left as it is");
        }
    }

    async fn make(&self, handle: &Handle, work: &Work) -> Result<(), CreateFailure> {
        let order = Order::of(work);
        if crate::staging::is_rootfs(order.rootfs) {
            return self.stage(work, &order).await;
        }
        let image = self.image(&order).await?;
        let id = container_id(handle).map_err(|error| not_created(&error, false))?;
        let prepared = self.dirs.prepare(id.as_str(), work, &self.services).await;
        let prepared = prepared
            .map_err(|fault| CreateFailure { reason: fault.to_string(), retryable: true })?;
        let notes = Notes {
            handle: handle.clone(),
            log_source: order.log_source.to_owned(),
            result_file: order.result_file.to_owned(),
            dependencies: prepared.dependencies.iter().map(Dependency::directory).collect(),
            image: image.digest.to_string(),
        };
        let notes = serde_json::to_string(&notes).expect("notes are plain data");
        let spec = ContainerSpec {
            id: id.clone(),
            layers: image.layers.clone(),
            image_bytes: image.bytes,
            mounts: prepared.mounts,
            hostname: order.hostname(),
            privileged: order.privileged,
            limits: order.limits(&self.cell),
            ports: order.ports.to_vec(),
            egress: egress::rules(order.egress).map_err(|text| not_created(&text, true))?,
            labels: BTreeMap::from([(NOTES_LABEL.to_owned(), notes)]),
        };
        let closed = self.closed.read().await;
        if *closed {
            return Err(not_created(&"the node ends", true));
        }
        let info = self.runtime.create(spec).await.map_err(|error| not_created(&error, true))?;
        let recipe = recipe_of(
            work,
            Surroundings {
                cell_id: &self.cell_id,
                image: &image.config,
                external_address: self.external_address,
                address: info.address,
                ports: &info.ports,
                has_trusted_certificates: false,
                has_identity: false,
            },
        );
        let text = serde_json::to_string(&recipe).expect("recipes are plain data");
        if let Err(error) = self.runtime.set_label(&id, RECIPE_LABEL, &text).await {
            if let Err(left) = self.runtime.destroy(&id).await {
                tracing::error!(container = %id, error = %left, "not destroyed");
            }
            return Err(not_created(&error, true));
        }
        let lines = CellLines { cell_id: &self.cell_id, guid: recipe.guid() };
        let source = recipe.log_source();
        let told = prepared.lines.iter().map(|line| (line.stream, &*line.source, &*line.text));
        let (creating, created) = (lines.creating(), lines.created());
        let own = [&creating, &created].map(|line| (LogStream::Stdout, source, &**line));
        for (stream, source, line) in told.chain(own) {
            // A log that cannot be written is no reason to run nothing.
            let _ = self.runtime.log(&id, stream, source, line).await;
        }
        self.dependencies().insert(id, prepared.dependencies);
        self.begin(&info, recipe);
        self.trim_images();
        Ok(())
    }

    /// Asks a registry about an image, in place of a container.
    async fn stage(&self, work: &Work, order: &Order<'_>) -> Result<(), CreateFailure> {
        let task = match work {
            Work::Task { task } => task,
            Work::Lrp { .. } => {
                let reason = format!("{} is a task's, and no instance's", order.rootfs);
                return Err(not_created(&reason, false));
            }
        };
        let question = || {
            let reference = crate::staging::reference(&task.definition)?;
            let credentials = order.credentials(&self.secrets).map_err(|it| it.to_string())?;
            Ok(Question { reference, credentials })
        };
        let closed = self.closed.read().await;
        if *closed {
            return Err(not_created(&"the node ends", true));
        }
        self.stagings.begin(&task.task_guid, question())
    }

    /// The order's root file system, on this machine's disk.
    async fn image(&self, order: &Order<'_>) -> Result<Image, CreateFailure> {
        if let Some(name) = order.preloaded() {
            // The auction knows what this cell had when it registered.
            let none = format!("this cell has no preloaded root file system {name:?}");
            return self.preloaded.get(name).cloned().ok_or_else(|| not_created(&none, true));
        }
        let credentials =
            order.credentials(&self.secrets).map_err(|error| not_created(&error, true))?;
        let reference = order.reference().map_err(|error| not_created(&error, false))?;
        let limit = order.limits(&self.cell).disk;
        let limit = limit.filter(|limit| limit.scope == DiskScope::Total).map(|limit| limit.bytes);
        let pulled =
            self.images.pull_within(limit, &reference, credentials.as_ref(), &image::Silent);
        pulled.await.map_err(|error| not_created(&error, true))
    }

    /// Lets layers go that are over the bound and that no container here needs.
    fn trim_images(&self) {
        let mut keep = BTreeSet::new();
        for info in self.runtime.list() {
            let notes = info.labels.get(NOTES_LABEL).map(|text| serde_json::from_str(text));
            let image = match notes {
                Some(Ok(Notes { image, .. })) => image.parse::<image::Digest>().ok(),
                Some(Err(_)) | None => None,
            };
            // What a container runs that says nothing of its image cannot be told apart.
            let Some(image) = image else { return };
            keep.insert(image);
        }
        let (images, bytes_max) = (Arc::clone(&self.images), self.images_bytes_max);
        tokio::spawn(async move {
            match images.trim(bytes_max, &keep).await {
                Ok(collected) if collected.layers > 0 => {
                    let (layers, bytes) = (collected.layers, collected.bytes);
                    tracing::info!(layers, bytes, "images that nobody runs were removed");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "images are not trimmed"),
            }
        });
    }

    /// Executes a recipe in its container from here on.
    fn begin(&self, info: &ContainerInfo, recipe: Recipe) {
        let sandbox = ContainerSandbox::new(self.runtime.clone(), info.id.clone(), info.address);
        let versions = self.versions.clone();
        let changed = move || versions.send_modify(|version| *version += 1);
        let services = Arc::clone(&self.services);
        let execution =
            Execution::begin(&self.runtime, &info.id, sandbox, recipe, services, changed);
        self.executions().insert(info.id.clone(), execution);
        self.versions.send_modify(|version| *version += 1);
    }

    fn dependencies(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Vec<Dependency>>> {
        self.dependencies.lock().expect("no holder of the lock panics")
    }

    fn executions(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Execution>> {
        self.executions.lock().expect("no holder of the lock panics")
    }

    /// Goes on with what a former life of the node has begun.
    fn resume(&self) {
        let list = self.runtime.list();
        self.dirs.remove_strays(|name| list.iter().any(|info| info.id.as_str() == name));
        // All of them, before anything is downloaded and takes their room.
        for info in &list {
            let notes = info.labels.get(NOTES_LABEL);
            let notes = notes.and_then(|text| serde_json::from_str::<Notes>(text).ok());
            let adopt = |dir: &PathBuf| self.services.downloader().adopt(dir);
            let adopted = notes.iter().flat_map(|notes| &notes.dependencies).filter_map(adopt);
            self.dependencies().insert(info.id.clone(), adopted.collect());
        }
        for info in list {
            let Some(recipe) = info.labels.get(RECIPE_LABEL) else { continue };
            match serde_json::from_str(recipe) {
                Ok(recipe) => self.begin(&info, recipe),
                Err(error) => {
                    tracing::error!(container = %info.id, %error, "its recipe cannot be read");
                }
            }
        }
    }

    fn found(&self, info: ContainerInfo) -> Option<Found> {
        let notes = info.labels.get(NOTES_LABEL)?;
        let notes: Notes = match serde_json::from_str(notes) {
            Ok(notes) => notes,
            Err(error) => {
                tracing::error!(container = %info.id, %error, "its notes cannot be read");
                return None;
            }
        };
        let executed = self.executions().get(&info.id).map(|it| (it.progress(), it.outcome()));
        let container = match executed {
            None => match info.state {
                ContainerState::Created | ContainerState::Running { .. } => Container::Preparing,
                ContainerState::Exited(exit) => self.exited(&info.id, &notes, end(exit, &notes)),
            },
            Some((_, Some(outcome))) => {
                self.exited(&info.id, &notes, (outcome.failed, outcome.reason))
            }
            Some((Progress::Starting, None)) => Container::Starting,
            Some((Progress::Running { routable }, None)) => {
                Container::Running { net_info: net_info(&info, self.external_address), routable }
            }
        };
        Some(Found { handle: notes.handle, container })
    }

    fn exited(&self, id: &ContainerId, notes: &Notes, end: (bool, String)) -> Container {
        match self.result(id, &notes.result_file) {
            Some(result) => exited(end, result),
            None => Container::Stopping,
        }
    }

    /// What a container's result file says; none while it is being read, which the first call
    /// begins.
    fn result(&self, id: &ContainerId, result_file: &str) -> Option<Result<String, String>> {
        if result_file.is_empty() {
            return Some(Ok(String::new()));
        }
        let mut results = self.results.lock().expect("no holder of the lock panics");
        if let Some(result) = results.get(id) {
            return result.clone();
        }
        results.insert(id.clone(), None);
        let (runtime, results, versions) =
            (self.runtime.clone(), Arc::clone(&self.results), self.versions.clone());
        let (id, path) = (id.clone(), result_file.to_owned());
        tokio::spawn(async move {
            let content = runtime.read_file(&id, &path, RESULT_BYTES_MAX).await;
            let result = content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            if let Err(error) = &result {
                tracing::warn!(container = %id, %error, "no result");
            }
            let result = result.map_err(|error| error.to_string());
            let mut results = results.lock().expect("no holder of the lock panics");
            // Unless it was destroyed meanwhile.
            if let Some(known) = results.get_mut(&id) {
                *known = Some(result);
            }
            drop(results);
            versions.send_modify(|version| *version += 1);
        });
        None
    }
}

impl Containers for LinuxContainers {
    async fn create(&self, handle: &Handle, work: &Work) -> Result<(), CreateFailure> {
        self.make(handle, work).await
    }

    async fn stop(&self, handle: &Handle) {
        if let Handle::Task(guid) = handle
            && self.stagings.stop(guid).await
        {
            return;
        }
        let Ok(id) = container_id(handle) else { return };
        let stopped = self.executions().get(&id).map(Execution::stop);
        if let Some(stopped) = stopped {
            stopped.await;
        }
    }

    async fn destroy(&self, handle: &Handle) -> Result<(), String> {
        if let Handle::Task(guid) = handle
            && self.stagings.remove(guid)
        {
            return Ok(());
        }
        let id = container_id(handle).map_err(|error| error.to_string())?;
        // Before its container is taken from under it.
        self.executions().remove(&id);
        self.runtime.destroy(&id).await.map_err(|error| error.to_string())?;
        self.dependencies().remove(&id);
        self.dirs.remove_files(id.as_str());
        self.results.lock().expect("no holder of the lock panics").remove(&id);
        Ok(())
    }

    fn list(&self) -> Vec<Found> {
        let containers = self.runtime.list().into_iter().filter_map(|info| self.found(info));
        containers.chain(self.stagings.list()).collect()
    }

    async fn changed(&self, seen: u64) -> u64 {
        let mut versions = self.versions.subscribe();
        let version = versions.wait_for(|version| *version != seen).await.map(|version| *version);
        match version {
            Ok(version) => version,
            // The runtime is gone with the node.
            Err(_) => std::future::pending().await,
        }
    }
}

/// What a container is made by: the parts of a desired LRP or a task that say so.
struct Order<'a> {
    owner: Owner<'a>,
    image_username: &'a str,
    /// Sealed.
    image_password: &'a str,
    rootfs: &'a str,
    digest: Option<&'a model::Digest>,
    ports: &'a [u16],
    privileged: bool,
    egress: &'a [EgressRule],
    memory_mb: i32,
    disk_mb: i32,
    max_pids: i32,
    cpu_weight: u32,
    /// -1 is unlimited, as in Diego.
    log_bytes_per_second: i64,
    log_source: &'a str,
    result_file: &'a str,
    guid: String,
}

impl<'a> Order<'a> {
    fn of(work: &'a Work) -> Self {
        match work {
            Work::Lrp { instance, desired, .. } => Self {
                owner: Owner::Lrp(&desired.process_guid),
                image_username: &desired.image_username,
                image_password: &desired.image_password,
                rootfs: &desired.rootfs,
                digest: desired.rootfs_digest.as_ref(),
                ports: &desired.ports,
                egress: &desired.egress_rules,
                privileged: desired.privileged,
                memory_mb: desired.memory_mb,
                disk_mb: desired.disk_mb,
                max_pids: desired.max_pids,
                // Diego raises an LRP's weight to at least 1.
                cpu_weight: desired.cpu_weight.max(1),
                log_bytes_per_second: log_bytes_per_second(desired.log_rate_limit),
                log_source: &desired.log_source,
                result_file: "",
                guid: instance.instance_guid.to_string(),
            },
            Work::Task { task } => Self {
                owner: Owner::Task(&task.task_guid),
                image_username: &task.definition.image_username,
                image_password: &task.definition.image_password,
                rootfs: &task.definition.rootfs,
                digest: task.definition.rootfs_digest.as_ref(),
                ports: &[],
                egress: &task.definition.egress_rules,
                privileged: task.definition.privileged,
                memory_mb: task.definition.memory_mb,
                disk_mb: task.definition.disk_mb,
                max_pids: task.definition.max_pids,
                cpu_weight: task.definition.cpu_weight,
                log_bytes_per_second: log_bytes_per_second(task.definition.log_rate_limit),
                log_source: &task.definition.log_source,
                result_file: &task.definition.result_file,
                guid: task.task_guid.to_string(),
            },
        }
    }

    /// The recipe's own user of its registry.
    fn credentials(&self, secrets: &Secrets) -> Result<Option<Credentials>, secrets::OpenError> {
        if self.image_username.is_empty() {
            return Ok(None);
        }
        let username = self.image_username.to_owned();
        let password = secrets.open_sealed(self.owner, &username, self.image_password)?;
        Ok(Some(Credentials { username, password }))
    }

    /// The name of a root file system of the cell's own: what the auction matched, up to the query.
    fn preloaded(&self) -> Option<&'a str> {
        self.rootfs.strip_prefix("preloaded:")?.split(['?', '#']).next()
    }

    fn reference(&self) -> Result<Reference, image::Error> {
        let reference = Reference::from_rootfs(self.rootfs)?;
        match self.digest {
            Some(digest) => {
                let digest = digest.to_string().parse().expect("digests are written one way");
                Ok(reference.with_digest(digest))
            }
            None => Ok(reference),
        }
    }

    /// The container's name, cut to what a host name may be.
    fn hostname(&self) -> String {
        self.guid.chars().take(63).collect::<String>().replace('_', "-")
    }

    fn limits(&self, cell: &CellConfig) -> Limits {
        let positive = |value: i32| u32::try_from(value).ok().filter(|value| *value > 0);
        // Diego: what all apps of the cell share counts against none of them.
        let scope = if self.preloaded().is_some() { DiskScope::Exclusive } else { cell.disk_scope };
        Limits {
            memory_bytes: positive(self.memory_mb).map(|mb| u64::from(mb) << 20),
            pids: positive(self.max_pids),
            // Diego: shares are 1024 for a weight of 100.
            cpu_shares: (self.cpu_weight > 0).then(|| (1024 * self.cpu_weight / 100).max(2)),
            disk: positive(self.disk_mb).map(|mb| DiskLimit { bytes: u64::from(mb) << 20, scope }),
            inodes: Some(INODES_MAX),
            log_rate: LogRate {
                bytes_per_second: self.log_bytes_per_second.try_into().ok(),
                lines_per_second: (cell.log_lines_per_second > 0)
                    .then_some(cell.log_lines_per_second),
            },
        }
    }
}

fn log_bytes_per_second(limit: Option<LogRateLimit>) -> i64 {
    limit.map_or(-1, |limit| limit.bytes_per_second)
}

/// What the container does, with what is known of it now that it is made.
fn recipe_of(work: &Work, surroundings: Surroundings<'_>) -> Recipe {
    match work {
        Work::Lrp { key, instance, desired } => {
            Recipe::of_lrp(desired, key.index, &instance.instance_guid, surroundings)
        }
        Work::Task { task } => Recipe::of_task(&task.definition, &task.task_guid, surroundings),
    }
}

fn net_info(info: &ContainerInfo, external: Ipv4Addr) -> NetInfo {
    let ports = info
        .ports
        .iter()
        .map(|port| PortMapping { container_port: port.container, host_port: port.host })
        .collect();
    NetInfo { address: external, instance_address: info.address, ports }
}

/// Whether a container failed that ended without its recipe's doing, as when its shim was killed,
/// and Diego's words for it (executor.md 5, Run).
fn end(exit: Exit, notes: &Notes) -> (bool, String) {
    let code = exit.status.code();
    if code == 0 {
        return (false, String::new());
    }
    let oom = if exit.oom_killed { " (out of memory)" } else { "" };
    let source = if notes.log_source.is_empty() { "LOG" } else { &notes.log_source };
    (true, format!("{source}: Exited with status {code}{oom}"))
}

/// Diego: a run that did not fail, fails where its result cannot be fetched (lifecycle.md 1.5).
fn exited((failed, reason): (bool, String), result: Result<String, String>) -> Container {
    match result {
        Ok(result) => Container::Exited { failed, reason, result },
        Err(_) if failed => Container::Exited { failed, reason, result: String::new() },
        Err(_) => Container::Exited {
            failed: true,
            reason: "failed to fetch result".to_owned(),
            result: String::new(),
        },
    }
}

/// Diego's words for a container that garden could not make.
fn not_created(error: &dyn fmt::Display, retryable: bool) -> CreateFailure {
    CreateFailure { reason: format!("failed to create container: {error}"), retryable }
}

fn container_id(handle: &Handle) -> Result<ContainerId, container::container::Error> {
    ContainerId::new(id_text(handle))
}

/// A container's name on this machine, and in the cursors of its output. Task guids may be
/// longer than a name may be: those are cut, and told apart by a checksum.
pub(crate) fn id_text(handle: &Handle) -> String {
    const GUID_BYTES_MAX: usize = 96;
    match handle {
        Handle::Lrp(guid) => format!("lrp-{guid}"),
        Handle::Task(guid) if guid.as_str().len() <= GUID_BYTES_MAX => format!("task-{guid}"),
        Handle::Task(guid) => {
            let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
            for byte in guid.as_str().bytes() {
                sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
            format!("task-{}-{sum:016x}", &guid.as_str()[..GUID_BYTES_MAX])
        }
    }
}

/// Reads what the operator's files say of registries.
fn registries(config: &RegistriesConfig) -> Result<Registries, OpenError> {
    let mut ca_certificates = Vec::new();
    for path in &config.ca {
        let fail = |reason: String| OpenError::Authority { path: path.clone(), reason };
        let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        image::check_authority(&pem).map_err(fail)?;
        ca_certificates.push(pem);
    }
    let credentials = config.credentials.as_deref().map(CredentialsFile::open).transpose()?;
    Ok(Registries {
        insecure: config.insecure.iter().cloned().collect(),
        ca_certificates,
        mirrors: config.mirrors.clone(),
        credentials: credentials.map(Arc::new),
        share_bytes_max: config.share_mb.map(|mb| u64::from(mb) << 20),
        ..Registries::default()
    })
}

fn subnet(text: &str) -> Result<Subnet, OpenError> {
    let refuse =
        |reason: &str| OpenError::Subnet { subnet: text.to_owned(), reason: reason.to_owned() };
    let (network, prefix) = text.split_once('/').ok_or_else(|| refuse("no / in it"))?;
    let network = network.parse().map_err(|_| refuse("no IPv4 network"))?;
    let prefix = prefix.parse().map_err(|_| refuse("no prefix length"))?;
    Subnet::new(network, prefix).map_err(|error| refuse(&error.to_string()))
}
