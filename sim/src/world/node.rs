//! One node of the world: a replica with its disk, clock and lives.
//!
//! A life is one task group and one hold on the disk. It ends in a crash at whatever point its
//! tasks are: the power goes first, then the network, then the tasks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use agent::soft::Message;
use openraft_rt::AsyncRuntime;
use replica::newcomer::Entrance;
use replica::peers::{Envelope, PeerRequest, PeerResponse, SnapshotReceived};
use replica::replica::StartError;
use replica::wire::Blob;
use replica::{Newcomer, Node, NodeId, Replica};

use super::disk::{Rotten, SimDisk, Tables};
use super::machine::Machine;
use super::peers::SimPeers;
use super::surroundings::{self, SimAgent, Surroundings};
use super::{Bytes, Scope, World};
use crate::check::{DiskState, Shown, Whence};
use crate::disk::Disk;
use crate::limits;
use crate::network::Handler;
use crate::rng::Rng;
use crate::runtime::{self, Clock, Group, JoinHandle, SimRuntime};

/// A replica on everything simulated.
pub(super) type SimReplica = Replica<SimRuntime, SimDisk, SimPeers>;

type SimNewcomer = Newcomer<SimRuntime, SimDisk, SimPeers>;

/// A node, up or down.
#[derive(Debug)]
pub(super) struct NodeState {
    pub(super) disk: Disk<Tables>,
    pub(super) clock: Clock,
    /// How far its clock is wrong about the date.
    pub(super) wall_off_ms: i64,
    pub(super) machine: Arc<Machine>,
    /// How many lives it has had.
    pub(super) lives: u64,
    pub(super) life: Option<Life>,
    /// Removed from the cluster: it never comes back.
    pub(super) retired: bool,
    /// Its disk was emptied.
    pub(super) forgot: bool,
    /// What has rotted on its disk, and perhaps was written over since.
    pub(super) rotten: Option<Rotten>,
}

impl NodeState {
    /// Whether its disk has lost something for good, known or not. What was written over it may be
    /// lost in a crash, and the rot be there again, until that is synced.
    pub(super) fn has_lost(&self) -> bool {
        let is_rotten = |rotten: &Rotten| {
            self.disk.inspect(|tables| tables.is_rotten(rotten))
                || self.disk.inspect_synced(|tables| tables.is_rotten(rotten))
        };
        self.forgot || self.rotten.as_ref().is_some_and(is_rotten)
    }
}

/// A node's present life.
#[derive(Debug)]
pub(super) struct Life {
    group: Group,
    /// Present once it has started.
    replica: Option<SimReplica>,
    /// As well, where nodes are whole.
    pub(super) agent: Option<SimAgent>,
}

/// What the others know of node `id`.
pub(super) fn address(id: NodeId) -> Node {
    Node { name: format!("node-{id}"), address: format!("10.0.0.{id}:1"), ..Node::default() }
}

impl World {
    /// Starts a node that is down, on what its disk holds.
    pub(super) fn start(self: &Arc<Self>, id: NodeId) {
        let mut nodes = self.nodes();
        let node = nodes.get_mut(&id).expect("only known nodes are started");
        if node.life.is_some() || node.retired {
            return;
        }
        node.lives += 1;
        let life = node.lives;
        let group = runtime::new_group(format!("node-{id}"), node.clock);
        node.life = Some(Life { group, replica: None, agent: None });
        runtime::event("started", &[("node", id), ("life", node.lives)]);
        let (disk, machine) = (node.disk.open(), node.machine.clone());
        let torn = disk.inspect(Tables::tear);
        drop(nodes);
        if let Some(what) = torn {
            self.violated("a log on disk is one log", format!("node {id}: {what}"));
        }
        drop(runtime::spawn_in(group, live(self.clone(), id, life, disk, machine)));
    }

    /// Takes a node's power away. Returns whether it was up.
    pub(super) fn crash(&self, id: NodeId) -> bool {
        let life = {
            let mut nodes = self.nodes();
            let node = nodes.get_mut(&id).expect("only known nodes crash");
            let Some(life) = node.life.take() else { return false };
            let crashed = node.disk.crash();
            node.machine.crash();
            let fields = [("node", id), ("kept", crashed.kept), ("lost", crashed.lost)];
            runtime::event("crashed", &fields);
            life
        };
        self.check(|checker, _| checker.restarted(id));
        self.network.detach(id);
        runtime::kill(life.group);
        true
    }

    /// Takes a node away for good.
    pub(super) fn retire(&self, id: NodeId) {
        if let Some(node) = self.nodes().get_mut(&id) {
            node.retired = true;
        }
        self.crash(id);
    }

    /// Empties a node's disk, and starts the node again after `pause`: as somebody does who takes
    /// the directory for a cache.
    pub(super) fn forget(self: &Arc<Self>, id: NodeId, pause: Duration) {
        self.crash(id);
        let rng = Rng::stream(self.seed, &format!("disk-{id}-emptied"));
        let disk = Disk::new(self.mix.wear, rng);
        if let Some(node) = self.nodes().get_mut(&id) {
            node.disk = disk;
            node.forgot = true;
        }
        self.check(|checker, _| checker.forgot(id));
        self.reboot(id, pause);
    }

    /// A bit flips for good on a node's disk. Returns whether there was one.
    pub(super) fn rot(&self, id: NodeId) -> bool {
        let mut nodes = self.nodes();
        let node = nodes.get_mut(&id).expect("only known nodes rot");
        node.rotten = node.disk.rot(Tables::rot);
        let Some(rotten) = &node.rotten else { return false };
        runtime::event_with("rotted", &[("node", id)], || rotten.to_string());
        true
    }

    /// Whether a node's disk has lost something for good, known or not.
    pub(super) fn has_lost(&self, id: NodeId) -> bool {
        self.nodes().get(&id).is_some_and(NodeState::has_lost)
    }

    /// Whether a node is gone for good.
    pub(super) fn is_retired(&self, id: NodeId) -> bool {
        self.nodes().get(&id).is_some_and(|node| node.retired)
    }

    /// Crashes a node and starts it again after `pause`.
    pub(super) fn reboot(self: &Arc<Self>, id: NodeId, pause: Duration) {
        self.crash(id);
        let world = self.clone();
        drop(runtime::spawn_in(Group::WORLD, async move {
            SimRuntime::sleep(pause).await;
            world.start(id);
        }));
    }

    /// A node's replica, if it is up and has started, and the group to use it in.
    pub(super) fn replica(&self, id: NodeId) -> Option<(Group, SimReplica)> {
        let nodes = self.nodes();
        let life = nodes.get(&id)?.life.as_ref()?;
        Some((life.group, life.replica.clone()?))
    }

    /// A node's agent, if it has one.
    pub(super) fn agent(&self, id: NodeId) -> Option<(Group, SimAgent)> {
        let nodes = self.nodes();
        let life = nodes.get(&id)?.life.as_ref()?;
        Some((life.group, life.agent.clone()?))
    }

    /// Does something with a node's replica, as a task of that node: it dies with it.
    pub(super) fn at<F>(
        &self,
        id: NodeId,
        work: impl FnOnce(SimReplica) -> F,
    ) -> Option<JoinHandle<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (group, replica) = self.replica(id)?;
        Some(runtime::spawn_in(group, work(replica)))
    }

    /// The nodes that are up, members or not.
    pub(super) fn alive(&self) -> Vec<NodeId> {
        let nodes = self.nodes();
        nodes.iter().filter(|(_, node)| node.life.is_some()).map(|(id, _)| *id).collect()
    }

    /// The nodes whose replicas can be used.
    pub(super) fn up(&self) -> Vec<NodeId> {
        let nodes = self.nodes();
        let started =
            |node: &NodeState| node.life.as_ref().is_some_and(|life| life.replica.is_some());
        nodes.iter().filter(|(_, node)| started(node)).map(|(id, _)| *id).collect()
    }
}

/// One life of a node.
async fn live(world: Arc<World>, id: NodeId, life: u64, disk: Disk<Tables>, machine: Arc<Machine>) {
    let (replica, entrance) = match enter(&world, id, &disk).await {
        Ok(entered) => entered,
        Err(error) => return not_started(&world, id, life, &disk, &error),
    };
    world.check_start(id);
    world.show(&replica, Whence::Disk);
    let agent = (world.scope == Scope::Nodes).then(|| {
        let surroundings = Surroundings::new(id, world.clone(), machine);
        let mut cell = surroundings::cell(id);
        cell.capacity.memory_mb = world.mix.cell_memory_mb;
        Agent::start(cell, replica.clone(), surroundings)
    });
    let handler = answer(world.clone(), replica.clone(), agent.clone(), disk.clone());
    world.network.attach(id, runtime::current_group(), handler);
    if let Some(life) = world.nodes().get_mut(&id).and_then(|node| node.life.as_mut()) {
        life.replica = Some(replica.clone());
        life.agent = agent;
    }
    let stopped = {
        let (world, replica, disk) = (world.clone(), replica.clone(), disk.clone());
        async move {
            let reason = replica.stopped().await;
            ended(&world, id, life, &disk, &reason);
        }
    };
    drop(SimRuntime::spawn(stopped));
    if let Entrance::Founder(_, members) = entrance
        && let Err(error) = replica.initialize(members).await
        && !disk.has_failed()
    {
        world.violated("a founder initialises", format!("node {id}: {error}"));
    }
    follow(&world, &replica).await;
}

/// A node finds out which member it is, and becomes it.
async fn enter(
    world: &Arc<World>,
    id: NodeId,
    disk: &Disk<Tables>,
) -> Result<(SimReplica, Entrance), StartError> {
    let config = world.mix.config(id);
    let first = (1..=world.mix.voters).map(|id| (id, address(id))).collect();
    let peers = Arc::new(SimPeers::new(id, world.clone()));
    let tables = Arc::new(SimDisk(disk.clone()));
    let newcomer: SimNewcomer =
        Newcomer::open(&config, first, tables.clone(), peers.clone()).await?;
    let handler: Handler<Bytes, Bytes> = {
        let (world, newcomer) = (world.clone(), newcomer.clone());
        Arc::new(move |_, bytes: Bytes| {
            let envelope = Envelope::decode(&bytes).expect("a replica encoded these bytes");
            let response = newcomer.handle(&envelope);
            if let PeerResponse::NotHere(_) = response {
                runtime::event("not_here", &[]);
            }
            let on = DiskState::default();
            world.check(|it, at_ns| it.answered(at_ns, id, &envelope.request, &response, on));
            Box::pin(async move { response.encode().into() })
        })
    };
    world.network.attach(id, runtime::current_group(), handler);
    let entrance = newcomer.introduce().await?;
    if entrance.id() != id {
        let what = format!("node {id} is to be member {}", entrance.id());
        world.violated("a member is who it was let in as", what);
    }
    let replica = Replica::start(&config, tables, peers).await?;
    Ok((replica, entrance))
}

/// Tells every state and every leadership.
async fn follow(world: &World, replica: &SimReplica) {
    let mut watcher = replica.watch();
    let mut term_led = 0;
    while let Some(standing) = watcher.changed().await {
        world.show(replica, Whence::Newest);
        if standing.leads && standing.term != term_led {
            term_led = standing.term;
            runtime::event("elected", &[("term", standing.term)]);
        }
    }
}

impl World {
    /// Shows the checkers what a replica shows its readers.
    pub(super) fn show(&self, replica: &SimReplica, whence: Whence) {
        let reading = replica.read_stale();
        if let Some(applied) = reading.applied {
            let shown = Shown { node: replica.id(), whence, applied, state: reading.state };
            self.check(|checker, at_ns| checker.shown(at_ns, shown));
        }
    }
}

/// How a node answers its peers.
fn answer(
    world: Arc<World>,
    replica: SimReplica,
    agent: Option<SimAgent>,
    disk: Disk<Tables>,
) -> Handler<Bytes, Bytes> {
    Arc::new(move |_, bytes: Bytes| {
        let (world, replica, disk) = (world.clone(), replica.clone(), disk.clone());
        let agent = agent.clone();
        Box::pin(async move {
            let envelope = Envelope::decode(&bytes).expect("a replica encoded these bytes");
            let request = match replica.open(envelope) {
                Ok(request) => request,
                Err(not_here) => {
                    runtime::event("not_here", &[]);
                    return not_here.encode().into();
                }
            };
            let response = match (&request, agent) {
                (PeerRequest::Soft(message), Some(agent)) => {
                    if let Some(Message::Sighting(cell_id)) = Message::decode(&message.0) {
                        world.check(|it, at_ns| it.heard(at_ns, replica.id(), cell_id));
                    }
                    PeerResponse::Soft(Blob(agent.answer(&message.0).await.into()))
                }
                _ => replica.handle(request.clone()).await,
            };
            tell(&request, &response);
            let durable_log = disk.inspect_synced(Tables::highest);
            let on = DiskState { durable_log, failed_for: disk.failed_for() };
            world.check(|it, at_ns| it.answered(at_ns, replica.id(), &request, &response, on));
            response.encode().into()
        })
    })
}

/// Puts what is worth a line of the story into the trace.
fn tell(request: &PeerRequest, response: &PeerResponse) {
    if let PeerResponse::Failed(reason) = response {
        runtime::event_with("request_failed", &[], || reason.clone());
    }
    if let PeerResponse::Vote(voted) = response {
        let (names, ballot) = match request {
            PeerRequest::Vote(ballot) => (["vote_granted", "vote_refused"], ballot),
            PeerRequest::PreVote(ballot) => (["pre_vote_granted", "pre_vote_refused"], ballot),
            PeerRequest::AppendEntries(_)
            | PeerRequest::TransferLeader(_)
            | PeerRequest::SnapshotChunk(_)
            | PeerRequest::Propose(_)
            | PeerRequest::ReadIndex
            | PeerRequest::Soft(_)
            | PeerRequest::Introduce(_) => return,
        };
        let name = names[usize::from(!voted.granted)];
        runtime::event(name, &[("term", ballot.vote.term), ("to", ballot.vote.node)]);
    }
    if let (PeerRequest::SnapshotChunk(chunk), PeerResponse::Snapshot(received)) =
        (request, response)
    {
        let through = [("through", chunk.last_log_id.map_or(0, |id| id.index))];
        match received {
            SnapshotReceived::Installed(vote) if *vote == chunk.vote => {
                runtime::event("snapshot_installed", &through);
            }
            SnapshotReceived::Installed(_) => runtime::event("snapshot_of_old_leader", &through),
            SnapshotReceived::Refused(_) => runtime::event("snapshot_refused", &through),
            SnapshotReceived::More => runtime::event("snapshot_chunk", &through),
        }
    }
    if let (PeerRequest::TransferLeader(transfer), PeerResponse::TransferLeader(answer)) =
        (request, response)
    {
        let name = if answer.is_ok() { "leadership_taken" } else { "leadership_declined" };
        runtime::event(name, &[("to", transfer.to)]);
    }
}

/// A replica did not start: right where its disk has failed, or lost what it held.
fn not_started(world: &Arc<World>, id: NodeId, life: u64, disk: &Disk<Tables>, error: &StartError) {
    if let StartError::Forgotten { .. } = error
        && world.nodes().get(&id).is_some_and(|node| node.forgot)
    {
        runtime::event("forgetful_refused", &[("node", id)]);
        return world.restart(id, life);
    }
    ended(world, id, life, disk, &error.to_string());
}

/// A replica has stopped by itself: right after its disk failed, wrong otherwise. The process
/// ends with it, and is started again.
fn ended(world: &Arc<World>, id: NodeId, life: u64, disk: &Disk<Tables>, reason: &str) {
    runtime::event_with("replica_stopped", &[("node", id), ("life", life)], || reason.to_owned());
    if !disk.has_failed() {
        if world.has_lost(id) && reason.contains("checksum") {
            runtime::event("rot_found", &[("node", id)]);
            return world.replace(id);
        }
        world.violated("a replica with a good disk goes on", format!("node {id}: {reason}"));
    }
    world.restart(id, life);
}

impl World {
    /// A supervisor starts a node again, if this was its last life.
    fn restart(self: &Arc<Self>, id: NodeId, life: u64) {
        let world = self.clone();
        drop(runtime::spawn_in(Group::WORLD, async move {
            if world.nodes().get(&id).is_some_and(|node| node.lives == life) {
                world.reboot(id, limits::RESTART_AFTER_STOP);
            }
        }));
    }

    /// A replica has started on what its disk holds.
    fn check_start(&self, id: NodeId) {
        let rotten = self.nodes().get(&id).and_then(|node| {
            let rotten = node.rotten.as_ref()?;
            let is_read = node.disk.inspect(|tables| tables.is_rotten_at_a_start(rotten));
            is_read.then(|| rotten.to_string())
        });
        self.check(|checker, at_ns| checker.started(at_ns, id, rotten.as_deref()));
    }
}
