//! Starting one process in the container, from its init.
//!
//! Init forks, and the child becomes the image's program or runs a program of ours, as the user
//! and with the privileges that every process of the container has.
//! Init hears whether the program was executed: a pipe between them closes with it.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, pipe2, setgroups, setresgid, setresuid};
use seccompiler::BpfProgram;

use super::super::process::{Launch, Process, Program, Stdio};
use super::packet::send;
use super::privileges::bound_user;
use super::protocol::{FromInit, Setup};
use super::seccomp::apply;
use super::syscalls::{exec, replace_standard, reset_signals};
use super::terminal::Terminal;
use super::user::{Identity, resolve_here};
use super::{Context as _, Failure, Result, programs};

/// The writing ends of a process's outputs, and the reading end of its input.
enum Standard {
    Pipes { stdout: OwnedFd, stderr: OwnedFd, stdin: Option<OwnedFd> },
    Terminal(Terminal),
    Nothing,
}

/// Starts the process that comes with the shim's packet; returns its name when it has become the
/// app, or why it has not.
pub(super) fn start(
    setup: &Setup,
    control: &OwnedFd,
    filter: &BpfProgram,
    fds: Vec<OwnedFd>,
) -> Result<(String, Pid)> {
    let (launch, fds) = read_launch(fds)?;
    let standard = standard(&launch.stdio, fds)?;
    if let Standard::Terminal(terminal) = &standard {
        send(control, &FromInit::Terminal, &[terminal.master.as_raw_fd()])
            .context("tell the shim")?;
    }

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
            let failed = match become_app(setup, control, &launch.program, &standard, filter) {
                Ok(ours) => {
                    drop(report);
                    std::process::exit(programs::run(ours))
                }
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
                return Ok((launch.name, child));
            }
            Err(Failure { step: String::new(), source: io::Error::other(text) })
        }
    }
}

fn read_launch(fds: Vec<OwnedFd>) -> Result<(Launch, Vec<OwnedFd>)> {
    let mut fds = fds.into_iter();
    let Some(launch) = fds.next() else {
        return Err(io::Error::other("descriptors are missing")).context("hear from the shim");
    };
    let mut json = Vec::new();
    File::from(launch).read_to_end(&mut json).context("read the process")?;
    let launch = serde_json::from_slice(&json).map_err(io::Error::from);
    Ok((launch.context("read the process")?, fds.collect()))
}

fn standard(stdio: &Stdio, fds: Vec<OwnedFd>) -> Result<Standard> {
    let mut fds = fds.into_iter();
    match stdio {
        Stdio::Null => Ok(Standard::Nothing),
        Stdio::Terminal { rows, columns } => {
            Terminal::open(*rows, *columns).map(Standard::Terminal)
        }
        Stdio::Log { .. } | Stdio::Pipes => match (fds.next(), fds.next(), fds.next()) {
            (Some(stdout), Some(stderr), stdin) => Ok(Standard::Pipes { stdout, stderr, stdin }),
            _ => Err(io::Error::other("descriptors are missing")).context("hear from the shim"),
        },
    }
}

/// Becomes a program of the image, or returns what of ours the child, ready for it, is to run.
fn become_app<'a>(
    setup: &Setup,
    control: &OwnedFd,
    program: &'a Program,
    standard: &Standard,
    filter: &BpfProgram,
) -> Result<&'a Program> {
    // The shim learns our process id on the host from who sent this.
    send(control, &FromInit::Spawned, &[]).context("tell the shim")?;
    let name = match program {
        Program::Image(process) => &process.user,
        Program::Unpack { user, .. } | Program::ReadFile { user, .. } => user,
    };
    let user =
        resolve_here(name, setup.id_count).map_err(io::Error::other).context("look up the user")?;
    reset_signals().context("reset signals")?;
    nix::unistd::setsid().context("lead a session")?;
    set_standard(standard, &user)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("limit core files")?;
    match program {
        Program::Image(process) => match become_image(setup, process, &user, filter)? {},
        Program::Unpack { .. } | Program::ReadFile { .. } => {
            become_user(setup, &user)?;
            let home = user.home.as_deref().unwrap_or("/");
            if std::env::set_current_dir(home).is_err() {
                std::env::set_current_dir("/").context("enter /")?;
            }
            apply(filter)?;
            Ok(program)
        }
    }
}

fn become_image(
    setup: &Setup,
    process: &Process,
    user: &Identity,
    filter: &BpfProgram,
) -> Result<Infallible> {
    if let Some(nofile) = process.nofile {
        // In the container's user namespace nobody may go beyond what the node itself has.
        setrlimit(Resource::RLIMIT_NOFILE, nofile, nofile).with_context(|| {
            format!("limit open files to {nofile}, within the node's own limit")
        })?;
    }
    let env = environment(process, user);
    let dir = working_dir(process, user)?;
    for directory in &process.directories {
        make_directory(&Path::new("/").join(directory), user)?;
    }
    become_user(setup, user)?;
    // After the user: the directory may be another's.
    std::env::set_current_dir(&dir).with_context(|| format!("enter {dir}"))?;

    let args = c_strings(process.args.iter())?;
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let programs = candidates(&process.args[0], path)?;
    let env = c_strings(env.iter().map(|(name, value)| format!("{name}={value}")))?;
    apply(filter)?;
    Err(exec_first(&process.args[0], &programs, &args, &env))
}

/// Puts the standard files in their places, as the user's, who may open /dev/stdout by name.
fn set_standard(standard: &Standard, user: &Identity) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match standard {
        Standard::Pipes { stdout, stderr, stdin } => {
            replace_standard(stdout, 1).context("set standard output")?;
            replace_standard(stderr, 2).context("set standard error")?;
            for pipe in [stdout, stderr] {
                nix::unistd::fchown(pipe, Some(uid), Some(gid)).context("own the output")?;
            }
            if let Some(stdin) = stdin {
                replace_standard(stdin, 0).context("set standard input")?;
            }
            Ok(())
        }
        Standard::Terminal(terminal) => terminal.take(uid),
        // As init has them.
        Standard::Nothing => Ok(()),
    }
}

fn become_user(setup: &Setup, user: &Identity) -> Result<()> {
    bound_user(setup.privileged, user.uid)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // The main group among them, or setgid programs could shed it (CVE-2022-36109).
    let groups: Vec<Gid> =
        [user.gid].iter().chain(&user.groups).copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("set groups")?;
    setresgid(gid, gid, gid).context("set the group")?;
    setresuid(uid, uid, uid).context("set the user")
}

pub(super) fn c_strings<T: AsRef<[u8]>>(texts: impl Iterator<Item = T>) -> Result<Vec<CString>> {
    texts
        .map(|text| CString::new(text.as_ref()).map_err(io::Error::from).context("pass arguments"))
        .collect()
}

/// The process's variables, the last of each name, and the defaults for what is missing
/// (Diego: PATH by user, USER; HOME as every login has it).
pub(super) fn environment(process: &Process, user: &Identity) -> Vec<(String, String)> {
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
    make_directory(&dir, user)?;
    Ok(dir.to_string_lossy().into_owned())
}

/// Makes what is missing of a directory's path, as the user's.
fn make_directory(dir: &Path, user: &Identity) -> Result<()> {
    let what = || format!("create {}", dir.display());
    let missing: Vec<&Path> = dir.ancestors().take_while(|part| !part.exists()).collect();
    for part in missing.into_iter().rev() {
        fs::create_dir(part).with_context(what)?;
        std::os::unix::fs::lchown(part, Some(user.uid), Some(user.gid)).with_context(what)?;
    }
    Ok(())
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
