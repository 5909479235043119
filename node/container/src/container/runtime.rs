//! The node's handle on its containers: configuration, the table of what there is, and the
//! changes that subscribers see.
//!
//! The verbs are in `create`, `run`, `stop`, `recover` and others of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future::Future;
use std::io::Read as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, OFlag, openat};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use super::cgroup::Cgroups;
use super::disk::{Disk, DiskEnforcement};
use super::error::{Error, Result};
use super::link::ShimLink;
use super::logs::{LogBatch, LogPosition, read};
use super::network::{HostPort, Network, NetworkPolicy, Subnet};
use super::process::ProcessState;
use super::shim;
use super::shim::protocol::ToShim;
use super::spec::{ContainerId, ContainerInfo, ContainerState, PortMapping, Stats};
use super::state::{Files, Phase, Record};

/// Ids of one container, as many as there are 16 bit ids: what images use.
pub(super) const IDS_PER_CONTAINER: u32 = 65_536;

/// Where and how a runtime keeps its containers.
///
/// Several runtimes share a machine if all of `dir`, `cgroup_parent`, `bridge`, `subnet`,
/// `host_ports` and the id ranges differ.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Everything on disk, on a file system that can hold overlayfs's upper directories.
    pub dir: PathBuf,
    /// Below the root of each cgroup hierarchy, such as `gavel/node-1`.
    pub cgroup_parent: String,
    /// The name of the bridge, without ports, that has the gateway's address, 15 bytes at most;
    /// the nftables tables are `gavel_<bridge>`.
    pub bridge: String,
    /// The containers' addresses; the first is the gateway's.
    pub subnet: Subnet,
    /// What all containers may reach.
    pub policy: NetworkPolicy,
    /// Where container ports are published.
    pub host_ports: RangeInclusive<u16>,
    /// The host id of the first container's root; each container has its own 65,536 ids.
    pub id_base: u32,
    /// How many such ranges there are: the bound on containers, with the subnet's addresses.
    pub id_ranges: u32,
    /// How disk limits are enforced.
    pub disk: DiskEnforcement,
    /// Whether privileged containers are made.
    pub privileged: bool,
    /// Bytes of log kept for one container.
    pub log_bytes_max: u64,
    /// What containers ask for names. A container always reaches those at the gateway.
    pub nameservers: Vec<IpAddr>,
    /// How this binary becomes a shim.
    pub shim: Shim,
}

/// How to start [`shim::main`].
#[derive(Clone, Debug)]
pub struct Shim {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; the container's id is added, for those who list processes.
    pub args: Vec<String>,
}

impl Default for Shim {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), args: vec![shim::ARGUMENT.to_owned()] }
    }
}

/// The containers of one node.
///
/// Clones are handles to the same runtime.
/// When the last is dropped, containers run on, to be found by the next [`Runtime::open`].
///
/// Verbs run to their end even if their future is dropped, so that nothing is left half-made.
#[derive(Clone, Debug)]
pub struct Runtime(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub config: RuntimeConfig,
    pub cgroups: Arc<Cgroups>,
    pub network: Network,
    pub disk: Arc<Disk>,
    pub events: broadcast::Sender<Event>,
    pub table: Mutex<Table>,
    /// Held while the directory is ours.
    pub _lock: Flock<File>,
}

/// Who has what.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub containers: BTreeMap<ContainerId, Arc<Container>>,
    /// Where the last search for a slot ended: a slot just given back rests for a while, so
    /// that what others remember of its address is forgotten.
    pub slot_cursor: u32,
    pub port_cursor: u16,
}

impl RuntimeConfig {
    /// How many containers there can be: each has an address and a range of ids of its own.
    pub(super) fn slots(&self) -> u32 {
        self.subnet.slots().min(self.id_ranges)
    }
}

impl Table {
    pub(super) fn allocate_slot(&mut self, config: &RuntimeConfig) -> Result<u32> {
        let taken: BTreeSet<u32> = self.containers.values().map(|c| c.record.slot).collect();
        let slots = config.slots();
        let cursor = if self.slot_cursor < slots { self.slot_cursor } else { 0 };
        match (cursor..slots).chain(0..cursor).find(|slot| !taken.contains(slot)) {
            Some(slot) => {
                self.slot_cursor = slot + 1;
                Ok(slot)
            }
            None if config.id_ranges < config.subnet.slots() => {
                Err(Error::IdsExhausted { base: config.id_base, ranges: config.id_ranges })
            }
            None => Err(Error::AddressesExhausted { subnet: config.subnet }),
        }
    }

    pub(super) fn allocate_ports(
        &mut self,
        config: &RuntimeConfig,
        wanted: usize,
    ) -> Result<Vec<HostPort>> {
        let containers = self.containers.values();
        let taken: BTreeSet<u16> =
            containers.flat_map(|c| &c.record.ports).map(|port| port.host).collect();
        HostPort::allocate(&config.host_ports, &mut self.port_cursor, wanted, |port| {
            taken.contains(&port)
        })
    }
}

/// One container as the node knows it.
#[derive(Debug)]
pub(super) struct Container {
    pub record: Record,
    pub files: Files,
    /// Keeps other programs off the container's host ports.
    pub _ports: Vec<HostPort>,
    /// Whether it still is in the table; held by the verb that is changing it.
    pub present: tokio::sync::Mutex<bool>,
    /// `None` until it is made.
    pub state: watch::Sender<Option<ContainerState>>,
    /// Every process that was started and not forgotten, by name, as the shim told last.
    pub processes: watch::Sender<BTreeMap<String, ProcessState>>,
    /// The caller's notes, as they are now: the record has those of its beginning.
    pub labels: Mutex<BTreeMap<String, String>>,
    /// Sent again whenever its log may have grown.
    pub log_end: watch::Sender<LogPosition>,
    pub link: Mutex<Option<ShimLink>>,
    /// The task at our end of the link.
    pub watcher: Mutex<Option<AbortOnDrop>>,
    /// The network namespace, which so outlives its processes: until the ports are taken back, who
    /// calls them is refused at once and not left waiting.
    pub namespace: Mutex<Option<File>>,
    /// The directory in `/proc` of its init; opened while that lives, it is nobody else's.
    pub init: Mutex<Option<File>>,
}

impl Container {
    pub(super) fn new(record: Record, files: Files, ports: Vec<HostPort>) -> Self {
        Self {
            labels: Mutex::new(record.spec.labels.clone()),
            processes: watch::Sender::default(),
            record,
            files,
            _ports: ports,
            present: tokio::sync::Mutex::new(true),
            state: watch::Sender::new(None),
            log_end: watch::Sender::new(LogPosition::START),
            link: Mutex::new(None),
            watcher: Mutex::new(None),
            namespace: Mutex::new(None),
            init: Mutex::new(None),
        }
    }

    /// Holds the network namespace that this process, which is one of the container's, is in.
    /// Where it has ended just now, so has the namespace.
    pub(super) fn hold_namespace(&self, pid: u32) {
        *lock(&self.namespace) = File::open(format!("/proc/{pid}/ns/net")).ok();
    }

    /// Holds the `/proc` directory of its init, which lives.
    pub(super) fn hold_init(&self, pid: u32) {
        *lock(&self.init) = File::open(format!("/proc/{pid}")).ok();
    }

    pub(super) fn info(&self) -> Option<ContainerInfo> {
        let state = *self.state.borrow();
        state.map(|state| ContainerInfo {
            id: self.record.spec.id.clone(),
            state,
            address: self.record.address,
            ports: self.record.ports.clone(),
            id_base: self.record.root_id(),
            labels: lock(&self.labels).clone(),
        })
    }

    pub(super) fn link(&self) -> Option<ShimLink> {
        lock(&self.link).clone()
    }

    /// Returns once nothing of it runs, or never was made.
    pub(super) async fn exited(&self) {
        let mut state = self.state.subscribe();
        let ended = |state: &Option<ContainerState>| match state {
            None | Some(ContainerState::Exited(_)) => true,
            Some(ContainerState::Created | ContainerState::Running { .. }) => false,
        };
        // The sender is ours: it cannot be gone.
        let _ = state.wait_for(ended).await;
    }
}

/// Ends a task with its owner.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A plain lock; what it guards is valid at every moment, also where a holder panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A change of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was made, started or ended.
    Changed(ContainerInfo),
    /// It is destroyed, and nothing of it is left.
    Removed(ContainerId),
    /// The subscriber was too slow and missed some: look at [`Runtime::list`].
    Lagged,
}

/// A subscription to the changes after [`Runtime::events`].
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// Waits for the next change; `None` once the runtime is gone.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Event::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Runtime {
    /// Every container, by id; those being made are not shown yet.
    pub fn list(&self) -> Vec<ContainerInfo> {
        lock(&self.0.table).containers.values().filter_map(|c| c.info()).collect()
    }

    /// Keeps a note with a container in place of any other of that name; it is on disk when this
    /// returns, as far as the node's own death goes.
    pub async fn set_label(&self, id: &ContainerId, name: &str, value: &str) -> Result<()> {
        let container = self.0.find(id)?;
        let (name, value) = (name.to_owned(), value.to_owned());
        let id = id.clone();
        // As a task of its own: a caller that is not polled would keep the lock from others.
        to_its_end(async move { container.set_label(&id, name, value).await }).await
    }

    /// One container.
    pub fn get(&self, id: &ContainerId) -> Result<ContainerInfo> {
        self.0.find(id)?.info().ok_or_else(|| Error::NotFound(id.clone()))
    }

    /// The changes from now on; 1024 are kept for a slow subscriber.
    pub fn events(&self) -> Events {
        Events(self.0.events.subscribe())
    }

    /// What a container uses now.
    pub fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let container = self.0.find(id)?;
        let stats = self.0.cgroups.stats(id)?;
        let init = lock(&container.init);
        let usage = self.0.disk.usage(&container.record, &container.files, init.as_ref());
        Ok(Stats {
            disk_bytes: usage.map(|usage| usage.bytes),
            inodes: usage.map(|usage| usage.inodes),
            age_ms: init.as_ref().and_then(age_ms),
            ..stats
        })
    }

    /// Up to `lines_max` lines of a container's log after `from`, without waiting.
    pub async fn logs(
        &self,
        id: &ContainerId,
        from: LogPosition,
        lines_max: usize,
    ) -> Result<LogBatch> {
        self.0.find(id)?.read_log(from, lines_max).await
    }

    /// As [`Runtime::logs`], but waits until there is a line; `None` once the container has
    /// ended and all of its log has been read.
    pub async fn logs_follow(
        &self,
        id: &ContainerId,
        from: LogPosition,
        lines_max: usize,
    ) -> Result<Option<LogBatch>> {
        self.0.find(id)?.follow_log(from, lines_max).await
    }

    /// Removes gateway, tables, the pool's mount and the runtime's cgroups, as the last act of an
    /// orderly shutdown.
    /// Refused while there are containers: they need them.
    /// IPv4 forwarding, which others may have come to rely on, stays on.
    pub async fn close_network(&self) -> Result<()> {
        let containers = lock(&self.0.table).containers.len();
        if containers > 0 {
            let bridge = self.0.config.bridge.clone();
            return Err(Error::NetworkInUse { bridge, containers });
        }
        self.0.network.close().await?;
        self.0.disk.close();
        self.0.cgroups.close();
        Ok(())
    }
}

/// Since when a process lives, by the clock that does not jump (proc_pid_stat(5), field 22).
fn age_ms(process: &File) -> Option<u64> {
    let stat = openat(process, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(stat).read_to_string(&mut text).ok()?;
    // The second field is the name, in parentheses, with whatever in it.
    let started: u64 = text.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let ticks = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    let now_ms = u64::try_from(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).ok()?;
    Some(now_ms.saturating_sub(started * 1000 / ticks))
}

impl Container {
    async fn set_label(
        self: Arc<Self>,
        id: &ContainerId,
        name: String,
        value: String,
    ) -> Result<()> {
        // Nobody takes it away meanwhile, or writes another one's notes over these.
        let present = self.present.lock().await;
        if !*present {
            return Err(Error::NotFound(id.clone()));
        }
        let written = Arc::clone(&self);
        blocking(move || {
            let mut record = Record { phase: Phase::Created, ..written.record.clone() };
            let mut labels = lock(&written.labels);
            labels.insert(name, value);
            record.spec.labels.clone_from(&labels);
            written.files.write_record(&record)
        })
        .await
    }

    async fn read_log(&self, from: LogPosition, lines_max: usize) -> Result<LogBatch> {
        let dir = self.files.log();
        blocking(move || read(&dir, from, lines_max)).await
    }

    async fn follow_log(&self, from: LogPosition, lines_max: usize) -> Result<Option<LogBatch>> {
        let (mut state, mut end) = (self.state.subscribe(), self.log_end.subscribe());
        let mut from = from;
        loop {
            // Seen before reading, so that what comes after wakes us.
            let ended = matches!(*state.borrow_and_update(), Some(ContainerState::Exited(_)));
            end.mark_unchanged();
            let batch = match self.read_log(from, lines_max).await {
                Ok(batch) => batch,
                // Destroyed under our eyes.
                Err(_) if !self.files.dir.exists() => return Ok(None),
                Err(e) => return Err(e),
            };
            if !batch.lines.is_empty() {
                return Ok(Some(batch));
            }
            if ended {
                return Ok(None);
            }
            from = batch.next;
            if let Some(link) = self.link() {
                link.tell(ToShim::AwaitLog(from)).await;
            }
            tokio::select! {
                _ = state.changed() => {}
                _ = end.changed() => {}
            }
        }
    }
}

impl Inner {
    pub(super) fn find(&self, id: &ContainerId) -> Result<Arc<Container>> {
        let table = lock(&self.table);
        table.containers.get(id).cloned().ok_or_else(|| Error::NotFound(id.clone()))
    }

    pub(super) fn files(&self, id: &ContainerId) -> Files {
        Files { dir: self.config.dir.join("containers").join(id.as_str()) }
    }

    /// Nobody may be listening, and that is fine.
    pub(super) fn publish(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// Runs what blocks on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(body).await {
        Ok(value) => value,
        Err(e) => ended_badly(e).await,
    }
}

/// Runs a verb to its end, whatever becomes of the caller.
pub(super) async fn to_its_end<T: Send + 'static>(
    verb: impl Future<Output = T> + Send + 'static,
) -> T {
    match tokio::spawn(verb).await {
        Ok(value) => value,
        Err(e) => ended_badly(e).await,
    }
}

/// A task's panic is its caller's; a task is cancelled only with the whole async runtime, and
/// then nobody is left to be answered.
async fn ended_badly<T>(error: tokio::task::JoinError) -> T {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_cancelled) => std::future::pending().await,
    }
}

pub(super) fn mappings(container: &[u16], host: &[HostPort]) -> Vec<PortMapping> {
    assert_eq!(container.len(), host.len());
    let pairs = container.iter().zip(host);
    pairs.map(|(container, host)| PortMapping { container: *container, host: host.port }).collect()
}
