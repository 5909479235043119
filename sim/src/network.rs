//! The simulated network: calls between nodes, whose requests and answers each meet the weather.
//!
//! A request runs in the task group of the node called, so it dies with that node; an answer
//! that cannot come any more either leaves the caller waiting or tells it, as the weather has it.
//! A request can be handled twice, and an answer can be lost after the request was carried out.

pub mod links;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, OneshotSender as _};

pub use self::links::{Fate, Links, NodeId, Weather};
use crate::runtime::{self, Group, Oneshot, OneshotSender, SimRuntime};

/// What a node does with a request.
pub type Handler<Q, A> =
    Arc<dyn Fn(NodeId, Q) -> Pin<Box<dyn Future<Output = A> + Send>> + Send + Sync>;

/// How often a request may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// At most once, as over a connection that is not taken up again.
    Once,
    /// Twice, if the weather has it so: for requests that must bear it.
    PerhapsTwice,
}

/// Why a call brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request did not reach the node, which the caller can know.
    #[error("node {0} cannot be reached")]
    Unreachable(NodeId),
    /// The connection broke: the request may have been carried out.
    #[error("the connection to node {0} was reset")]
    Reset(NodeId),
}

/// A network that carries requests `Q` and answers `A`. Clones are the same network.
pub struct Network<Q, A>(Arc<Mutex<Inner<Q, A>>>);

struct Inner<Q, A> {
    links: Links,
    nodes: BTreeMap<NodeId, (Group, Handler<Q, A>)>,
}

impl<Q, A> Clone for Network<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q, A> fmt::Debug for Network<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Network").finish_non_exhaustive()
    }
}

/// The caller's slot for an answer: the first one that arrives takes it.
type Slot<A> = Arc<Mutex<Option<OneshotSender<A>>>>;

impl<Q, A> Network<Q, A>
where
    Q: Clone + Send + 'static,
    A: Clone + Send + 'static,
{
    /// A network over these links, with no node on it.
    pub fn new(links: Links) -> Self {
        Self(Arc::new(Mutex::new(Inner { links, nodes: BTreeMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<Q, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a node on the network: from now on its requests are handled in `group`.
    pub fn attach(&self, node: NodeId, group: Group, handler: Handler<Q, A>) {
        self.lock().nodes.insert(node, (group, handler));
    }

    /// Takes a node off the network, before it is killed: nothing reaches it any more.
    pub fn detach(&self, node: NodeId) {
        let gone = self.lock().nodes.remove(&node);
        drop(gone); // its handler may hold the node
    }

    /// Changes links or weather.
    pub fn with_links<T>(&self, change: impl FnOnce(&mut Links) -> T) -> T {
        change(&mut self.lock().links)
    }

    /// Sends a request and waits for the answer: for ever, if that is lost and the weather tells
    /// nobody. Callers bring their own timeout.
    ///
    /// # Errors
    /// The caller was told that no answer will come.
    pub async fn call(
        &self,
        from: NodeId,
        to: NodeId,
        request: Q,
        delivery: Delivery,
    ) -> Result<A, CallError> {
        let (sender, receiver) = <Oneshot as openraft_rt::Oneshot>::channel();
        let slot: Slot<A> = Arc::new(Mutex::new(Some(sender)));
        let delivered = self.carry(from, to, delivery, {
            let (network, slot) = (self.clone(), slot.clone());
            move || network.deliver(from, to, request.clone(), &slot)
        });
        drop(slot); // held from here on by what is on its way only
        match receiver.await {
            Ok(answer) => Ok(answer),
            Err(_) if self.with_links(Links::tells_reset) => {
                let error =
                    if delivered { CallError::Reset(to) } else { CallError::Unreachable(to) };
                Err(error)
            }
            Err(_) => std::future::pending().await,
        }
    }

    /// Does `arrive` each time that the message arrives; false if it never will.
    fn carry(
        &self,
        from: NodeId,
        to: NodeId,
        delivery: Delivery,
        arrive: impl Fn() + Clone + Send + 'static,
    ) -> bool {
        let after = |delay: Duration, arrive: Box<dyn FnOnce() + Send>| {
            drop(runtime::spawn_in(Group::WORLD, async move {
                SimRuntime::sleep(delay).await;
                arrive();
            }));
        };
        let (now, once) = (runtime::true_time(), delivery == Delivery::Once);
        match self.with_links(|links| links.send(from, to, now, once)) {
            Fate::Cut => {
                runtime::event("message_cut", &[("from", from), ("to", to)]);
                return false;
            }
            Fate::Lost => {
                runtime::event("message_lost", &[("from", from), ("to", to)]);
                return false;
            }
            Fate::Once(delay) => after(delay, Box::new(arrive)),
            Fate::Twice(first, second) => {
                runtime::event("message_doubled", &[("from", from), ("to", to)]);
                after(first, Box::new(arrive.clone()));
                after(second, Box::new(arrive));
            }
        }
        true
    }

    fn deliver(&self, from: NodeId, to: NodeId, request: Q, slot: &Slot<A>) {
        let Some((group, handler)) = self.lock().nodes.get(&to).cloned() else {
            return; // nobody is there
        };
        let (network, slot) = (self.clone(), slot.clone());
        drop(runtime::spawn_in(group, async move {
            let answer = handler(from, request).await;
            network.carry(to, from, Delivery::PerhapsTwice, move || {
                let sender = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(sender) = sender {
                    // Fails when the caller has given up, which is its right.
                    let _ = sender.send(answer.clone());
                }
            });
        }));
    }
}

#[cfg(test)]
mod tests;
