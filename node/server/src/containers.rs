//! The agent's containers on Linux: an image brought here, a container made of it, its process
//! started; and what becomes of it in Diego's words.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use agent::Containers;
use agent::world::{CreateFailure, Found};
use api::admin::LogLine;
use container::container::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, Exit, ExitStatus, Limits,
    LogPosition, LogStream, Process, Runtime, RuntimeConfig, Shim, Subnet,
};
use container::image::{self, ImageConfig, Reference, Registries, Store};
use model::{
    Action, DesiredLrp, EnvironmentVariable, NetInfo, PortMapping, RunAction, TaskDefinition,
};
use plan::cell::{Container, Handle, Work};
use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, watch};

use crate::config::Config;
use crate::limits::{EXIT_GRACE, LOG_BYTES_MAX, RESULT_BYTES_MAX, STOP_GRACE};

/// Ids of containers on one cell, and with them how many ranges of host ids it takes.
const ID_RANGES: u32 = 1024;
/// The label that keeps [`Notes`] with a container.
const NOTES_LABEL: &str = "gavel.notes";

/// What is kept with a container, for a node that finds it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Notes {
    handle: Handle,
    /// What its reasons begin with, for instance `APP/PROC/WEB`.
    log_source: String,
    /// Empty for none.
    #[serde(default)]
    result_file: String,
}

/// The containers of this cell.
#[derive(Debug)]
pub(crate) struct LinuxContainers {
    runtime: Runtime,
    images: Arc<Store>,
    external_address: Ipv4Addr,
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
pub(crate) enum OpenError {
    #[error("subnet {subnet:?}: {reason}")]
    Subnet { subnet: String, reason: String },
    #[error(transparent)]
    Images(#[from] image::Error),
    #[error(transparent)]
    Runtime(#[from] container::container::Error),
}

impl LinuxContainers {
    pub(crate) async fn open(config: &Config, data_dir: &Path) -> Result<Self, OpenError> {
        let registries = Registries {
            insecure: config.registries.insecure.iter().cloned().collect(),
            ..Registries::default()
        };
        let images = Arc::new(Store::open(&data_dir.join("images"), registries)?);
        let cell = &config.cell;
        let (first_port, last_port) = cell.host_ports;
        let runtime = Runtime::open(RuntimeConfig {
            dir: data_dir.join("containers"),
            cgroup_parent: cell.cgroup.clone(),
            bridge: cell.bridge.clone(),
            subnet: subnet(&cell.subnet)?,
            host_ports: first_port..=last_port,
            id_base: cell.first_host_id,
            id_ranges: ID_RANGES,
            log_bytes_max: LOG_BYTES_MAX,
            nameservers: Vec::new(),
            shim: Shim::default(),
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
        Ok(Self {
            runtime,
            images,
            external_address: cell.external_address,
            versions,
            results: Arc::default(),
            closed: RwLock::new(false),
        })
    }

    pub(crate) fn images(&self) -> &Store {
        &self.images
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
            text: String::from_utf8_lossy(&line.text).into_owned(),
        });
        Ok((lines.collect(), batch.next.to_u64()))
    }

    /// Ends and removes every container, all at once, and makes no more.
    pub(crate) async fn stop_all(&self) {
        *self.closed.write().await = true;
        let ends = self.runtime.list().into_iter().map(|info| async move {
            if let Err(error) = self.runtime.stop(&info.id, EXIT_GRACE).await {
                tracing::warn!(container = %info.id, %error, "not stopped");
            }
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
        let plan = Recipe::of(work).map_err(|reason| failure(reason, false))?;
        let reference = plan.reference().map_err(|error| failure(error.to_string(), false))?;
        let image = self
            .images
            .pull(&reference, None, &image::Silent)
            .await
            .map_err(|error| failure(error.to_string(), true))?;
        let id = container_id(handle).map_err(|error| failure(error.to_string(), false))?;
        let notes = Notes {
            handle: handle.clone(),
            log_source: plan.log_source.to_owned(),
            result_file: plan.result_file.to_owned(),
        };
        let notes = serde_json::to_string(&notes).expect("notes are plain data");
        let spec = ContainerSpec {
            id: id.clone(),
            layers: image.layers.clone(),
            hostname: plan.hostname(),
            limits: plan.limits(),
            ports: plan.ports.to_vec(),
            labels: BTreeMap::from([(NOTES_LABEL.to_owned(), notes)]),
        };
        let closed = self.closed.read().await;
        if *closed {
            return Err(failure("the node ends".to_owned(), true));
        }
        let info =
            self.runtime.create(spec).await.map_err(|error| failure(error.to_string(), true))?;
        let process = plan.process(&image.config, &info, self.external_address);
        if let Err(error) = self.runtime.start(&id, process).await {
            if let Err(left) = self.runtime.destroy(&id).await {
                tracing::error!(container = %id, error = %left, "not destroyed");
            }
            return Err(failure(error.to_string(), true));
        }
        Ok(())
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
        let container = match info.state {
            ContainerState::Created => Container::Preparing,
            ContainerState::Running { .. } => {
                Container::Running { net_info: net_info(&info, self.external_address) }
            }
            ContainerState::Exited(exit) => {
                let end = end(exit, &notes.log_source);
                match self.result(&info.id, &notes.result_file) {
                    Some(result) => exited(end, result),
                    None => Container::Stopping,
                }
            }
        };
        Some(Found { handle: notes.handle, container })
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
        let Ok(id) = container_id(handle) else { return };
        if let Err(error) = self.runtime.stop(&id, STOP_GRACE).await {
            tracing::warn!(container = %id, %error, "not stopped");
        }
    }

    async fn destroy(&self, handle: &Handle) -> Result<(), String> {
        let id = container_id(handle).map_err(|error| error.to_string())?;
        self.runtime.destroy(&id).await.map_err(|error| error.to_string())?;
        self.results.lock().expect("no holder of the lock panics").remove(&id);
        Ok(())
    }

    fn list(&self) -> Vec<Found> {
        self.runtime.list().into_iter().filter_map(|info| self.found(info)).collect()
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

/// The parts of a recipe that this version does not run yet, by name, and whether they are there.
type Parts = [(&'static str, bool)];

fn parts_of_lrp(desired: &DesiredLrp) -> [(&'static str, bool); 9] {
    [
        ("a setup action", desired.setup.is_some()),
        ("a monitor action", desired.monitor.is_some()),
        ("a check definition", desired.check_definition.is_some()),
        ("sidecars", !desired.sidecars.is_empty()),
        ("cached dependencies", !desired.cached_dependencies.is_empty()),
        ("image layers", !desired.image_layers.is_empty()),
        ("volume mounts", !desired.volume_mounts.is_empty()),
        ("mounted files", !desired.volume_mounted_files.is_empty()),
        ("credentials of a registry", !desired.image_username.is_empty()),
    ]
}

fn parts_of_task(definition: &TaskDefinition) -> [(&'static str, bool); 5] {
    [
        ("cached dependencies", !definition.cached_dependencies.is_empty()),
        ("image layers", !definition.image_layers.is_empty()),
        ("volume mounts", !definition.volume_mounts.is_empty()),
        ("mounted files", !definition.volume_mounted_files.is_empty()),
        ("credentials of a registry", !definition.image_username.is_empty()),
    ]
}

/// The one action, where the recipe is one that this version runs as it is written. To leave out
/// a health check or a download would be to run something else.
fn run_of<'a>(action: &'a Option<Action>, parts: &Parts) -> Result<&'a RunAction, String> {
    let cannot = |what: &str| Err(format!("this version of Gavel cannot run {what} yet"));
    if let Some((what, _)) = parts.iter().find(|(_, is_there)| *is_there) {
        return cannot(what);
    }
    match action {
        Some(Action::Run(run)) => Ok(run),
        None => Err("container cannot have empty action".to_owned()),
        Some(Action::Download(_)) => cannot("download actions"),
        Some(Action::Upload(_)) => cannot("upload actions"),
        Some(Action::Timeout(_)) => cannot("timeout actions"),
        Some(Action::EmitProgress(_)) => cannot("emit_progress actions"),
        Some(Action::Try(_)) => cannot("try actions"),
        Some(Action::Parallel(_)) => cannot("parallel actions"),
        Some(Action::Serial(_)) => cannot("serial actions"),
        Some(Action::Codependent(_)) => cannot("codependent actions"),
    }
}

/// What a container is made by: the parts of a desired LRP or a task that say so.
struct Recipe<'a> {
    rootfs: &'a str,
    digest: Option<&'a model::Digest>,
    run: &'a RunAction,
    env: Vec<(String, String)>,
    ports: &'a [u16],
    memory_mb: i32,
    max_pids: i32,
    cpu_weight: u32,
    log_source: &'a str,
    result_file: &'a str,
    handle_text: String,
}

impl<'a> Recipe<'a> {
    fn of(work: &'a Work) -> Result<Self, String> {
        Ok(match work {
            Work::Lrp { key, instance, desired } => {
                let (guid, index) = (instance.instance_guid.to_string(), key.index.to_string());
                // Diego: a container's environment begins with these four (executor.md 9).
                let mut env: Vec<(String, String)> =
                    ["INSTANCE_GUID", "INSTANCE_INDEX", "CF_INSTANCE_GUID", "CF_INSTANCE_INDEX"]
                        .into_iter()
                        .zip([&guid, &index, &guid, &index])
                        .map(|(name, value)| (name.to_owned(), value.clone()))
                        .collect();
                env.extend(pairs(&desired.env));
                Self {
                    rootfs: &desired.rootfs,
                    digest: desired.rootfs_digest.as_ref(),
                    run: run_of(&desired.action, &parts_of_lrp(desired))?,
                    env,
                    ports: &desired.ports,
                    memory_mb: desired.memory_mb,
                    max_pids: desired.max_pids,
                    // Diego raises an LRP's weight to at least 1.
                    cpu_weight: desired.cpu_weight.max(1),
                    log_source: &desired.log_source,
                    result_file: "",
                    handle_text: guid,
                }
            }
            Work::Task { task } => Self {
                rootfs: &task.definition.rootfs,
                digest: task.definition.rootfs_digest.as_ref(),
                run: run_of(&task.definition.action, &parts_of_task(&task.definition))?,
                env: pairs(&task.definition.env).collect(),
                ports: &[],
                memory_mb: task.definition.memory_mb,
                max_pids: task.definition.max_pids,
                cpu_weight: task.definition.cpu_weight,
                log_source: &task.definition.log_source,
                result_file: &task.definition.result_file,
                handle_text: task.task_guid.to_string(),
            },
        })
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
        self.handle_text.chars().take(63).collect::<String>().replace('_', "-")
    }

    fn limits(&self) -> Limits {
        let positive = |value: i32| u32::try_from(value).ok().filter(|value| *value > 0);
        Limits {
            memory_bytes: positive(self.memory_mb).map(|mb| u64::from(mb) << 20),
            pids: positive(self.max_pids),
            // Diego: shares are 1024 for a weight of 100.
            cpu_shares: (self.cpu_weight > 0).then(|| (1024 * self.cpu_weight / 100).max(2)),
        }
    }

    /// Image, container, process, network: a later one of a name overrides (executor.md 9).
    fn process(&self, image: &ImageConfig, info: &ContainerInfo, external: Ipv4Addr) -> Process {
        let image_env = image.env.iter().filter_map(|variable| variable.split_once('='));
        let mut env: Vec<(String, String)> =
            image_env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        env.extend(self.env.iter().cloned());
        env.extend(pairs(&self.run.env));
        env.extend(network_env(info, external));
        let mut args = vec![self.run.path.clone()];
        args.extend(self.run.args.iter().cloned());
        Process {
            args,
            env,
            user: self.run.user.clone(),
            working_dir: [&self.run.dir, &image.working_dir]
                .into_iter()
                .find(|dir| !dir.is_empty())
                .cloned(),
            nofile: None,
        }
    }
}

/// The `CF_INSTANCE_*` variables of a container's network (executor.md 9).
fn network_env(info: &ContainerInfo, external: Ipv4Addr) -> Vec<(String, String)> {
    let ports: Vec<_> = info
        .ports
        .iter()
        .map(|port| serde_json::json!({"external": port.host, "internal": port.container}))
        .collect();
    let first = info.ports.first().map(|port| port.host.to_string());
    let address = first.as_ref().map(|port| format!("{external}:{port}"));
    let variables = [
        ("CF_INSTANCE_IP", external.to_string()),
        ("CF_INSTANCE_INTERNAL_IP", info.address.to_string()),
        ("CF_INSTANCE_PORT", first.unwrap_or_default()),
        ("CF_INSTANCE_ADDR", address.unwrap_or_default()),
        ("CF_INSTANCE_PORTS", serde_json::Value::Array(ports).to_string()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn pairs(env: &[EnvironmentVariable]) -> impl Iterator<Item = (String, String)> + '_ {
    env.iter().map(|variable| (variable.name.clone(), variable.value.clone()))
}

fn net_info(info: &ContainerInfo, external: Ipv4Addr) -> NetInfo {
    let ports = info
        .ports
        .iter()
        .map(|port| PortMapping { container_port: port.container, host_port: port.host })
        .collect();
    NetInfo { address: external, instance_address: info.address, ports }
}

/// Whether a container failed, and Diego's words for how it ended (executor.md 5, Run).
fn end(exit: Exit, log_source: &str) -> (bool, String) {
    let code = match exit.status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    };
    if code == 0 {
        return (false, String::new());
    }
    let oom = if exit.oom_killed { " (out of memory)" } else { "" };
    let source = if log_source.is_empty() { "LOG" } else { log_source };
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

fn failure(reason: String, retryable: bool) -> CreateFailure {
    CreateFailure { reason, retryable }
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

fn subnet(text: &str) -> Result<Subnet, OpenError> {
    let refuse =
        |reason: &str| OpenError::Subnet { subnet: text.to_owned(), reason: reason.to_owned() };
    let (network, prefix) = text.split_once('/').ok_or_else(|| refuse("no / in it"))?;
    let network = network.parse().map_err(|_| refuse("no IPv4 network"))?;
    let prefix = prefix.parse().map_err(|_| refuse("no prefix length"))?;
    Subnet::new(network, prefix).map_err(|error| refuse(&error.to_string()))
}
