//! A runtime of a test's own, on the real kernel, that checks at its end that nothing is left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use container::container::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, DiskEnforcement, Error, Event,
    Events, Exit, Limits, LogPosition, LogStream, NetworkPolicy, Process, Runtime, RuntimeConfig,
    Shim, Subnet,
};

/// Long enough for a machine with other work, short enough to end a stuck test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static WORLDS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct World {
    pub(crate) config: RuntimeConfig,
    runtime: Option<Runtime>,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    pub(crate) async fn open_with(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        Self::try_open(change).await.unwrap()
    }

    /// Names, subnet and ports are this process's and this world's own.
    pub(crate) async fn try_open(change: impl FnOnce(&mut RuntimeConfig)) -> Result<Self, Error> {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let dir = tempfile::Builder::new().prefix("gavel-runtime-").tempdir().unwrap();
        let block = u16::try_from((pid * 13 + number) % 200).unwrap() * 50;
        let mut config = RuntimeConfig {
            dir: dir.path().join("runtime"),
            cgroup_parent: format!("gavel-test-{pid}/{number}"),
            bridge: format!("gt{pid}-{number}"),
            subnet: format!("10.{}.{}.0/24", 100 + pid % 100, (number * 7 + pid / 100) % 256)
                .parse::<Subnet>()
                .unwrap(),
            policy: NetworkPolicy::default(),
            host_ports: 20_000 + block..=20_000 + block + 49,
            id_base: 1_000_000 + number * 20_000_000,
            id_ranges: 64,
            disk: DiskEnforcement::None,
            privileged: false,
            log_bytes_max: 1 << 20,
            nameservers: vec!["192.0.2.53".parse().unwrap()],
            shim: Shim { program: env!("CARGO_BIN_EXE_container-test-shim").into(), args: vec![] },
        };
        change(&mut config);
        make_layer(&dir.path().join("layer"));
        let runtime = Runtime::open(config.clone()).await?;
        Ok(Self { config, runtime: Some(runtime), dir })
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    pub(crate) fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// As if the node's process had ended.
    pub(crate) fn forget(&mut self) {
        self.runtime = None;
    }

    pub(crate) async fn reopen(&mut self) {
        self.forget();
        self.runtime = Some(Runtime::open(self.config.clone()).await.unwrap());
    }

    pub(crate) fn spec(&self, id: &str) -> ContainerSpec {
        ContainerSpec {
            id: self::id(id),
            layers: vec![self.layer()],
            image_bytes: 0,
            mounts: vec![],
            hostname: id.to_owned(),
            privileged: false,
            limits: Limits::default(),
            ports: vec![],
            egress: vec![],
            labels: BTreeMap::new(),
        }
    }

    /// Makes a container and runs a shell script in it.
    pub(crate) async fn run(&self, id: &str, script: &str) -> ContainerInfo {
        self.run_with(self.spec(id), sh(script)).await
    }

    pub(crate) async fn run_with(&self, spec: ContainerSpec, process: Process) -> ContainerInfo {
        let id = spec.id.clone();
        let info = self.runtime().create(spec).await.unwrap();
        self.runtime().start(&id, process).await.unwrap();
        info
    }

    /// Runs a script to its end; its exit and what it said on standard output.
    pub(crate) async fn output(&self, id: &str, script: &str) -> (Exit, String) {
        self.run(id, script).await;
        let exit = self.exit(id).await;
        (exit, self.log(id, LogStream::Stdout).await)
    }

    pub(crate) async fn exit(&self, id: &str) -> Exit {
        let mut events = self.runtime().events();
        tokio::time::timeout(PATIENCE, async {
            loop {
                let info = self.runtime().get(&self::id(id)).unwrap();
                if let ContainerState::Exited(exit) = info.state {
                    return exit;
                }
                events.next().await.unwrap();
            }
        })
        .await
        .expect("the container exits")
    }

    /// The main process of a running container, on the host.
    pub(crate) fn pid(&self, id: &str) -> u32 {
        match self.runtime().get(&self::id(id)).unwrap().state {
            ContainerState::Running { pid, .. } => pid,
            state @ (ContainerState::Created | ContainerState::Exited(_)) => {
                panic!("{id} is {state:?}")
            }
        }
    }

    /// All lines of one stream so far.
    pub(crate) async fn log(&self, id: &str, stream: LogStream) -> String {
        let (mut text, mut from) = (String::new(), LogPosition::START);
        loop {
            let batch = self.runtime().logs(&self::id(id), from, 1000).await.unwrap();
            if batch.lines.is_empty() {
                return text;
            }
            for line in batch.lines.iter().filter(|line| line.stream == stream) {
                text.push_str(&String::from_utf8_lossy(&line.text));
                text.push('\n');
            }
            from = batch.next;
        }
    }

    /// Waits until a line appears in the log.
    pub(crate) async fn line(&self, id: &str, wanted: &str) {
        self.find_line(id, |line| line == wanted, wanted).await;
    }

    /// The first line in the log that is it, as soon as there is one.
    pub(crate) async fn find_line(
        &self,
        id: &str,
        is_it: impl Fn(&str) -> bool,
        wanted: &str,
    ) -> String {
        let mut from = LogPosition::START;
        let found = async {
            loop {
                let batch = self.runtime().logs_follow(&self::id(id), from, 100).await.unwrap();
                let batch = batch.unwrap_or_else(|| panic!("{id} ended without {wanted:?}"));
                let mut lines = batch.lines.iter().map(|line| String::from_utf8_lossy(&line.text));
                if let Some(line) = lines.find(|line| is_it(line)) {
                    return line.into_owned();
                }
                from = batch.next;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the line appears")
    }

    pub(crate) async fn destroy(&self, id: &str) {
        self.runtime().destroy(&self::id(id)).await.unwrap();
    }

    /// The end of every test: takes all away and compares the host with what it was.
    pub(crate) async fn close(mut self) {
        for info in self.runtime().list() {
            self.runtime().destroy(&info.id).await.unwrap();
        }
        assert_eq!(self.traces(), self.network_traces(), "containers leave nothing");
        self.runtime().close_network().await.unwrap();
        self.forget();
        assert_eq!(self.traces(), Vec::<String>::new(), "the runtime leaves nothing");
    }

    /// What an empty, open runtime has on the host.
    pub(crate) fn network_traces(&self) -> Vec<String> {
        let bridge = &self.config.bridge;
        let mut traces = vec![
            format!("link {bridge}"),
            format!("table ip gavel_{bridge}"),
            format!("table ip6 gavel_{bridge}"),
        ];
        if self.config.disk == DiskEnforcement::Pool {
            let pool = self.config.dir.join("pool").display().to_string();
            traces.extend(self.traces().into_iter().filter(|trace| trace.contains(&pool)));
        }
        traces
    }

    /// Everything on this host that is this world's: links, tables, mounts, loop devices, processes,
    /// cgroups of containers, directories of containers.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let gateway = u32::from(self.config.subnet.gateway()) & 0xFFFF_FF00;
        let ours = format!("gv{:06x}", gateway >> 8);
        for link in command("ip", &["-o", "link"]).lines() {
            let name = link.split(": ").nth(1).unwrap().split('@').next().unwrap();
            if name == self.config.bridge || name.starts_with(&ours) {
                traces.push(format!("link {name}"));
            }
        }
        for table in command("nft", &["list", "tables"]).lines() {
            if table.ends_with(&format!("gavel_{}", self.config.bridge)) {
                traces.push(table.to_owned());
            }
        }
        traces.extend(self.entries());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        traces.extend(mounts.lines().filter(|m| m.contains(dir)).map(|m| format!("mount {m}")));
        for device in fs::read_dir("/sys/block").unwrap() {
            let device = device.unwrap().path();
            let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
            if file.contains(dir) {
                traces.push(format!("{} with {file}", device.display()));
            }
        }
        // With its end, so that world 1's are not taken for those of world 10.
        let cgroups = format!("/{}/", self.config.cgroup_parent);
        for process in processes() {
            let cgroup = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
            let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            // A zombie shim waits for this very process, if a test dropped its runtime.
            if cgroup.contains(&cgroups) && !state.contains(") Z ") {
                traces.push(format!("process {process} {state}"));
            }
        }
        for root in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let group = root.unwrap().path().join(&self.config.cgroup_parent).join("containers");
            for entry in fs::read_dir(group).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    traces.push(format!("cgroup {}", path.display()));
                }
            }
        }
        for entry in fs::read_dir(self.config.dir.join("containers")).unwrap() {
            traces.push(format!("directory {}", entry.unwrap().path().display()));
        }
        traces
    }
}

impl World {
    /// What is in the tables for single containers: their chains, and who leads there or to a
    /// port.
    pub(crate) fn entries(&self) -> Vec<String> {
        let name = format!("gavel_{}", self.config.bridge);
        let tables = command("nft", &["list", "tables"]);
        if !tables.lines().any(|table| table == format!("table ip {name}")) {
            return Vec::new();
        }
        let chains = command("nft", &["list", "table", "ip", &name]);
        let chains = chains
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("chain egress_") || line.starts_with("chain log_"));
        let mut entries: Vec<String> = chains.map(str::to_owned).collect();
        for map in ["ports", "egress"] {
            let listed = command("nft", &["list", "map", "ip", &name, map]);
            let (_, elements) = listed.split_once("elements = {").unwrap_or_default();
            let elements = elements.split('}').next().unwrap_or_default();
            let elements = elements.split(',').map(str::trim).filter(|one| !one.is_empty());
            entries.extend(elements.map(|element| format!("{map} {element}")));
        }
        entries
    }

    /// The network namespace of a container.
    pub(crate) fn network_of(&self, name: &str) -> PathBuf {
        let state = self.runtime().get(&id(name)).unwrap().state;
        let ContainerState::Running { pid, .. } = state else { panic!("{name} is {state:?}") };
        format!("/proc/{pid}/ns/net").into()
    }
}

/// Does something on a thread that is in another network namespace. Its sockets stay there.
pub(crate) fn in_network<T: Send>(namespace: &Path, what: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            what()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for World {
    /// After a failed test: another runtime on another thread cleans up.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.forget();
        let config = self.config.clone();
        let cleanup = std::thread::spawn(move || {
            let tokio = tokio::runtime::Runtime::new().unwrap();
            tokio.block_on(async {
                let Ok(runtime) = Runtime::open(config).await else { return };
                for info in runtime.list() {
                    let _ = runtime.destroy(&info.id).await;
                }
                let _ = runtime.close_network().await;
            });
        });
        let _ = cleanup.join();
    }
}

pub(crate) fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|e| e.unwrap().file_name().to_str().unwrap().parse().ok()).collect()
}

pub(crate) fn id(id: &str) -> ContainerId {
    ContainerId::new(id).unwrap()
}

pub(crate) fn sh(script: &str) -> Process {
    args(&["/bin/sh", "-c", script])
}

pub(crate) fn args(args: &[&str]) -> Process {
    Process { args: args.iter().map(|a| (*a).to_owned()).collect(), ..Process::default() }
}

pub(crate) fn command(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a change that `wanted` accepts.
pub(crate) async fn event(events: &mut Events, wanted: impl Fn(&Event) -> bool) {
    let found = async {
        loop {
            let event = events.next().await.unwrap();
            if wanted(&event) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the change comes");
}

/// An image with a static busybox and two users.
fn make_layer(layer: &Path) {
    for dir in ["bin", "etc", "tmp", "root", "home/web"] {
        fs::create_dir_all(layer.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
    for applet in command("/bin/busybox", &["--list"]).lines() {
        if applet != "busybox" {
            symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:\n")
        .unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:1000:\nwheel:x:10:web\n").unwrap();
}

/// Waits until a file is there and not empty.
pub(crate) async fn wait_for_file(path: &Path) -> fs::Metadata {
    let found = async {
        loop {
            match fs::metadata(path) {
                Ok(meta) if meta.len() > 0 => return meta,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the file appears")
}
