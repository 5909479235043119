//! The containers of Linux are held to the same contract as the simulated ones, on the real
//! kernel, with an image from a registry on loopback.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use agent::contract;
use container::container::Shim;
use container::image::ImageConfig;
use container::image::layout::pack_program;
use container::image::serve::Registry;
use model::actual_lrp::InstanceKey;
use model::{Action, ActualLrpKey, DesiredLrp, Millis, RunAction, Task, TaskDefinition, TaskState};
use plan::cell::{Handle, Work};

use server::config::{
    CellConfig, Config, MemberConfig, PlanningConfig, RegistriesConfig, TlsConfig,
};
use server::containers::LinuxContainers;

/// A cell of its own for each test, with a registry that has `box`: a static busybox.
struct Cell {
    containers: LinuxContainers,
    registry: String,
    _dir: tempfile::TempDir,
}

impl Cell {
    async fn open() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let dir = tempfile::Builder::new().prefix("gavel-server-").tempdir().unwrap();
        let config = Config {
            node_id: 1,
            name: "cell-1".to_owned(),
            listen: String::new(),
            advertise: None,
            data_dir: dir.path().to_owned(),
            members: vec![MemberConfig {
                node_id: 1,
                name: "cell-1".to_owned(),
                address: String::new(),
            }],
            cell: CellConfig {
                bridge: format!("gs{pid}-{number}"),
                subnet: format!("10.{}.{}.0/24", 200 + number % 50, pid % 250),
                host_ports: (40_000 + number * 20, 40_019 + number * 20),
                first_host_id: 0x2000_0000 + u32::from(number) * 0x0400_0000,
                cgroup: format!("gavel-server-test-{pid}/{number}"),
                ..CellConfig::default()
            },
            registries: RegistriesConfig::default(),
            planning: PlanningConfig::default(),
            tls: TlsConfig::default(),
            router: None,
            stop_containers_on_exit: true,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap().to_string();
        let busybox = std::fs::read("/bin/busybox").expect("Debian: busybox-static");
        let image = pack_program("/busybox", &busybox, &ImageConfig::default()).unwrap();
        let mut images = Registry::default();
        images.add("box", "latest", &image);
        tokio::spawn(images.serve(listener));
        let shim = Shim { program: env!("CARGO_BIN_EXE_server-test-shim").into(), args: vec![] };
        let containers = LinuxContainers::open(&config, dir.path(), shim).await.unwrap();
        Self { containers, registry, _dir: dir }
    }

    fn run(args: &[&str]) -> Option<Action> {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (path, log_source) = ("/busybox".to_owned(), "APP".to_owned());
        Some(Action::Run(RunAction { path, args, log_source, ..RunAction::default() }))
    }

    fn instance(&self, image: &str) -> (Handle, Work) {
        let instance = InstanceKey { instance_guid: "i".into(), cell_id: "cell-1".into() };
        let key = ActualLrpKey { process_guid: "app".into(), index: 0, domain: "d".into() };
        let desired = Arc::new(DesiredLrp {
            process_guid: "app".into(),
            rootfs: format!("docker://{}/{image}", self.registry),
            action: Self::run(&["sleep", "100000"]),
            ..DesiredLrp::default()
        });
        (Handle::Lrp("i".into()), Work::Lrp { key, instance, desired })
    }

    fn task(&self) -> (Handle, Work) {
        let definition = TaskDefinition {
            rootfs: format!("docker://{}/box", self.registry),
            action: Self::run(&["true"]),
            ..TaskDefinition::default()
        };
        let task = Task {
            task_guid: "t".into(),
            domain: "d".into(),
            definition,
            state: TaskState::Running { cell_id: "cell-1".into() },
            created_at: Millis(0),
            updated_at: Millis(0),
            rejection_count: 0,
            rejection_reason: String::new(),
        };
        (Handle::Task("t".into()), Work::Task { task: Arc::new(task) })
    }

    async fn close(self) {
        self.containers.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_runs_until_it_is_stopped() {
    let cell = Cell::open().await;
    let (handle, work) = cell.instance("box");
    contract::an_instance_runs_until_it_is_stopped(&cell.containers, &handle, &work).await;
    contract::what_runs_may_be_removed(&cell.containers, &handle, &work).await;
    cell.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_stays_until_it_is_removed() {
    let cell = Cell::open().await;
    let (handle, work) = cell.task();
    contract::a_task_that_ends_stays_until_it_is_removed(&cell.containers, &handle, &work).await;
    cell.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_leaves_nothing() {
    let cell = Cell::open().await;
    let (handle, work) = cell.instance("no-such-image");
    contract::what_cannot_be_made_leaves_nothing(&cell.containers, &handle, &work).await;
    cell.close().await;
}
