//! The scenarios of Diego's auction simulation (scale.md section 1.3), on cells of 100 memory, disk
//! and containers, half in each zone. Each says how even the outcome is, and fails where Diego's
//! rule is broken: an auction that is quick and uneven is worth nothing.
//!
//! Measured is everything that a leader does until nothing waits: turns, and applying their plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use benches::{Cluster, auction_app, auction_cell};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use model::{CellId, ProcessGuid};
use plan::Settings;

/// Memory of an app in mebibytes, and how many such apps.
type Sizes = (i32, u32);

/// Distinct apps of one instance, so many of each size in mebibytes.
fn desire_unique(cluster: &mut Cluster, sizes: &[Sizes]) {
    for (memory_mb, count) in sizes {
        for number in 0..*count {
            cluster.desire_lrp(auction_app(
                &format!("unique-{memory_mb}-{number:05}"),
                *memory_mb,
                1,
            ));
        }
    }
}

fn cold(cells: u32, sizes: &[Sizes]) -> Cluster {
    let mut cluster = Cluster::of((0..cells).map(|number| auction_cell(number, number % 2)));
    desire_unique(&mut cluster, sizes);
    cluster
}

fn cold_starts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auction/cold start");
    group.sample_size(20);
    let scenarios: [(u32, &[Sizes], f64); 4] = [
        (40, &[(1, 800)], 0.03),
        (25, &[(1, 1800), (2, 200), (4, 50)], 0.03),
        (100, &[(1, 7200), (2, 800), (4, 200)], 0.028),
        (20, &[(1, 200)], 0.05),
    ];
    for (cells, sizes, spread_max) in scenarios {
        let instances: u32 = sizes.iter().map(|(_, count)| count).sum();
        let waiting = cold(cells, sizes);
        let mut settled = waiting.clone();
        settled.place_all();
        let spread = spread(&settled);
        eprintln!("{instances} on {cells} cells: spread {spread:.4}, {}", zones(&settled));
        assert!(spread <= spread_max, "uneven: {spread}");
        if cells % 2 == 0 {
            assert_zones_are_equal(&settled, 2);
        }
        bench_placing(&mut group, format!("{instances} on {cells} cells"), &waiting);
        // As Diego's simulation counts: what is decided, without writing it down.
        let name = format!("{instances} on {cells} cells, planning alone");
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| waiting.clone().place_all()).sum());
        });
    }
    group.finish();
}

/// A rolling deploy: cells of 50 instances each, but for a few that are empty.
fn imbalanced(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auction/imbalanced, 100 cells of 50");
    group.sample_size(20);
    for (empty, apps, instances) in [(5, 1, 500), (5, 1, 100), (1, 1, 500), (1, 100, 1)] {
        let mut waiting = Cluster::of((0..100).map(|number| auction_cell(number, number % 2)));
        for cell in 0..(100 - empty) {
            for number in 0..50 {
                let guid = format!("old-{cell:03}-{number:02}");
                waiting.run_on(auction_app(&guid, 1, 1), &auction_cell(cell, 0).cell_id);
            }
        }
        for app in 0..apps {
            waiting.desire_lrp(auction_app(&format!("new-{app:03}"), 1, instances));
        }
        let mut settled = waiting.clone();
        settled.place_all();
        for app in 0..apps {
            let counts = counts(&settled, &format!("new-{app:03}").as_str().into());
            let (least, most) = (counts.values().min(), counts.values().max());
            let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
            let least = if counts.len() < 100 { 0 } else { least };
            assert!(most - least <= 1, "an app's new instances: {least} to {most} on a cell");
        }
        let name = format!("{apps} x {instances} new, {empty} empty");
        bench_placing(&mut group, name, &waiting);
    }
    group.finish();
}

fn bin_pack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auction/bin pack, 800 on 40 cells");
    group.sample_size(20);
    for weight in [250, 500, 750] {
        let mut waiting = cold(40, &[(1, 800)]);
        waiting.settings = Settings {
            starting_container_weight: 500,
            bin_pack_first_fit_weight: weight,
            ..Settings::default()
        };
        let mut settled = waiting.clone();
        settled.place_all();
        let used: Vec<u64> = settled.used().into_values().collect();
        for zone in 0..2 {
            let of_zone: Vec<u64> = used.iter().skip(zone).step_by(2).copied().collect();
            assert!(of_zone.is_sorted_by(|one, next| one >= next), "{weight}: {of_zone:?}");
        }
        assert_zones_are_equal(&settled, 2);
        bench_placing(&mut group, format!("weight {weight}/1000"), &waiting);
    }
    group.finish();
}

fn zones_and_one_app(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auction/zones");
    group.sample_size(20);
    // Three cells, one of them alone in its zone, which is loaded already.
    let mut waiting = Cluster::of((0..3).map(|number| auction_cell(number, u32::from(number > 0))));
    for number in 0..30 {
        let guid = format!("old-{number:02}");
        waiting.run_on(auction_app(&guid, 1, 1), &auction_cell(0, 0).cell_id);
    }
    waiting.desire_lrp(auction_app("red", 1, 40));
    let mut settled = waiting.clone();
    settled.place_all();
    let counts = counts(&settled, &"red".into());
    assert_eq!(counts.into_values().collect::<Vec<u64>>(), [20, 10, 10]);
    bench_placing(&mut group, "40 of one app on 3 cells".to_owned(), &waiting);

    // The "Watters demo": many cells that are full to four fifths, and one large app.
    for (cells, instances) in [(10, 80), (30, 200), (100, 400)] {
        let mut waiting = Cluster::of((0..cells).map(|number| auction_cell(number, number % 2)));
        for cell in 0..cells {
            for number in 0..(78 + cell % 3) {
                let guid = format!("old-{cell:03}-{number:02}");
                waiting.run_on(auction_app(&guid, 1, 1), &auction_cell(cell, 0).cell_id);
            }
        }
        waiting.desire_lrp(auction_app("red", 1, instances));
        let mut settled = waiting.clone();
        settled.place_all();
        let counts = self::counts(&settled, &"red".into());
        let (least, most) = (counts.values().min(), counts.values().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{counts:?}");
        assert_eq!(counts.len(), cells as usize);
        bench_placing(&mut group, format!("{instances} of one app on {cells} cells"), &waiting);
    }
    group.finish();
}

/// One cell, 80 pebbles, and a boulder of two: its first instance fits because it is large, and its
/// second does not because everybody's first goes before it.
fn pebbles_and_boulders(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auction/pebbles and boulders");
    let mut waiting = Cluster::of([auction_cell(0, 0)]);
    desire_unique(&mut waiting, &[(1, 80)]);
    waiting.desire_lrp(auction_app("red", 50, 2));
    let mut settled = waiting.clone();
    settled.place_all();
    let placed = settled.used().values().sum::<u64>();
    assert_eq!(placed, 100, "50 of the boulder's and 50 pebbles");
    assert_eq!(settled.state.unclaimed().count(), 31);
    assert_eq!(counts(&settled, &"red".into()).values().sum::<u64>(), 1);
    bench_placing(&mut group, "51 win, 31 lose".to_owned(), &waiting);
    group.finish();
}

fn bench_placing(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: String,
    waiting: &Cluster,
) {
    group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter_batched(
            || waiting.clone(),
            |mut cluster| {
                cluster.place_all();
                cluster
            },
            BatchSize::LargeInput,
        );
    });
}

/// The population's standard deviation of the used memory over its mean.
fn spread(cluster: &Cluster) -> f64 {
    let used: Vec<f64> = cluster.used().values().map(|used| *used as f64).collect();
    let mean = used.iter().sum::<f64>() / used.len() as f64;
    let variance = used.iter().map(|used| (used - mean).powi(2)).sum::<f64>() / used.len() as f64;
    variance.sqrt() / mean
}

fn zones(cluster: &Cluster) -> String {
    format!("{:?} instances in the zones", instances_by_zone(cluster))
}

/// Within what an odd number leaves over.
fn assert_zones_are_equal(cluster: &Cluster, tolerance: u64) {
    let zones = instances_by_zone(cluster);
    let (least, most) = (zones.values().min(), zones.values().max());
    let difference = most.zip(least).map_or(0, |(most, least)| most - least);
    assert!(difference <= tolerance, "{zones:?}");
}

fn instances_by_zone(cluster: &Cluster) -> BTreeMap<Arc<str>, u64> {
    let mut zones = BTreeMap::new();
    for cell in cluster.state.cells() {
        let load = cluster.state.load(&cell.cell_id);
        *zones.entry(cell.zone.clone()).or_default() +=
            load.map_or(0, |load| u64::from(load.containers));
    }
    zones
}

/// How many instances of a process each cell holds, of those that hold any.
fn counts(cluster: &Cluster, process_guid: &ProcessGuid) -> BTreeMap<CellId, u64> {
    let mut counts = BTreeMap::new();
    for row in cluster.state.actual_lrps_of(process_guid) {
        if let Some(instance) = row.instance() {
            *counts.entry(instance.cell_id.clone()).or_default() += 1;
        }
    }
    counts
}

criterion_group!(
    benches,
    cold_starts,
    imbalanced,
    bin_pack,
    zones_and_one_app,
    pebbles_and_boulders
);
criterion_main!(benches);
