//! From nothing to a running process and back, raced against crun, runc and podman, in turns, on
//! this machine: the same files, user namespace, capabilities, system calls and limits for all. Ours
//! alone has a network with a published port besides; podman is left without one.
//!
//! `cargo bench --bench containers -- [RUNS]`, as root

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

mod oci;
mod ours;

use std::path::Path;
use std::time::{Duration, Instant};

use container::container::DiskEnforcement;
use container::container::shim;

/// Started at once.
const CROWD: usize = 100;
/// Between two runs of a race.
const REST: Duration = Duration::from_millis(100);
/// How long they idle.
const IDLE: Duration = Duration::from_secs(15);

fn main() {
    if std::env::args().nth(1).as_deref() == Some(shim::ARGUMENT) {
        shim::main();
    }
    let peers: Vec<oci::Peer> = oci::Peer::ALL.into_iter().filter(oci::Peer::is_here).collect();
    if !peers.is_empty() {
        oci::hide_second_hierarchy();
    }
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let runs = words.next().and_then(|word| word.parse().ok()).unwrap_or(50);
    let dir = tempfile::Builder::new().prefix("gavel-bench-").tempdir().expect("a directory");
    make_rootfs(&dir.path().join("rootfs"));
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    tokio.block_on(async {
        race(dir.path(), runs, &peers).await;
        crowd(dir.path()).await;
    });
}

/// One after the other, each meeting the same machine.
async fn race(dir: &Path, runs: usize, peers: &[oci::Peer]) {
    let ours = ours::Ours::open(dir, "plain", DiskEnforcement::None).await;
    let limited = ours::Ours::open(dir, "limited", DiskEnforcement::Detect).await;
    oci::make_bundle(dir);
    let mut lives: Vec<ours::Life> = Vec::new();
    let mut of_limited: Vec<ours::Life> = Vec::new();
    let mut of_peers: Vec<Vec<Duration>> = vec![Vec::new(); peers.len()];
    let contestants = 2 + peers.len();
    for run in 0..=runs {
        for turn in 0..contestants {
            // Namespaces are torn down behind the scenes: nobody pays for who came before.
            tokio::time::sleep(REST).await;
            let id = format!("run-{run}");
            match (run + turn) % contestants {
                0 => lives.push(ours.live(&id).await),
                1 => of_limited.push(limited.live(&id).await),
                peer => of_peers[peer - 2].push(peers[peer - 2].run(dir, run)),
            }
        }
    }
    // The first makes what is made once.
    lives.remove(0);
    of_limited.remove(0);
    for took in &mut of_peers {
        took.remove(0);
    }
    ours.close().await;
    limited.close().await;

    println!("{runs} runs of /bin/true, one after the other\n");
    println!("| what | median ms | p90 ms | least ms |");
    println!("|---|---|---|---|");
    for (name, lives) in [("", &lives), (", disk limit too", &of_limited)] {
        show(&format!("gavel: placed to running{name}"), lives.iter().map(|it| it.started));
        show(&format!("gavel: clean up once it ended{name}"), lives.iter().map(|it| it.destroyed));
        show(&format!("gavel: the whole life{name}"), lives.iter().map(|it| it.whole));
    }
    for (peer, took) in peers.iter().zip(&of_peers) {
        show(&format!("{}: the whole life", peer.name()), took.iter().copied());
    }
    let started = median(lives.iter().map(|it| it.started));
    let whole = median(lives.iter().map(|it| it.whole));
    println!();
    for (peer, took) in peers.iter().zip(&of_peers) {
        let theirs = median(took.iter().copied()).as_secs_f64();
        println!(
            "{}: its whole life takes {:.2} times our start, {:.2} times our whole life",
            peer.name(),
            theirs / started.as_secs_f64(),
            theirs / whole.as_secs_f64(),
        );
    }
}

/// Many at once, what they cost while they idle, and how they end.
async fn crowd(dir: &Path) {
    let ours = ours::Ours::open(dir, "crowd", DiskEnforcement::None).await;
    let before = ours::memory();
    let began = Instant::now();
    let ids: Vec<String> = (0..CROWD).map(|number| format!("idle-{number}")).collect();
    futures_util::future::join_all(ids.iter().map(|id| ours.idle(id))).await;
    let started = began.elapsed();
    // Tokio's threads for what blocks go when they have had nothing to do for 10 s.
    tokio::time::sleep(IDLE).await;
    let during = ours::memory();
    let cpu = ours::cpu_time();
    tokio::time::sleep(IDLE).await;
    let cpu = ours::cpu_time() - cpu;
    let began = Instant::now();
    futures_util::future::join_all(ids.iter().map(|id| ours.stop(id))).await;
    let stopped = began.elapsed();
    ours.close().await;

    let each = |bytes: u64| bytes as f64 / CROWD as f64 / 1024.0;
    println!("\n{CROWD} at once: all run after {:.0} ms", started.as_secs_f64() * 1e3);
    println!("{CROWD} stopped and cleaned up at once: {:.0} ms", stopped.as_secs_f64() * 1e3);
    println!(
        "an idle one costs {:.0} KiB: {:.0} of its shim and init (PSS), {:.0} of the node's",
        each(during.total() - before.total()),
        each(during.shims),
        each(during.node - before.node),
    );
    println!(
        "{} threads in the node, {} before; {:.0} ms of processor time for all in {} s of idling",
        during.threads,
        before.threads,
        cpu.as_secs_f64() * 1e3,
        IDLE.as_secs(),
    );
}

fn median(took: impl Iterator<Item = Duration>) -> Duration {
    at(took, 50)
}

fn at(took: impl Iterator<Item = Duration>, percent: usize) -> Duration {
    let mut took: Vec<Duration> = took.collect();
    took.sort_unstable();
    took[(took.len() - 1) * percent / 100]
}

fn show(what: &str, took: impl Iterator<Item = Duration> + Clone) {
    let ms = |percent| at(took.clone(), percent).as_secs_f64() * 1e3;
    println!("| {what} | {:.1} | {:.1} | {:.1} |", ms(50), ms(90), ms(0));
}

/// A static busybox, and places to mount on.
fn make_rootfs(rootfs: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        std::fs::create_dir_all(rootfs.join(dir)).expect("a directory");
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is here");
    for applet in ["true", "sleep"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).expect("a link");
    }
    let write = |name: &str, text| std::fs::write(rootfs.join(name), text).expect("a file");
    write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    write("etc/group", "root:x:0:\n");
    for mounted_by_podman in ["etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv"] {
        write(mounted_by_podman, "");
    }
}
