//! What goes wrong, one thing after another, until the first phase is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{Command, Millis};
use replica::NodeId;
use replica::membership::ChangeError;

use openraft_rt::AsyncRuntime;

use super::node::SimReplica;
use super::surroundings::{cell, cell_id};
use super::{Fault, World, either_way};
use crate::disk::Wear;
use crate::limits;
use crate::network::{Links, Weather};
use crate::rng::{PerMillion, Rng};
use crate::runtime::{self, Group, SimRuntime};

const HALF: PerMillion = PerMillion(500_000);

/// Draws the faults of a run.
pub(super) struct Nemesis {
    world: Arc<World>,
    rng: Rng,
}

impl Nemesis {
    pub(super) fn new(world: Arc<World>) -> Self {
        let rng = Rng::stream(world.seed, "nemesis");
        Self { world, rng }
    }

    /// Breaks things for as long as the mix says, or until something is found. Each fault draws
    /// from a stream of its own: a shrunk run can leave one out and keep the others as they are.
    pub(super) async fn rage(mut self) {
        let until = runtime::true_time() + self.world.mix.break_for;
        for number in 1.. {
            self.rng = Rng::stream(self.world.seed, &format!("fault-{number}"));
            let pause = self.rng.between(Duration::ZERO, self.world.mix.pause_max);
            let left = until.saturating_sub(runtime::true_time());
            World::pause(pause.min(left)).await;
            if runtime::true_time() >= until || self.world.broken() {
                return;
            }
            self.world.faults.store(number, Ordering::Relaxed);
            let fault = self.choose();
            if self.world.skip.contains(&number) {
                continue;
            }
            match fault {
                Fault::Cut => self.cut(),
                Fault::Flap => self.flap(),
                Fault::Mend => self.mend(),
                Fault::Crash => self.crash(),
                Fault::Zone => self.zone(),
                Fault::Transfer => self.transfer(),
                Fault::Change => self.change(),
                Fault::Jump => self.jump(),
                Fault::Full => self.full(),
                Fault::Members => self.members(),
                Fault::Replace => self.replace(),
                Fault::Forget => self.forget(),
                Fault::Rot => self.rot(),
                Fault::Registry => self.registry(),
                Fault::Kill => self.kill(),
                Fault::Evacuate => self.evacuate(),
                Fault::Upgrade => self.upgrade(),
            }
        }
    }

    fn choose(&mut self) -> Fault {
        let weights = &self.world.mix.weights;
        let sum: u64 = weights.values().sum();
        // Mending is all that is left of a run without faults.
        let mut draw = self.rng.below(sum.max(1));
        for (fault, weight) in weights {
            if draw < *weight {
                return *fault;
            }
            draw -= weight;
        }
        Fault::Mend
    }

    fn all(&self) -> Vec<NodeId> {
        let nodes = self.world.nodes();
        nodes.iter().filter(|(_, node)| !node.retired).map(|(id, _)| *id).collect()
    }

    fn cut(&mut self) {
        let mut all = self.all();
        self.rng.shuffle(&mut all);
        let leader = self.world.leader().map(|replica| replica.id());
        let (name, cuts): (&'static str, Vec<(NodeId, NodeId)>) = match self.rng.below(4) {
            0 => {
                let (some, others) = all.split_at(1 + self.rng.index(all.len() - 1));
                let across =
                    |a: &NodeId| others.iter().flat_map(|b| [(*a, *b), (*b, *a)]).collect();
                ("split", some.iter().flat_map(|a| -> Vec<_> { across(a) }).collect())
            }
            1 => {
                let lonely = leader.unwrap_or(all[0]);
                let around = |b: &NodeId| [(lonely, *b), (*b, lonely)];
                ("isolated", all.iter().filter(|b| **b != lonely).flat_map(around).collect())
            }
            2 => {
                let deaf = if self.rng.chance(HALF) { leader.unwrap_or(all[0]) } else { all[0] };
                let others = all.iter().filter(|b| **b != deaf);
                if self.rng.chance(HALF) {
                    ("deafened", others.map(|b| (*b, deaf)).collect())
                } else {
                    ("muted", others.map(|b| (deaf, *b)).collect())
                }
            }
            _ => {
                let mut one_way = Vec::new();
                for from in &all {
                    for to in &all {
                        if from != to && self.rng.chance(PerMillion(250_000)) {
                            one_way.push((*from, *to));
                        }
                    }
                }
                ("tangled", one_way)
            }
        };
        runtime::event(name, &[("links", cuts.len() as u64)]);
        self.world.network.with_links(|links| {
            if self.rng.chance(HALF) {
                links.mend_all(); // otherwise it comes on top of what is cut already
            }
            cuts.iter().for_each(|(from, to)| links.cut(*from, *to));
        });
    }

    /// One link, both ways, goes and comes back many times: a cable half out.
    fn flap(&mut self) {
        let mut all = self.all();
        self.rng.shuffle(&mut all);
        let leader = self.world.leader().map(|replica| replica.id());
        let one = leader.filter(|_| self.rng.chance(HALF)).unwrap_or(all[0]);
        let Some(other) = all.into_iter().find(|id| *id != one) else { return };
        let (world, mut rng) = (self.world.clone(), self.rng.clone());
        runtime::event("flapping", &[("one", one), ("other", other)]);
        drop(runtime::spawn_in(Group::WORLD, async move {
            for _ in 0..=rng.below(10) {
                for is_cut in [true, false] {
                    if world.is_quiet() {
                        return;
                    }
                    world.network.with_links(|links| {
                        for (from, to) in [(one, other), (other, one)] {
                            if is_cut { links.cut(from, to) } else { links.mend(from, to) }
                        }
                    });
                    World::pause(rng.between(Duration::ZERO, Duration::from_secs(2))).await;
                }
            }
        }));
    }

    fn mend(&mut self) {
        runtime::event("links_mended", &[]);
        self.world.network.with_links(Links::mend_all);
    }

    fn crash(&mut self) {
        let mut victims = self.all();
        self.rng.shuffle(&mut victims);
        let leader = self.world.leader().map(|replica| replica.id());
        match (self.rng.below(8), leader) {
            (0, _) => runtime::event("crash_of_all", &[]),
            (1..=3, Some(leader)) => {
                runtime::event("crash_of_leader", &[]);
                victims = vec![leader];
            }
            (4, _) => victims.truncate(victims.len().div_ceil(2)),
            _ => victims.truncate(1),
        }
        let together = self.rng.between(Duration::ZERO, Duration::from_secs(5));
        for id in victims {
            let apart = self.rng.between(Duration::ZERO, Duration::from_secs(10));
            let pause = if self.rng.chance(HALF) { together } else { apart };
            self.world.reboot(id, pause);
        }
    }

    /// A whole zone is without power.
    fn zone(&mut self) {
        let all = self.all();
        let zone = cell(*self.rng.pick(&all)).zone;
        let pause = self.rng.between(Duration::from_secs(1), Duration::from_secs(60));
        runtime::event("zone_lost", &[]);
        for id in all.into_iter().filter(|id| cell(*id).zone == zone) {
            self.world.reboot(id, pause);
        }
    }

    /// A clock's date is set anew, right or wrong.
    fn jump(&mut self) {
        let id = *self.rng.pick(&self.all());
        let off_ms = either_way(&mut self.rng, 60_000);
        runtime::event("clock_jumped", &[("node", id)]);
        if let Some(node) = self.world.nodes().get_mut(&id) {
            node.wall_off_ms = off_ms;
        }
    }

    /// A disk is full until somebody makes room.
    fn full(&mut self) {
        let id = *self.rng.pick(&self.all());
        let disk = self.world.nodes()[&id].disk.clone();
        let takes = self.rng.between(Duration::from_secs(1), Duration::from_secs(20));
        disk.set_full(true);
        drop(runtime::spawn_in(Group::WORLD, async move {
            SimRuntime::sleep(takes).await;
            disk.set_full(false);
        }));
    }

    fn transfer(&mut self) {
        let Some(leader) = self.world.leader() else { return };
        let to = *self.rng.pick(&self.all());
        runtime::event("transfer_asked", &[("from", leader.id()), ("to", to)]);
        drop(self.world.at(leader.id(), |replica| async move {
            let name = match replica.transfer_leadership(to).await {
                Ok(()) => "transfer_done",
                Err(ChangeError::Unknown(_)) => "transfer_unknown",
                Err(_) => "transfer_refused",
            };
            runtime::event(name, &[]);
        }));
    }

    fn change(&mut self) {
        runtime::event("weather_changed", &[]);
        let weather = Weather::draw(&mut self.rng);
        self.world.network.with_links(|links| links.set_weather(weather));
        for node in self.world.nodes().values() {
            node.disk.set_wear(Wear::draw(&mut self.rng));
        }
    }

    /// No image comes for a while, wherever a container is to be made.
    fn registry(&mut self) {
        let takes = self.rng.between(Duration::from_secs(15), Duration::from_secs(300));
        runtime::event("registry_away", &[]);
        self.world.set_registry_back(runtime::true_time() + takes);
    }

    fn kill(&mut self) {
        let victim = *self.rng.pick(&self.all());
        let machine = self.world.nodes()[&victim].machine.clone();
        machine.kill_one(&mut self.rng);
    }

    fn members(&mut self) {
        let Some(leader) = self.world.leader() else { return };
        let members = leader.status().members;
        let voters: Vec<NodeId> = members.iter().filter(|m| m.voter).map(|m| m.id).collect();
        let learners: Vec<NodeId> = members.iter().filter(|m| !m.voter).map(|m| m.id).collect();
        match self.rng.below(4) {
            0 if members.len() < limits::MEMBERS_MAX => self.join(),
            1 if !learners.is_empty() => {
                let id = *self.rng.pick(&learners);
                self.ask(&leader, "promote", move |replica| async move {
                    replica.promote(BTreeSet::from([id])).await
                });
            }
            2 if voters.len() > limits::VOTERS_MIN => {
                let id = *self.rng.pick(&voters);
                self.ask(&leader, "demote", move |replica| async move {
                    replica.demote(BTreeSet::from([id])).await
                });
            }
            3 if members.len() > limits::VOTERS_MIN => {
                let id = members[self.rng.index(members.len())].id;
                if voters.contains(&id) && voters.len() <= limits::VOTERS_MIN {
                    return;
                }
                self.remove(&leader, id);
            }
            _ => {}
        }
    }

    fn join(&mut self) {
        let id = self.world.add_machine();
        self.world.let_in(id, self.rng.chance(HALF));
    }

    fn remove(&mut self, leader: &SimReplica, id: NodeId) {
        let asked = self.world.at(leader.id(), |replica| async move {
            let removed = replica.remove(BTreeSet::from([id])).await;
            tell("remove", &removed);
            removed.is_ok()
        });
        let Some(asked) = asked else { return };
        let world = self.world.clone();
        drop(runtime::spawn_in(Group::WORLD, async move {
            if asked.await == Ok(true) {
                world.retire(id);
            }
        }));
    }

    /// A machine burns with its disk. Its operator removes it and puts a new one in its place.
    fn replace(&mut self) {
        let Some(victim) = self.dispensable() else { return };
        runtime::event("burned", &[("node", victim)]);
        self.world.replace(victim);
    }

    /// A disk is emptied, and the node starts on it under its old number, over and over, until its
    /// operator sees it and puts a new machine in its place.
    fn forget(&mut self) {
        let Some(victim) = self.dispensable() else { return };
        runtime::event("forgot", &[("node", victim)]);
        let pause = self.rng.between(Duration::ZERO, Duration::from_secs(5));
        self.world.forget(victim, pause);
        let unseen = self.rng.between(Duration::ZERO, Duration::from_secs(30));
        let world = self.world.clone();
        drop(runtime::spawn_in(Group::WORLD, async move {
            World::pause(pause + unseen).await;
            world.replace(victim);
        }));
    }

    /// A bit flips for good. The node that finds it stops, and is replaced.
    fn rot(&mut self) {
        if let Some(victim) = self.dispensable() {
            self.world.rot(victim);
        }
    }

    /// A member that the cluster can lose: none where another is lost, whether anybody knows it or
    /// not, and not replaced yet. Two could be more than it has to spare.
    fn dispensable(&mut self) -> Option<NodeId> {
        let status = self.world.leader()?.status();
        let members: Vec<NodeId> = status.members.iter().map(|m| m.id).collect();
        let is_whole =
            members.iter().all(|id| !self.world.is_retired(*id) && !self.world.has_lost(*id));
        let voters = status.members.iter().filter(|member| member.voter).count();
        let victim = *self.rng.pick(&members);
        (is_whole && !status.joint && voters >= limits::VOTERS_MIN).then_some(victim)
    }

    /// Some operator empties a cell, or gives one work again.
    fn evacuate(&mut self) {
        let cell_id = cell_id(*self.rng.pick(&self.all()));
        let command = if self.rng.chance(HALF) {
            Command::EvacuateCell { cell_id, timeout: evacuation_timeout(&mut self.rng) }
        } else {
            Command::OpenCell { cell_id }
        };
        let (world, through) = (self.world.clone(), *self.rng.pick(&self.all()));
        drop(runtime::spawn_in(Group::WORLD, async move {
            world.order(through, command).await;
        }));
    }

    /// Empties each node, starts it anew and gives it work again, one after the other; two such
    /// operators at a time know nothing of each other.
    fn upgrade(&mut self) {
        runtime::event("upgrade_began", &[]);
        let (world, nodes) = (self.world.clone(), self.all());
        let timeout = evacuation_timeout(&mut self.rng);
        drop(runtime::spawn_in(Group::WORLD, async move {
            for id in nodes {
                let evacuate = Command::EvacuateCell { cell_id: cell_id(id), timeout };
                if !world.order(id, evacuate).await {
                    return; // an operator's script gives up at the first failure
                }
                while !world.is_empty(id) {
                    if world.is_quiet() || world.is_retired(id) {
                        return;
                    }
                    World::pause(limits::HEAL_LOOK).await;
                }
                world.reboot(id, Duration::from_secs(1));
                let open = Command::OpenCell { cell_id: cell_id(id) };
                while !world.is_quiet() && !world.order(id, open.clone()).await {
                    World::pause(limits::HEAL_LOOK).await;
                }
            }
            runtime::event("upgrade_done", &[]);
        }));
    }

    fn ask<F>(
        &self,
        leader: &SimReplica,
        what: &'static str,
        change: impl FnOnce(SimReplica) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), ChangeError>> + Send,
    {
        drop(self.world.at(leader.id(), |replica| async move {
            tell(what, &change(replica).await);
        }));
    }
}

/// Too short for most, long enough for many, or longer than a run.
fn evacuation_timeout(rng: &mut Rng) -> Millis {
    Millis::from_secs(*rng.pick(&[1, 15, 120]))
}

fn tell(what: &'static str, changed: &Result<(), ChangeError>) {
    let done = match what {
        "join" => "member_joined",
        "promote" => "member_promoted",
        "demote" => "member_demoted",
        _ => "member_removed",
    };
    let name = match changed {
        Ok(()) => done,
        Err(ChangeError::Unknown(_)) => "member_change_unknown",
        Err(_) => "member_change_refused",
    };
    runtime::event(name, &[]);
}
