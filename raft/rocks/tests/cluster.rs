//! Three members on RocksDB in one process: what they agree on, what a restart brings back.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Millis, Proposal, codec};
use openraft_rt_tokio::TokioRuntime;
use replica::replica::{StartError, Timing};
use replica::testing::{Line, Switchboard, enter};
use replica::{Config, Node, NodeId, Replica};
use rocks::RocksDisk;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

type Member = Replica<TokioRuntime, RocksDisk, Line<TokioRuntime>>;

const PATIENCE: Duration = Duration::from_secs(30);

fn domain(number: u64) -> Proposal {
    let domain = format!("domain-{number}").as_str().into();
    let command = model::Command::UpsertDomain { domain, ttl: None };
    Proposal { at: Millis(1), commands: vec![command] }
}

fn members() -> BTreeMap<NodeId, Node> {
    let node = |id| Node {
        name: format!("node-{id}"),
        address: format!("memory:{id}"),
        ..Node::default()
    };
    (1..=3).map(|id| (id, node(id))).collect()
}

async fn start(
    id: NodeId,
    directory: &Path,
    board: &Switchboard<TokioRuntime>,
) -> Result<Member, StartError> {
    let config = Config {
        timing: Timing { heartbeat_ms: 100, election_min_ms: 500, election_max_ms: 1_000 },
        snapshot_entries: 100,
        snapshot_entries_kept: 20,
        snapshot_lag_entries: 200,
        purge_entries_min: 10,
        ..Config::new(id)
    };
    let disk = Arc::new(RocksDisk::open(directory).unwrap());
    enter(board, &config, &members(), disk).await
}

type Entered = JoinHandle<Result<Member, StartError>>;

fn welcome(runtime: Runtime, entered: Entered) -> (Runtime, Member) {
    let member = runtime.block_on(entered).unwrap().unwrap();
    (runtime, member)
}

/// Each member in a runtime of its own: dropping it is that node's sudden end.
struct Nodes {
    board: Switchboard<TokioRuntime>,
    directories: BTreeMap<NodeId, TempDir>,
    running: BTreeMap<NodeId, (Runtime, Member)>,
}

impl Nodes {
    fn new() -> Self {
        let directories = (1..=3).map(|id| (id, tempfile::tempdir().unwrap())).collect();
        let mut nodes =
            Self { board: Switchboard::default(), directories, running: BTreeMap::new() };
        // Together: a cluster is founded when all of its first members are there.
        let entering: Vec<_> = (1..=3).map(|id| (id, nodes.enter(id))).collect();
        for (id, (runtime, entered)) in entering {
            nodes.running.insert(id, welcome(runtime, entered));
        }
        nodes
    }

    fn enter(&self, id: NodeId) -> (Runtime, Entered) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let (directory, board) = (self.directories[&id].path().to_owned(), self.board.clone());
        let entered = runtime.spawn(async move { start(id, &directory, &board).await });
        (runtime, entered)
    }

    fn start(&mut self, id: NodeId) {
        let (runtime, entered) = self.enter(id);
        self.running.insert(id, welcome(runtime, entered));
    }

    fn stop(&mut self, id: NodeId) {
        self.board.unplug(id);
        let (runtime, member) = self.running.remove(&id).unwrap();
        drop(member);
        drop(runtime);
    }

    fn member(&self, id: NodeId) -> Member {
        self.running[&id].1.clone()
    }

    fn propose(&self, id: NodeId, numbers: std::ops::Range<u64>) {
        let member = self.member(id);
        self.running[&id].0.block_on(async {
            let proposals = numbers.map(|number| {
                let member = member.clone();
                tokio::spawn(async move { member.propose(&domain(number)).await })
            });
            for proposal in proposals.collect::<Vec<_>>() {
                proposal.await.unwrap().unwrap();
            }
        });
    }

    fn leader(&self) -> NodeId {
        let (runtime, member) = self.running.values().next().unwrap();
        runtime.block_on(async {
            member.read_linearizable().await.unwrap();
            let mut watcher = member.watch();
            loop {
                if let Some(leader) = watcher.changed().await.unwrap().leader {
                    return leader;
                }
            }
        })
    }

    /// The digest of every member's state at one and the same index.
    fn digest(&self) -> u64 {
        let first = self.running.values().next().unwrap();
        let index = first.0.block_on(first.1.read_linearizable()).unwrap().applied;
        let mut digests = Vec::new();
        for (id, (runtime, member)) in &self.running {
            runtime.block_on(async {
                let mut watcher = member.watch();
                let applied = async { while watcher.changed().await.unwrap().applied < index {} };
                tokio::time::timeout(PATIENCE, applied).await.expect("it catches up");
            });
            let reading = member.read_stale();
            digests.push((*id, reading.applied, codec::digest(&reading.state)));
        }
        for digest in &digests {
            assert_eq!((digest.1, digest.2), (digests[0].1, digests[0].2), "{digests:?}");
        }
        digests[0].2
    }
}

#[test]
fn members_come_back_with_the_state_they_had() {
    let mut nodes = Nodes::new();
    nodes.propose(1, 0..300);
    let leader = nodes.leader();
    let before = nodes.digest();

    // One is away for longer than the log remembers.
    let away = leader % 3 + 1;
    nodes.stop(away);
    let mut count = 300;
    while nodes.member(leader).status().purged < Some(400) {
        nodes.propose(leader, count..count + 50);
        count += 50;
        assert!(
            count < 5_000,
            "the log is purged as it grows: {:?}",
            nodes.member(leader).status()
        );
    }
    nodes.start(away);
    let after = nodes.digest();
    assert_ne!(before, after);
    assert!(nodes.board.calls("snapshot_chunk") > 0);

    // The leader goes, the others go on.
    nodes.stop(leader);
    nodes.propose(away, count..count + 100);
    nodes.start(leader);
    let after = nodes.digest();

    // All go at once.
    for id in 1..=3 {
        nodes.stop(id);
    }
    for id in 1..=3 {
        nodes.start(id);
    }
    assert_eq!(nodes.digest(), after);
    assert_eq!(
        nodes.member(1).read_stale().state.domains().count(),
        usize::try_from(count + 100).unwrap()
    );
}

#[test]
fn an_emptied_directory_is_not_taken_for_the_member_that_it_was() {
    let mut nodes = Nodes::new();
    nodes.propose(1, 0..10);
    let victim = nodes.leader() % 3 + 1;
    nodes.stop(victim);
    nodes.directories.insert(victim, tempfile::tempdir().unwrap());
    let (runtime, entered) = nodes.enter(victim);
    let refused = runtime.block_on(entered).unwrap().unwrap_err();
    drop(runtime);
    assert!(matches!(refused, StartError::Forgotten { member, .. } if member == victim));
    let path = nodes.directories[&victim].path();
    RocksDisk::open(path).expect("whoever was refused has let go of the directory");
    let next = victim % 3 + 1;
    nodes.propose(next, 10..20);
}
