//! What clients do: commands of every kind through any node, and reads.
//!
//! A client looks at some node's state, which may be stale, and asks for something that would
//! make sense there. It waits for as long as it pleases; what it is not told is unknown.

use std::sync::Arc;
use std::time::Duration;

use model::{Millis, Proposal, codec};
use openraft_rt::AsyncRuntime;
use replica::NodeId;
use replica::replica::ProposeError;

use super::surroundings::request;
use super::{Scope, World};
use crate::check::{Shown, Whence};
use crate::history::End;
use crate::rng::Rng;
use crate::runtime::{self, SimRuntime};

pub(super) mod commands;

/// One client, until all is to be quiet.
pub(super) async fn client(world: Arc<World>, number: u64) {
    let mut rng = Rng::stream(world.seed, &format!("client-{number}"));
    let mut made = 0;
    while !world.is_quiet() {
        SimRuntime::sleep(rng.between(Duration::ZERO, world.mix.think_max)).await;
        let up = world.up();
        if up.is_empty() {
            continue;
        }
        let node = *rng.pick(&up);
        let patience = Duration::from_secs(*rng.pick(&[1, 4, 30]));
        if rng.below(10) < 7 {
            let Some((_, replica)) = world.replica(node) else { continue };
            made += 1;
            let name = format!("c{number}-{made}");
            let state = replica.read_stale().state;
            let commands = match world.scope {
                Scope::Replicas => (0..=rng.below(3))
                    .map(|n| commands::draw(&mut rng, &state, &format!("{name}-{n}")))
                    .collect(),
                Scope::Nodes => vec![commands::ask(&mut rng, &state, &name)],
            };
            let proposal = world.proposal(node, commands);
            world.propose(node, proposal, patience).await;
        } else {
            world.read(node, patience).await;
        }
    }
}

impl World {
    /// A proposal with the date of node `node`, which no other proposal has.
    pub(super) fn proposal(&self, node: NodeId, commands: Vec<model::Command>) -> Proposal {
        Proposal { at: self.date(node), commands }
    }

    /// The date by the clock of node `node`, to no two who ask the same.
    pub(super) fn date(&self, node: NodeId) -> Millis {
        /// The date at which every run begins, in milliseconds since the Unix epoch.
        const BEGINNING_MS: u64 = 1_700_000_000_000;
        let off = self.nodes().get(&node).map_or(0, |node| node.wall_off_ms);
        let elapsed = u64::try_from(runtime::true_time().as_millis()).unwrap_or(u64::MAX);
        let mut at = (BEGINNING_MS + elapsed).saturating_add_signed(off);
        let mut stamps = self.stamps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while !stamps.insert(at) {
            at += 1;
        }
        self.check(|checker, at_ns| checker.dated(at_ns, node, Millis(at)));
        Millis(at)
    }

    /// Proposes through a node, and writes down what came of it. Returns whether it was agreed.
    pub(super) async fn propose(
        &self,
        node: NodeId,
        proposal: Proposal,
        patience: Duration,
    ) -> bool {
        let bytes = codec::encode_proposal(&proposal);
        let id = self.check(|checker, at_ns| checker.history().begin_proposal(at_ns, bytes));
        let asked = match self.agent(node) {
            Some((group, agent)) => Some(runtime::spawn_in(group, request(agent, proposal))),
            None => self.at(node, |replica| async move { replica.propose(&proposal).await }),
        };
        let Some(asked) = asked else {
            self.check(|checker, _| checker.history().end(id, End::NotProposed));
            return false;
        };
        let (name, end) = match SimRuntime::timeout(patience, asked).await {
            Err(_gave_up) => {
                // What it comes to, nobody hears: the operation never ends.
                runtime::event("client_gave_up", &[("node", node)]);
                return false;
            }
            Ok(Ok(Ok(outcome))) => ("proposal_applied", End::Applied(outcome)),
            Ok(Ok(Err(ProposeError::NotProposed { .. } | ProposeError::TooLarge { .. }))) => {
                ("proposal_not_made", End::NotProposed)
            }
            Ok(Ok(Err(ProposeError::Unknown { .. })) | Err(_)) => {
                ("proposal_unknown", End::Unknown)
            }
        };
        runtime::event(name, &[("node", node)]);
        let applied = matches!(end, End::Applied(_));
        self.check(|checker, _| checker.history().end(id, end));
        applied
    }

    /// Reads through a node, and writes down what it saw.
    async fn read(&self, node: NodeId, patience: Duration) {
        let id = self.check(|checker, at_ns| checker.history().begin_read(at_ns));
        let asked = self.at(node, |replica| async move { replica.read_linearizable().await });
        let Some(asked) = asked else { return };
        let end = match SimRuntime::timeout(patience, asked).await {
            Err(_gave_up) => return runtime::event("client_gave_up", &[("node", node)]),
            Ok(Ok(Ok(reading))) => {
                let applied = reading.applied.expect("a linearizable read has seen an entry");
                let state = reading.state;
                let shown = Shown { node, whence: Whence::Read, applied, state };
                self.check(|checker, at_ns| checker.shown(at_ns, shown));
                runtime::event("read_done", &[("node", node), ("saw", applied)]);
                End::Saw(applied)
            }
            Ok(Ok(Err(_)) | Err(_)) => {
                runtime::event("read_failed", &[("node", node)]);
                End::Failed
            }
        };
        self.check(|checker, _| checker.history().end(id, end));
    }
}
