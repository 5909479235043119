//! A machine of a test's own: network, mount and PID namespaces around one process, with which
//! everything in them ends, however the test ends.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

/// How long a test's HTTP request may take.
const HTTP_MAX: Duration = Duration::from_secs(5);

/// A machine. Dropped, it is gone with all it ran.
#[derive(Debug)]
pub struct Host {
    unshare: Child,
    /// The machine's first process, as this machine counts.
    init: i32,
    dir: tempfile::TempDir,
    /// Parts of the cgroup trees, which no namespace takes along.
    cgroups: Vec<String>,
}

impl Host {
    /// A machine with nothing but a loopback interface and a directory.
    ///
    /// # Panics
    ///
    /// The kernel or the tools do not make one: this needs root, `unshare`, `nsenter` and `ip`.
    #[must_use]
    pub fn new() -> Self {
        // The first process reaps what others leave behind, as an init does.
        let init = "ip link set lo up && echo up && while :; do sleep 1000 & wait; done";
        let mut unshare = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", init])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (Debian: util-linux) starts");
        let mut up = [0; 3];
        let stdout = unshare.stdout.as_mut().expect("it is piped");
        stdout.read_exact(&mut up).expect("namespaces and ip (Debian: iproute2); is this root?");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let children = fs::read_to_string(children).expect("unshare runs");
        let init = children.trim().parse().expect("it has one child");
        let dir = tempfile::tempdir().expect("a directory");
        Self { unshare, init, dir, cgroups: Vec::new() }
    }

    /// A directory that goes with the machine.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command that runs on the machine, in its directory.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string(), "--net", "--mount", "--pid"])
            .arg(format!("--wd={}", self.dir().display()))
            .arg("--")
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Removes this part of the cgroup trees with the machine.
    pub fn owns_cgroup(&mut self, path: String) {
        self.cgroups.push(path);
    }

    /// Does something on a thread that is in the machine's network.
    ///
    /// # Panics
    ///
    /// As `what` does.
    pub fn in_network<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.init)).expect("it runs");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&network, CloneFlags::CLONE_NEWNET).expect("this is root");
                what()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The body of what answers `GET path` there.
    ///
    /// # Errors
    ///
    /// As [`http_get`].
    pub fn http_get(&self, address: SocketAddr, path: &str) -> Result<String, String> {
        self.in_network(|| http_get(address, path))
    }

    /// Processes on the machine, as this machine counts them, whose arguments contain `text`. Those
    /// in containers are not among them.
    #[must_use]
    pub fn processes(&self, text: &str) -> Vec<Pid> {
        let namespace = |pid: Pid| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(Pid::from_raw(self.init));
        pids().filter(|pid| arguments(*pid).contains(text) && namespace(*pid) == ours).collect()
    }

    /// Processes in the cgroup of this container, as this machine counts them, whose arguments
    /// contain `text`.
    #[must_use]
    pub fn processes_of_container(&self, id: &str, text: &str) -> Vec<Pid> {
        let cgroups = |pid: Pid| fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let is_in = |pid: &Pid| cgroups(*pid).is_ok_and(|cgroups| cgroups.contains(id));
        pids().filter(|pid| is_in(pid) && arguments(*pid).contains(text)).collect()
    }

    /// What is left on the machine of containers: interfaces, mounts, cgroups.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let links = self.command("ip").args(["-oneline", "link"]).output().expect("ip runs");
        let links = String::from_utf8_lossy(&links.stdout).into_owned();
        traces.extend(links.lines().filter(|line| !line.contains(" lo: ")).map(str::to_owned));
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.init)).expect("it runs");
        let dir = self.dir().display().to_string();
        traces.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
        let cgroups = self.cgroup_dirs();
        traces.extend(
            cgroups.iter().filter(|dir| has_dirs(dir)).map(|dir| dir.display().to_string()),
        );
        traces
    }

    fn cgroup_dirs(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/mounts").expect("Linux has it");
        let roots = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup").then(|| PathBuf::from(path))
        });
        roots
            .flat_map(|root| {
                self.cgroups.iter().map(move |cgroup| root.join(cgroup)).collect::<Vec<_>>()
            })
            .filter(|dir| dir.exists())
            .collect()
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // With it ends the namespace's first process, and with that the kernel ends all others.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        for dir in self.cgroup_dirs() {
            remove_cgroups(&dir);
        }
    }
}

/// The body of what answers `GET path` in this thread's network.
///
/// # Errors
///
/// Nobody answers, or not with status 200.
pub fn http_get(address: SocketAddr, path: &str) -> Result<String, String> {
    http_get_as(address, &address.to_string(), path)
}

/// As [`http_get`], of a host that the address answers for.
///
/// # Errors
///
/// As [`http_get`].
pub fn http_get_as(address: SocketAddr, host: &str, path: &str) -> Result<String, String> {
    let get = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HTTP_MAX)?;
        stream.set_read_timeout(Some(HTTP_MAX))?;
        // In one piece: the parts of another would wait for each other's acknowledgement.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = get().map_err(|error| format!("{address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{answer:?}"))?;
    let status = head.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(body.to_owned()) } else { Err(format!("{address}: {status}")) }
}

fn pids() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").expect("Linux has it");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.map(Pid::from_raw)
}

/// Nothing for a process that is gone.
fn arguments(pid: Pid) -> String {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&arguments).replace('\0', " ")
}

fn has_dirs(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

/// From the leaves up, each as soon as its last process is reaped.
fn remove_cgroups(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    for _ in 0..200 {
        if fs::remove_dir(dir).is_ok() || !dir.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("{} is left behind", dir.display());
}
