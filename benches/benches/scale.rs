//! 250,000 instances on 1,250 cells: placing them, one more, and a lost cell; the rate of
//! transitions, in memory and with their rows written; the memory that the state takes.
//!
//! Not criterion's: each figure is of one pass over a whole cluster, said in the unit of its aim.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use benches::{Cluster, app, net_info};
use model::{Command, Proposal, State, apply_proposal, codec};
use replica::disk::{Batch, Change, Disk};
use rocks::RocksDisk;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CELLS: u32 = 1250;
const INSTANCES: u32 = 250_000;
/// Commands of one proposal, as a busy leader batches them.
const BATCH: usize = 1000;

fn main() {
    let before = resident_mib();
    let mut cluster = Cluster::of_cells(CELLS);
    cluster.desire(INSTANCES);

    let begun = Instant::now();
    let planning = cluster.place_all();
    let whole = begun.elapsed();
    println!(
        "{INSTANCES} instances on {CELLS} cells from nothing: {} planned, {} with applying",
        seconds(planning),
        seconds(whole)
    );

    let starts: Vec<Command> = cluster
        .claimed()
        .into_iter()
        .map(|(key, instance)| Command::StartLrp {
            key,
            instance,
            net_info: net_info(),
            routable: true,
        })
        .collect();
    let took = apply_all(&mut cluster, &starts, |_| {});
    rate("StartLrp in memory", starts.len(), took);
    drop(starts);
    println!(
        "memory: {} MiB more than without the state of {INSTANCES} running instances",
        resident_mib() - before
    );
    from_rows(&cluster.state);

    let took = median_of(20, || drop(black_box(cluster.clone_state())));
    println!("a snapshot: {took:?}");
    let quiet = median_of(20, || assert_eq!(cluster.turn().commands, []));
    println!("a turn with nothing to do: {quiet:?}");

    let mut full = cluster.clone();
    full.desire_lrp(app(999_999, 1));
    let one_more = median_of(20, || assert_eq!(black_box(full.turn()).commands.len(), 1));
    println!("one more instance: {one_more:?}");

    let mut lost = cluster.clone();
    lost.lose_a_cell();
    let planned = lost.turn().commands.len();
    assert!(planned > 150, "a cell's instances are replaced: {planned}");
    let replanned = median_of(20, || assert_eq!(black_box(lost.turn()).commands.len(), planned));
    println!("a lost cell replanned, {planned} commands: {replanned:?}");

    crashes_and_rows(cluster);
}

/// Every instance crashes and waits for a cell again, its rows written as they would be.
fn crashes_and_rows(mut cluster: Cluster) {
    let crashes: Vec<Command> = cluster
        .state
        .actual_lrps()
        .filter_map(|row| {
            Some(Command::CrashLrp {
                key: row.key.clone(),
                instance: row.instance()?.clone(),
                reason: "APP/PROC/WEB: Exited with status 1".to_owned(),
            })
        })
        .collect();
    let dir = tempfile::tempdir().expect("a directory for RocksDB");
    let disk = RocksDisk::open(dir.path()).expect("RocksDB opens");
    let took = apply_all(&mut cluster, &crashes, |state| {
        let rows = state.take_journal();
        let changes = rows.iter().map(|row| {
            let key = codec::row_key(row);
            match codec::row_value(state, row) {
                Some(value) => Change::PutRow { generation: 1, key, value },
                None => Change::RemoveRow { generation: 1, key },
            }
        });
        disk.write(Batch(changes.collect())).expect("the disk works");
    });
    rate("CrashLrp with rows written", crashes.len(), took);
}

fn apply_all(
    cluster: &mut Cluster,
    commands: &[Command],
    mut applied: impl FnMut(&mut State),
) -> Duration {
    let proposals: Vec<Proposal> = commands
        .chunks(BATCH)
        .map(|commands| Proposal { at: cluster.now, commands: commands.to_vec() })
        .collect();
    let begun = Instant::now();
    for (log_index, proposal) in (1_000_000..).zip(proposals) {
        let (outcome, _) = apply_proposal(&mut cluster.state, log_index, proposal);
        assert!(
            outcome.0.iter().all(|result| *result == Ok(true)),
            "the benches do what is allowed"
        );
        applied(&mut cluster.state);
        black_box(cluster.state.take_journal());
    }
    begun.elapsed()
}

/// As a node that starts reads it: nothing is shared between rows that applying would share.
fn from_rows(state: &State) {
    let before = resident_mib();
    let begun = Instant::now();
    let mut loaded = State::new();
    for (key, value) in codec::rows(state) {
        codec::load_row(&mut loaded, &key, &value).expect("our own rows");
    }
    loaded.take_journal();
    println!("read from rows: {} MiB, {}", resident_mib() - before, seconds(begun.elapsed()));
    drop(black_box(loaded));
}

/// The median.
fn median_of(times: u32, mut work: impl FnMut()) -> Duration {
    let mut all = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        work();
        all.push(begun.elapsed());
    }
    all.sort_unstable();
    all[all.len() / 2]
}

fn rate(what: &str, count: usize, took: Duration) {
    println!("{what}: {:.0} transitions a second", count as f64 / took.as_secs_f64());
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// `VmRSS` of proc_pid_status(5), in mebibytes.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
