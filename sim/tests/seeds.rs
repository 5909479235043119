//! A few seeds of each world hold, a seed is one run, and what is wrong is found. As many as
//! every change can wait for; `sim sweep` runs more.

use std::ops::Range;

use sim::world::{self, Report, Run, Sabotage, Scope};

fn hold(seeds: Range<u64>, scope: Scope) {
    for seed in seeds {
        let Report { violations, .. } = world::run(&Run::of(seed, scope), None);
        assert_eq!(violations, [], "{scope:?}, seed {seed}");
    }
}

/// Some seed finds what is wrong, and says that it is `property` which does not hold.
fn found(seeds: Range<u64>, scope: Scope, sabotage: Sabotage, property: &str) {
    let finds = |seed| {
        let report = world::run(&Run { sabotage: Some(sabotage), ..Run::of(seed, scope) }, None);
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

#[test]
fn a_seed_is_one_run() {
    let hash = |seed| world::run(&Run::of(seed, Scope::Nodes), None).hash;
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
