//! The container's process 1.
//!
//! It is code of ours that is in memory already, not a file of the image, so that an image
//! with one static program works.
//! It builds the container from inside, then starts what the shim tells it to, passes signals
//! on, reaps what is orphaned, and tells how each process that it started has ended.
//! When it dies, the kernel kills everything in the container; it dies with the shim.
//!
//! What it never does: read a file of the image while it is still the host's root, or decide
//! when the container ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use seccompiler::BpfProgram;

use super::super::spec::ExitStatus;
use super::build::join_groups;
use super::packet::{fitting, receive, send};
use super::privileges::drop_capabilities;
use super::protocol::{FromInit, Setup, ToInit};
use super::start::start;
use super::syscalls::{close_from, replace_standard};
use super::{Context as _, Result, eth, rootfs};

/// Namespaces made for this container, to be joined.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// `None` is the host's.
    pub user: Option<OwnedFd>,
    pub net: OwnedFd,
    pub ipc: OwnedFd,
    pub uts: OwnedFd,
}

/// Runs in the new process; the result is its exit code.
pub(super) fn main(
    setup: &Setup,
    control: &OwnedFd,
    namespaces: &Namespaces,
    filter: &BpfProgram,
) -> isize {
    match build(setup, control, namespaces) {
        Ok(()) => {}
        Err(failure) => {
            // If the shim does not hear this either, it sees us end.
            let _ = send(control, &FromInit::Failed(fitting(failure.to_string())), &[]);
            return 1;
        }
    }
    match serve(setup, control, filter) {
        Ok(()) => 0,
        Err(_shim_gone) => 1,
    }
}

fn build(setup: &Setup, control: &OwnedFd, namespaces: &Namespaces) -> Result<()> {
    // Cleared again when the ids change; until then the shim's end shows in `control`.
    prctl::set_pdeathsig(Signal::SIGKILL).context("tie init to its shim")?;
    prctl::set_name(c"gavel-init").context("name init")?;
    umask(Mode::empty());
    expect(control, |message| matches!(message, ToInit::Go))?;
    join_groups(&setup.cgroups.init_tasks)?;
    // Only now: a cgroup namespace is rooted where its first process is.
    unshare(CloneFlags::CLONE_NEWCGROUP).context("create a cgroup namespace")?;
    for (namespace, kind, name) in [
        (&namespaces.net, CloneFlags::CLONE_NEWNET, "network"),
        (&namespaces.ipc, CloneFlags::CLONE_NEWIPC, "ipc"),
        (&namespaces.uts, CloneFlags::CLONE_NEWUTS, "uts"),
    ] {
        setns(namespace, kind).with_context(|| format!("join the {name} namespace"))?;
    }
    nix::unistd::sethostname(&setup.hostname).context("set the host name")?;
    rootfs::enter(setup, namespaces.user.as_ref().map(AsFd::as_fd))?;
    expect(control, |message| matches!(message, ToInit::Connected))?;
    eth::configure(setup).context("configure eth0")?;

    // From here on we are nobody on the host.
    if let Some(user) = &namespaces.user {
        setns(user, CloneFlags::CLONE_NEWUSER).context("join the user namespace")?;
    }
    setgroups(&[]).context("drop groups")?;
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).context("become root")?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).context("become root")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("tie init to its shim")?;
    // Nothing in the container looks into us: we began as a process of the host.
    prctl::set_dumpable(false).context("become undumpable")?;
    umask(Mode::from_bits_truncate(0o022));
    rootfs::write_etc(setup)?;
    drop_capabilities(setup.privileged)?;
    nix::unistd::setsid().context("lead a session")?;

    let null =
        File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    for standard in 0..=2 {
        replace_standard(&null, standard).context("close the standard files")?;
    }
    SigSet::from(Signal::SIGCHLD).thread_block().context("block SIGCHLD")
}

fn expect(control: &OwnedFd, wanted: impl FnOnce(&ToInit) -> bool) -> Result<()> {
    match receive::<ToInit>(control).context("hear from the shim")? {
        Some(packet) if wanted(&packet.value) => Ok(()),
        Some(packet) => Err(io::Error::other(format!("it said {:?}", packet.value)))
            .context("hear from the shim"),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context("hear from the shim"),
    }
}

/// Serves the shim until it is gone.
fn serve(setup: &Setup, control: &OwnedFd, filter: &BpfProgram) -> Result<()> {
    let (control, signals) = keep_only(control)?;
    send(&control, &FromInit::Ready, &[]).context("tell the shim")?;
    let mut started = BTreeMap::new();
    loop {
        let mut ready = [
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("wait for events"),
        }
        let [from_shim, from_children] = ready.map(|fd| fd.any().unwrap_or(false));
        if from_children {
            while signals.read_signal().context("read signals")?.is_some() {}
            reap(&control, &mut started)?;
        }
        if from_shim {
            let Some(packet) = receive::<ToInit>(&control).context("hear from the shim")? else {
                return Ok(());
            };
            match packet.value {
                ToInit::Start => match start(setup, &control, filter, packet.fds) {
                    Ok((name, pid)) => {
                        started.insert(pid, name);
                        send(&control, &FromInit::Started, &[]).context("tell the shim")?;
                    }
                    Err(failure) => {
                        let text = fitting(failure.to_string());
                        send(&control, &FromInit::StartFailed(text), &[])
                            .context("tell the shim")?;
                    }
                },
                // Everyone but ourselves (kill(2), pid -1).
                ToInit::Signal(number) => {
                    signal(number, |signal| kill(Pid::from_raw(-1), signal))?;
                }
                // Not yet reaped, so the number is still its own; and it leads its group.
                ToInit::SignalProcess { name, signal: number } => {
                    let named = started.iter().find(|(_, known)| **known == name);
                    if let Some((pid, _)) = named {
                        signal(number, |signal| killpg(*pid, signal))?;
                    }
                }
                ToInit::Go | ToInit::Connected => {}
            }
        }
    }
}

/// Closes every descriptor of the host but the control socket.
#[expect(unsafe_code, reason = "closes descriptors by number")]
fn keep_only(control: &OwnedFd) -> Result<(OwnedFd, SignalFd)> {
    replace_standard(control, 0).context("keep the control socket")?;
    // SAFETY: all values of this process that own a descriptor from 3 on live in frames of the
    // shim's that this process never returns to, or are borrowed by `main`, which only returns
    // to end the process.
    unsafe { close_from(3) }.context("close the host's descriptors")?;
    let control = nix::unistd::dup(io::stdin()).context("keep the control socket")?;
    nix::fcntl::fcntl(&control, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
        .context("keep the control socket")?;
    let null = File::options().read(true).open("/dev/null").context("open /dev/null")?;
    replace_standard(&null, 0).context("close standard input")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals =
        SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), flags).context("watch children")?;
    Ok((control, signals))
}

/// Sends a signal of this number, if there is one, to whoever is there.
fn signal(number: i32, send: impl FnOnce(Signal) -> nix::Result<()>) -> Result<()> {
    let Ok(signal) = Signal::try_from(number) else { return Ok(()) };
    match send(signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(e).context("signal the processes"),
    }
}

/// Reaps all that ended, and tells of those that were started by name.
fn reap(control: &OwnedFd, started: &mut BTreeMap<Pid, String>) -> Result<()> {
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => status,
            Err(Errno::ECHILD) => return Ok(()),
            Err(e) => return Err(e).context("reap"),
        };
        let (pid, status) = match status {
            WaitStatus::Exited(pid, code) => (pid, ExitStatus::Code(code)),
            WaitStatus::Signaled(pid, signal, _) => (pid, ExitStatus::Signal(signal as i32)),
            WaitStatus::StillAlive => return Ok(()),
            // Only asked for with other flags.
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_) => continue,
        };
        if let Some(name) = started.remove(&pid) {
            send(control, &FromInit::Exited { name, status }, &[]).context("tell the shim")?;
        }
    }
}
