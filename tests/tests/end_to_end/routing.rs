//! Apps answer by name, and lose no request when their instances move or end.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::cluster::{Cluster, SAMPLE};
use tests::eventually;
use tests::host::http_get_as;

const ROUTER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// How long a route may take to be what it should.
const ROUTED_MAX: Duration = Duration::from_secs(60);
/// How long at least an instance goes on once its end is agreed: a second less what the command
/// takes to return.
const DRAINED_MIN: Duration = Duration::from_millis(500);

/// Waits until an app's route answers.
fn answers(cluster: &Cluster, host: &str) {
    let _ = eventually(&format!("{host} answers"), ROUTED_MAX, || {
        cluster.host().in_network(|| http_get_as(ROUTER, host, "/healthz"))
    });
}

/// Clients that ask without a pause while something is done; how often, and what went wrong.
fn under_load(cluster: &Cluster, host: &str, what: impl FnOnce()) -> (usize, Vec<String>) {
    let (is_over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ask = || {
        cluster.host().in_network(|| {
            let mut wrong = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                match http_get_as(ROUTER, host, "/") {
                    Ok(_) => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => wrong.push(error),
                }
            }
            wrong
        })
    };
    let wrong = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        what();
        // Longer than what has left the table goes on.
        thread::sleep(Duration::from_secs(3));
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("it does not panic")).collect()
    });
    (count.into_inner(), wrong)
}

#[test]
fn scaling_down_and_evacuating_lose_no_request() {
    let cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "4"]);
    answers(&cluster, "hello.localhost");
    let all = cluster.instances("hello", 4);
    let last = all.iter().max_by_key(|instance| instance.index).expect("there are four").address;
    let mut drained = Duration::ZERO;
    let (count, wrong) = under_load(&cluster, "hello.localhost", || {
        let _ = cluster.done(&["scale", "hello", "-i", "2"]);
        // Off the record, it still answers those whose router has not heard of that.
        let agreed = Instant::now();
        while cluster.host().in_network(|| http_get_as(last, "hello", "/healthz")).is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
        drained = agreed.elapsed();
        let _ = cluster.instances("hello", 2);
    });
    assert!(drained > DRAINED_MIN, "it ended {drained:?} after");
    assert!(wrong.is_empty(), "scaling: {} of {count}: {:?}", wrong.len(), wrong.first());
    assert!(count > 100, "{count} requests");
    // Not the router's own cell: it goes on routing in either case, and the other is the way
    // across.
    let on = cluster.instances("hello", 2)[0].cell_id.clone();
    let (count, wrong) = under_load(&cluster, "hello.localhost", || {
        let _ = cluster.done(&["evacuate", &on]);
        eventually("the cell is empty", ROUTED_MAX, || {
            let running = cluster.running("hello");
            let is_moved = running.iter().all(|instance| instance.cell_id != on);
            if is_moved && running.len() == 2 { Ok(()) } else { Err(format!("{running:?}")) }
        });
    });
    assert!(wrong.is_empty(), "evacuating: {} of {count}: {:?}", wrong.len(), wrong.first());
    assert!(count > 100, "{count} requests");
}

/// The blocks of this kind in `docs/push.md`, in order.
fn blocks(kind: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/push.md");
    let text = fs::read_to_string(path).expect("it is in the tree");
    let fence = format!("```{kind}\n");
    let parts = text.split(&fence).skip(1);
    parts.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_walk_of_docs_push_goes_as_it_is_written() {
    let cluster = Cluster::start();
    let [manifest] = &blocks("yaml")[..] else { panic!("there is one manifest") };
    fs::write(cluster.host().dir().join("manifest.yml"), manifest).unwrap();
    let gavel = cluster.gavel(&[]);
    let endpoints = gavel.get_envs().find(|(name, _)| *name == "GAVEL_ENDPOINTS");
    let endpoints = endpoints.and_then(|(_, value)| value).unwrap();
    let steps = blocks("sh");
    assert!(steps.len() > 5, "the walk has steps");
    for step in steps {
        let program = tests::cluster::program();
        let script = format!(
            "set -e; cd '{}'; gavel() {{ '{}' \"$@\"; }}\n{step}",
            cluster.host().dir().display(),
            program.display()
        );
        let run = || {
            let mut shell = cluster.host().command("sh");
            shell.args(["-c", &script]).env("GAVEL_ENDPOINTS", endpoints);
            let output = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            (output.status.success(), said)
        };
        let (is_done, said) = run();
        assert!(is_done, "{step}\n{said}");
        if step.contains("gavel push hello") {
            assert!(said.contains("routes:    http://hello.localhost:8080\n"), "{said}");
        }
        if step.contains("GREETING=ho") {
            assert!(said.contains("GREETING=ho\n"), "{said}");
        }
    }
}
