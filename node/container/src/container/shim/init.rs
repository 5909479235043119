//! The container's process 1.
//!
//! It is code of ours that is in memory already, not a file of the image, so that an image
//! with one static program works.
//! It builds the container from inside, then starts what the shim tells it to, passes signals
//! on, reaps what is orphaned, and tells how the app's main process ended.
//! When it dies, the kernel kills everything in the container; it dies with the shim.
//!
//! What it never does: read a file of the image while it is still the host's root, or decide
//! when the container ends.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, pipe2, setgroups, setresgid, setresuid};
use seccompiler::BpfProgram;

use super::super::spec::{ExitStatus, Process};
use super::packet::{fitting, receive, send};
use super::privileges::{apply, drop_capabilities};
use super::protocol::{FromInit, Setup, ToInit};
use super::syscalls::{close_from, exec, replace_standard, reset_signals};
use super::user::{Identity, resolve_here};
use super::{Context as _, Failure, Result, eth, rootfs};

/// Namespaces made for this container, to be joined.
#[derive(Debug)]
pub(super) struct Namespaces {
    pub user: OwnedFd,
    pub net: OwnedFd,
    pub ipc: OwnedFd,
    pub uts: OwnedFd,
}

/// Runs in the new process; the result is its exit code.
pub(super) fn main(
    setup: &Setup,
    control: &OwnedFd,
    namespaces: &Namespaces,
    filters: &[BpfProgram],
) -> isize {
    match build(setup, control, namespaces) {
        Ok(()) => {}
        Err(failure) => {
            // If the shim does not hear this either, it sees us end.
            let _ = send(control, &FromInit::Failed(fitting(failure.to_string())), &[]);
            return 1;
        }
    }
    match serve(setup, control, filters) {
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
    rootfs::enter(setup, namespaces.user.as_fd())?;
    expect(control, |message| matches!(message, ToInit::Connected))?;
    eth::configure(setup).context("configure eth0")?;

    // From here on we are nobody on the host.
    setns(&namespaces.user, CloneFlags::CLONE_NEWUSER).context("join the user namespace")?;
    setgroups(&[]).context("drop groups")?;
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).context("become root")?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).context("become root")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("tie init to its shim")?;
    // Nothing in the container looks into us: we began as a process of the host.
    prctl::set_dumpable(false).context("become undumpable")?;
    umask(Mode::from_bits_truncate(0o022));
    rootfs::write_etc(setup)?;
    drop_capabilities()?;
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
fn serve(setup: &Setup, control: &OwnedFd, filters: &[BpfProgram]) -> Result<()> {
    let (control, signals) = keep_only(control)?;
    send(&control, &FromInit::Ready, &[]).context("tell the shim")?;
    let mut main_pid = None;
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
            reap(&control, main_pid)?;
        }
        if from_shim {
            let Some(packet) = receive::<ToInit>(&control).context("hear from the shim")? else {
                return Ok(());
            };
            match packet.value {
                ToInit::Start => match start(setup, &control, filters, packet.fds) {
                    Ok(pid) => {
                        main_pid = Some(pid);
                        send(&control, &FromInit::Started, &[]).context("tell the shim")?;
                    }
                    Err(failure) => {
                        let text = fitting(failure.to_string());
                        send(&control, &FromInit::StartFailed(text), &[])
                            .context("tell the shim")?;
                    }
                },
                // Everyone but ourselves (kill(2), pid -1).
                ToInit::Signal(number) => match Signal::try_from(number) {
                    Ok(signal) => match kill(Pid::from_raw(-1), signal) {
                        Ok(()) | Err(Errno::ESRCH) => {}
                        Err(e) => return Err(e).context("signal the processes"),
                    },
                    Err(_unknown) => {}
                },
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

/// Reaps all that ended, and tells of the main process.
fn reap(control: &OwnedFd, main_pid: Option<Pid>) -> Result<()> {
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => status,
            Err(Errno::ECHILD) => return Ok(()),
            Err(e) => return Err(e).context("reap"),
        };
        let (pid, exit) = match status {
            WaitStatus::Exited(pid, code) => (pid, ExitStatus::Code(code)),
            WaitStatus::Signaled(pid, signal, _) => (pid, ExitStatus::Signal(signal as i32)),
            WaitStatus::StillAlive => return Ok(()),
            // Only asked for with other flags.
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_) => continue,
        };
        if Some(pid) == main_pid {
            send(control, &FromInit::Exited(exit), &[]).context("tell the shim")?;
        }
    }
}

/// Starts a process; returns when it has become the app, or has not.
fn start(
    setup: &Setup,
    control: &OwnedFd,
    filters: &[BpfProgram],
    fds: Vec<OwnedFd>,
) -> Result<Pid> {
    let Ok([process, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
        return Err(io::Error::other("descriptors are missing")).context("hear from the shim");
    };
    let mut json = Vec::new();
    File::from(process).read_to_end(&mut json).context("read the process")?;
    let process: Process =
        serde_json::from_slice(&json).map_err(io::Error::from).context("read the process")?;

    // The app's exec closes the writing end; what comes before is why there was none.
    let (mut failure, report) = {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).context("create a pipe")?;
        (File::from(read), File::from(write))
    };
    #[expect(unsafe_code, reason = "fork")]
    // SAFETY: this process has one thread, so the child may do whatever we may.
    let forked = unsafe { fork() }.context("fork")?;
    match forked {
        ForkResult::Child => {
            let failed = match become_app(setup, control, &process, &stdout, &stderr, filters) {
                Ok(never) => match never {},
                Err(failed) => failed,
            };
            let _ = (&report).write_all(failed.to_string().as_bytes());
            std::process::exit(127)
        }
        ForkResult::Parent { child } => {
            drop(report);
            let mut text = String::new();
            failure.read_to_string(&mut text).context("hear from the new process")?;
            if text.is_empty() {
                return Ok(child);
            }
            Err(Failure { step: String::new(), source: io::Error::other(text) })
        }
    }
}

enum Never {}

fn become_app(
    setup: &Setup,
    control: &OwnedFd,
    process: &Process,
    stdout: &OwnedFd,
    stderr: &OwnedFd,
    filters: &[BpfProgram],
) -> Result<Never> {
    // The shim learns our process id on the host from who sent this.
    send(control, &FromInit::Spawned, &[]).context("tell the shim")?;
    replace_standard(stdout, 1).context("set standard output")?;
    replace_standard(stderr, 2).context("set standard error")?;
    reset_signals().context("reset signals")?;
    nix::unistd::setsid().context("lead a session")?;
    if let Some(nofile) = process.nofile {
        setrlimit(Resource::RLIMIT_NOFILE, nofile, nofile).context("limit open files")?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("limit core files")?;

    let user = resolve_here(&process.user, setup.id_count)
        .map_err(io::Error::other)
        .context("look up the user")?;
    let env = environment(process, &user);
    let dir = working_dir(process, &user)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    for pipe in [stdout, stderr] {
        // An app may open /dev/stdout by name.
        nix::unistd::fchown(pipe, Some(uid), Some(gid)).context("own the output")?;
    }
    // The main group among them, or setgid programs could shed it (CVE-2022-36109).
    let groups: Vec<Gid> =
        [user.gid].iter().chain(&user.groups).copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("set groups")?;
    setresgid(gid, gid, gid).context("set the group")?;
    setresuid(uid, uid, uid).context("set the user")?;
    // After the user: the directory may be another's.
    std::env::set_current_dir(&dir).with_context(|| format!("enter {dir}"))?;

    let args = c_strings(process.args.iter())?;
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let programs = candidates(&process.args[0], path)?;
    let env = c_strings(env.iter().map(|(name, value)| format!("{name}={value}")))?;
    apply(filters)?;
    Err(exec_first(&process.args[0], &programs, &args, &env))
}

fn c_strings<T: AsRef<[u8]>>(texts: impl Iterator<Item = T>) -> Result<Vec<CString>> {
    texts
        .map(|text| CString::new(text.as_ref()).map_err(io::Error::from).context("pass arguments"))
        .collect()
}

/// The process's variables, the last of each name, and the defaults for what is missing
/// (Diego: PATH by user, USER; HOME as every login has it).
fn environment(process: &Process, user: &Identity) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::with_capacity(process.env.len() + 3);
    for (name, value) in &process.env {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
    let path = match user.uid {
        0 => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        _ => "/usr/local/bin:/usr/bin:/bin",
    };
    let name = match (&user.name, user.uid) {
        (Some(name), _) => name.clone(),
        (None, 0) => "root".to_owned(),
        (None, uid) => uid.to_string(),
    };
    let home = user.home.clone().unwrap_or_else(|| "/".to_owned());
    for (name, value) in [("PATH", path.to_owned()), ("USER", name), ("HOME", home)] {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value));
        }
    }
    env
}

/// Where the process starts; made, as the user's, if it was asked for and is missing.
fn working_dir(process: &Process, user: &Identity) -> Result<String> {
    let Some(dir) = process.working_dir.as_ref().filter(|dir| !dir.is_empty()) else {
        let home = user.home.clone().filter(|home| Path::new(home).is_dir());
        return Ok(home.unwrap_or_else(|| "/".to_owned()));
    };
    let dir = Path::new("/").join(dir);
    let what = || format!("create {}", dir.display());
    let missing: Vec<&Path> = dir.ancestors().take_while(|part| !part.exists()).collect();
    for part in missing.into_iter().rev() {
        fs::create_dir(part).with_context(what)?;
        std::os::unix::fs::lchown(part, Some(user.uid), Some(user.gid)).with_context(what)?;
    }
    Ok(dir.to_string_lossy().into_owned())
}

/// Where a program may lie: itself if its name has a slash, else in each directory of `path`.
fn candidates(program: &str, path: &str) -> Result<Vec<CString>> {
    if program.contains('/') {
        return c_strings([program].iter());
    }
    let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    c_strings(
        dirs.map(|dir| Path::new(dir).join(program)).map(|p| p.as_os_str().as_bytes().to_vec()),
    )
}

/// As execvp(3): the first that can be executed; "permission denied" if one was only that.
fn exec_first(name: &str, programs: &[CString], args: &[CString], env: &[CString]) -> Failure {
    let mut error = io::Error::from(Errno::ENOENT);
    for program in programs {
        let failed = exec(program, args, env);
        match failed.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => error = failed,
            _ => {
                error = failed;
                break;
            }
        }
    }
    Failure { step: format!("execute {name:?}"), source: error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uid: u32, name: Option<&str>, home: Option<&str>) -> Identity {
        let (name, home) = (name.map(str::to_owned), home.map(str::to_owned));
        Identity { uid, gid: 0, groups: vec![], name, home }
    }

    fn env_of(env: &[(&str, &str)], user: &Identity) -> Vec<String> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let process = Process { env, ..Process::default() };
        environment(&process, user).into_iter().map(|(k, v)| format!("{k}={v}")).collect()
    }

    #[test]
    fn missing_variables_have_diegos_defaults() {
        assert_eq!(
            env_of(&[], &identity(0, None, None)),
            [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "USER=root",
                "HOME=/"
            ]
        );
        assert_eq!(
            env_of(&[], &identity(1000, Some("web"), Some("/home/web"))),
            ["PATH=/usr/local/bin:/usr/bin:/bin", "USER=web", "HOME=/home/web"]
        );
    }

    #[test]
    fn later_variables_override_earlier_ones() {
        let given = [("A", "1"), ("PATH", "/x"), ("A", "2"), ("USER", "u"), ("HOME", "/h")];
        let env = env_of(&given, &identity(0, None, None));
        assert_eq!(env, ["A=2", "PATH=/x", "USER=u", "HOME=/h"]);
    }

    #[test]
    fn programs_are_searched_as_execvp_does() {
        let found = |program, path| {
            let programs = candidates(program, path).unwrap();
            programs.into_iter().map(|p| p.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found("sh", "/bin:/usr/bin"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(found("./sh", "/bin"), ["./sh"]);
        assert_eq!(found("sh", ""), ["./sh"]);
    }
}
