//! A cluster of one process for the commands to speak to: the real wire, the real machine that
//! decides, and in place of cells a few lines that place and start what is desired.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use api::admin::{
    CellStatus, ClusterStatus, Consistency, ImageMetadata, ImageUser, InstanceUsage, LayerOrigins,
    LogChunk, LogCursor, LogLine, LogSource, Member, MemberChange, Role, Routing, StagedImage,
    Unknown, Usage, Waiting,
};
use api::{Admin, Error};
use futures_util::StreamExt;
use model::{
    ActualLrp, ActualState, Capacity, Cell, CellHealth, CellId, Command, DesiredLrp,
    DesiredLrpUpdate, Domain, DomainName, FeatureFlag, InstanceKey, Millis, NetInfo, PortMapping,
    ProcessGuid, Stamp, State, Task, TaskDefinition, TaskGuid,
};
use tarpc::context::Context;
use tarpc::server::{BaseChannel, Channel};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

pub(crate) const DIGEST: &str =
    "sha256:abababababababababababababababababababababababababababababababab";

/// A running fake; it ends when dropped.
pub(crate) struct Fake {
    endpoint: String,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    cluster: Mutex<Cluster>,
    applied: watch::Sender<u64>,
}

/// What the fake is, and the faults it is told to show.
pub(crate) struct Cluster {
    pub(crate) state: State,
    log_index: u64,
    leader: u64,
    next_port: u16,
    /// The next so many calls are told that nobody can serve them.
    pub(crate) unavailable: u32,
    /// The next change is made, and its answer lost with the connection.
    pub(crate) loses_answer: bool,
    /// Instances are placed, and do not start.
    pub(crate) holds: bool,
    /// Processes whose instances exit as soon as they start.
    pub(crate) crashing: BTreeSet<ProcessGuid>,
    pub(crate) images: BTreeMap<String, ImageMetadata>,
    pub(crate) waiting: Vec<(u32, Waiting)>,
    pub(crate) logs: BTreeMap<u32, Result<Vec<LogLine>, Error>>,
    /// Node 3 does not run at first.
    pub(crate) members: BTreeMap<u64, FakeMember>,
    pub(crate) newcomers: Vec<FakeMember>,
    pub(crate) routing: Option<Routing>,
    /// Every change that was asked for, by name, in order.
    pub(crate) asked: Vec<&'static str>,
}

/// A member, or one that waits to be.
#[derive(Clone)]
pub(crate) struct FakeMember {
    pub(crate) name: String,
    pub(crate) votes: bool,
    pub(crate) runs: bool,
}

impl FakeMember {
    /// `node-3` is at `10.0.0.3:7440`.
    fn address(&self) -> String {
        format!("10.0.0.{}:7440", self.name.trim_start_matches("node-"))
    }
}

impl Fake {
    /// Three cells of 1 GiB each, Docker images allowed, and one image, `me/hello`.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            cluster: Mutex::new(Cluster::new()),
            applied: watch::Sender::new(0),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self { endpoint, shared, runtime: Some(runtime) }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Looks at the cluster or tells it how to behave. Whoever waits for news gets some.
    pub(crate) fn with<T>(&self, edit: impl FnOnce(&mut Cluster) -> T) -> T {
        let mut cluster = self.shared.lock();
        let answer = edit(&mut cluster);
        cluster.settle();
        self.shared.applied.send_replace(cluster.log_index);
        answer
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn image() -> ImageMetadata {
    ImageMetadata {
        rootfs: "docker:///me/hello#latest".to_owned(),
        digest: DIGEST.try_into().unwrap(),
        entrypoint: vec!["/hello".to_owned()],
        cmd: Vec::new(),
        user: String::new(),
        working_dir: String::new(),
        exposed_ports: vec![8080],
        is_udp_only: false,
        healthcheck: None,
        size: 3_300_000,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("no test panics while it holds the cluster")
    }
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            state: State::new(),
            log_index: 0,
            leader: 1,
            next_port: 61_001,
            unavailable: 0,
            loses_answer: false,
            holds: false,
            crashing: BTreeSet::new(),
            images: [("me/hello".to_owned(), image())].into(),
            waiting: Vec::new(),
            logs: BTreeMap::new(),
            members: (1..=3)
                .map(|id| {
                    let name = format!("node-{id}");
                    (id, FakeMember { name, votes: true, runs: id != 3 })
                })
                .collect(),
            newcomers: Vec::new(),
            routing: None,
            asked: Vec::new(),
        };
        cluster.apply(Command::InitCluster { salt: 7 }).unwrap();
        let flag = FeatureFlag::DiegoDocker;
        cluster.apply(Command::SetFeatureFlag { flag, enabled: true }).unwrap();
        for node_id in 1..=3_u8 {
            let cell = Box::new(Cell {
                cell_id: format!("node-{node_id}").into(),
                node_id: u64::from(node_id),
                address: Ipv4Addr::new(10, 0, 0, node_id),
                zone: "z1".into(),
                capacity: Capacity { memory_mb: 1024, disk_mb: 4096, containers: 100 },
                rootfs_providers: vec![model::RootfsProvider::arbitrary("docker")],
                volume_drivers: Vec::new(),
                rep_url: String::new(),
                intake: model::Intake::Open,
                placement_tags: Vec::new(),
                optional_placement_tags: Vec::new(),
                health: CellHealth::Present,
            });
            cluster.apply(Command::RegisterCell { cell }).unwrap();
        }
        cluster
    }

    /// The cluster's clock is an hour ahead, so that everything has happened just now, however
    /// slow the machine is that runs the tests.
    fn now() -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Millis(u64::try_from(since.as_millis()).unwrap() + 3_600_000)
    }

    pub(crate) fn index(&self) -> u64 {
        self.log_index
    }

    pub(crate) fn apply(&mut self, command: Command) -> Result<(), Error> {
        self.log_index += 1;
        let stamp = Stamp { log_index: self.log_index, position: 0, at: Self::now() };
        model::apply(&mut self.state, stamp, command)?;
        Ok(())
    }

    /// The leader's and the cells' part: places what waits, starts what is placed.
    fn settle(&mut self) {
        let mut unclaimed: Vec<_> =
            self.state.unclaimed().map(|(guid, index)| (guid.clone(), index)).collect();
        unclaimed.sort_unstable();
        for (process_guid, index) in unclaimed {
            let mut cells: Vec<_> = self.state.cells().map(|cell| cell.cell_id.clone()).collect();
            cells.sort_by_key(|cell| self.state.load(cell).map_or(0, |load| load.memory_mb));
            let placed = cells.into_iter().any(|cell_id| {
                let process_guid = process_guid.clone();
                self.apply(Command::PlaceLrp { process_guid, index, cell_id }).is_ok()
            });
            if !placed {
                let placement_error = "insufficient resources: memory".to_owned();
                self.apply(Command::FailLrp { process_guid, index, placement_error }).unwrap();
            }
        }
        if self.holds {
            return;
        }
        let claimed: Vec<_> = self.state.actual_lrps().cloned().collect();
        for lrp in claimed {
            if let ActualState::Claimed { instance } = &lrp.state {
                self.begin(&lrp, instance.clone());
            }
        }
        let crashes_again = |lrp: &&Arc<ActualLrp>| {
            lrp.is_unclaimed() && self.crashing.contains(&lrp.key.process_guid)
        };
        if self.state.actual_lrps().any(|lrp| crashes_again(&lrp)) {
            self.settle();
        }
    }

    fn begin(&mut self, lrp: &ActualLrp, instance: InstanceKey) {
        let key = lrp.key.clone();
        if self.crashing.contains(&key.process_guid) {
            let reason = "APP/PROC/WEB: Exited with status 7".to_owned();
            self.apply(Command::CrashLrp { key, instance, reason }).unwrap();
            return;
        }
        let desired = Arc::clone(self.state.desired_lrp(&key.process_guid).unwrap());
        let ports = desired.ports.iter().map(|port| {
            self.next_port += 1;
            PortMapping { container_port: *port, host_port: self.next_port - 1 }
        });
        let net_info = NetInfo {
            address: self.state.cell(&instance.cell_id).unwrap().address,
            instance_address: Ipv4Addr::new(10, 88, 0, 2),
            ports: ports.collect(),
        };
        self.apply(Command::StartLrp { key, instance, net_info, routable: true }).unwrap();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut greeting = [0; 8];
    if stream.read_exact(&mut greeting).await.is_err() {
        return;
    }
    assert_eq!(greeting, api::wire::ADMIN_GREETING);
    let cut = Arc::new(Notify::new());
    let face = Face { shared, cut: Arc::clone(&cut) };
    let requests = BaseChannel::with_defaults(api::wire::serve(stream)).execute(face.serve());
    let serving = requests.for_each(|request| async {
        tokio::spawn(request);
    });
    tokio::select! {
        () = serving => {}
        () = cut.notified() => {}
    }
}

/// One connection's server.
#[derive(Clone)]
struct Face {
    shared: Arc<Shared>,
    cut: Arc<Notify>,
}

impl Face {
    fn read<T>(&self, look: impl FnOnce(&Cluster) -> Result<T, Error>) -> Result<T, Error> {
        let mut cluster = self.shared.lock();
        if cluster.unavailable > 0 {
            cluster.unavailable -= 1;
            return Err(Error::Unavailable("the lease is not confirmed".to_owned()));
        }
        look(&cluster)
    }

    async fn change(self, name: &'static str, command: Command) -> Result<(), Error> {
        let is_lost = {
            let mut cluster = self.shared.lock();
            if cluster.unavailable > 0 {
                cluster.unavailable -= 1;
                return Err(Error::Unavailable("the lease is not confirmed".to_owned()));
            }
            cluster.asked.push(name);
            cluster.apply(command)?;
            cluster.settle();
            self.shared.applied.send_replace(cluster.log_index);
            std::mem::take(&mut cluster.loses_answer)
        };
        if is_lost {
            self.cut.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

impl Admin for Face {
    async fn desire_lrp(self, _: Context, desired_lrp: Box<DesiredLrp>) -> Result<(), Error> {
        self.change("desire_lrp", Command::DesireLrp { desired_lrp }).await
    }

    async fn update_desired_lrp(
        self,
        _: Context,
        process_guid: ProcessGuid,
        update: Box<DesiredLrpUpdate>,
    ) -> Result<(), Error> {
        self.change("update_desired_lrp", Command::UpdateDesiredLrp { process_guid, update }).await
    }

    async fn remove_desired_lrp(self, _: Context, process_guid: ProcessGuid) -> Result<(), Error> {
        self.change("remove_desired_lrp", Command::RemoveDesiredLrp { process_guid }).await
    }

    async fn desired_lrps(self, _: Context, _: Consistency) -> Result<Vec<Arc<DesiredLrp>>, Error> {
        self.read(|cluster| Ok(cluster.state.desired_lrps().cloned().collect()))
    }

    async fn desired_lrp(
        self,
        _: Context,
        guid: ProcessGuid,
        _: Consistency,
    ) -> Result<Arc<DesiredLrp>, Error> {
        self.read(|cluster| {
            let found = cluster.state.desired_lrp(&guid).cloned();
            found.ok_or_else(|| model::Refusal::DesiredLrpNotFound(guid).into())
        })
    }

    async fn actual_lrps(
        self,
        _: Context,
        of: Option<ProcessGuid>,
        _: Consistency,
    ) -> Result<Vec<Arc<ActualLrp>>, Error> {
        self.read(|cluster| {
            let lrps = cluster.state.actual_lrps();
            let is_meant = |lrp: &&Arc<ActualLrp>| match &of {
                Some(guid) => lrp.key.process_guid == *guid,
                None => true,
            };
            Ok(lrps.filter(is_meant).cloned().collect())
        })
    }

    async fn retire_actual_lrp(
        self,
        _: Context,
        process_guid: ProcessGuid,
        index: u32,
    ) -> Result<(), Error> {
        self.change("retire_actual_lrp", Command::RetireLrp { process_guid, index }).await
    }

    async fn waiting_lrps(self, _: Context, _: ProcessGuid) -> Result<Vec<(u32, Waiting)>, Error> {
        self.read(|cluster| Ok(cluster.waiting.clone()))
    }

    async fn desire_task(
        self,
        _: Context,
        task_guid: TaskGuid,
        domain: DomainName,
        definition: Box<TaskDefinition>,
    ) -> Result<(), Error> {
        self.change("desire_task", Command::DesireTask { task_guid, domain, definition }).await
    }

    async fn tasks(self, _: Context, _: Consistency) -> Result<Vec<Arc<Task>>, Error> {
        self.read(|cluster| Ok(cluster.state.tasks().cloned().collect()))
    }

    async fn task(self, _: Context, guid: TaskGuid, _: Consistency) -> Result<Arc<Task>, Error> {
        self.read(|cluster| {
            let found = cluster.state.task(&guid).cloned();
            found.ok_or_else(|| model::Refusal::TaskNotFound(guid).into())
        })
    }

    async fn cancel_task(self, _: Context, task_guid: TaskGuid) -> Result<(), Error> {
        self.change("cancel_task", Command::CancelTask { task_guid }).await
    }

    async fn resolving_task(self, _: Context, task_guid: TaskGuid) -> Result<(), Error> {
        self.change("resolving_task", Command::ResolvingTask { task_guid }).await
    }

    async fn delete_task(self, _: Context, task_guid: TaskGuid) -> Result<(), Error> {
        self.change("delete_task", Command::DeleteTask { task_guid }).await
    }

    async fn waiting_task(self, _: Context, _: TaskGuid) -> Result<Option<Waiting>, Error> {
        self.read(|cluster| Ok(cluster.waiting.first().map(|(_, waiting)| waiting.clone())))
    }

    async fn domains(self, _: Context, _: Consistency) -> Result<Vec<Arc<Domain>>, Error> {
        self.read(|cluster| Ok(cluster.state.domains().cloned().collect()))
    }

    async fn upsert_domain(
        self,
        _: Context,
        domain: DomainName,
        ttl_secs: u64,
    ) -> Result<(), Error> {
        let ttl = (ttl_secs > 0).then(|| Millis::from_secs(ttl_secs));
        self.change("upsert_domain", Command::UpsertDomain { domain, ttl }).await
    }

    async fn feature_flags(
        self,
        _: Context,
        _: Consistency,
    ) -> Result<Vec<(FeatureFlag, bool)>, Error> {
        self.read(|cluster| {
            Ok(FeatureFlag::ALL.map(|flag| (flag, cluster.state.is_enabled(flag))).to_vec())
        })
    }

    async fn set_feature_flag(
        self,
        _: Context,
        flag: FeatureFlag,
        enabled: bool,
    ) -> Result<(), Error> {
        self.change("set_feature_flag", Command::SetFeatureFlag { flag, enabled }).await
    }

    async fn cells(self, _: Context, _: Consistency) -> Result<Vec<CellStatus>, Error> {
        self.read(|cluster| {
            let status = |cell: &Arc<Cell>| {
                let load = cluster.state.load(&cell.cell_id).cloned().unwrap_or_default();
                CellStatus {
                    cell: Arc::clone(cell),
                    memory_mb_used: load.memory_mb,
                    disk_mb_used: load.disk_mb,
                    lrps: u32::try_from(load.lrps.len()).unwrap(),
                    tasks: u32::try_from(load.tasks.len()).unwrap(),
                }
            };
            Ok(cluster.state.cells().map(status).collect())
        })
    }

    async fn evacuate_cell(
        self,
        _: Context,
        cell_id: CellId,
        timeout_ms: u64,
    ) -> Result<(), Error> {
        let timeout = Millis(timeout_ms);
        self.change("evacuate_cell", Command::EvacuateCell { cell_id, timeout }).await
    }

    async fn open_cell(self, _: Context, cell_id: CellId) -> Result<(), Error> {
        self.change("open_cell", Command::OpenCell { cell_id }).await
    }

    async fn stage_image(
        self,
        _: Context,
        _: ProcessGuid,
        image: String,
        _: Option<ImageUser>,
    ) -> Result<StagedImage, Error> {
        self.read(|cluster| {
            let found = cluster.images.get(&image).cloned();
            let metadata =
                found.ok_or_else(|| Error::Image(format!("{image}: manifest unknown")))?;
            let (task_guid, cell_id) = ("staging-1".into(), Some("node-2".into()));
            Ok(StagedImage { metadata, task_guid, cell_id })
        })
    }

    async fn logs(
        self,
        _: Context,
        source: LogSource,
        from: Option<LogCursor>,
        follow: bool,
    ) -> Result<LogChunk, Error> {
        let LogSource::Lrp { index, .. } = source else {
            return Err(Error::Invalid("the fake has no tasks' logs".to_owned()));
        };
        let mut news = self.shared.applied.subscribe();
        loop {
            news.mark_unchanged();
            let chunk = self.read(|cluster| {
                let kept = cluster.logs.get(&index).cloned().unwrap_or_else(|| Ok(Vec::new()))?;
                let position = from.as_ref().map_or(0, |cursor| cursor.position);
                let skip = usize::try_from(position).unwrap();
                // Two lines at a time, so that there is something to read on.
                let lines: Vec<_> = kept.into_iter().skip(skip).take(2).collect();
                let position = position + u64::try_from(lines.len()).unwrap();
                Ok(LogChunk { lines, next: LogCursor { container: "c".to_owned(), position } })
            })?;
            if !follow || !chunk.lines.is_empty() {
                return Ok(chunk);
            }
            news.changed().await.unwrap();
        }
    }

    async fn cell_logs(
        self,
        _: Context,
        on: CellId,
        _: String,
        _: u64,
        _: bool,
    ) -> Result<LogChunk, Error> {
        Err(Error::Invalid(format!("only nodes ask {on} for this")))
    }

    async fn wait_applied(self, _: Context, index: u64) -> Result<u64, Error> {
        let mut applied = self.shared.applied.subscribe();
        let now = applied.wait_for(|now| *now > index).await.unwrap();
        Ok(*now)
    }

    async fn cluster_status(self, _: Context) -> Result<ClusterStatus, Error> {
        let cluster = self.shared.lock();
        let member = |(node_id, fake): (&u64, &FakeMember)| Member {
            node_id: *node_id,
            name: fake.name.clone(),
            address: fake.address(),
            role: match fake.votes {
                _ if *node_id == cluster.leader => Role::Leader,
                true => Role::Voter,
                false => Role::Learner,
            },
            applied_index: fake.runs.then_some(cluster.log_index),
            overlooked: fake.runs.then_some(0),
        };
        Ok(ClusterStatus {
            node_id: 1,
            term: 4,
            leader: Some(cluster.leader),
            applied_index: cluster.log_index,
            last_log_index: cluster.log_index,
            members: cluster.members.iter().map(member).collect(),
            layers: LayerOrigins { registries: 1, cells: 2, sent: 0 },
        })
    }

    async fn transfer_leadership(self, _: Context, to: u64) -> Result<(), Error> {
        self.shared.lock().leader = to;
        Ok(())
    }

    /// A node that runs waits to be let in at the address of each name that `newcomers` has.
    async fn change_members(self, _: Context, change: MemberChange) -> Result<u64, Error> {
        let mut cluster = self.shared.lock();
        let known = |cluster: &Cluster, id: u64| match cluster.members.contains_key(&id) {
            true => Ok(id),
            false => Err(Error::Invalid(format!("there is no member {id}"))),
        };
        cluster.asked.push("change_members");
        match change {
            MemberChange::Join(address) => {
                let arrived = cluster.newcomers.iter().find(|it| it.address() == address).cloned();
                let Some(newcomer) = arrived else {
                    return Err(Error::Unavailable(format!("nobody waits at {address}")));
                };
                let id = 10_000 + u64::try_from(cluster.asked.len()).unwrap();
                cluster.members.insert(id, newcomer);
                Ok(id)
            }
            MemberChange::Leave(id) => {
                let id = known(&cluster, id)?;
                if cluster.members[&id].runs {
                    return Err(Error::Invalid(format!("member {id} runs")));
                }
                cluster.members.remove(&id);
                Ok(id)
            }
            MemberChange::Promote(id) | MemberChange::Demote(id) => {
                let id = known(&cluster, id)?;
                let votes = matches!(change, MemberChange::Promote(_));
                cluster.members.get_mut(&id).expect("it is known").votes = votes;
                Ok(id)
            }
        }
    }

    async fn external_address(self, _: Context) -> Result<Ipv4Addr, Error> {
        Ok(Ipv4Addr::LOCALHOST)
    }

    /// The first instance's cell answers, the others' do not.
    async fn lrp_usage(self, _: Context, guid: ProcessGuid) -> Result<Vec<InstanceUsage>, Error> {
        let of = |lrp: &Arc<ActualLrp>| {
            let instance = lrp.instance()?;
            let usage = match lrp.key.index {
                0 => Ok(Usage {
                    cpu_millicores: 1234,
                    cpu_ns: 5_000_000_000,
                    memory_bytes: 3 << 20,
                    disk_bytes: Some(512),
                    inodes: Some(7),
                    pids: 2,
                    age_ms: Some(9000),
                }),
                _ => Err(Unknown(format!("cell {} is silent", instance.cell_id))),
            };
            Some(InstanceUsage { instance_guid: instance.instance_guid.clone(), usage })
        };
        self.read(|cluster| Ok(cluster.state.actual_lrps_of(&guid).filter_map(of).collect()))
    }

    async fn cell_usage(
        self,
        _: Context,
        on: CellId,
        _: Vec<String>,
    ) -> Result<Vec<Option<Usage>>, Error> {
        Err(Error::Invalid(format!("only nodes ask {on} for this")))
    }

    async fn routing(self, _: Context) -> Result<Option<Routing>, Error> {
        Ok(self.shared.lock().routing.clone())
    }
}
