//! What operators do who see that something is lost: let newcomers in, and put a machine in the
//! place of one that is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft_rt::AsyncRuntime;
use replica::NodeId;
use replica::membership::ChangeError;

use super::World;
use super::node::{SimReplica, address};
use crate::limits;
use crate::runtime::{self, Group, SimRuntime};

impl World {
    /// A new machine, started and in nobody's record yet.
    pub(super) fn add_machine(self: &Arc<Self>) -> NodeId {
        let id = 1 + self.nodes().keys().copied().max().unwrap_or(0);
        self.add_node(id);
        self.start(id);
        id
    }

    /// Takes a node away for good, and has a new machine become a member in its place.
    pub(super) fn replace(self: &Arc<Self>, victim: NodeId) {
        self.retire(victim);
        if self.is_quiet() {
            return; // whoever mends everything removes it
        }
        let id = self.add_machine();
        let world = self.clone();
        drop(runtime::spawn_in(Group::WORLD, async move {
            while !world.is_quiet() && !world.replace_retired(id).await {
                World::pause(limits::HEAL_LOOK).await;
            }
        }));
    }

    /// Has a machine let in that may have to be waited for.
    pub(super) fn let_in(self: &Arc<Self>, id: NodeId, caught_up: bool) {
        let world = self.clone();
        drop(runtime::spawn_in(Group::WORLD, async move {
            for _ in 0..limits::JOIN_TRIES_MAX {
                World::pause(limits::JOIN_PAUSE).await;
                let Some(leader) = world.leader().filter(|_| !world.is_quiet()) else { continue };
                let asked = world.at(leader.id(), |replica| async move {
                    replica.add_learner(id, &address(id).address, caught_up).await
                });
                let Some(asked) = asked else { continue };
                match asked.await {
                    Ok(Ok(())) => return runtime::event("member_joined", &[]),
                    Ok(Err(ChangeError::Unknown(_))) | Err(_) => {
                        runtime::event("member_change_unknown", &[]);
                    }
                    Ok(Err(_)) => {
                        runtime::event("member_change_refused", &[]);
                    }
                }
            }
        }));
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
                (None, _) => replica.add_learner(id, &address(id).address, false).await,
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
}
