//! The containers of Linux are held to the same contract as the simulated ones, on the real
//! kernel, with an image from a registry on loopback.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use agent::{Containers, contract};
use container::container::Shim;
use container::image::ImageConfig;
use container::image::layout::{Packed, pack_program};
use container::image::serve::Registry;
use model::actual_lrp::InstanceKey;
use model::{Action, ActualLrpKey, DesiredLrp, Millis, RunAction, Task, TaskDefinition, TaskState};
use plan::cell::{Container, Handle, Work};

use server::config::{
    CellConfig, Config, MemberConfig, PlanningConfig, PreloadedConfig, RegistriesConfig, TlsConfig,
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
        let busybox = std::fs::read("/bin/busybox").expect("Debian: busybox-static");
        let config =
            ImageConfig { entrypoint: vec!["/busybox".to_owned()], ..ImageConfig::default() };
        let image = pack_program("/busybox", &busybox, &config).unwrap();
        let stack = dir.path().join("stack");
        write_layout(&image, &stack);
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
            diego: None,
            registries: RegistriesConfig::default(),
            planning: PlanningConfig::default(),
            tls: TlsConfig::default(),
            router: None,
            preloaded: vec![PreloadedConfig { name: "stack".to_owned(), path: stack }],
            route_emitter: None,
            ssh_proxy: None,
            stop_containers_on_exit: true,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap().to_string();
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

    /// A task that stages an image of this cell's registry, as a face desires it.
    fn staging(&self, image: &str) -> (Handle, Work) {
        let (handle, work) = self.task();
        let Work::Task { task } = work else { panic!("{work:?}") };
        let mut task = (*task).clone();
        let image = format!("docker://{}/{image}", self.registry);
        task.definition.rootfs = "staging:docker".to_owned();
        task.definition.action = Some(Action::Run(RunAction {
            path: "builder".to_owned(),
            args: vec!["-dockerRef".to_owned(), image],
            ..RunAction::default()
        }));
        (handle, Work::Task { task: Arc::new(task) })
    }

    /// How a task has ended, once it has.
    async fn ended(&self, handle: &Handle) -> (bool, String, String) {
        let mut seen = 0;
        loop {
            seen = self.containers.changed(seen).await;
            let found = self.containers.list().into_iter().find(|found| found.handle == *handle);
            if let Some(Container::Exited { failed, reason, result }) =
                found.map(|found| found.container)
            {
                return (failed, reason, result);
            }
        }
    }

    async fn close(self) {
        self.containers.stop_all().await;
    }
}

/// An OCI image layout of one image, as skopeo writes it.
fn write_layout(image: &Packed, directory: &Path) {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let manifest = (image.digest(), &image.manifest);
    for (digest, bytes) in
        image.blobs.iter().map(|(digest, bytes)| (*digest, bytes)).chain([manifest])
    {
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
    }
    let (kind, digest, size) = (&image.media_type, image.digest(), image.manifest.len());
    let entry = format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{size}}}");
    let index = format!("{{\"schemaVersion\":2,\"manifests\":[{entry}]}}");
    std::fs::write(directory.join("index.json"), index).unwrap();
    std::fs::write(directory.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preloaded_root_file_system_needs_no_registry_and_no_room() {
    let mut cell = Cell::open().await;
    // No registry is there to be asked.
    cell.registry = "registry.invalid".to_owned();
    let instance = |rootfs: &str| {
        let (handle, work) = cell.instance("box");
        let Work::Lrp { key, instance, desired } = work else { panic!("{work:?}") };
        // Busybox alone has two mebibytes: a Docker image would be too large.
        let desired = DesiredLrp { rootfs: rootfs.to_owned(), disk_mb: 1, ..(*desired).clone() };
        (handle, Work::Lrp { key, instance, desired: Arc::new(desired) })
    };
    let (handle, work) = instance("preloaded:stack");
    contract::an_instance_runs_until_it_is_stopped(&cell.containers, &handle, &work).await;
    let (handle, work) = instance("preloaded:other");
    let failure = cell.containers.create(&handle, &work).await.unwrap_err();
    assert_eq!(
        failure.reason,
        "failed to create container: this cell has no preloaded root file system \"other\""
    );
    cell.close().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn staging_is_a_task_like_others_without_a_container() {
    let cell = Cell::open().await;
    let (handle, work) = cell.staging("box#latest");
    contract::a_task_that_ends_stays_until_it_is_removed(&cell.containers, &handle, &work).await;
    cell.containers.create(&handle, &work).await.unwrap();
    let again = cell.containers.create(&handle, &work).await;
    assert!(again.is_err(), "one of a name");
    let (failed, _, result) = cell.ended(&handle).await;
    assert!(!failed);
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["lifecycle_type"], "docker");
    let image = format!("{}/box:latest", cell.registry);
    assert_eq!(result["lifecycle_metadata"]["docker_image"], image.as_str());
    assert_eq!(result["process_types"]["web"], "/busybox");
    assert!(result["lifecycle_metadata"]["digest"].as_str().unwrap().starts_with("sha256:"));
    cell.containers.destroy(&handle).await.unwrap();

    let (handle, work) = cell.staging("nothing#v1");
    cell.containers.create(&handle, &work).await.unwrap();
    let (failed, reason, result) = cell.ended(&handle).await;
    let expected = format!("{}/nothing:v1 does not exist", cell.registry);
    assert!(failed && reason.starts_with(&expected), "{reason}");
    assert_eq!(result, "{\"lifecycle_type\":\"docker\"}");
    cell.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staging_that_is_stopped_asks_its_registry_no_more() {
    let mut cell = Cell::open().await;
    // It takes connections, and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    cell.registry = silent.local_addr().unwrap().to_string();
    let (handle, work) = cell.staging("box");
    cell.containers.create(&handle, &work).await.unwrap();
    let (mut asking, _) = silent.accept().await.unwrap();
    // Connected is not yet asked: only once a byte has come is the question out.
    let mut first = [0];
    tokio::io::AsyncReadExt::read_exact(&mut asking, &mut first).await.unwrap();
    let listed = cell.containers.list();
    assert!(matches!(listed[0].container, Container::Starting), "{listed:?}");
    cell.containers.stop(&handle).await;
    let (failed, reason, _) = cell.ended(&handle).await;
    assert_eq!((failed, reason.as_str()), (true, "staging was ended"));
    // The connection is closed, long before a registry's time is up: reading comes to an end.
    let mut rest = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut asking, &mut rest);
    tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap().unwrap();
    cell.containers.destroy(&handle).await.unwrap();
    assert!(cell.containers.list().is_empty());
    cell.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_desires_of_staging_does_nothing_else() {
    let cell = Cell::open().await;
    let (handle, work) = cell.staging("box");
    let Work::Task { task } = work else { panic!("{work:?}") };
    let mut hostile = (*task).clone();
    hostile.definition.privileged = true;
    hostile.definition.action = Cell::run(&["touch", "/tmp/staged"]);
    cell.containers.create(&handle, &Work::Task { task: Arc::new(hostile) }).await.unwrap();
    let (failed, reason, _) = cell.ended(&handle).await;
    assert!(failed);
    assert_eq!(reason, "a staging task runs builder -dockerRef IMAGE, and nothing else");
    cell.containers.destroy(&handle).await.unwrap();

    let (handle, work) = cell.instance("box");
    let Work::Lrp { key, instance, desired } = work else { panic!("{work:?}") };
    let desired =
        Arc::new(DesiredLrp { rootfs: "staging:docker".to_owned(), ..(*desired).clone() });
    let work = Work::Lrp { key, instance, desired };
    contract::what_cannot_be_made_leaves_nothing(&cell.containers, &handle, &work).await;
    cell.close().await;
}
