//! A few seeds of each world hold, a seed is one run, and what is wrong is found. As many as
//! every change can wait for; `sim --seeds` runs more.

use std::ops::Range;

use sim::world::{Report, Sabotage, Scope, run, run_sabotaged};

fn hold(seeds: Range<u64>, scope: Scope) {
    for seed in seeds {
        let Report { violations, .. } = run(seed, scope, None);
        assert_eq!(violations, [], "{scope:?}, seed {seed}");
    }
}

/// Some seed finds what is wrong, and says that it is `property` which does not hold.
fn found(seeds: Range<u64>, scope: Scope, sabotage: Sabotage, property: &str) {
    let finds = |seed| {
        let report = run_sabotaged(seed, scope, sabotage);
        report.violations.iter().any(|violation| violation.property == property)
    };
    assert!(seeds.clone().any(finds), "{sabotage:?} is not found by {seeds:?}");
}

#[test]
fn replicas_keep_their_promises() {
    hold(1..9, Scope::Replicas);
}

#[test]
fn nodes_keep_their_promises() {
    hold(1..9, Scope::Nodes);
}

/// 55: a follower waits a minute for entries after a lost answer. 15: a half-made container is
/// waited for by nobody who makes it.
#[test]
fn seeds_that_once_failed_hold() {
    hold(55..56, Scope::Replicas);
    hold(15..16, Scope::Nodes);
}

#[test]
fn a_seed_is_one_run() {
    let hash = |seed| run(seed, Scope::Nodes, None).hash;
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(9));
}

#[test]
fn disks_that_lie_are_found() {
    found(1..4, Scope::Replicas, Sabotage::LyingDisks, "durable answers");
}

#[test]
fn a_task_that_starts_twice_is_found() {
    found(1..4, Scope::Nodes, Sabotage::StartTwice, "a task starts at most once");
}

#[test]
fn a_container_that_stays_is_found() {
    found(2..6, Scope::Nodes, Sabotage::KeepContainers, "what runs is what is desired");
}
