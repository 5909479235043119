//! Replicas on tokio, over disks and a switchboard in memory.

mod cluster;
mod newcomer;
mod recovery;
mod snapshot;
mod storage;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Command, Millis, Proposal};
use openraft_rt_tokio::TokioRuntime;
use tokio::task::JoinHandle;

use crate::membership::ChangeError;
use crate::memory::MemoryDisk;
use crate::replica::{Config, Replica, StartError, Timing};
use crate::status::Standing;
use crate::testing::{Line, Switchboard, enter};
use crate::wire::{Node, NodeId};

type Runtime = TokioRuntime;
type Member = Replica<Runtime, MemoryDisk, Line<Runtime>>;

/// Longer than anything here takes unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fast enough for a test, slow enough for a busy machine.
const TIMING: Timing = Timing { heartbeat_ms: 100, election_min_ms: 500, election_max_ms: 1_000 };

fn node(id: NodeId) -> Node {
    Node { name: format!("node-{id}"), address: format!("memory:{id}"), ..Node::default() }
}

fn config(id: NodeId) -> Config {
    Config { timing: TIMING, ..Config::new(id) }
}

/// A proposal of one command that leaves a row named `name`.
fn domain(name: &str) -> Proposal {
    let command = Command::UpsertDomain { domain: name.into(), ttl: None };
    Proposal { at: Millis(1_000), commands: vec![command] }
}

fn has_domain(state: &model::State, name: &str) -> bool {
    state.domain(&name.into()).is_some()
}

/// Some members and what wires them.
struct Cluster {
    board: Switchboard<Runtime>,
    members: BTreeMap<NodeId, Member>,
    disks: BTreeMap<NodeId, MemoryDisk>,
    first: BTreeMap<NodeId, Node>,
    configure: fn(&mut Config),
}

impl Cluster {
    /// Members `1..=count`, all voters, with ordinary sizes.
    async fn new(count: u64) -> Self {
        Self::configured(count, |_| {}).await
    }

    async fn configured(count: u64, configure: fn(&mut Config)) -> Self {
        let mut cluster = Self {
            board: Switchboard::default(),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            first: (1..=count).map(|id| (id, node(id))).collect(),
            configure,
        };
        let disks = (1..=count).map(|id| (id, MemoryDisk::new()));
        let entering = disks.map(|(id, disk)| (id, disk.clone(), cluster.enter(id, disk)));
        for (id, disk, entering) in entering.collect::<Vec<_>>() {
            cluster.welcome(id, disk, entering).await;
        }
        cluster
    }

    /// A node sets out to be a member, on this disk.
    fn enter(&self, id: NodeId, disk: MemoryDisk) -> JoinHandle<Result<Member, StartError>> {
        let mut config = config(id);
        (self.configure)(&mut config);
        let (board, first) = (self.board.clone(), self.first.clone());
        tokio::spawn(async move { enter(&board, &config, &first, Arc::new(disk)).await })
    }

    /// Waits until it is one.
    async fn welcome(
        &mut self,
        id: NodeId,
        disk: MemoryDisk,
        entering: JoinHandle<Result<Member, StartError>>,
    ) {
        let entered = tokio::time::timeout(PATIENCE, entering).await;
        let member = entered.expect("it enters").unwrap().unwrap();
        self.members.insert(id, member);
        self.disks.insert(id, disk);
    }

    /// Starts a member on a disk.
    async fn start(&mut self, id: NodeId, disk: MemoryDisk) {
        let entering = self.enter(id, disk.clone());
        self.welcome(id, disk, entering).await;
    }

    /// Lets a new node in, through `leader`.
    async fn let_in(&mut self, leader: NodeId, id: NodeId) {
        let disk = MemoryDisk::new();
        let entering = self.enter(id, disk.clone());
        let added = async {
            while let Err(refused) =
                self.member(leader).add_learner(id, &node(id).address, false).await
            {
                assert!(matches!(refused, ChangeError::NobodyThere { .. }), "{refused}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, added).await.unwrap();
        self.welcome(id, disk, entering).await;
    }

    /// Stops a member and leaves its disk as a crash would that lost all unsynced writes.
    async fn crash(&mut self, id: NodeId) -> MemoryDisk {
        self.board.unplug(id);
        let disk = self.disks.remove(&id).unwrap().crashed(0);
        self.members.remove(&id).unwrap().shutdown().await;
        disk
    }

    fn member(&self, id: NodeId) -> &Member {
        &self.members[&id]
    }

    fn others(&self, than: NodeId) -> Vec<NodeId> {
        self.members.keys().copied().filter(|id| *id != than).collect()
    }

    /// Waits until some member leads and may decide.
    async fn leader(&self) -> NodeId {
        self.leader_but(&[]).await
    }

    /// Waits until a member other than these leads.
    async fn leader_but(&self, but: &[NodeId]) -> NodeId {
        let waits = self
            .members
            .values()
            .filter(|member| !but.contains(&member.id()))
            .map(|member| Box::pin(wait(member, |standing| standing.leads)));
        let (_, index, _) = futures_util::future::select_all(waits).await;
        *self.members.keys().filter(|id| !but.contains(id)).nth(index).unwrap()
    }

    /// Waits until all members have applied what the first of them reads now, and says that it
    /// is the same on all of them, in memory and on disk.
    async fn converge(&self) -> model::State {
        let first = self.members.values().next().unwrap();
        let index = first.read_linearizable().await.unwrap().applied;
        let mut states = Vec::new();
        for member in self.members.values() {
            wait(member, |standing| standing.applied >= index).await;
            states.push((member.id(), member.read_stale()));
        }
        use model::codec::digest;
        let (_, expected) = &states[0];
        for (id, reading) in &states {
            assert_eq!(reading.applied, expected.applied, "node {id} is quiet as well");
            assert_eq!(digest(&reading.state), digest(&expected.state), "node {id}");
            let stored = crate::stored_digest::<Runtime, _>(&self.disks[id]).await.unwrap();
            assert_eq!(stored, (reading.applied, digest(&reading.state)), "the rows of node {id}");
        }
        expected.state.clone()
    }
}

/// Waits until a member stands as asked.
async fn wait(member: &Member, mut until: impl FnMut(&Standing) -> bool) -> Standing {
    let mut watcher = member.watch();
    let stands = async {
        loop {
            let standing = watcher.changed().await.expect("the member runs");
            if until(&standing) {
                return standing;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, stands).await {
        Ok(standing) => standing,
        Err(_) => panic!("it does not come about; {:#?}", member.status()),
    }
}
