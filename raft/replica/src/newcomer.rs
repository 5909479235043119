//! A disk that takes part in nothing yet: it finds out which member it is, if it is to be one.
//!
//! It knows by one of three ways. Somebody addresses it, this very disk, as a member; or somebody
//! whom it asks has it on record; or it and all other first members of a new cluster are new, and
//! it is the one of them that founds the cluster, with the disks of all on record from the first
//! entry on. It never concludes anything from its own emptiness: one whose disk was emptied is
//! told so by the cluster's leader, and takes part no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use model::mutant;
use openraft::AsyncRuntime;
use openraft::async_runtime::{Select2, WatchReceiver, WatchSender};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::WatchSenderOf;

use crate::disk::Disk;
use crate::network::ask_who;
use crate::peers::{
    Acquaintance, Addressee, Envelope, Introduced, Introduction, PeerRequest, PeerResponse, Peers,
};
use crate::raft::Types;
use crate::replica::{Config, StartError};
use crate::wire::{Identity, Node, NodeId};
use crate::{identity, limits};

/// How a disk takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrance {
    /// As this member.
    Member(NodeId),
    /// As this member of a new cluster, which it is to [`initialize`](crate::Replica::initialize)
    /// with these.
    Founder(NodeId, BTreeMap<NodeId, Node>),
}

impl Entrance {
    /// Which member.
    #[must_use]
    pub fn id(&self) -> NodeId {
        match self {
            Self::Member(id) | Self::Founder(id, _) => *id,
        }
    }
}

/// A node before it is a replica. Clones are handles of the same one.
pub struct Newcomer<RT: AsyncRuntime, D: Disk, P: Peers> {
    inner: Arc<Inner<RT, D, P>>,
}

struct Inner<RT: AsyncRuntime, D: Disk, P: Peers> {
    /// The number that its operator gave it.
    id: NodeId,
    identity: Identity,
    /// Whether the disk holds anything that Raft promised.
    is_used: bool,
    first: BTreeMap<NodeId, Node>,
    disk: Arc<D>,
    peers: Arc<P>,
    /// As which member this disk was addressed. In a lock only because a sender need not be
    /// `Sync`.
    addressed: Mutex<WatchSenderOf<Types<RT>, Option<NodeId>>>,
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> Clone for Newcomer<RT, D, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> fmt::Debug for Newcomer<RT, D, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Newcomer").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime, D: Disk, P: Peers> Newcomer<RT, D, P> {
    /// Reads who the disk is; an empty one is given an identity. `first` are the first members of
    /// a new cluster, as all of them are told; what they say of disks is not looked at.
    ///
    /// # Errors
    /// The disk failed, is damaged, or is another node's.
    pub async fn open(
        config: &Config,
        first: BTreeMap<NodeId, Node>,
        disk: Arc<D>,
        peers: Arc<P>,
    ) -> Result<Self, StartError> {
        let identity = identity::open::<RT, D>(&disk, &config.name).await?;
        let is_used = identity::is_used(&*disk)?;
        let (addressed, _) = Types::<RT>::watch_channel(None);
        let addressed = Mutex::new(addressed);
        let inner = Inner { id: config.id, identity, is_used, first, disk, peers, addressed };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Answers a peer meanwhile: who is here, and otherwise that the one it asks for is not, or not
    /// yet.
    #[must_use]
    pub fn handle(&self, envelope: &Envelope) -> PeerResponse {
        let Inner { identity, first, .. } = &*self.inner;
        if let PeerRequest::Introduce(_) = envelope.request {
            let newcomer = (!self.inner.is_used).then(|| first.keys().copied().collect());
            return PeerResponse::Introduced(Introduced {
                node: identity.member.unwrap_or(self.inner.id),
                name: identity.name.clone(),
                disk: identity.disk,
                newcomer,
                you: Acquaintance::NoRecord,
                leads: false,
            });
        }
        if let Some(Addressee { node, disk }) = envelope.to
            && (disk == identity.disk || mutant!("disk-unchecked"))
        {
            let addressed = self.inner.addressed.lock().expect("no holder of the lock panics");
            addressed.send_if_modified(|id| {
                let is_news = id.is_none();
                id.get_or_insert(node);
                is_news
            });
            return PeerResponse::NotHere("it has just heard that it is a member".to_owned());
        }
        let mine = identity.disk;
        PeerResponse::NotHere(format!("its disk here is {mine}, which is no member's yet"))
    }

    /// Finds out which member this disk is, however long it takes.
    ///
    /// # Errors
    /// The disk failed, or the cluster knows this node by another disk.
    pub async fn introduce(&self) -> Result<Entrance, StartError> {
        if let (true, Some(id)) = (self.inner.is_used, self.inner.identity.member) {
            return Ok(Entrance::Member(id));
        }
        let mut addressed =
            self.inner.addressed.lock().expect("no holder of the lock panics").subscribe();
        let mut pause = limits::INTRODUCE_PAUSE_MIN;
        let mut told = String::new();
        // What was said once in this life holds: a cluster that was not there when another first
        // member said so can have been founded by nobody but this node since.
        let mut said = BTreeMap::new();
        loop {
            let known = *addressed.borrow_watched();
            if let Some(id) = known {
                return self.enter(Entrance::Member(id)).await;
            }
            let asked = pin!(self.ask_all());
            let judged = match RT::select2(addressed.changed(), asked).await {
                Select2::First(_) => continue,
                Select2::Second(answers) => {
                    said.extend(answers);
                    self.judge(&said)?
                }
            };
            match judged {
                Judged::Enters(entrance) => return self.enter(entrance).await,
                Judged::Waits(reason) if reason != told => {
                    tracing::info!(node = self.inner.identity.name, reason, "no member yet");
                    told = reason;
                }
                Judged::Waits(_) => {}
            }
            let paused = pin!(RT::sleep(pause));
            let _either = RT::select2(addressed.changed(), paused).await;
            pause = (pause * 2).min(limits::INTRODUCE_PAUSE_MAX);
        }
    }

    /// Durably, before anything is promised as that member.
    async fn enter(&self, entrance: Entrance) -> Result<Entrance, StartError> {
        let Inner { disk, identity, .. } = &*self.inner;
        identity::become_member::<RT, D>(disk, identity, entrance.id()).await?;
        Ok(entrance)
    }

    fn others(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.inner.first.iter().filter(|(other, _)| **other != self.inner.id)
    }

    /// Asks the other first members who they are. Returns what those say who answer.
    async fn ask_all(&self) -> Vec<(NodeId, Introduced)> {
        let Inner { id, identity, peers, .. } = &*self.inner;
        let me = Introduction { node: *id, name: identity.name.clone(), disk: identity.disk };
        let asked = self.others().map(async |(other, node)| {
            let answer = ask_who::<RT, P>(peers, *other, node, me.clone()).await;
            let unheard = |error: &_| tracing::debug!(node = other, %error, "no introduction");
            answer.inspect_err(unheard).ok().map(|introduced| (*other, introduced))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// What all that the others have said amounts to.
    fn judge(&self, said: &BTreeMap<NodeId, Introduced>) -> Result<Judged, StartError> {
        let Inner { id, identity, first, .. } = &*self.inner;
        let mut waits = None;
        let mut founders = BTreeMap::new();
        for (other, node) in self.others() {
            let Some(introduced) = said.get(other) else {
                let Node { name, address, .. } = node;
                waits.get_or_insert_with(|| format!("{name} does not answer at {address}"));
                continue;
            };
            match introduced.you {
                Acquaintance::Member(id) => return Ok(Judged::Enters(Entrance::Member(id))),
                Acquaintance::AnotherDisk(member)
                    if introduced.leads && !mutant!("founds-beside-a-cluster") =>
                {
                    return Err(StartError::Forgotten { name: identity.name.clone(), member });
                }
                Acquaintance::AnotherDisk(_) | Acquaintance::Stranger | Acquaintance::NoRecord => {}
            }
            match self.doubt(*other, node, introduced) {
                Some(reason) => waits = Some(reason),
                None => {
                    founders.insert(*other, Node { disk: introduced.disk, ..node.clone() });
                }
            }
        }
        let Some(me) = first.get(id) else {
            let reason = "it waits to be let in: gavel cluster join".to_owned();
            return Ok(Judged::Waits(reason));
        };
        founders.insert(*id, Node { disk: identity.disk, ..me.clone() });
        match waits {
            Some(reason) => Ok(Judged::Waits(reason)),
            None if founders.first_key_value().is_some_and(|(first, _)| first == id) => {
                Ok(Judged::Enters(Entrance::Founder(*id, founders)))
            }
            None => Ok(Judged::Waits("another is about to found the cluster".to_owned())),
        }
    }

    /// Why a cluster cannot be founded with one who answered.
    fn doubt(&self, expected: NodeId, told: &Node, introduced: &Introduced) -> Option<String> {
        let Introduced { node, name, newcomer, you, .. } = introduced;
        if mutant!("founds-beside-a-cluster") {
            return None;
        }
        let Some(theirs) = newcomer else {
            return Some(match you {
                Acquaintance::AnotherDisk(member) => {
                    format!("{name} knows it as member {member}, with another disk; nobody leads")
                }
                Acquaintance::Stranger => format!(
                    "{name} is of a cluster that does not know it: gavel cluster join lets it in"
                ),
                Acquaintance::NoRecord | Acquaintance::Member(_) => {
                    format!("{name} takes part in a cluster, and does not know yet with whom")
                }
            });
        };
        if (*node, name) != (expected, &told.name) {
            let Node { name: expected_name, address, .. } = told;
            return Some(format!(
                "at {address} is node {node}, {name}, and not node {expected}, {expected_name}"
            ));
        }
        let mine: BTreeSet<NodeId> = self.inner.first.keys().copied().collect();
        if *theirs != mine {
            return Some(format!("{name} was told other first members: {theirs:?}, not {mine:?}"));
        }
        None
    }
}

/// What the answers amount to.
enum Judged {
    Enters(Entrance),
    Waits(String),
}
