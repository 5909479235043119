//! The second phase: everything is mended, and the cluster must come right.
//!
//! It has come right when every member has had a command of its own agreed, and all of them show
//! the same entry, which is the last one agreed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Command, Intake, State};
use openraft_rt::AsyncRuntime;
use replica::NodeId;
use replica::status::Role;

use super::node::SimReplica;
use super::surroundings::cell_id;
use super::{Habits, Scope, World};
use crate::check::{Whence, converged};
use crate::disk::Wear;
use crate::limits;
use crate::network::Weather;
use crate::runtime::{self, SimRuntime};

const NAME: &str = "comes right";
const QUIET: &str = "a cluster with nothing to do is quiet";
const EMPTIES: &str = "an evacuated cell is soon empty";

impl World {
    /// Mends everything and waits. Returns how long it took, or none if it did not come right.
    pub(super) async fn heal(self: &Arc<Self>) -> Option<Duration> {
        if self.broken() {
            return None;
        }
        runtime::event("mended", &[]);
        self.check(|checker, _| checker.calm(false));
        self.network.with_links(|links| {
            links.mend_all();
            links.set_weather(Weather::FAIR);
        });
        self.set_registry_back(Duration::ZERO);
        let all: Vec<NodeId> = self.nodes().keys().copied().collect();
        for id in all {
            if self.nodes()[&id].forgot {
                self.retire(id);
            }
            self.nodes()[&id].disk.set_wear(Wear::NEW);
            self.nodes()[&id].disk.set_full(false);
            self.nodes()[&id].machine.set_habits(Habits::CALM);
            self.start(id);
        }
        let began = runtime::true_time();
        let came_right = SimRuntime::timeout(limits::HEAL_MAX, self.come_right()).await;
        if came_right.is_ok() && self.scope == Scope::Nodes {
            self.check(|checker, _| checker.calm(true));
            self.converge().await;
            self.empty_each().await;
            self.settle().await;
        }
        let took = runtime::true_time() - began;
        if self.broken() {
            return None;
        }
        if came_right.is_err() {
            let what = format!("not within {} s: {}", took.as_secs(), self.describe());
            self.violated(NAME, what);
            return None;
        }
        for id in self.up() {
            if let Some((_, replica)) = self.replica(id) {
                self.show(&replica, Whence::Newest);
            }
        }
        runtime::event("came_right", &[("ms", u64::try_from(took.as_millis()).unwrap_or(0))]);
        Some(took)
    }

    async fn come_right(self: &Arc<Self>) {
        let mut probed = BTreeMap::new();
        while !self.broken() {
            Self::pause(limits::HEAL_LOOK).await;
            if !self.remove_retired().await {
                continue;
            }
            let Some(members) = self.members() else { continue };
            let Some(id) = members.iter().find(|id| !probed.contains_key(*id)) else {
                if self.agree(&members) {
                    return;
                }
                continue;
            };
            if let Some(number) = self.probe(*id).await {
                probed.insert(*id, number);
            }
        }
    }

    /// Removes members that are gone for good, and stops nodes that are members no longer. Returns
    /// whether there were none.
    async fn remove_retired(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let members: BTreeSet<NodeId> = leader.status().members.iter().map(|it| it.id).collect();
        if let Some(id) = members.iter().find(|id| !self.is_retired(**id)) {
            let is_whole = members.iter().all(|id| !self.is_retired(*id));
            if !is_whole {
                self.replace_retired(*id).await;
                return false;
            }
        }
        for id in self.alive() {
            if !members.contains(&id) {
                runtime::event("stranger_stopped", &[("node", id)]);
                self.retire(id);
            }
        }
        true
    }

    /// Waits until all members show the last entry agreed, and the checkers know that it is.
    async fn settle(&self) {
        let until = runtime::true_time() + limits::HEAL_MAX;
        while !self.broken() && !self.members().is_some_and(|members| self.agree(&members)) {
            if runtime::true_time() > until {
                self.violated(NAME, format!("nothing is asked, and still: {}", self.describe()));
            }
            Self::pause(limits::HEAL_LOOK).await;
        }
    }

    /// Waits until what runs is what is desired.
    async fn converge(&self) {
        let limit = match self.sabotage {
            None => limits::CONVERGE_MAX,
            Some(_) => limits::CONVERGE_SABOTAGED_MAX,
        };
        let until = runtime::true_time() + limit;
        while !self.broken() {
            self.open_all().await;
            let state = self.checker().agreed_state();
            let reasons = self.reasons(&state).await;
            let Err(what) = converged::check(&state, &self.cells(), &reasons) else {
                for _ in reasons {
                    runtime::event("instance_without_room", &[]);
                }
                return self.check_that_events_told_all();
            };
            if runtime::true_time() > until {
                let limit_s = limit.as_secs();
                self.violated(converged::NAME, format!("not within {limit_s} s: {what}"));
            }
            Self::pause(limits::HEAL_LOOK).await;
        }
    }

    /// Why instances wait, as people are told who ask some node.
    async fn reasons(&self, state: &State) -> converged::Reasons {
        let mut reasons = converged::Reasons::new();
        let waiting: BTreeSet<_> = state.unclaimed().map(|(guid, _)| guid.clone()).collect();
        let Some(asked) = self.up().first().and_then(|id| self.agent(*id)) else { return reasons };
        for guid in waiting {
            let (group, agent) = asked.clone();
            let process_guid = guid.clone();
            let answer = async move { agent.waiting_lrps(process_guid).await };
            let waits = runtime::spawn_in(group, answer).await.unwrap_or_default();
            reasons.extend(waits.into_iter().map(|(index, wait)| ((guid.clone(), index), wait)));
        }
        reasons
    }

    /// Upgrades the cluster as its operator would on a good day: each cell in turn is empty before
    /// its time is up, and all runs as desired when it has work again.
    async fn empty_each(&self) {
        // Where some wait for room, an emptied cell's would as well.
        let has_room = self.checker().agreed_state().unclaimed().next().is_none();
        let has_spare = self.mix.cell_memory_mb >= limits::CELL_MEMORY_AMPLE_MB;
        for id in self.up().into_iter().filter(|_| has_room && has_spare) {
            let evacuate =
                Command::EvacuateCell { cell_id: cell_id(id), timeout: limits::EVACUATION_TIMEOUT };
            self.insist(id, evacuate).await;
            let until = runtime::true_time() + limits::EVACUATE_MAX;
            while !self.broken() && !self.is_empty(id) {
                if runtime::true_time() > until {
                    let limit_s = limits::EVACUATE_MAX.as_secs();
                    self.violated(EMPTIES, format!("cell {id} has work after {limit_s} s"));
                }
                Self::pause(limits::HEAL_LOOK).await;
            }
            self.check_that_it_is_quiet().await;
            self.insist(id, Command::OpenCell { cell_id: cell_id(id) }).await;
        }
        self.converge().await;
    }

    /// What is asked once is not asked again and again.
    async fn check_that_it_is_quiet(&self) {
        let before = self.checker().idle();
        Self::pause(limits::QUIET).await;
        let idle = self.checker().idle() - before;
        if idle > limits::QUIET_ENTRIES_MAX {
            let quiet_s = limits::QUIET.as_secs();
            self.violated(QUIET, format!("{idle} entries in {quiet_s} s changed nothing"));
        }
    }

    /// As long as it takes, in good weather.
    async fn insist(&self, id: NodeId, command: Command) {
        while !self.broken() && !self.order(id, command.clone()).await {
            Self::pause(limits::HEAL_LOOK).await;
        }
    }

    /// Has a command agreed and accepted through node `id`, as an operator who can wait.
    pub(super) async fn order(&self, id: NodeId, command: Command) -> bool {
        let proposal = self.proposal(id, vec![command]);
        self.propose(id, proposal, limits::OPERATOR_PATIENCE).await
    }

    /// Whether nothing is placed on a node's cell, as far as all agree.
    pub(super) fn is_empty(&self, id: NodeId) -> bool {
        let state = self.checker().agreed_state();
        state.load(&cell_id(id)).is_none_or(|load| load.containers == 0)
    }

    /// Gives all cells work again: what was ordered before everything was mended.
    async fn open_all(&self) {
        let Some(leader) = self.leader() else { return };
        let state = self.checker().agreed_state();
        for cell in state.cells().filter(|cell| cell.intake != Intake::Open) {
            let open = Command::OpenCell { cell_id: cell.cell_id.clone() };
            self.order(leader.id(), open).await;
        }
    }

    /// No leader found only by its sweep what an event should have told it.
    fn check_that_events_told_all(&self) {
        let nodes = self.nodes();
        let agents = nodes.iter().filter_map(|(id, node)| Some((id, node.life.as_ref()?)));
        let overlooked: Vec<(NodeId, u64)> = agents
            .filter_map(|(id, life)| Some((*id, life.agent.as_ref()?.overlooked())))
            .filter(|(_, overlooked)| *overlooked > 0)
            .collect();
        drop(nodes);
        if !overlooked.is_empty() {
            self.violated("events tell all", format!("found by sweeps, by node: {overlooked:?}"));
        }
    }

    /// The containers of every node that belongs to the cluster.
    fn cells(&self) -> converged::Cells {
        let nodes = self.nodes();
        let alive = nodes.iter().filter(|(_, node)| !node.retired);
        alive.map(|(id, node)| (cell_id(*id), node.machine.containers())).collect()
    }

    /// The members that the leader knows of, if there is one and all of them are up.
    fn members(&self) -> Option<Vec<NodeId>> {
        let up = self.up();
        let members: Vec<NodeId> =
            self.leader()?.status().members.iter().map(|member| member.id).collect();
        members.iter().all(|id| up.contains(id)).then_some(members)
    }

    /// Has a command agreed through node `id`.
    async fn probe(self: &Arc<Self>, id: NodeId) -> Option<()> {
        let proposal = self.proposal(id, vec![Command::InitCluster { salt: 1 }]);
        let answer = self.propose(id, proposal, limits::HEAL_MAX).await;
        answer.then_some(())
    }

    /// Whether all members show the last entry agreed.
    fn agree(&self, members: &[NodeId]) -> bool {
        let agreed = self.checker().agreed();
        let shows =
            |id: &NodeId| self.replica(*id).is_some_and(|(_, r)| r.read_stale().applied == agreed);
        agreed.is_some() && members.iter().all(shows)
    }

    /// The replica that leads, as far as it knows: of two, the one of the later term.
    pub(super) fn leader(&self) -> Option<SimReplica> {
        let replicas = self.up().into_iter().filter_map(|id| self.replica(id));
        replicas
            .map(|(_, replica)| (replica.status(), replica))
            .filter(|(status, _)| status.role == Role::Leader)
            .max_by_key(|(status, _)| status.term)
            .map(|(_, replica)| replica)
    }

    /// How every node stands, in a line each.
    fn describe(&self) -> String {
        let mut lines = vec![format!("agreed through {:?}", self.checker().agreed())];
        let ids: Vec<NodeId> = self.nodes().keys().copied().collect();
        for id in ids {
            lines.push(match self.replica(id) {
                None => format!("node {id} is down"),
                Some((_, replica)) => {
                    let s = replica.status();
                    let members: Vec<String> = s
                        .members
                        .iter()
                        .map(|m| format!("{}{}", m.id, if m.voter { "v" } else { "l" }))
                        .collect();
                    format!(
                        "node {id} is {:?} of term {}, leader {:?}, last {:?}, committed {:?}, \
                         applied {:?}, joint {}, members {}",
                        s.role,
                        s.term,
                        s.leader,
                        s.last_log,
                        s.committed,
                        s.applied,
                        s.joint,
                        members.join(" ")
                    )
                }
            });
        }
        lines.join("\n    ")
    }
}
