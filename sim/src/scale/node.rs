//! One member: the product's replica and agent, and containers that are only names.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::Agent;
use agent::world::{CallbackError, Containers, CreateFailure, Found};
use model::desired_lrp::UpdateStrategy;
use model::{
    Action, Capacity, Cell, CellHealth, CellId, Command, DesiredLrp, Intake, Millis, NetInfo,
    ProcessGuid, RootfsProvider, RunAction, Task,
};
use openraft_rt::{AsyncRuntime, Watch as _, WatchReceiver as _, WatchSender as _};
use plan::cell::{Container, Handle, Work};
use replica::newcomer::Entrance;
use replica::peers::{Envelope, PeerError, PeerRequest, PeerResponse, Peers};
use replica::wire::{Blob, Body};
use replica::{Config, Newcomer, Node, NodeId, Replica};

use super::disk::ScaleDisk;
use super::{Scale, ZONES, address};
use crate::runtime::{self, Group, Sender, SimRuntime, Watch};

/// A replica that can be one of a thousand.
pub(super) type ScaleReplica = Replica<SimRuntime, ScaleDisk, ScalePeers>;

type ScaleNewcomer = Newcomer<SimRuntime, ScaleDisk, ScalePeers>;

/// A node that is up.
pub(super) struct Member {
    pub(super) group: Group,
    newcomer: Option<ScaleNewcomer>,
    /// Present once they have started.
    pub(super) replica: Option<ScaleReplica>,
    agent: Option<Agent<Surroundings>>,
}

impl Member {
    fn host(&self) -> Option<Host> {
        if let (Some(replica), Some(agent)) = (&self.replica, &self.agent) {
            return Some(Host::Member(replica.clone(), agent.clone()));
        }
        self.newcomer.clone().map(Host::Newcomer)
    }
}

/// What answers on a node.
enum Host {
    Newcomer(ScaleNewcomer),
    Member(ScaleReplica, Agent<Surroundings>),
}

impl Host {
    /// Boxed: an answer may take calls to others, who answer in the same way.
    fn answer(self, envelope: Envelope) -> Pin<Box<dyn Future<Output = PeerResponse> + Send>> {
        Box::pin(async move {
            let (replica, agent) = match self {
                Self::Newcomer(newcomer) => return newcomer.handle(&envelope),
                Self::Member(replica, agent) => (replica, agent),
            };
            match replica.open(envelope) {
                Ok(PeerRequest::Soft(message)) => {
                    PeerResponse::Soft(Blob(agent.answer(&message.0).await.into()))
                }
                Ok(request) => replica.handle(request).await,
                Err(answer) => answer,
            }
        })
    }
}

/// The name of a node as a cell.
pub(super) fn cell_id(id: NodeId) -> CellId {
    CellId::from(format!("cell-{id:05}"))
}

fn cell(id: NodeId) -> Cell {
    Cell {
        cell_id: cell_id(id),
        node_id: id,
        address: Ipv4Addr::LOCALHOST,
        zone: format!("z{}", id % ZONES).into(),
        capacity: Capacity { memory_mb: 65_536, disk_mb: 262_144, containers: 250 },
        rootfs_providers: vec![RootfsProvider::arbitrary("preloaded")],
        volume_drivers: Vec::new(),
        rep_url: String::new(),
        intake: Intake::Open,
        placement_tags: Vec::new(),
        optional_placement_tags: Vec::new(),
        health: CellHealth::Present,
    }
}

/// An app as a push makes it.
pub(super) fn app(number: u64, instances: u64) -> Command {
    let desired_lrp = DesiredLrp {
        process_guid: ProcessGuid::from(format!("app-{number:05}-0123-4567-89ab-cdef01234567")),
        domain: "cf-apps".into(),
        rootfs: "preloaded:cflinuxfs4".to_owned(),
        instances: i32::try_from(instances).expect("an app's instances are few"),
        memory_mb: 128,
        disk_mb: 256,
        action: Some(Action::Run(RunAction {
            path: "/app/start".into(),
            user: "vcap".into(),
            ..RunAction::default()
        })),
        ports: vec![8080],
        routes: BTreeMap::from([("cf-router".to_owned(), "[]".to_owned())]),
        update_strategy: UpdateStrategy::Rolling,
        ..DesiredLrp::default()
    };
    Command::DesireLrp { desired_lrp: Box::new(desired_lrp) }
}

impl Scale {
    /// Starts a node.
    pub(super) fn start(self: &Arc<Self>, id: NodeId) {
        let group = Self::group(id);
        self.members().insert(id, Member { group, newcomer: None, replica: None, agent: None });
        drop(runtime::spawn_in(group, live(self.clone(), id)));
    }
}

async fn live(scale: Arc<Scale>, id: NodeId) {
    let disk = Arc::new(ScaleDisk::new(id <= scale.size.voters));
    let peers = Arc::new(ScalePeers { me: id, scale: scale.clone() });
    let config = Config {
        // What a snapshot would hold is shared; only the log's growth is of interest.
        snapshot_entries: u64::MAX / 4,
        snapshot_lag_entries: u64::MAX / 4,
        memo: Some(scale.memo.clone()),
        ..Config::new(id)
    };
    let voters = (1..=scale.size.voters).map(|id| (id, address(id))).collect();
    let newcomer: ScaleNewcomer = Newcomer::open(&config, voters, disk.clone(), peers.clone())
        .await
        .expect("its disk is empty and good");
    if let Some(member) = scale.members().get_mut(&id) {
        member.newcomer = Some(newcomer.clone());
    }
    let entrance = newcomer.introduce().await.expect("nobody knows another disk of its");
    let replica = Replica::start(&config, disk, peers).await.expect("its disk is empty and good");
    let surroundings = Surroundings::new(scale.clone());
    let agent = Agent::start(cell(id), replica.clone(), surroundings);
    if let Some(member) = scale.members().get_mut(&id) {
        member.replica = Some(replica.clone());
        member.agent = Some(agent);
    }
    if let Entrance::Founder(_, voters) = entrance {
        replica.initialize(voters).await.expect("it is among them");
        let salt = vec![Command::InitCluster { salt: 7 }];
        scale.wait("a leader", || scale.leads().is_some()).await;
        scale.order(salt).await;
    }
}

/// The way to the others: in values, counted as the bytes that they would be.
pub(super) struct ScalePeers {
    me: NodeId,
    scale: Arc<Scale>,
}

impl fmt::Debug for ScalePeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScalePeers").field("me", &self.me).finish_non_exhaustive()
    }
}

/// What a message is besides what it carries, and an entry: header, vote, ids and lengths. The
/// encodings of empty ones are a few bytes less.
const MESSAGE_BYTES: u64 = 40;
const ENTRY_BYTES: u64 = 16;

fn weight(request: &PeerRequest) -> u64 {
    let carries = match request {
        PeerRequest::AppendEntries(append) => {
            let entries = append.entries.iter().map(|entry| match &entry.body {
                Body::Proposal(bytes) => ENTRY_BYTES + bytes.0.len() as u64,
                Body::Membership(members) => ENTRY_BYTES + 40 * members.nodes.len() as u64,
                Body::Blank => ENTRY_BYTES,
            });
            entries.sum()
        }
        PeerRequest::Propose(bytes) | PeerRequest::Soft(bytes) => bytes.0.len() as u64,
        PeerRequest::SnapshotChunk(chunk) => chunk.rows.0.len() as u64,
        PeerRequest::Vote(_)
        | PeerRequest::PreVote(_)
        | PeerRequest::TransferLeader(_)
        | PeerRequest::Introduce(_)
        | PeerRequest::ReadIndex => 0,
    };
    MESSAGE_BYTES + carries
}

impl Peers for ScalePeers {
    async fn call(
        &self,
        target: NodeId,
        _node: &Node,
        envelope: Envelope,
        _timeout: Duration,
    ) -> Result<PeerResponse, PeerError> {
        SimRuntime::sleep(self.scale.send(self.me, weight(&envelope.request))).await;
        let found = {
            let members = self.scale.members();
            members.get(&target).and_then(|it| Some((it.group, it.host()?)))
        };
        let Some((group, host)) = found else {
            let reason = "it is not up".to_owned();
            return Err(PeerError::Unreachable { target, reason });
        };
        let answer = runtime::spawn_in(group, host.answer(envelope));
        match answer.await {
            Ok(response) => {
                SimRuntime::sleep(self.scale.send(target, MESSAGE_BYTES)).await;
                Ok(response)
            }
            Err(_) => {
                let reason = "it went down".to_owned();
                Err(PeerError::Lost { target, reason })
            }
        }
    }
}

/// The world as one node has it.
pub(super) struct Surroundings {
    scale: Arc<Scale>,
    containers: Cellar,
}

impl Surroundings {
    fn new(scale: Arc<Scale>) -> Self {
        let (versions, _) = Watch::channel(1);
        let containers = Cellar { scale: scale.clone(), containers: Mutex::default(), versions };
        Self { scale, containers }
    }
}

impl agent::World for Surroundings {
    type Runtime = SimRuntime;
    type Disk = ScaleDisk;
    type Peers = ScalePeers;
    type Containers = Cellar;

    fn now(&self) -> Millis {
        self.scale.date()
    }

    fn containers(&self) -> &Cellar {
        &self.containers
    }

    async fn call_back(&self, _task: &Task) -> Result<u16, CallbackError> {
        Ok(200)
    }
}

/// Containers that start within half a second and run until they are stopped.
pub(super) struct Cellar {
    scale: Arc<Scale>,
    containers: Mutex<BTreeMap<Handle, Container>>,
    versions: Sender<u64>,
}

impl Cellar {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<Handle, Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.versions.send_if_modified(|version| {
            *version += 1;
            true
        });
    }
}

impl Containers for Cellar {
    async fn create(&self, handle: &Handle, _work: &Work) -> Result<(), CreateFailure> {
        let takes = self.scale.between(Duration::from_millis(100), Duration::from_millis(500));
        SimRuntime::sleep(takes).await;
        let address = Ipv4Addr::LOCALHOST;
        let net_info = NetInfo { address, instance_address: address, ports: Vec::new() };
        self.containers().insert(handle.clone(), Container::Running { net_info, routable: true });
        self.changed();
        Ok(())
    }

    async fn stop(&self, _handle: &Handle) {
        SimRuntime::sleep(Duration::from_millis(50)).await;
    }

    async fn destroy(&self, handle: &Handle) -> Result<(), String> {
        SimRuntime::sleep(Duration::from_millis(50)).await;
        self.containers().remove(handle);
        self.changed();
        Ok(())
    }

    fn list(&self) -> Vec<Found> {
        let containers = self.containers();
        let found = containers.iter();
        found.map(|(handle, it)| Found { handle: handle.clone(), container: it.clone() }).collect()
    }

    async fn changed(&self, seen: u64) -> u64 {
        let mut versions = self.versions.subscribe();
        loop {
            let version = *versions.borrow_watched();
            if version != seen {
                return version;
            }
            versions.changed().await.expect("the cellar outlives its node's tasks");
        }
    }
}
