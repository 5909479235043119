//! Committed writes a second through three nodes with synced disks, raced against etcd with three
//! members on the same disk, in turns: three processes each, clients in this one, all on this
//! machine. A write is 256 bytes, and is counted when its answer is there.
//!
//! `cargo bench --bench writes -- [SECONDS] [ROUNDS]`

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

mod etcd;
mod gavel;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::host::Host;

/// Clients at once, each waiting for its answer before it asks again.
const CLIENTS: [usize; 3] = [1, 16, 256];
/// Connections that the clients share, as etcd's own benchmark tool has them share.
const CONNECTIONS_MAX: usize = 16;
/// What a write carries.
const VALUE_BYTES: usize = 256;
const WARM_UP: Duration = Duration::from_secs(1);

/// A cluster that takes writes.
trait Target: Sync {
    const NAME: &'static str;
    /// One of the connections that clients share.
    type Connection: Clone + Send + Sync + 'static;
    fn connect(&self) -> impl Future<Output = Self::Connection> + Send;
    /// Puts a value under a key of this client's, and returns when it is committed.
    fn write(
        connection: &mut Self::Connection,
        client: usize,
        value: String,
    ) -> impl Future<Output = ()> + Send;
    fn host(&self) -> &Host;
}

/// What one run saw.
struct Seen {
    writes_per_second: f64,
    p50: Duration,
    p99: Duration,
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let mut number =
        |default: u64| words.next().and_then(|word| word.parse().ok()).unwrap_or(default);
    let (seconds, rounds) = (number(5), number(3));
    let duration = Duration::from_secs(seconds);
    let gavel = gavel::start();
    let etcd = etcd::start();
    println!("{VALUE_BYTES} bytes a write, {seconds} s a run, the median of {rounds} rounds\n");
    println!("| clients | gavel w/s | p50 / p99 ms | etcd w/s | p50 / p99 ms | ratio |");
    println!("|---|---|---|---|---|---|");
    for clients in CLIENTS {
        // In turns, so that a disk or a neighbour that changes its mood meets both.
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(run(&gavel, clients, duration));
            theirs.push(run(&etcd, clients, duration));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let shown = |seen: &Seen| {
            let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
            let (p50, p99) = (milliseconds(seen.p50), milliseconds(seen.p99));
            format!("{:.0} | {p50:.2} / {p99:.2}", seen.writes_per_second)
        };
        let ratio = ours.writes_per_second / theirs.writes_per_second;
        println!("| {clients} | {} | {} | {ratio:.2} |", shown(&ours), shown(&theirs));
    }
}

fn median(mut seen: Vec<Seen>) -> Seen {
    seen.sort_by(|one, other| one.writes_per_second.total_cmp(&other.writes_per_second));
    seen.swap_remove(seen.len() / 2)
}

fn run<T: Target>(target: &T, clients: usize, duration: Duration) -> Seen {
    // Threads that a thread in the host's network makes are in it too.
    target.host().in_network(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(measure(target, clients, duration))
    })
}

async fn measure<T: Target>(target: &T, clients: usize, duration: Duration) -> Seen {
    let mut connections = Vec::new();
    for _ in 0..clients.min(CONNECTIONS_MAX) {
        connections.push(target.connect().await);
    }
    let (counts, stops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let mut connection = connections[client % connections.len()].clone();
            let (counts, stops) = (Arc::clone(&counts), Arc::clone(&stops));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for number in 0_u64.. {
                    if stops.load(Ordering::Relaxed) {
                        break;
                    }
                    // No two alike: a write that changes nothing would be cheap.
                    let value = format!("{number:0>VALUE_BYTES$}");
                    let counted = counts.load(Ordering::Relaxed);
                    let began = Instant::now();
                    T::write(&mut connection, client, value).await;
                    if counted && !stops.load(Ordering::Relaxed) {
                        latencies.push(began.elapsed());
                    }
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    counts.store(true, Ordering::Relaxed);
    let began = Instant::now();
    tokio::time::sleep(duration).await;
    stops.store(true, Ordering::Relaxed);
    let elapsed = began.elapsed();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client that fails has no figure"));
    }
    latencies.sort_unstable();
    assert!(!latencies.is_empty(), "{} took no write in {duration:?}", T::NAME);
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    let writes_per_second = latencies.len() as f64 / elapsed.as_secs_f64();
    Seen { writes_per_second, p50: at(50), p99: at(99) }
}
