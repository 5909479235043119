//! One node of the world: a replica with its disk, clock and lives.
//!
//! A life is one task group and one hold on the disk. It ends in a crash at whatever point its
//! tasks are: the power goes first, then the network, then the tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use agent::soft::Message;
use openraft_rt::AsyncRuntime;
use replica::peers::{PeerRequest, PeerResponse, SnapshotReceived};
use replica::wire::Blob;
use replica::{Node, NodeId, Replica};

use super::disk::{SimDisk, Tables};
use super::machine::Machine;
use super::peers::SimPeers;
use super::surroundings::{self, SimAgent, Surroundings};
use super::{Bytes, Scope, World};
use crate::check::{Shown, Whence};
use crate::disk::Disk;
use crate::limits;
use crate::network::Handler;
use crate::runtime::{self, Clock, Group, JoinHandle, SimRuntime};

/// A replica on everything simulated.
pub(super) type SimReplica = Replica<SimRuntime, SimDisk, SimPeers>;

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
    Node { name: format!("node-{id}"), address: format!("10.0.0.{id}:1") }
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

    /// Whether a node is gone for good.
    pub(super) fn is_retired(&self, id: NodeId) -> bool {
        self.nodes().get(&id).is_some_and(|node| node.retired)
    }

    /// One step of an operator who removes members that are gone for good and has node `id` vote
    /// instead. Returns whether all is done, as far as the leader knows.
    pub(super) async fn replace_retired(&self, id: NodeId) -> bool {
        let Some(leader) = self.leader() else { return false };
        let status = leader.status();
        let gone = status.members.iter().find(|member| self.is_retired(member.id)).map(|m| m.id);
        let newcomer = status.members.iter().find(|member| member.id == id).map(|m| m.voter);
        let change = move |replica: SimReplica| async move {
            match (newcomer, gone) {
                (None, _) => replica.add_learner(id, address(id), false).await,
                (Some(false), _) => replica.promote(BTreeSet::from([id])).await,
                (Some(true), Some(gone)) => replica.remove(BTreeSet::from([gone])).await,
                (Some(true), None) => Ok(()),
            }
        };
        let is_done = (gone, newcomer) == (None, Some(true));
        if !is_done && let Some(asked) = self.at(leader.id(), change) {
            let changed = SimRuntime::timeout(limits::OPERATOR_PATIENCE, asked).await;
            if let Ok(Ok(Ok(()))) = changed {
                let name = match newcomer {
                    None => "member_joined",
                    Some(false) => "member_promoted",
                    Some(true) => "member_removed",
                };
                runtime::event(name, &[]);
            }
        }
        is_done || self.is_retired(id)
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
    let peers = Arc::new(SimPeers::new(id, world.clone()));
    let config = world.mix.config(id);
    let replica = match Replica::start(&config, Arc::new(SimDisk(disk.clone())), peers).await {
        Ok(replica) => replica,
        Err(error) => return ended(&world, id, life, &disk, &error.to_string()),
    };
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
    if id <= world.mix.voters {
        let members: BTreeMap<NodeId, Node> =
            (1..=world.mix.voters).map(|id| (id, address(id))).collect();
        if let Err(error) = replica.initialize(members).await
            && !disk.has_failed()
        {
            world.violated("a first member initialises", format!("node {id}: {error}"));
        }
    }
    follow(&world, &replica).await;
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
            let request = PeerRequest::decode(&bytes).expect("a replica encoded these bytes");
            let response = match (&request, agent) {
                (PeerRequest::Soft(message), Some(agent)) => {
                    if let Some(Message::Sighting(cell_id)) = Message::decode(&message.0) {
                        world.check(|it, at_ns| it.heard(at_ns, replica.id(), cell_id));
                    }
                    PeerResponse::Soft(Blob(agent.answer(&message.0).into()))
                }
                _ => replica.handle(request.clone()).await,
            };
            tell(&request, &response);
            let durable_log = disk.inspect_synced(Tables::highest);
            world.check(|checker, at_ns| {
                checker.answered(at_ns, replica.id(), &request, &response, durable_log);
            });
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
            | PeerRequest::Soft(_) => return,
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

/// A replica has stopped by itself: right after its disk failed, wrong otherwise. The process
/// ends with it, and is started again.
fn ended(world: &Arc<World>, id: NodeId, life: u64, disk: &Disk<Tables>, reason: &str) {
    runtime::event("replica_stopped", &[("node", id), ("life", life)]);
    if !disk.has_failed() {
        world.violated("a replica with a good disk goes on", format!("node {id}: {reason}"));
    }
    let world = world.clone();
    drop(runtime::spawn_in(Group::WORLD, async move {
        if world.nodes().get(&id).is_some_and(|node| node.lives == life) {
            world.reboot(id, limits::RESTART_AFTER_STOP);
        }
    }));
}
