//! Debian's crun, runc and podman, on an equal bundle.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount as mount_at, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::ours::{CPU_SHARES, MEMORY_BYTES, PIDS};

/// Who is raced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Crun,
    Runc,
    Podman,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Crun, Self::Runc, Self::Podman];

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Podman => "podman",
        }
    }

    /// Whether it is installed; says so if it is not.
    pub(crate) fn is_here(&self) -> bool {
        let version = Command::new(self.name()).arg("--version").output();
        let is_here = version.is_ok_and(|output| output.status.success());
        if !is_here {
            println!("{} is not installed: not raced\n", self.name());
        }
        is_here
    }

    /// A container of /bin/true, from nothing to nothing.
    pub(crate) fn run(self, dir: &Path, number: usize) -> Duration {
        let mut command = Command::new(self.name());
        match self {
            Self::Crun | Self::Runc => {
                let id = format!("gavel-bench-{}-{number}", std::process::id());
                command.arg("--root").arg(dir.join(self.name()));
                command.arg("run").arg("--bundle").arg(dir).arg(id);
            }
            Self::Podman => {
                command.arg("--root").arg(dir.join("podman"));
                command.arg("--runroot").arg(dir.join("podman-run"));
                command.args(["--cgroup-manager=cgroupfs", "--events-backend=none"]);
                command.args(["run", "--rm", "--network=none", "--log-driver=none"]);
                command.arg(format!("--memory={MEMORY_BYTES}"));
                command.arg(format!("--pids-limit={PIDS}"));
                command.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]);
                command.arg(format!("--cpu-shares={CPU_SHARES}"));
                command.args(["--uidmap=0:300000:65536", "--gidmap=0:300000:65536"]);
                command.arg("--rootfs").arg(dir.join("rootfs")).arg("/bin/true");
            }
        }
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output().expect("it is installed");
        let took = began.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", self.name());
        took
    }
}

/// Debian's crun refuses a machine with both versions of cgroups: from here on this process and all
/// below it see the first alone, where there are both. To be called before there are threads.
pub(crate) fn hide_second_hierarchy() {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if !hybrid.exists() {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, as root");
    let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount_at(none, "/", none, flags, none).expect("mounts of its own");
    umount2(hybrid, MntFlags::MNT_DETACH).expect("a mount that is there");
}

/// An OCI bundle with what our containers have: each namespace, Docker's capabilities and system
/// calls, masked files, the same limits.
pub(crate) fn make_bundle(dir: &Path) {
    let capabilities = CAPABILITIES.map(|name| format!("CAP_{name}"));
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup", "user"];
    let ids = json!([{"containerID": 0, "hostID": 300_000, "size": 65_536}]);
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": namespaces.map(|kind| json!({"type": kind})),
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                "/proc/sysrq-trigger"],
            "resources": {
                "memory": {"limit": MEMORY_BYTES},
                "pids": {"limit": PIDS},
                "cpu": {"shares": CPU_SHARES},
            },
        },
    });
    if let Some(seccomp) = seccomp() {
        config["linux"]["seccomp"] = seccomp;
    }
    std::fs::write(dir.join("config.json"), config.to_string()).expect("a file");
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}

/// Docker's default set, without its prefix.
const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The default profile that Debian installs for podman, as OCI's runtimes read it.
fn seccomp() -> Option<Value> {
    let Ok(text) = std::fs::read_to_string("/usr/share/containers/seccomp.json") else {
        println!("no default seccomp profile is installed: peers run without\n");
        return None;
    };
    let profile: Value = serde_json::from_str(&text).expect("Debian's file is JSON");
    let has = |rule: &Value, of: &str, what: &str| {
        let list = rule[of][what].as_array().cloned().unwrap_or_default();
        let ours = |it: &Value| {
            let it = it.as_str().unwrap_or_default();
            it == "amd64" || it.strip_prefix("CAP_").is_some_and(|it| CAPABILITIES.contains(&it))
        };
        (!list.is_empty(), list.iter().any(ours))
    };
    let applies = |rule: &&Value| {
        let needed = ["caps", "arches"].map(|what| has(rule, "includes", what));
        let unwanted = ["caps", "arches"].map(|what| has(rule, "excludes", what));
        needed.iter().all(|(is_asked, is_ours)| !is_asked || *is_ours)
            && !unwanted.iter().any(|(_, is_ours)| *is_ours)
    };
    let rules = profile["syscalls"].as_array().expect("it has rules").iter().filter(applies);
    let rule = |rule: &Value| {
        let mut plain = json!({"names": rule["names"], "action": rule["action"]});
        for field in ["args", "errnoRet"] {
            if !rule[field].is_null() {
                plain[field] = rule[field].clone();
            }
        }
        plain
    };
    let syscalls: Vec<Value> = rules.map(rule).collect();
    let architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    Some(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": syscalls,
    }))
}
