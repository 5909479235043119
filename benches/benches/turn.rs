//! One turn of the leader at 100 cells and 10,000 instances.

use std::hint::black_box;

use benches::{Cluster, app};
use criterion::{Criterion, criterion_group, criterion_main};
use model::DesiredLrp;

const CELLS: u32 = 100;
const INSTANCES: u32 = 10_000;
const LOSERS: u32 = 20_000;

/// Of one instance, which is larger than any cell.
fn loser(number: u32) -> DesiredLrp {
    DesiredLrp { memory_mb: 1 << 20, ..app(INSTANCES + number, 1) }
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn/100 cells x 10,000 instances");
    group.sample_size(20);

    let mut waiting = Cluster::of_cells(CELLS);
    waiting.desire(INSTANCES);
    let planned = waiting.turn().commands.len();
    assert!(planned > 8000, "a turn that places little measures little: {planned}");
    group.bench_function(format!("{planned} placed at once"), |bencher| {
        bencher.iter(|| black_box(waiting.turn()));
    });
    group.bench_function("all placed, turn by turn, each applied", |bencher| {
        bencher.iter_batched(
            || waiting.clone(),
            |mut cluster| {
                loop {
                    let plan = cluster.turn();
                    if plan.commands.is_empty() {
                        return cluster;
                    }
                    cluster.propose(plan.commands);
                }
            },
            criterion::BatchSize::LargeInput,
        );
    });

    let mut quiet = waiting.clone();
    quiet.settle();
    assert_eq!(quiet.turn().commands, []);
    group.bench_function("all run, nothing to do", |bencher| {
        bencher.iter(|| black_box(quiet.turn()));
    });

    let mut lost = quiet.clone();
    lost.lose_a_cell();
    let planned = lost.turn().commands.len();
    assert!(planned > 50, "a cell's instances are replaced: {planned}");
    group.bench_function(format!("a cell is lost, {planned} commands"), |bencher| {
        bencher.iter(|| black_box(lost.turn()));
    });

    let mut full = quiet.clone();
    for number in 0..LOSERS {
        full.desire_lrp(loser(number));
    }
    full.settle();
    assert_eq!(full.turn().report.lrps.len(), LOSERS as usize);
    group.bench_function(format!("{LOSERS} apps that no cell has room for, again"), |bencher| {
        bencher.iter(|| black_box(full.turn()));
    });
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
