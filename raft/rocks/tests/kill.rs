//! A process that is killed at any moment loses nothing it acknowledged. This test starts itself
//! as that process: a replica that says on its standard output what it acknowledges.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use model::{Millis, Proposal};
use openraft_rt_tokio::TokioRuntime;
use replica::replica::Timing;
use replica::status::Standing;
use replica::testing::{Line, Switchboard, enter};
use replica::{Config, Node, Replica};
use rocks::RocksDisk;

type Member = Replica<TokioRuntime, RocksDisk, Line<TokioRuntime>>;

/// Deaths, each after another number of acknowledgements.
const ROUNDS: usize = 12;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("to-be-killed") {
        let directory = arguments.next().expect("a directory");
        let first = arguments.next().expect("a number").parse().expect("a number");
        acknowledge_forever(Path::new(&directory), first);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        acknowledged = kill_after(directory.path(), acknowledged, round * 17 + 1);
        check(directory.path(), acknowledged);
    }
    assert!(acknowledged > ROUNDS * ROUNDS);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime")
}

async fn start(directory: &Path, board: &Switchboard<TokioRuntime>) -> Member {
    let timing = Timing { heartbeat_ms: 50, election_min_ms: 200, election_max_ms: 400 };
    // Small, so that deaths fall into purges and snapshots too.
    let config = Config {
        timing,
        snapshot_entries: 40,
        snapshot_entries_kept: 5,
        purge_entries_min: 1,
        ..Config::new(1)
    };
    let disk = Arc::new(RocksDisk::open(directory).expect("the directory opens"));
    let address = "memory:1".to_owned();
    let alone = Node { name: config.name.clone(), address, ..Node::default() };
    enter(board, &config, &[(1, alone)].into(), disk).await.expect("it starts")
}

fn domain(number: usize) -> Proposal {
    let domain = format!("domain-{number}").as_str().into();
    let command = model::Command::UpsertDomain { domain, ttl: None };
    Proposal { at: Millis(1), commands: vec![command] }
}

/// The process that dies: proposes four at a time and says each number once it is acknowledged.
fn acknowledge_forever(directory: &Path, first: usize) -> ! {
    runtime().block_on(async {
        let member = start(directory, &Switchboard::default()).await;
        let mut output = std::io::stdout();
        for number in (first..).step_by(4) {
            let proposals = (number..number + 4).map(|number| {
                let member = member.clone();
                tokio::spawn(async move { member.propose(&domain(number)).await })
            });
            for (number, proposal) in (number..).zip(proposals.collect::<Vec<_>>()) {
                proposal.await.expect("no panic").expect("acknowledged");
                writeln!(output, "{number}").expect("somebody listens");
            }
        }
        unreachable!("numbers do not end")
    })
}

/// Lets the process run until it has acknowledged `more` beyond `acknowledged`, kills it, and
/// says how many it had acknowledged by then.
fn kill_after(directory: &Path, acknowledged: usize, more: usize) -> usize {
    let mut process = Command::new(std::env::current_exe().expect("this program"))
        .arg("to-be-killed")
        .arg(directory)
        .arg(acknowledged.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = BufReader::new(process.stdout.take().expect("it is piped"));
    let mut lines = output.lines().map_while(Result::ok);
    let mut said = 0;
    while said < more {
        lines.next().expect("it goes on until it is killed");
        said += 1;
    }
    process.kill().expect("it is killed");
    // What it said between our decision and its death counts as well.
    said += lines.count();
    process.wait().expect("it is dead");
    acknowledged + said
}

fn check(directory: &Path, acknowledged: usize) {
    let runtime = runtime();
    runtime.block_on(async {
        let board = Switchboard::default();
        let member = start(directory, &board).await;
        let reading = member.read_linearizable().await.expect("it leads again");
        for number in 0..acknowledged {
            let name = format!("domain-{number}").as_str().into();
            assert!(reading.state.domain(&name).is_some(), "{name} of {acknowledged} is lost");
        }
        let Standing { applied, .. } = member.watch().changed().await.expect("it runs");
        assert!(applied >= reading.applied);
        member.shutdown().await;
        // Nobody holds the directory any more.
        board.unplug(1);
    });
    // All tasks and with them the directory's lock end with the runtime.
    drop(runtime);
}
