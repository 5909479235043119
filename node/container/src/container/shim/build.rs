//! The shim's first half: from the node's `Setup` to a container that waits for its process.
//!
//! Three processes take part.
//! The *holder* is born in new user, network, ipc and uts namespaces and does nothing, so that
//! these can be named before anyone needs them.
//! The *init* is born in new mount and pid namespaces, still the host's root; it mounts, and
//! joins the holder's namespaces, the user namespace last.
//! The shim goes between it and the node, which meanwhile gives the network namespace its link.
//! Both join their cgroups by themselves, in ways that need no wait.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use caps::CapSet;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sched::{CloneFlags, clone};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, getpid, getppid, pause, setegid, seteuid};

use super::super::logs::LogWriter;
use super::super::state::{Files, SOCKET};
use super::init::{self, Namespaces};
use super::packet::{name_senders, receive, send};
use super::protocol::{FromInit, FromShim, Setup, ToInit, ToShim};
use super::syscalls::{clone_into, close_from, inherited};
use super::{Context as _, Failure, Result, seccomp};
use crate::limits::SHIM_MESSAGE_BYTES_MAX;

/// What the second half goes on with.
#[derive(Debug)]
pub(super) struct Built {
    pub setup: Setup,
    pub files: Files,
    /// The node that asked for the container.
    pub node: UnixStream,
    pub listener: UnixListener,
    pub init: Child,
    pub control: OwnedFd,
    pub log: LogWriter,
    /// Held open: closing it would give the lock up.
    pub _lock: File,
}

/// A child that is killed and reaped when its owner is dropped.
#[derive(Debug)]
pub(super) struct Child(pub Pid);

impl Child {
    /// Kills it, and tells how it ended; by an earlier cause, if there was one.
    pub(super) fn end(self) -> nix::Result<WaitStatus> {
        let Self(pid) = self;
        std::mem::forget(self);
        kill(pid, Signal::SIGKILL)?;
        waitpid(pid, None)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It is our child and not yet reaped, so its process id is still its own.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// Builds the container that the node on standard input asks for; the node is told if it
/// fails.
pub(super) fn build() -> Result<Built> {
    #[expect(unsafe_code, reason = "the start of the program")]
    // SAFETY: nothing is open yet but the three standard files, which no value owns; standard
    // input is a socket of ours alone.
    let node = unsafe {
        close_from(3).context("close inherited descriptors")?;
        UnixStream::from(inherited(0))
    };
    // Even if the node's child processes are signalled as a group, we are not.
    nix::unistd::setsid().context("lead a session")?;
    prctl::set_name(c"gavel-shim").context("name the shim")?;

    let mut reader = NodeReader(BufReader::new(&node));
    let built = prepare(&mut reader).and_then(|parts| raise(&mut reader, &node, parts));
    match built {
        Ok((parts, init, control)) => {
            let Parts { setup, files, listener, log, lock } = parts;
            tell(&node, &FromShim::Created { init_pid: init.0.as_raw().unsigned_abs() })?;
            Ok(Built { setup, files, node, listener, init, control, log, _lock: lock })
        }
        Err(failure) => {
            let _ = tell(&node, &FromShim::Failed(failure.to_string()));
            Err(failure)
        }
    }
}

struct Parts {
    setup: Setup,
    files: Files,
    listener: UnixListener,
    log: LogWriter,
    lock: File,
}

/// Everything that is the shim's own.
fn prepare(reader: &mut NodeReader<'_>) -> Result<Parts> {
    let message = reader.next()?;
    let ToShim::Setup(setup) = message else { return Err(out_of_turn(&message)) };
    let setup = *setup;
    let files = Files { dir: setup.dir.clone() };
    let lock = lock(&files.lock())?;
    join_groups(&setup.cgroups.shim_tasks)?;
    // The kernel may take anyone before the one who knows how the app ended.
    // Lowering it needs CAP_SYS_RESOURCE, which a node need not have.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    let log = LogWriter::create(&files.log(), setup.log_bytes_max, setup.log_rate)
        .context("create the log")?;
    std::env::set_current_dir(&setup.dir).context("enter the container's directory")?;
    // Relative: a socket's path has 108 bytes (unix(7)).
    let listener = UnixListener::bind(SOCKET).context("listen on shim.sock")?;
    listener.set_nonblocking(true).context("listen on shim.sock")?;
    std::env::set_current_dir("/").context("leave the container's directory")?;
    Ok(Parts { setup, files, listener, log, lock })
}

/// Takes the lock by which a later node knows that we live, and who we are (F_GETLK).
fn lock(path: &Path) -> Result<File> {
    let file = File::options().write(true).open(path).context("open shim.lock")?;
    fcntl(&file, FcntlArg::F_SETLK(&whole_file_lock())).context("lock shim.lock")?;
    Ok(file)
}

/// A write lock on a whole file, as fcntl(2) wants it.
pub(in super::super) fn whole_file_lock() -> libc::flock {
    #[expect(clippy::cast_possible_truncation, reason = "the kernel's constants are 0 to 2")]
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Moves this process, which has one thread, to the groups of these files.
pub(super) fn join_groups(tasks: &[PathBuf]) -> Result<()> {
    tasks.iter().try_for_each(|tasks| {
        fs::write(tasks, "0").with_context(|| format!("write 0 to {}", tasks.display()))
    })
}

/// The container itself.
fn raise(
    reader: &mut NodeReader<'_>,
    node: &UnixStream,
    parts: Parts,
) -> Result<(Parts, Child, OwnedFd)> {
    let setup = &parts.setup;
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    let holder = if setup.privileged {
        spawn_holder(namespaces)?
    } else {
        let namespaces = namespaces | CloneFlags::CLONE_NEWUSER;
        let holder = as_user(setup.id_base, || spawn_holder(namespaces))??;
        map_ids(setup, holder.0)?;
        holder
    };
    let namespaces = open_namespaces(setup, holder.0)?;
    tell(node, &FromShim::Namespaces { pid: holder.0.as_raw().unsigned_abs() })?;

    let filter = seccomp::filter(setup.privileged)?;
    let (control, init_control) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .context("create a socket pair")?;
    name_senders(&control).context("set SO_PASSCRED")?;
    let group = setup.cgroups.init_group.as_deref();
    let init = spawn_in(group, CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID, || {
        init::main(setup, &init_control, &namespaces, &filter)
    })?;
    drop((init_control, namespaces));
    // Raised, so that a machine out of memory loses an app before its node; inherited by all
    // that init starts.
    let score = format!("/proc/{}/oom_score_adj", init.0);
    fs::write(&score, "300").with_context(|| format!("write {score}"))?;

    send(&control, &ToInit::Go, &[]).context("tell init")?;
    let message = reader.next()?;
    if !matches!(message, ToShim::Connected) {
        return Err(out_of_turn(&message));
    }
    // Init holds the namespaces itself, or has failed: either way it is heard below.
    let told = send(&control, &ToInit::Connected, &[]);
    let answer = receive::<FromInit>(&control).context("hear from init")?;
    match answer.map(|packet| packet.value) {
        Some(FromInit::Ready) => told.context("tell init")?,
        Some(FromInit::Failed(reason)) => {
            return Err(Failure { step: String::new(), source: io::Error::other(reason) });
        }
        Some(other) => return Err(io::Error::other(format!("{other:?}"))).context("hear init"),
        None => return Err(io::Error::other("it died")).context("set up by init"),
    }
    drop(holder);
    Ok((parts, init, control))
}

/// Does something with the effective ids of a container's root, all capabilities kept.
///
/// Who makes a user namespace owns it, and what the namespace uses of the kernel's per-user
/// limits (inotify instances, queued signals, message queues) is charged to its owner as well
/// (the kernel's `kernel/ucount.c`): with one owner for all, one container could use up what all
/// others need.
fn as_user<T>(id: u32, body: impl FnOnce() -> T) -> Result<T> {
    let context = || format!("become user {id} for a moment");
    setegid(Gid::from_raw(id)).with_context(context)?;
    seteuid(Uid::from_raw(id)).with_context(context)?;
    // Which leaves the permitted capabilities, and drops those in effect (capabilities(7)).
    caps::read(None, CapSet::Permitted)
        .and_then(|permitted| caps::set(None, CapSet::Effective, &permitted))
        .map_err(io::Error::other)
        .with_context(context)?;
    let result = body();
    seteuid(Uid::from_raw(0)).context("be root again")?;
    setegid(Gid::from_raw(0)).context("be root again")?;
    Ok(result)
}

/// Starts a process that does nothing, in new namespaces.
fn spawn_holder(namespaces: CloneFlags) -> Result<Child> {
    let parent = getpid();
    spawn(namespaces, || {
        // If the parent died before we asked to be told, nobody will tell us.
        if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != parent {
            return 1;
        }
        loop {
            pause();
        }
    })
    .context("create namespaces")
}

fn spawn(flags: CloneFlags, mut body: impl FnMut() -> isize) -> nix::Result<Child> {
    // The child has a copy of this process's memory, this stack included: it need not outlive
    // the call. 1 MiB is eight times what a debug build was seen to use.
    let mut stack = vec![0; 1 << 20];
    #[expect(unsafe_code, reason = "clone")]
    // SAFETY: without CLONE_VM this is a fork; this process has one thread, so the child may
    // do whatever we may. It never returns into our frames: the end of `body` ends it.
    unsafe { clone(Box::new(&mut body), &mut stack, flags, Some(libc::SIGCHLD)) }.map(Child)
}

/// Starts a process that is in a cgroup of version 2 from its birth.
fn spawn_in(
    group: Option<&Path>,
    flags: CloneFlags,
    mut body: impl FnMut() -> isize,
) -> Result<Child> {
    let Some(group) = group else { return spawn(flags, body).context("create init") };
    let context = || format!("create init in {}", group.display());
    let directory = File::open(group).with_context(context)?;
    #[expect(unsafe_code, reason = "clone")]
    // SAFETY: this process has one thread, so the child may do whatever we may.
    match unsafe { clone_into(&directory, flags) } {
        Ok(0) => std::process::exit(i32::try_from(body()).unwrap_or(1)),
        Ok(pid) => Ok(Child(Pid::from_raw(pid))),
        Err(error) if is_too_old(&error) => {
            // Before Linux 5.7: it is moved, and everybody waits.
            let init = spawn(flags, body).context("create init")?;
            fs::write(group.join("cgroup.procs"), init.0.to_string()).with_context(context)?;
            Ok(init)
        }
        Err(error) => Err(error).with_context(context),
    }
}

/// Whether the kernel does not know clone3(2), or not all of its arguments.
fn is_too_old(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    [libc::ENOSYS, libc::E2BIG, libc::EINVAL].map(Some).contains(&errno)
}

fn map_ids(setup: &Setup, pid: Pid) -> Result<()> {
    let map = format!("0 {} {}", setup.id_base, setup.id_count);
    for file in ["gid_map", "uid_map"] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, &map).with_context(|| format!("write {map:?} to {file}"))?;
    }
    Ok(())
}

fn open_namespaces(setup: &Setup, pid: Pid) -> Result<Namespaces> {
    let open = |name: &str| {
        File::open(format!("/proc/{pid}/ns/{name}"))
            .map(OwnedFd::from)
            .with_context(|| format!("open the {name} namespace"))
    };
    Ok(Namespaces {
        user: if setup.privileged { None } else { Some(open("user")?) },
        net: open("net")?,
        ipc: open("ipc")?,
        uts: open("uts")?,
    })
}

/// The node's lines, while there is one node only and nothing else to wait for.
struct NodeReader<'a>(BufReader<&'a UnixStream>);

impl NodeReader<'_> {
    /// The next message; a node that is gone means that nobody wants the container.
    fn next(&mut self) -> Result<ToShim> {
        let mut line = Vec::new();
        (&mut self.0)
            .take(SHIM_MESSAGE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .context("hear from the node")?;
        serde_json::from_slice(&line).map_err(io::Error::from).context("hear from the node")
    }
}

fn out_of_turn(message: &ToShim) -> Failure {
    Failure {
        step: "hear from the node".to_owned(),
        source: io::Error::other(format!("{message:?} is out of turn")),
    }
}

/// Writes one line to a node.
pub(super) fn tell(mut node: &UnixStream, message: &FromShim) -> Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::from).context("tell the node")?;
    line.push(b'\n');
    node.write_all(&line).context("tell the node")
}
