//! Our runtime, as a node has it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use container::container::{
    ContainerId, ContainerSpec, ContainerState, DiskEnforcement, DiskLimit, DiskScope, Limits,
    NetworkPolicy, Process, Runtime, RuntimeConfig, Shim,
};

pub(crate) const MEMORY_BYTES: u64 = 64 << 20;
pub(crate) const PIDS: u32 = 64;
pub(crate) const CPU_SHARES: u32 = 512;

pub(crate) struct Ours {
    runtime: Runtime,
    layer: PathBuf,
    disk: Option<DiskLimit>,
}

/// What each part of one container's life took.
pub(crate) struct Life {
    pub(crate) started: Duration,
    pub(crate) destroyed: Duration,
    pub(crate) whole: Duration,
}

/// Where this process's and its shims' memory is.
pub(crate) struct Memory {
    pub(crate) node: u64,
    pub(crate) shims: u64,
    pub(crate) threads: u64,
}

impl Memory {
    pub(crate) fn total(&self) -> u64 {
        self.node + self.shims
    }
}

impl Ours {
    pub(crate) async fn open(dir: &Path, name: &str, disk: DiskEnforcement) -> Self {
        let number = u8::try_from(name.len()).expect("a short name");
        let ports: RangeInclusive<u16> =
            30_000 + u16::from(number) * 200..=30_199 + u16::from(number) * 200;
        let limit = DiskLimit { bytes: 64 << 20, scope: DiskScope::Exclusive };
        let limit = (disk != DiskEnforcement::None).then_some(limit);
        let config = RuntimeConfig {
            dir: dir.join(name),
            cgroup_parent: format!("gavel-bench-{}/{name}", std::process::id()),
            bridge: format!("gb{}-{number}", std::process::id()),
            subnet: format!("10.{}.0.0/24", 200 + number).parse().expect("a subnet"),
            policy: NetworkPolicy::default(),
            host_ports: ports,
            id_base: 2_000_000 + u32::from(number) * 20_000_000,
            id_ranges: 256,
            disk,
            privileged: false,
            log_bytes_max: 1 << 20,
            nameservers: vec![],
            shim: Shim::default(),
        };
        let runtime = Runtime::open(config).await.expect("a runtime, as root");
        Self { runtime, layer: dir.join("rootfs"), disk: limit }
    }

    fn spec(&self, id: &str) -> ContainerSpec {
        ContainerSpec {
            id: self::id(id),
            layers: vec![self.layer.clone()],
            image_bytes: 0,
            mounts: vec![],
            hostname: id.to_owned(),
            privileged: false,
            limits: Limits {
                memory_bytes: Some(MEMORY_BYTES),
                pids: Some(PIDS),
                cpu_shares: Some(CPU_SHARES),
                disk: self.disk,
                ..Limits::default()
            },
            ports: vec![8080],
            egress: vec![],
            labels: BTreeMap::new(),
        }
    }

    /// A container of /bin/true, from nothing to nothing.
    pub(crate) async fn live(&self, id: &str) -> Life {
        let mut events = self.runtime.events();
        let began = Instant::now();
        let spec = self.spec(id);
        let id = spec.id.clone();
        self.runtime.create(spec).await.expect("it is made");
        self.runtime.start(&id, process(&["/bin/true"])).await.expect("it runs");
        let started = began.elapsed();
        while !matches!(
            self.runtime.get(&id).expect("it is there").state,
            ContainerState::Exited(_)
        ) {
            events.next().await.expect("events go on");
        }
        let ended = Instant::now();
        self.runtime.destroy(&id).await.expect("it is removed");
        Life { started, destroyed: ended.elapsed(), whole: began.elapsed() }
    }

    /// A container that does nothing for long.
    pub(crate) async fn idle(&self, id: &str) {
        self.runtime.create(self.spec(id)).await.expect("it is made");
        let process = process(&["/bin/sleep", "3600"]);
        self.runtime.start(&self::id(id), process).await.expect("it runs");
    }

    pub(crate) async fn stop(&self, id: &str) {
        // sleep is the first of its namespace's processes that hears nothing of SIGTERM.
        self.runtime.stop(&self::id(id), Duration::ZERO).await.expect("it ends");
        self.runtime.destroy(&self::id(id)).await.expect("it is removed");
    }

    pub(crate) async fn close(self) {
        self.runtime.close_network().await.expect("its network goes");
    }
}

fn id(id: &str) -> ContainerId {
    ContainerId::new(id).expect("a name")
}

fn process(args: &[&str]) -> Process {
    Process { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Process::default() }
}

/// Of this process, and of the shims below it with their containers' inits; not of the apps.
pub(crate) fn memory() -> Memory {
    let me = std::process::id();
    let status = read(&format!("/proc/{me}/status"));
    let threads = field(&status, "Threads:").expect("the kernel tells");
    let mut shims = 0;
    for pid in descendants(me) {
        let name = read(&format!("/proc/{pid}/cmdline"));
        if name.contains(container::container::shim::ARGUMENT) {
            shims += proportional(pid);
        }
    }
    Memory { node: proportional(me), shims, threads }
}

/// Of this process and all below it, since each started.
pub(crate) fn cpu_time() -> Duration {
    let me = std::process::id();
    let ticks: u64 = std::iter::once(me).chain(descendants(me)).map(ticks).sum();
    Duration::from_millis(ticks * 10) // USER_HZ is 100
}

/// Bytes, each shared page divided by those who share it.
fn proportional(pid: u32) -> u64 {
    let rollup = read(&format!("/proc/{pid}/smaps_rollup"));
    field(&rollup, "Pss:").unwrap_or(0) * 1024
}

fn descendants(parent: u32) -> Vec<u32> {
    let mut found = vec![parent];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        let children = tasks.flatten().flat_map(|task| {
            let children = read(&format!("{}/children", task.path().display()));
            children.split_whitespace().filter_map(|it| it.parse().ok()).collect::<Vec<u32>>()
        });
        let children: Vec<u32> = children.collect();
        found.extend(children);
        next += 1;
    }
    found.split_off(1)
}

fn ticks(pid: u32) -> u64 {
    let stat = read(&format!("/proc/{pid}/stat"));
    let Some((_, after)) = stat.rsplit_once(')') else { return 0 };
    // utime and stime: fields 14 and 15 of proc(5), of which the third comes first here.
    after.split_whitespace().skip(11).take(2).filter_map(|it| it.parse::<u64>().ok()).sum()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
