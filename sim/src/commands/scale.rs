//! What things cost in large clusters: a table for each size.

use std::process::ExitCode;
use std::time::Instant;

use sim::scale::{Cost, Size, measure};

pub(crate) fn run(
    members: &[u64],
    voters: u64,
    instances_per_cell: u64,
) -> anyhow::Result<ExitCode> {
    for members in members.iter().copied() {
        let size = Size { members, voters, instances_per_cell };
        println!(
            "\n## {members} cells, {} instances, {voters} voters\n\n\
             | what | instances | time | entries | log bytes an instance | leader's messages | \
             leader's MB | an instance: messages | kB |\n|---|---|---|---|---|---|---|---|---|",
            members * instances_per_cell
        );
        let began = now();
        measure(size, |cost| println!("{}", row(cost)));
        println!("\n{} s of one core to simulate.", began.elapsed().as_secs());
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::disallowed_methods, reason = "what a measurement takes is real time")]
fn now() -> Instant {
    Instant::now()
}

/// `part` for each of `whole`, in tenths.
fn each(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let tenths = part * 10 / whole;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn row(cost: &Cost) -> String {
    let Cost { what, instances, took, entries, log_bytes, leader_messages, leader_bytes } = cost;
    format!(
        "| {what} | {instances} | {}.{:01} s | {entries} | {} | {leader_messages} | {} | {} | {} |",
        took.as_secs(),
        took.subsec_millis() / 100,
        each(*log_bytes, *instances),
        leader_bytes / 1_000_000,
        each(*leader_messages, *instances),
        each(leader_bytes / 1000, *instances),
    )
}
