//! The node's own death, at any moment.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use container::container::{
    ContainerState, DiskEnforcement, DiskLimit, DiskScope, EgressProtocol, EgressRule, Event,
    ExitStatus, Limits, LogStream, NetworkPolicy, PortRange, Runtime, RuntimeConfig, Shim,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::world::{PATIENCE, World, event, id, processes, sh};

const LOOP: &str = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_finds_its_containers_running_and_watches_them() {
    let mut world = World::open().await;
    let mut spec = world.spec("survivor");
    spec.ports = vec![8080];
    spec.labels.insert("guid".into(), "abc".into());
    world.run_with(spec, sh(LOOP)).await;
    world.line("survivor", "up").await;
    world.runtime().create(world.spec("unstarted")).await.unwrap();
    world.run("ended", "exit 9").await;
    world.exit("ended").await;
    let before = world.runtime().list();
    world.reopen().await;
    assert_eq!(world.runtime().list(), before);

    // Still the same in every way: it can be stopped, followed, started, and its address is
    // not given to another.
    let mut events = world.runtime().events();
    world.runtime().stop(&id("survivor"), PATIENCE).await.unwrap();
    event(&mut events, |event| matches!(event, Event::Changed(info) if info.id == id("survivor")))
        .await;
    assert_eq!(world.exit("survivor").await.status, ExitStatus::Code(3));
    assert_eq!(world.log("survivor", LogStream::Stdout).await, "up\nbye\n");
    world.runtime().start(&id("unstarted"), sh("echo started")).await.unwrap();
    world.exit("unstarted").await;
    assert_eq!(world.log("unstarted", LogStream::Stdout).await, "started\n");
    let another = world.run("another", "true").await;
    assert!(before.iter().all(|info| info.address != another.address));
    assert!(before.iter().all(|info| info.id_base != another.id_base));
    world.close().await;
}

/// The process ids of the world's shims.
fn shims(world: &World) -> Vec<u32> {
    let group = format!("{}/shims", world.config.cgroup_parent);
    let is_shim = |pid: &u32| {
        let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        // Without a command line it is a zombie, which waits for us.
        read("cgroup").contains(&group)
            && read("comm") == "gavel-shim\n"
            && !read("cmdline").is_empty()
    };
    processes().into_iter().filter(is_shim).collect()
}

async fn gone(world: &World, what: &str) {
    let none = async {
        while world.traces().iter().any(|trace| trace.starts_with(what)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, none).await.expect("they go");
}

fn kill_shims(world: &World) {
    let shims = shims(world);
    assert_eq!(shims.len(), 1);
    for shim in shims {
        kill(Pid::from_raw(i32::try_from(shim).unwrap()), Signal::SIGKILL).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_container_down_and_is_reported() {
    let world = World::open().await;
    world.run("orphan", LOOP).await;
    world.line("orphan", "up").await;
    kill_shims(&world);
    let exit = world.exit("orphan").await;
    assert_eq!(exit.status, ExitStatus::Signal(9));
    let traces = world.traces();
    assert!(!traces.iter().any(|trace| trace.starts_with("process")), "{traces:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_shim_keeps_no_container_alive() {
    let world = World::open().await;
    world.run("frozen", LOOP).await;
    world.line("frozen", "up").await;
    for shim in shims(&world) {
        kill(Pid::from_raw(i32::try_from(shim).unwrap()), Signal::SIGSTOP).unwrap();
    }
    world.destroy("frozen").await;
    assert_eq!(world.traces(), world.network_traces());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_killed_while_no_node_was_there_is_reported() {
    let mut world = World::open().await;
    world.run("orphan", LOOP).await;
    world.line("orphan", "up").await;
    world.forget();
    kill_shims(&world);
    gone(&world, "process").await;
    world.reopen().await;
    assert_eq!(world.exit("orphan").await.status, ExitStatus::Signal(9));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_while_no_node_was_there_is_kept() {
    let mut world = World::open().await;
    // Ends when someone connects; listens before it is told to say so.
    let script = "nc -l -p 7000 & while ! grep -q :1B58 /proc/net/tcp6; do :; done; \
                  echo up; wait; echo last words; exit 6";
    let info = world.run("away", script).await;
    world.line("away", "up").await;
    world.forget();
    drop(std::net::TcpStream::connect((info.address, 7000)).unwrap());
    gone(&world, "process").await;
    world.reopen().await;
    assert_eq!(world.exit("away").await.status, ExitStatus::Code(6));
    assert_eq!(world.log("away", LogStream::Stdout).await, "up\nlast words\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_half_made_or_half_destroyed_is_taken_away() {
    for phase in ["Creating", "Destroying"] {
        let mut world = World::open().await;
        let mut spec = world.spec("half");
        spec.ports = vec![80];
        spec.egress = vec![logged_rule()];
        world.run_with(spec, sh(LOOP)).await;
        assert_eq!(world.entries().len(), ENTRIES);
        world.forget();
        let record = world.config.dir.join("containers/half/state.json");
        let text = fs::read_to_string(&record).unwrap();
        assert!(text.contains("\"Created\""));
        fs::write(&record, text.replace("\"Created\"", &format!("\"{phase}\""))).unwrap();
        world.reopen().await;
        assert_eq!(world.runtime().list(), []);
        assert_eq!(world.traces(), world.network_traces());
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_record_and_strays_are_taken_away() {
    let mut world = World::open().await;
    world.forget();
    let dir = world.config.dir.join("containers/torn");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("state.json"), "{\"phase\":\"Crea").unwrap();
    let stray = format!("/sys/fs/cgroup/pids/{}/containers/stray", world.config.cgroup_parent);
    if fs::metadata("/sys/fs/cgroup/pids").is_ok() {
        fs::create_dir(stray).unwrap();
    }
    world.reopen().await;
    assert_eq!(world.runtime().list(), []);
    assert_eq!(world.traces(), world.network_traces());
    world.close().await;
}

/// A rule that leads to everything a rule can leave in the tables.
fn logged_rule() -> EgressRule {
    let ports = [PortRange::new(80, 90).unwrap(), PortRange::new(443, 443).unwrap()];
    let destinations = ["10.0.0.0/8".parse().unwrap(), "192.0.2.1".parse().unwrap()];
    EgressRule::new(EgressProtocol::Tcp(ports.to_vec()), &destinations, true)
}

/// What a container with one port and [`logged_rule`] has in the tables.
const ENTRIES: usize = 4;

const NODE: &str = "GAVEL_TEST_NODE";

/// Not a test of its own: the process that the next one kills.
/// Makes, starts and destroys containers until then.
#[tokio::test(flavor = "multi_thread")]
async fn node_process() {
    let Ok(config) = std::env::var(NODE) else { return };
    let [dir, parent, bridge, subnet, port, ids, layer] =
        config.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let port: u16 = port.parse().unwrap();
    let config = RuntimeConfig {
        dir: dir.into(),
        cgroup_parent: parent.into(),
        bridge: bridge.into(),
        subnet: subnet.parse().unwrap(),
        policy: NetworkPolicy::default(),
        host_ports: port..=port + 49,
        id_base: ids.parse().unwrap(),
        id_ranges: 64,
        disk: DiskEnforcement::Volumes,
        privileged: false,
        log_bytes_max: 1 << 20,
        nameservers: vec![],
        shim: Shim { program: env!("CARGO_BIN_EXE_container-test-shim").into(), args: vec![] },
    };
    let runtime = Runtime::open(config).await.unwrap();
    let lives = (0..3).map(|life| {
        let (runtime, layer) = (runtime.clone(), layer.to_owned());
        async move {
            for number in 0.. {
                let spec = container::container::ContainerSpec {
                    id: id(&format!("life-{life}-{number}")),
                    layers: vec![layer.clone().into()],
                    mounts: vec![],
                    hostname: "node".into(),
                    privileged: false,
                    image_bytes: 0,
                    limits: Limits {
                        disk: Some(DiskLimit { bytes: 1 << 20, scope: DiskScope::Exclusive }),
                        ..Limits::default()
                    },
                    ports: vec![80],
                    egress: vec![logged_rule()],
                    labels: Default::default(),
                };
                let info = runtime.create(spec).await.unwrap();
                runtime.start(&info.id, sh("sleep 1000")).await.unwrap();
                runtime.destroy(&info.id).await.unwrap();
            }
        }
    });
    for life in lives.map(tokio::spawn).collect::<Vec<_>>() {
        life.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_at_any_moment_leaves_what_it_finished_and_nothing_else() {
    let mut world = World::open().await;
    let config = &world.config;
    let environment = format!(
        "{} {} {} {} {} {} {}",
        config.dir.display(),
        config.cgroup_parent,
        config.bridge,
        config.subnet,
        config.host_ports.start(),
        config.id_base,
        world.layer().display()
    );
    let mut found = 0;
    for round in 0..40 {
        // On a slow machine the first rounds are over before a container is finished.
        if round >= 10 && found > 0 {
            break;
        }
        world.forget();
        let mut node = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recovery::node_process", "--nocapture"])
            .env(NODE, &environment)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Not for an event but for any moment: each round another, and more patient where the
        // machine turns out to be slow.
        let patience = u64::saturating_sub(round, 10).pow(2) * 8;
        tokio::time::sleep(Duration::from_millis(60 + round * 23 + patience)).await;
        node.kill().unwrap();
        node.wait().unwrap();
        world.reopen().await;
        let mut left = world.network_traces();
        let there = world.runtime().list();
        assert_eq!(world.entries().len(), ENTRIES * there.len(), "round {round}");
        for info in there {
            found += 1;
            assert!(!matches!(info.state, ContainerState::Exited(_)), "{info:?}");
            let name = info.id.as_str();
            left.retain(|trace| !trace.contains(name));
            world.destroy(name).await;
        }
        assert_eq!(world.traces(), left, "round {round}");
    }
    assert!(found > 0, "no round caught a finished container");
    world.close().await;
}
