//! Replicas on tokio, over disks and a switchboard in memory.

mod cluster;
mod recovery;
mod storage;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Command, Millis, Proposal};
use openraft_rt_tokio::TokioRuntime;

use crate::memory::MemoryDisk;
use crate::replica::{Config, Replica, Timing};
use crate::status::Standing;
use crate::testing::{Line, Switchboard};
use crate::wire::{Node, NodeId};

type Runtime = TokioRuntime;
type Member = Replica<Runtime, MemoryDisk, Line<Runtime>>;

/// Longer than anything here takes unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fast enough for a test, slow enough for a busy machine.
const TIMING: Timing = Timing { heartbeat_ms: 100, election_min_ms: 500, election_max_ms: 1_000 };

fn node(id: NodeId) -> Node {
    Node { name: format!("node-{id}"), address: format!("memory:{id}") }
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
            configure,
        };
        let members: BTreeMap<NodeId, Node> = (1..=count).map(|id| (id, node(id))).collect();
        for id in 1..=count {
            cluster.start(id, MemoryDisk::new()).await;
        }
        for member in cluster.members.values() {
            member.initialize(members.clone()).await.unwrap();
        }
        cluster
    }

    /// Starts a member on a disk.
    async fn start(&mut self, id: NodeId, disk: MemoryDisk) {
        let mut config = config(id);
        (self.configure)(&mut config);
        let line = Arc::new(self.board.line(id));
        let member = Replica::start(&config, Arc::new(disk.clone()), line).await.unwrap();
        self.board.plug(&member);
        self.members.insert(id, member);
        self.disks.insert(id, disk);
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
            let stored = stored(&self.disks[id]).await;
            assert_eq!(digest(&stored), digest(&reading.state), "the rows of node {id}");
        }
        expected.state.clone()
    }
}

/// The state as the rows on a disk have it.
async fn stored(disk: &MemoryDisk) -> model::State {
    let store = crate::state::StateStore::<Runtime, _>::open(Arc::new(disk.crashed(usize::MAX)));
    let store = store.await.unwrap();
    let published = store.published();
    use openraft::async_runtime::WatchReceiver as _;
    published.borrow_watched().state.clone()
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
