//! Control groups, version 1 (hybrid) and version 2: limits, use, and what the kernel killed.
//!
//! Below the runtime's parent group there are `shims`, which the shims move to so that the end
//! of the node's own group does not end them, and `containers/<id>`.
//! All of it is file writes against root paths that [`Cgroups::detect`] finds, so that the
//! version 2 half is tested on an ordinary directory as well.
//!
//! Sources: the kernel's `cgroup-v1/memory.rst`, `cgroup-v1/pids.rst` and `cgroup-v2.rst`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Context as _, Error, Result};
use super::limits::Limits;
use super::spec::{ContainerId, Stats};
use crate::limits::{CGROUP_REMOVE_PAUSE, CGROUP_REMOVE_TRIES_MAX};

/// The mounted hierarchies, and the runtime's place in them.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    version: Version,
    parent: PathBuf,
    /// How many processes the machine has numbers for (proc_sys_kernel(5)).
    pid_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    V1(V1),
    V2 { root: PathBuf },
}

/// Version 1 mount points; several controllers may share one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct V1 {
    memory: PathBuf,
    pids: PathBuf,
    cpu: PathBuf,
    cpuacct: Option<PathBuf>,
    /// Hierarchies without controllers that a service manager kills by: shims leave the node's
    /// group there too. `name=systemd`,
    managers: Vec<PathBuf>,
    /// and the hybrid layout's version 2.
    unified: Option<PathBuf>,
}

/// Which directories a container belongs to.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    /// One in each hierarchy.
    pub container: Vec<PathBuf>,
    /// The file with the `oom_kill` counter.
    pub oom_counter: PathBuf,
}

/// How a container's shim and init join their groups.
///
/// Whoever moves a process by `cgroup.procs` first waits until no processor is in the middle of a
/// fork or an exit, 10 to 20 ms on an idle machine (the kernel's `cgroup_threadgroup_rwsem`). A
/// thread that moves itself, by `tasks` of version 1, does not; nor does who is born in a group of
/// version 2 (CLONE_INTO_CGROUP, clone3(2)). What is left, the shim's group of version 2, nobody
/// waits for: see [`Cgroups::move_shim`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Joins {
    /// Files that the shim, which is one thread, writes a 0 to.
    pub shim_tasks: Vec<PathBuf>,
    /// Likewise init.
    pub init_tasks: Vec<PathBuf>,
    /// The group of version 2 that init is born in, where there is version 2.
    pub init_group: Option<PathBuf>,
}

impl Cgroups {
    /// Finds the hierarchies of this machine and makes the runtime's groups below `parent`.
    pub(super) fn open(parent: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .context(|| "read /proc/self/mountinfo".to_owned())?;
        Self::open_at(Self::detect(&mounts)?, parent)
    }

    fn open_at(version: Version, parent: &str) -> Result<Self> {
        let parent = PathBuf::from(parent);
        let ordinary = |part| matches!(part, std::path::Component::Normal(_));
        if parent.as_os_str().is_empty() || !parent.components().all(ordinary) {
            return Err(Error::Invalid {
                what: format!("cgroup parent {}", parent.display()),
                reason: "it is not a plain relative path".to_owned(),
            });
        }
        let pid_max = read_number(Path::new("/proc/sys/kernel/pid_max"))?;
        let cgroups = Self { version, parent, pid_max };
        for dir in cgroups.shims().into_iter().chain(cgroups.containers()) {
            fs::create_dir_all(&dir).context(|| format!("create cgroup {}", dir.display()))?;
        }
        if let Version::V2 { root } = &cgroups.version {
            // A controller is offered to a group only if each ancestor passes it on.
            let below = cgroups.parent.join("containers");
            let mut group = root.clone();
            enable_controllers(&group)?;
            for part in &below {
                group.push(part);
                enable_controllers(&group)?;
            }
        }
        Ok(cgroups)
    }

    /// Reads `/proc/self/mountinfo` (proc(5)): field 5 is the mount point; after ` - ` come the
    /// file system type, the source and the super block's options, which name v1's controllers.
    fn detect(mountinfo: &str) -> Result<Version> {
        let (mut v1, mut unified) = (V1::default(), None);
        for line in mountinfo.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut fs = fs.split(' ');
            match (fs.next(), fs.nth(1)) {
                (Some("cgroup2"), _) => unified = unified.or(Some(point)),
                (Some("cgroup"), Some(options)) => {
                    for option in options.split(',') {
                        match option {
                            "memory" => v1.memory.clone_from(&point),
                            "pids" => v1.pids.clone_from(&point),
                            "cpu" => v1.cpu.clone_from(&point),
                            "cpuacct" => v1.cpuacct = Some(point.clone()),
                            "name=systemd" => v1.managers.push(point.clone()),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let missing: Vec<&str> = [("memory", &v1.memory), ("pids", &v1.pids), ("cpu", &v1.cpu)]
            .into_iter()
            .filter(|(_, point)| point.as_os_str().is_empty())
            .map(|(name, _)| name)
            .collect();
        match (missing.as_slice(), unified) {
            ([], unified) => Ok(Version::V1(V1 { unified, ..v1 })),
            // No v1 controller at all: they are the unified hierarchy's.
            (["memory", "pids", "cpu"], Some(root)) => Ok(Version::V2 { root }),
            (missing, _) => Err(Error::Invalid {
                what: "cgroups of this machine".to_owned(),
                reason: format!("no hierarchy with {}", missing.join(", ")),
            }),
        }
    }

    /// The hierarchies with controllers that containers are put in.
    fn roots(&self) -> Vec<&Path> {
        match &self.version {
            Version::V2 { root } => vec![root],
            Version::V1(v1) => {
                let mut roots: Vec<&Path> = vec![&v1.memory, &v1.pids, &v1.cpu];
                roots.extend(v1.cpuacct.as_deref());
                roots.sort_unstable();
                roots.dedup();
                roots
            }
        }
    }

    fn containers(&self) -> Vec<PathBuf> {
        self.roots().into_iter().map(|root| root.join(&self.parent).join("containers")).collect()
    }

    fn shims(&self) -> Vec<PathBuf> {
        let managers: &[PathBuf] = match &self.version {
            Version::V1(v1) => &v1.managers,
            Version::V2 { .. } => &[],
        };
        let unified = self.unified();
        let managers = managers.iter().map(PathBuf::as_path).chain(unified);
        self.roots().into_iter().chain(managers).map(|root| self.shims_in(root)).collect()
    }

    fn shims_in(&self, root: &Path) -> PathBuf {
        root.join(&self.parent).join("shims")
    }

    /// Version 2's hierarchy, where it is beside version 1's.
    fn unified(&self) -> Option<&Path> {
        match &self.version {
            Version::V1(v1) => v1.unified.as_deref(),
            Version::V2 { .. } => None,
        }
    }

    /// How a container's shim and init join.
    pub(super) fn joins(&self, id: &ContainerId) -> Joins {
        let in_each = |dirs: Vec<PathBuf>, file: &str| -> Vec<PathBuf> {
            dirs.into_iter().map(|dir| dir.join(file)).collect()
        };
        let container = self.groups(id).container;
        let Version::V1(v1) = &self.version else {
            return Joins { init_group: container.into_iter().next(), ..Joins::default() };
        };
        let shims = self.roots().into_iter().chain(v1.managers.iter().map(PathBuf::as_path));
        let shims = shims.map(|root| self.shims_in(root)).collect();
        Joins {
            shim_tasks: in_each(shims, "tasks"),
            // Of the managers' groups it is born in the shim's.
            init_tasks: in_each(container, "tasks"),
            // Which has no controller here, so that no container has a group of its own there.
            init_group: v1.unified.as_ref().map(|root| self.shims_in(root)),
        }
    }

    /// Moves a shim to its group of version 2, where there is version 2. Blocks, as [`Joins`] tells.
    ///
    /// Until then the end of the node's own group is the shim's too.
    pub(super) fn move_shim(&self, pid: u32) {
        let v2 = match &self.version {
            Version::V2 { root } => Some(root.as_path()),
            Version::V1(v1) => v1.unified.as_deref(),
        };
        let Some(root) = v2 else { return };
        match write(&self.shims_in(root).join("cgroup.procs"), pid) {
            Ok(()) => {}
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(Errno::ESRCH as i32) => {
            }
            Err(error) => {
                tracing::warn!(pid, %error, "a shim stays in the node's cgroup, and ends with it");
            }
        }
    }

    fn in_v1(&self, root: &Path, id: &ContainerId) -> PathBuf {
        root.join(&self.parent).join("containers").join(id.as_str())
    }

    /// Where a container belongs; says nothing about whether its groups are there.
    pub(super) fn groups(&self, id: &ContainerId) -> Groups {
        let container: Vec<_> =
            self.containers().into_iter().map(|dir| dir.join(id.as_str())).collect();
        let oom_counter = match &self.version {
            Version::V1(v1) => self.in_v1(&v1.memory, id).join("memory.oom_control"),
            Version::V2 { .. } => container[0].join("memory.events"),
        };
        Groups { container, oom_counter }
    }

    /// Makes a container's groups and sets its limits; nothing is in them yet.
    pub(super) fn create(&self, id: &ContainerId, limits: &Limits) -> Result<()> {
        for dir in self.groups(id).container {
            fs::create_dir_all(&dir).context(|| format!("create cgroup {}", dir.display()))?;
        }
        match &self.version {
            Version::V1(v1) => {
                let memory = self.in_v1(&v1.memory, id);
                if let Some(bytes) = limits.memory_bytes {
                    write(&memory.join("memory.limit_in_bytes"), bytes)?;
                    // Present only where the kernel accounts swap.
                    let swap = memory.join("memory.memsw.limit_in_bytes");
                    if swap.exists() {
                        write(&swap, bytes)?;
                    }
                }
                let pids = limits.pids_max(self.pid_max);
                write(&self.in_v1(&v1.pids, id).join("pids.max"), pids)?;
                if let Some(shares) = limits.cpu_shares_v1() {
                    write(&self.in_v1(&v1.cpu, id).join("cpu.shares"), shares)?;
                }
            }
            Version::V2 { .. } => {
                let group = &self.groups(id).container[0];
                if let Some(bytes) = limits.memory_bytes {
                    write(&group.join("memory.max"), bytes)?;
                    // Absent on a kernel without swap accounting, and then without swap to use.
                    match write(&group.join("memory.swap.max"), 0) {
                        Err(Error::Io { source, .. })
                            if source.kind() == io::ErrorKind::NotFound => {}
                        done => done?,
                    }
                }
                write(&group.join("pids.max"), limits.pids_max(self.pid_max))?;
                if let Some(weight) = limits.cpu_weight_v2() {
                    write(&group.join("cpu.weight"), weight)?;
                }
            }
        }
        Ok(())
    }

    /// What the container uses, as far as its groups know.
    pub(super) fn stats(&self, id: &ContainerId) -> Result<Stats> {
        match &self.version {
            Version::V1(v1) => {
                let memory = self.in_v1(&v1.memory, id);
                let cache = read_key(&memory.join("memory.stat"), "total_inactive_file")?;
                let cpu = v1.cpuacct.as_ref().unwrap_or(&v1.cpu);
                Ok(Stats {
                    memory_bytes: read_number(&memory.join("memory.usage_in_bytes"))?
                        .saturating_sub(cache),
                    cpu_ns: read_number(&self.in_v1(cpu, id).join("cpuacct.usage"))?,
                    pids: read_number(&self.in_v1(&v1.pids, id).join("pids.current"))?,
                    ..Stats::default()
                })
            }
            Version::V2 { .. } => {
                let group = &self.groups(id).container[0];
                let cache = read_key(&group.join("memory.stat"), "inactive_file")?;
                Ok(Stats {
                    memory_bytes: read_number(&group.join("memory.current"))?.saturating_sub(cache),
                    cpu_ns: read_key(&group.join("cpu.stat"), "usage_usec")?.saturating_mul(1000),
                    pids: read_number(&group.join("pids.current"))?,
                    ..Stats::default()
                })
            }
        }
    }

    /// Kills what is in the container's groups and removes them; done when they are not there.
    ///
    /// Blocks while the kernel reaps, for two seconds at most: call it where that is allowed.
    pub(super) fn remove(&self, id: &ContainerId) -> Result<()> {
        for group in self.groups(id).container {
            remove_group(&group)?;
        }
        Ok(())
    }

    /// Kills what is in the container's groups, and returns when nothing is.
    /// Blocks as [`Self::remove`] does.
    pub(super) fn kill(&self, id: &ContainerId) -> Result<()> {
        for group in self.groups(id).container {
            let mut pause = Duration::from_micros(200);
            let mut tries = 0;
            while !kill_group(&group)? {
                tries += 1;
                if tries == CGROUP_REMOVE_TRIES_MAX {
                    return Err(io::Error::from(Errno::EBUSY))
                        .context(|| format!("empty cgroup {}", group.display()));
                }
                thread::sleep(pause);
                pause = (pause * 2).min(CGROUP_REMOVE_PAUSE);
            }
        }
        Ok(())
    }

    /// Whether the kernel killed any process of the container for want of memory.
    pub(super) fn oom_killed(&self, id: &ContainerId) -> bool {
        read_key(&self.groups(id).oom_counter, "oom_kill").is_ok_and(|count| count > 0)
    }

    /// The ids that have a group of ours in any hierarchy.
    pub(super) fn list(&self) -> Result<Vec<ContainerId>> {
        let mut ids = Vec::new();
        for dir in self.containers() {
            let entries = fs::read_dir(&dir).context(|| format!("list {}", dir.display()))?;
            for entry in entries {
                let entry = entry.context(|| format!("list {}", dir.display()))?;
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let name = entry.file_name().into_string().ok();
                ids.extend(name.filter(|_| is_dir).and_then(|name| ContainerId::new(name).ok()));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Removes the runtime's own groups, where nothing is in them any more.
    /// A parent that others use too (`gavel/node-1` has `gavel`) stays until its last user goes.
    pub(super) fn close(&self) {
        let mut groups = self.containers();
        groups.extend(self.shims());
        for group in groups {
            // `pop` stops at the mount point: the parent has that many components, plus one.
            let mut group = group;
            for _ in 0..=self.parent.components().count() {
                if fs::remove_dir(&group).is_err() {
                    break;
                }
                group.pop();
            }
        }
    }
}

fn remove_group(group: &Path) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    for _ in 0..CGROUP_REMOVE_TRIES_MAX {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => {
                kill_group(group)?;
            }
            Err(e) => return Err(e).context(|| format!("remove cgroup {}", group.display())),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(CGROUP_REMOVE_PAUSE);
    }
    Err(io::Error::from(Errno::EBUSY)).context(|| format!("remove cgroup {}", group.display()))
}

/// Sends SIGKILL to everything in a group: at once where the kernel can, else one by one, and
/// the caller's next round gets what forked meanwhile.
/// Whether the group was empty.
fn kill_group(group: &Path) -> Result<bool> {
    let procs = group.join("cgroup.procs");
    let pids = match fs::read_to_string(&procs) {
        Ok(pids) => pids,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(e).context(|| format!("read {}", procs.display())),
    };
    if pids.is_empty() {
        return Ok(true);
    }
    let at_once = group.join("cgroup.kill");
    if at_once.exists() {
        write(&at_once, 1)?;
        return Ok(false);
    }
    // A pid of 0 is a process outside this pid namespace; kill(0) would be our own group.
    for pid in pids.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid > 0) {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => return Err(e).context(|| format!("kill process {pid}")),
        }
    }
    Ok(false)
}

fn enable_controllers(group: &Path) -> Result<()> {
    let file = group.join("cgroup.subtree_control");
    fs::write(&file, "+cpu +memory +pids").context(|| format!("write {}", file.display()))
}

fn write(file: &Path, value: impl ToString) -> Result<()> {
    fs::write(file, value.to_string()).context(|| format!("write {}", file.display()))
}

fn read_number(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file).context(|| format!("read {}", file.display()))?;
    text.trim().parse().map_err(|_| Error::Invalid {
        what: file.display().to_string(),
        reason: format!("{:?} is not a number", text.trim()),
    })
}

fn read_key(file: &Path, key: &str) -> Result<u64> {
    let text = fs::read_to_string(file).context(|| format!("read {}", file.display()))?;
    Ok(key_of(&text, key).unwrap_or(0))
}

/// The number behind `key` in a flat keyed file; `memory.events` and `memory.oom_control` both
/// have `oom_kill`.
pub(super) fn key_of(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 29 0:27 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:29 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 30 0:32 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
";

    fn id() -> ContainerId {
        ContainerId::new("c1").unwrap()
    }

    #[test]
    fn detects_the_hybrid_layout() {
        let Version::V1(v1) = Cgroups::detect(HYBRID).unwrap() else { panic!("not v1") };
        assert_eq!(v1.memory, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(v1.cpu, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(v1.cpuacct.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(v1.managers, [Path::new("/sys/fs/cgroup/systemd")]);
        assert_eq!(v1.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let cgroups = Cgroups { version: Version::V1(v1), parent: "gavel/n1".into(), pid_max: 0 };
        let groups = cgroups.groups(&id());
        assert_eq!(groups.container.len(), 3, "cpu and cpuacct share a mount");
        assert_eq!(
            groups.oom_counter,
            Path::new("/sys/fs/cgroup/memory/gavel/n1/containers/c1/memory.oom_control")
        );
        let joins = cgroups.joins(&id());
        let at = |path: &str| Path::new("/sys/fs/cgroup").join(path);
        assert_eq!(joins.init_tasks[1], at("memory/gavel/n1/containers/c1/tasks"));
        assert_eq!(joins.shim_tasks.last(), Some(&at("systemd/gavel/n1/shims/tasks")));
        assert_eq!(joins.init_group, Some(at("unified/gavel/n1/shims")));
    }

    #[test]
    fn detects_the_unified_layout() {
        let mounts = "31 30 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let root = PathBuf::from("/sys/fs/cgroup");
        assert_eq!(Cgroups::detect(mounts).unwrap(), Version::V2 { root });
    }

    #[test]
    fn names_the_missing_hierarchy() {
        let without_pids: String = HYBRID.lines().filter(|line| !line.contains("pids")).fold(
            String::new(),
            |mut all, l| {
                all.push_str(l);
                all.push('\n');
                all
            },
        );
        let error = Cgroups::detect(&without_pids).unwrap_err().to_string();
        assert_eq!(error, "invalid cgroups of this machine: no hierarchy with pids");
        assert!(Cgroups::detect("").is_err());
    }

    #[test]
    fn a_parent_cannot_climb_out() {
        for bad in ["", "/a", "../a", "a/../b", "a/./../b"] {
            let root = PathBuf::from("/nonexistent");
            assert!(Cgroups::open_at(Version::V2 { root }, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn version_2_is_file_writes_below_its_root() {
        let root = tempfile::tempdir().unwrap();
        let version = Version::V2 { root: root.path().to_owned() };
        let cgroups = Cgroups::open_at(version, "gavel/n1").unwrap();
        for group in ["", "gavel", "gavel/n1", "gavel/n1/containers"] {
            let control = root.path().join(group).join("cgroup.subtree_control");
            assert_eq!(fs::read_to_string(control).unwrap(), "+cpu +memory +pids", "{group}");
        }
        let leaf = root.path().join("gavel/n1/shims/cgroup.subtree_control");
        assert!(!leaf.exists(), "processes live in leaves only");

        let group = root.path().join("gavel/n1/containers/c1");
        let joins = Joins { init_group: Some(group.clone()), ..Joins::default() };
        assert_eq!(cgroups.joins(&id()), joins);
        cgroups.move_shim(5);
        let moved = root.path().join("gavel/n1/shims/cgroup.procs");
        assert_eq!(fs::read_to_string(moved).unwrap(), "5");

        let limits = Limits {
            memory_bytes: Some(1 << 20),
            pids: Some(5),
            cpu_shares: Some(1024),
            ..Limits::default()
        };
        cgroups.create(&id(), &limits).unwrap();
        let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("pids.max"), "6");
        assert_eq!(read("cpu.weight"), "39");
        assert_eq!(cgroups.list().unwrap(), [id()]);

        fs::write(group.join("memory.current"), "5000\n").unwrap();
        fs::write(group.join("memory.stat"), "anon 1\ninactive_file 1000\n").unwrap();
        fs::write(group.join("cpu.stat"), "usage_usec 7\nuser_usec 1\n").unwrap();
        fs::write(group.join("pids.current"), "3\n").unwrap();
        let stats = Stats { memory_bytes: 4000, cpu_ns: 7000, pids: 3, ..Stats::default() };
        assert_eq!(cgroups.stats(&id()).unwrap(), stats);
    }

    #[test]
    fn both_versions_count_oom_kills_by_one_name() {
        assert_eq!(key_of("low 0\noom 3\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(key_of("oom_kill_disable 0\nunder_oom 0\noom_kill 1", "oom_kill"), Some(1));
        assert_eq!(key_of("", "oom_kill"), None);
    }
}
