//! Disks that are emptied or rot: the node says so and takes no part, the others go on, and one
//! command makes it a member again.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::cluster::{Cluster, SAMPLE};
use tests::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

fn raft(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.data_dir().join(node).join("raft")
}

/// Waits until `gavel dev` has told of a node's end in these words.
fn told(cluster: &Cluster, words: &str) {
    eventually(words, PATIENCE, || {
        let said = cluster.said();
        if said.contains(words) { Ok(()) } else { Err(said) }
    });
}

/// Replaces node-2, and shows that it votes: with another voter silent, it is half of what agrees.
fn is_replaced(cluster: &Cluster) {
    let done = cluster.done(&["cluster", "replace", "node-2"]);
    let number =
        done.strip_prefix("node-2 is member ").and_then(|it| it.strip_suffix(" and votes\n"));
    let number: u64 = number.expect(&done).parse().expect(&done);
    assert!(number > 9_999, "{done}");
    let status = cluster.json(&["cluster", "status"]).remove(0);
    let members = status["members"].as_array().expect("a list");
    assert_eq!(members.len(), 3, "{status}");
    assert!(members.iter().all(|member| member["node_id"] != 2), "{status}");
    cluster.signal_node("node-3", Signal::SIGSTOP);
    let _ = cluster.done(&["set-domain", "after", "-t", "1h"]);
    cluster.signal_node("node-3", Signal::SIGCONT);
    // As a cell it is what it was.
    let _ = cluster.done(&["scale", "hello", "-i", "9"]);
    eventually("it runs something", PATIENCE, || {
        let instances = cluster.instances("hello", 9);
        let there = instances.iter().any(|instance| instance.cell_id == "node-2");
        if there { Ok(()) } else { Err(format!("{instances:?}")) }
    });
    assert_eq!(cluster.answers("hello", 9).len(), 9);
}

#[test]
fn an_emptied_disk_is_refused_by_name_and_replaced_by_one_command() {
    let cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-m", "32M", "-k", "32M", "-i", "3"]);
    let _ = cluster.answers("hello", 3);
    cluster.kill_node("node-2");
    fs::remove_dir_all(raft(&cluster, "node-2")).unwrap();
    told(&cluster, "node-2 is member 2 of its cluster with another disk than the one that is here");
    told(&cluster, "gavel cluster replace node-2");
    // Without it the others go on, and its instances run elsewhere.
    let _ = cluster.done(&["set-domain", "meanwhile", "-t", "1h"]);
    eventually("all run elsewhere", PATIENCE, || {
        let instances = cluster.instances("hello", 3);
        let there = instances.iter().any(|instance| instance.cell_id == "node-2");
        if there { Err(format!("{instances:?}")) } else { Ok(()) }
    });
    let runs = cluster.fails(&["cluster", "replace", "node-3"]);
    assert!(runs.contains("member 3 runs; evacuate its cell and stop it first"), "{runs}");
    is_replaced(&cluster);
    let domains = cluster.done(&["domains"]);
    assert!(domains.contains("meanwhile") && domains.contains("after"), "{domains}");
}

#[test]
fn a_flipped_bit_stops_the_node_by_the_name_of_the_file() {
    let cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-m", "32M", "-k", "32M", "-i", "3"]);
    let _ = cluster.answers("hello", 3);
    cluster.kill_node("node-2");
    // The newest part of the write-ahead log, in its middle.
    let raft = raft(&cluster, "node-2");
    let logs = fs::read_dir(&raft).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&log, bytes).unwrap();
    told(&cluster, &format!("the data directory {} is damaged", raft.display()));
    told(&cluster, log.file_name().unwrap().to_str().unwrap());
    told(&cluster, "gavel cluster replace");
    // As it is told to do.
    fs::rename(&raft, raft.with_extension("damaged")).unwrap();
    is_replaced(&cluster);
}
