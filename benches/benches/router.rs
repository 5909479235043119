//! The router against a bare nginx that proxies, in turns, on one machine: `wrk` asks, and another
//! nginx answers, as an app would, for both.
//!
//! `cargo bench -p gavel-benches --bench router -- SECONDS ROUNDS CONNECTIONS`

#![expect(clippy::print_stdout, reason = "a bench tells its figures")]

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command as Program, Stdio};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use model::{
    Action, ActualLrpId, Capacity, Cell, CellHealth, Command, DesiredLrp, FeatureFlag, Intake,
    Millis, NetInfo, PortMapping, RootfsProvider, RunAction, Stamp, State,
};
use router::{Router, Settings, Table};

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const APP_PORT: u16 = 18_080;
const NGINX_PORT: u16 = 18_081;
const ROUTER_PORT: u16 = 18_082;

/// What one run of `wrk` tells.
#[derive(Clone, Copy, Debug)]
struct Figures {
    requests_a_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// An nginx, ended when dropped.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers.
        let pid = self.0.id().to_string();
        let _ = Program::new("kill").args(["-TERM", &pid]).status();
        let _ = self.0.wait();
    }
}

fn main() {
    // Cargo adds --bench.
    let numbers: Vec<u64> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let number = |at: usize, otherwise| numbers.get(at).copied().unwrap_or(otherwise);
    let (seconds, rounds, connections) = (number(0, 5), number(1, 3), number(2, 64));
    let dir = tempfile::tempdir().expect("there is room for it");
    let app = "location / { return 200 'hello from an app, in a few words\\n'; }";
    let _app = nginx(dir.path(), "app", APP_PORT, "", app);
    let pass = "location / { proxy_pass http://app; proxy_http_version 1.1; \
         proxy_set_header Connection ''; proxy_set_header Host $http_host; \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
         proxy_set_header X-Forwarded-Proto $scheme; }";
    let upstream = format!("upstream app {{ server 127.0.0.1:{APP_PORT}; keepalive 128; }}");
    let _proxy = nginx(dir.path(), "proxy", NGINX_PORT, &upstream, pass);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let listener =
        runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, ROUTER_PORT)));
    let router = Router::new(Arc::new(RwLock::new(table())), Settings::default());
    let served = runtime.block_on(async { router.serve(listener.expect("the port is free")) });
    served.expect("its threads start");

    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load.trim());
    let (mut of_nginx, mut of_router, mut of_app) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        of_app.push(wrk(APP_PORT, seconds, connections));
        of_nginx.push(wrk(NGINX_PORT, seconds, connections));
        of_router.push(wrk(ROUTER_PORT, seconds, connections));
    }
    let (app, nginx, router) = (median(of_app), median(of_nginx), median(of_router));
    for (name, figures) in [("app itself", app), ("nginx", nginx), ("gavel", router)] {
        let Figures { requests_a_second, p50_ms, p99_ms } = figures;
        println!(
            "{name:<11} {requests_a_second:>9.0} requests/s  p50 {p50_ms:.2}  p99 {p99_ms:.2} ms"
        );
    }
    let rate = router.requests_a_second / nginx.requests_a_second;
    println!(
        "gavel / nginx: {rate:.2} of the requests, {:.2} of the p99",
        router.p99_ms / nginx.p99_ms
    );
}

/// One server of an nginx of its own, with as many workers as there are cores.
fn nginx(dir: &std::path::Path, name: &str, port: u16, http: &str, server: &str) -> Nginx {
    let own = dir.join(name);
    fs::create_dir_all(&own).expect("the directory is ours");
    let text = format!(
        "daemon off; worker_processes auto; pid {0}/pid; error_log {0}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {0}/body;\n\
         proxy_temp_path {0}/temp; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u;\n\
         scgi_temp_path {0}/s;\n{http}\nserver {{ listen 127.0.0.1:{port}; {server} }} }}\n",
        own.display()
    );
    let file = own.join("nginx.conf");
    fs::write(&file, text).expect("the directory is ours");
    let child = Program::new("nginx").arg("-c").arg(&file).stderr(Stdio::inherit()).spawn();
    let nginx = Nginx(child.expect("nginx (Debian: nginx) starts"));
    for _ in 0..100 {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return nginx;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nginx does not listen on port {port}");
}

fn wrk(port: u16, seconds: u64, connections: u64) -> Figures {
    let output = Program::new("wrk")
        .args(["--latency", "-t2", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .args(["-H", "Host: app.test", &format!("http://127.0.0.1:{port}/")])
        .output()
        .expect("wrk (Debian: wrk) starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "port {port}:\n{text}");
    let after = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        line.unwrap_or_else(|| panic!("no {label} in:\n{text}")).trim().to_owned()
    };
    let requests_a_second = after("Requests/sec:").parse().expect("a number");
    Figures { requests_a_second, p50_ms: millis(&after("50%")), p99_ms: millis(&after("99%")) }
}

fn millis(text: &str) -> f64 {
    for (unit, scale) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit).and_then(|text| text.parse::<f64>().ok()) {
            return number * scale;
        }
    }
    panic!("{text:?} is no time of wrk's");
}

fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|one, other| one.requests_a_second.total_cmp(&other.requests_a_second));
    figures[figures.len() / 2]
}

/// One app of one instance, whose host port is nginx's, as commands make it.
fn table() -> Table {
    let mut state = State::new();
    let mut does = |log_index: u64, command: Command| {
        let stamp = Stamp { log_index, position: 0, at: Millis(log_index) };
        model::apply(&mut state, stamp, command).expect("it is accepted");
    };
    does(1, Command::InitCluster { salt: 1 });
    does(2, Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true });
    let cell = Cell {
        cell_id: "c".into(),
        node_id: 1,
        address: Ipv4Addr::LOCALHOST,
        zone: "z".into(),
        capacity: Capacity { memory_mb: 1000, disk_mb: 1000, containers: 10 },
        rootfs_providers: vec![RootfsProvider::arbitrary("docker")],
        placement_tags: Vec::new(),
        optional_placement_tags: Vec::new(),
        volume_drivers: Vec::new(),
        rep_url: String::new(),
        health: CellHealth::Present,
        intake: Intake::Open,
    };
    does(3, Command::RegisterCell { cell: Box::new(cell) });
    let run = RunAction { path: "/a".to_owned(), user: "root".to_owned(), ..RunAction::default() };
    let text = r#"[{"hostnames":["app.test"],"port":8080}]"#;
    let desired = DesiredLrp {
        process_guid: "app".into(),
        domain: "d".into(),
        rootfs: "docker:///a".to_owned(),
        action: Some(Action::Run(run)),
        instances: 1,
        ports: vec![8080],
        routes: [("cf-router".to_owned(), text.to_owned())].into(),
        ..DesiredLrp::default()
    };
    does(4, Command::DesireLrp { desired_lrp: Box::new(desired) });
    let (process_guid, cell_id) = ("app".into(), "c".into());
    does(5, Command::PlaceLrp { process_guid, index: 0, cell_id });
    let row = state.actual_lrp(&ActualLrpId::ordinary("app".into(), 0)).expect("it is placed");
    let (key, instance) = (row.key.clone(), row.instance().expect("it is placed").clone());
    let ports = vec![PortMapping { container_port: 8080, host_port: APP_PORT }];
    let net_info =
        NetInfo { address: Ipv4Addr::LOCALHOST, instance_address: [10, 0, 0, 2].into(), ports };
    let start = Command::StartLrp { key, instance, net_info, routable: true };
    let stamp = Stamp { log_index: 6, position: 0, at: Millis(6) };
    model::apply(&mut state, stamp, start).expect("it is accepted");
    Table::of(&state)
}
