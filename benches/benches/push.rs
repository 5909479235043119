//! `gavel push` of an image that every cell has, on three nodes: from the command's start until its
//! route first answers 200, and until the command has returned. The parts are told by the lines
//! that the cell writes into the app's log.
//!
//! Needs root, and the program of the same profile: `cargo build --release -p gavel && cargo bench
//! -p gavel-benches --bench push [-- ROUNDS]`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]
#![expect(clippy::print_stdout, reason = "its figures")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::cluster::{Cluster, SAMPLE};
use tests::host::http_get_as;

const ROUNDS: usize = 20;
const ROUTER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Between two looks at the route: little beside what is measured, and enough not to be a load.
const PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(30);

/// What is told, in the order in which it happens; each is the time since the command's start.
const MARKS: [&str; 5] =
    ["container is made", "app listens", "app is healthy", "first 200", "command returns"];
/// The lines of the first three.
const LINES: [&str; 3] = [
    "successfully created container for instance",
    "hello listens on port",
    "Container became healthy",
];

fn main() {
    let rounds = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let cluster = Cluster::start_apart();
    // Every cell has the image, and has shown that it runs it.
    let _ = cluster.done(&["push", "warm", "-o", SAMPLE, "-i", "3"]);
    let _ = cluster.instances("warm", 3);
    println!("load {}", fs::read_to_string("/proc/loadavg").unwrap().trim());
    let mut all = MARKS.map(|_| Vec::new());
    for round in 0..rounds {
        let name = format!("app-{round}");
        let marks = push(&cluster, &name);
        for (times, mark) in all.iter_mut().zip(marks) {
            times.extend(mark);
        }
        let _ = cluster.done(&["delete", &name]);
        let _ = cluster.instances(&name, 0);
    }
    for (mark, times) in MARKS.iter().zip(&mut all) {
        times.sort_unstable();
        let Some((least, most)) = times.first().zip(times.last()) else { continue };
        let middle = times[times.len() / 2];
        let [middle, least, most] = [middle, *least, *most].map(|it| it.as_millis());
        println!("{mark:<16} {middle:>6} ms   ({least} to {most}, {} times)", times.len());
    }
    println!("load {}", fs::read_to_string("/proc/loadavg").unwrap().trim());
}

/// Pushes an app and takes the time of each mark, as far as it was told.
fn push(cluster: &Cluster, name: &str) -> [Option<Duration>; MARKS.len()] {
    let host = format!("{name}.localhost");
    let (answered, returned, wall) = cluster.host().in_network(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let began = Instant::now();
        let mut command = cluster.gavel(&["push", name, "-o", SAMPLE]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        thread::scope(|scope| {
            let returned = scope.spawn(|| {
                let status = command.status().unwrap();
                assert!(status.success(), "push {name}: {status}");
                began.elapsed()
            });
            while http_get_as(ROUTER, &host, "/healthz").is_err() {
                assert!(began.elapsed() < PATIENCE, "{host} does not answer");
                thread::sleep(PAUSE);
            }
            (began.elapsed(), returned.join().unwrap(), wall)
        })
    });
    let lines = cluster.json(&["logs", name, "--recent"]);
    let mut marks = [None; MARKS.len()];
    for (mark, text) in marks.iter_mut().zip(LINES) {
        let at = lines.iter().find_map(|line| written(line, text));
        *mark = at.and_then(|at| at.checked_sub(wall));
    }
    marks[LINES.len()] = Some(answered);
    marks[LINES.len() + 1] = Some(returned);
    marks
}

/// When this line was written, if it is this one.
fn written(line: &Value, text: &str) -> Option<Duration> {
    let is_it = line["message"].as_str()?.contains(text);
    is_it.then(|| line["timestamp"].as_u64()).flatten().map(Duration::from_nanos)
}
