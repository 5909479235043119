//! Diego's API under load: three nodes with synced disks, clients over mutual TLS in this process,
//! all on this machine.
//!
//! `cargo bench --bench bbs -- [SECONDS]`

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::bbs::messages as bbs;
use futures_util::StreamExt as _;
use prost::Message;
use reqwest::{Certificate, Client, Identity, Response};
use tests::cluster::Cluster;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// The first node's port for Diego's clients; the others follow.
const PORT: u16 = 8889;
const CLIENTS: usize = 64;
/// Instances that are listed.
const LISTED: usize = 10_000;
const LISTS: usize = 21;
const EVENTS: usize = 301;
const SUBSCRIBERS: usize = 1000;
/// Without subscribers and with them, in turns.
const ROUNDS: usize = 4;
/// Between two tasks that subscribers are told of, where they are not told of everything.
const STEADY: Duration = Duration::from_millis(20);

/// A client of one node.
#[derive(Clone)]
struct Bbs {
    client: Client,
    url: String,
}

impl Bbs {
    fn new(cluster: &Cluster, node: u16) -> Self {
        let dir = cluster.data_dir().join("diego");
        let read = |name: &str| fs::read(dir.join(name)).expect("gavel dev has made it");
        let identity = [read("client.crt"), read("client.key")].concat();
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(&read("ca.crt")).expect("a certificate")])
            .identity(Identity::from_pem(&identity).expect("a certificate and its key"))
            .http1_only()
            .build()
            .expect("a client");
        Self { client, url: format!("https://127.0.0.1:{}", PORT + node - 1) }
    }

    async fn post(&self, path: &str, request: &impl Message) -> Response {
        let request = self.client.post(format!("{}{path}", self.url)).body(request.encode_to_vec());
        request.send().await.expect("the node answers")
    }

    async fn ask<A: Message + Default>(&self, path: &str, request: &impl Message) -> A {
        let body = self.post(path, request).await.bytes().await.expect("a body");
        A::decode(body).expect("an answer")
    }

    async fn desire(&self, guid: String, instances: i32) {
        let request = bbs::DesireLrpRequest { desired_lrp: Some(lrp(guid, instances)) };
        let answer: bbs::DesiredLrpLifecycleResponse =
            self.ask("/v1/desired_lrp/desire.r2", &request).await;
        assert_eq!(answer.error, None);
    }

    async fn annotate(&self, guid: &str, annotation: String) {
        let update = bbs::DesiredLrpUpdate { annotation: Some(annotation), ..Default::default() };
        let request =
            bbs::UpdateDesiredLrpRequest { process_guid: guid.to_owned(), update: Some(update) };
        let answer: bbs::DesiredLrpLifecycleResponse =
            self.ask("/v1/desired_lrp/update", &request).await;
        assert_eq!(answer.error, None);
    }

    /// Tells how many bytes come, and when.
    async fn subscribe(&self, told: mpsc::UnboundedSender<(Instant, usize)>) -> JoinHandle<()> {
        let request = bbs::EventsByCellId::default();
        let mut events = self.post("/v1/events/lrp_instances.r1", &request).await.bytes_stream();
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = events.next().await {
                let _ = told.send((Instant::now(), bytes.len()));
            }
        })
    }
}

/// As Cloud Controller desires one, without what only a cell looks at.
fn lrp(guid: String, instances: i32) -> bbs::DesiredLrp {
    let run = bbs::RunAction {
        path: "/tmp/lifecycle/launcher".to_owned(),
        args: vec!["app".to_owned(), "bundle exec rackup".to_owned()],
        user: "vcap".to_owned(),
        ..Default::default()
    };
    let tag = |text: &str| bbs::MetricTagValue { r#static: text.to_owned(), dynamic: 0 };
    let route = format!(r#"[{{"hostnames":["{guid}.example.com"],"port":8080}}]"#).into_bytes();
    bbs::DesiredLrp {
        process_guid: guid,
        domain: "cf-apps".to_owned(),
        // No cell has it, and nothing is started.
        root_fs: "preloaded:bench".to_owned(),
        instances,
        action: Some(bbs::Action { run_action: Some(run), ..Default::default() }),
        memory_mb: 256,
        disk_mb: 1024,
        ports: vec![8080],
        routes: Some(bbs::ProtoRoutes { routes: [("cf-router".to_owned(), route)].into() }),
        metric_tags: [("source_id".to_owned(), tag("app"))].into(),
        ..Default::default()
    }
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let seconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(5);
    let duration = Duration::from_secs(seconds);
    rustls::crypto::ring::default_provider().install_default().expect("it is the first");
    let cluster = Cluster::start();
    let leader: u16 = cluster.leader().trim_start_matches("node-").parse().expect("a number");
    println!("{CLIENTS} clients, {seconds} s a run\n\n| what | figure |\n|---|---|");
    cluster.host().in_network(|| {
        // Its threads are made by one that is in the machine's network, and so are there too.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let (at_leader, elsewhere) =
                (Bbs::new(&cluster, leader), Bbs::new(&cluster, leader % 3 + 1));
            for (name, node, client) in
                [("first", "the leader", &at_leader), ("second", "a follower", &elsewhere)]
            {
                let rate = desire(client, name, 0, duration).await;
                println!("| LRPs desired a second at {node} | {rate:.0} |");
            }
            for (guid, node, client) in
                [("events-0", "the leader", &at_leader), ("events-1", "a follower", &elsewhere)]
            {
                events(&at_leader, client, guid, node).await;
            }
            for told in [Told::OfTasks, Told::OfEverything] {
                subscribers(&cluster, &at_leader, leader, duration, told).await;
            }
            let rate = desire(&at_leader, "placed", 1, duration).await;
            println!(
                "| LRPs of one instance desired a second, with no room for them | {rate:.0} |"
            );
            list(&at_leader).await;
        });
    });
}

/// How many a second, by [`CLIENTS`] that each wait for their answer.
async fn desire(bbs: &Bbs, name: &str, instances: i32, duration: Duration) -> f64 {
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        let (bbs, name) = (bbs.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut count = 0_u32;
            while begun.elapsed() < duration {
                bbs.desire(format!("{name}-{client}-{count}"), instances).await;
                count += 1;
            }
            count
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut count = 0;
    for client in clients {
        count += client.await.expect("it ends");
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

async fn list(bbs: &Bbs) {
    let instances = i32::try_from(LISTED).expect("few");
    bbs.desire("listed".to_owned(), instances).await;
    let request =
        bbs::ActualLrPsRequest { process_guid: "listed".to_owned(), ..Default::default() };
    let mut took = Vec::new();
    let mut bytes = 0;
    for _ in 0..LISTS {
        let begun = Instant::now();
        let body = bbs.post("/v1/actual_lrps/list", &request).await.bytes().await.expect("a body");
        took.push(begun.elapsed());
        bytes = body.len();
        let answer = bbs::ActualLrPsResponse::decode(body).expect("an answer");
        assert_eq!(answer.actual_lrps.len(), LISTED);
    }
    took.sort();
    let median = milliseconds(took[took.len() / 2]);
    println!("| {LISTED} instances listed, {bytes} bytes: median | {median:.1} ms |");
}

/// From the request to its answer, and to the event; what lies between is the event's way.
async fn events(writer: &Bbs, reader: &Bbs, guid: &str, node: &str) {
    writer.desire(guid.to_owned(), 0).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let reading = reader.subscribe(told).await;
    let (mut answers, mut arrivals, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..EVENTS {
        tokio::time::sleep(Duration::from_millis(5)).await;
        while heard.try_recv().is_ok() {}
        let begun = Instant::now();
        writer.annotate(guid, format!("{number}")).await;
        let answered = Instant::now();
        let (at, _) = heard.recv().await.expect("the stream goes on");
        answers.push(answered - begun);
        arrivals.push(at - begun);
        after.push(at.saturating_duration_since(answered));
    }
    reading.abort();
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        milliseconds(times[times.len() / 2])
    };
    let (answer, arrival, after) =
        (median(&mut answers), median(&mut arrivals), median(&mut after));
    println!("| an update, to its answer, median | {answer:.2} ms |");
    println!("| to its event at {node}, median | {arrival:.2} ms, {after:.2} after the answer |");
}

/// What subscribers hear while LRPs are desired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// A task each [`STEADY`], and not of the LRPs.
    OfTasks,
    /// Each LRP.
    OfEverything,
}

impl Told {
    fn path(self) -> &'static str {
        match self {
            Self::OfTasks => "/v1/events/tasks.r1",
            Self::OfEverything => "/v1/events/lrp_instances.r1",
        }
    }

    fn name(self) -> String {
        match self {
            Self::OfTasks => format!("told of {} tasks a second", 1000 / STEADY.as_millis()),
            Self::OfEverything => "told of everything".to_owned(),
        }
    }
}

/// What subscribers cost those who write. They read on a thread of their own, so that the writers do
/// not wait for their turn among them.
async fn subscribers(cluster: &Cluster, bbs: &Bbs, node: u16, duration: Duration, told: Told) {
    let mut rates = Vec::new();
    for (round, count) in [0, SUBSCRIBERS].repeat(ROUNDS).into_iter().enumerate() {
        let bytes = Arc::new(AtomicU64::new(0));
        let (ready, all_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let cut_off = std::thread::scope(|scope| {
            let reading = scope
                .spawn(|| read(&Bbs::new(cluster, node), told.path(), count, &bytes, ready, ended));
            let name = format!("subscribed-{told:?}-{round}");
            let writing = async {
                all_ready.await.expect("they have subscribed");
                let tasks =
                    (told == Told::OfTasks).then(|| tokio::spawn(tasks(bbs.clone(), round)));
                let rate = desire(bbs, &name, 0, duration).await;
                if let Some(tasks) = tasks {
                    tasks.abort();
                }
                let _ = end.send(());
                rate
            };
            let rate = tokio::task::block_in_place(|| Handle::current().block_on(writing));
            rates.push(rate);
            reading.join().expect("it ends")
        });
        let (rate, told) = (rates[round], told.name());
        let megabytes = bytes.load(Ordering::Relaxed) / 1_000_000;
        println!(
            "| LRPs desired a second with {count} subscribers {told} | {rate:.0}; {megabytes} MB \
             told, {cut_off} cut off |"
        );
    }
    let sum = |from: usize| rates.iter().skip(from).step_by(2).sum::<f64>();
    let (ratio, told) = (sum(1) / sum(0), told.name());
    println!("| with {SUBSCRIBERS} subscribers {told}, of the rate without | {ratio:.3} |");
}

/// Desires one each [`STEADY`], until it is ended.
async fn tasks(bbs: Bbs, round: usize) {
    let mut pace = tokio::time::interval(STEADY);
    for number in 0.. {
        pace.tick().await;
        let bbs::DesiredLrp { root_fs, action, memory_mb, disk_mb, .. } = lrp(String::new(), 0);
        let definition =
            bbs::TaskDefinition { root_fs, action, memory_mb, disk_mb, ..Default::default() };
        let request = bbs::DesireTaskRequest {
            task_definition: Some(definition),
            task_guid: format!("task-{round}-{number}"),
            domain: "cf-tasks".to_owned(),
        };
        let answer: bbs::TaskLifecycleResponse = bbs.ask("/v1/tasks/desire.r2", &request).await;
        assert_eq!(answer.error, None);
    }
}

/// So many that read until they are told to end; how many were cut off before.
fn read(
    bbs: &Bbs,
    path: &str,
    count: usize,
    bytes: &Arc<AtomicU64>,
    ready: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
) -> usize {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut readers = Vec::new();
        for _ in 0..count {
            let answer = bbs.post(path, &bbs::EventsByCellId::default()).await;
            let (mut events, bytes) = (answer.bytes_stream(), Arc::clone(bytes));
            readers.push(tokio::spawn(async move {
                while let Some(Ok(piece)) = events.next().await {
                    bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
            }));
        }
        let _ = ready.send(());
        let _ = ended.await;
        readers.iter().filter(|reader| reader.is_finished()).count()
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
