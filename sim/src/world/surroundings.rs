//! What a simulated node's agent finds around it, and how people speak to the agent.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use agent::world::CallbackError;
use agent::{Agent, RequestError};
use model::{Capacity, Cell, CellHealth, CellId, Millis, Outcome, Proposal, Task};
use replica::NodeId;
use replica::replica::ProposeError;

use super::World;
use super::disk::SimDisk;
use super::machine::{Machine, SimContainers};
use super::peers::SimPeers;
use crate::runtime::SimRuntime;

/// An agent on everything simulated.
pub(super) type SimAgent = Agent<Surroundings>;

/// The world as one life of a node has it.
pub(super) struct Surroundings {
    containers: SimContainers,
    /// The date that the next look at the clock shows: that of a client's proposal.
    date: Mutex<Option<Millis>>,
}

impl Surroundings {
    pub(super) fn new(me: NodeId, world: Arc<World>, machine: Arc<Machine>) -> Self {
        Self { containers: SimContainers { me, world, machine }, date: Mutex::default() }
    }
}

impl agent::World for Surroundings {
    type Runtime = SimRuntime;
    type Disk = SimDisk;
    type Peers = SimPeers;
    type Containers = SimContainers;

    /// Never the same twice, so that no two proposals have the same bytes.
    fn now(&self) -> Millis {
        let date = self.date.lock().unwrap_or_else(PoisonError::into_inner).take();
        date.unwrap_or_else(|| self.containers.world.date(self.containers.me))
    }

    fn settings(&self) -> plan::Settings {
        let starting_container_count_maximum = self.containers.world.mix.starting_max;
        plan::Settings { starting_container_count_maximum, ..plan::Settings::default() }
    }

    fn containers(&self) -> &SimContainers {
        &self.containers
    }

    async fn call_back(&self, task: &Task) -> Result<u16, CallbackError> {
        let SimContainers { machine, world, .. } = &self.containers;
        machine.call_back(world, task).await
    }
}

/// The name of node `id` as a cell.
pub(super) fn cell_id(id: NodeId) -> CellId {
    CellId::from(format!("cell-{id}"))
}

/// What node `id` offers as a cell: room for all that clients desire at once.
pub(crate) fn cell(id: NodeId) -> Cell {
    Cell {
        cell_id: cell_id(id),
        node_id: id,
        address: Ipv4Addr::LOCALHOST,
        zone: format!("z{}", id % 2).into(),
        capacity: Capacity { memory_mb: 8192, disk_mb: 8192, containers: 250 },
        rootfs_providers: ["preloaded", "docker"].map(model::RootfsProvider::arbitrary).into(),
        volume_drivers: Vec::new(),
        rep_url: String::new(),
        intake: model::Intake::Open,
        placement_tags: Vec::new(),
        optional_placement_tags: Vec::new(),
        health: CellHealth::Present,
    }
}

/// Has a client's one command agreed through an agent, on the date of the proposal.
pub(super) async fn request(agent: SimAgent, proposal: Proposal) -> Result<Outcome, ProposeError> {
    let [command] = <[_; 1]>::try_from(proposal.commands).expect("a request is one command");
    *agent.world().date.lock().unwrap_or_else(PoisonError::into_inner) = Some(proposal.at);
    match agent.propose(command).await {
        Ok(changed) => Ok(Outcome(vec![Ok(changed)])),
        Err(RequestError::Refused(refusal)) => Ok(Outcome(vec![Err(refusal)])),
        Err(RequestError::NotAgreed(error)) => Err(error),
    }
}
