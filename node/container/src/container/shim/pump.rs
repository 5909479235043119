//! The shim's second half: serves nodes, moves the app's output into the log, and writes down
//! how it ended.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Gid, Uid, fchown, pipe2};

use super::super::cgroup::key_of;
use super::super::logs::{LineSplitter, LogPosition, LogStream, LogWriter};
use super::super::spec::{Exit, ExitStatus, Process};
use super::super::state::{now_ms, now_ns, write_json};
use super::build::{Built, tell};
use super::packet::{receive, send};
use super::protocol::{FromInit, FromShim, Running, ToInit, ToShim};
use super::syscalls::pidfd;
use super::{Context as _, Result};
use crate::limits::{SHIM_CLIENTS_MAX, SHIM_MESSAGE_BYTES_MAX};

/// Bytes taken from a pipe at a time: its default capacity (pipe(7)).
const READ_BYTES: usize = 64 * 1024;

/// Serves until the container has ended and its end is on disk.
pub(super) fn run(built: Built) -> Result<()> {
    let init_end = pidfd(built.init.0).context("watch init")?;
    built.node.set_nonblocking(true).context("serve the node")?;
    let clients = vec![Client::new(built.node.try_clone().context("serve the node")?)];
    let mut shim = Shim {
        built,
        clients,
        outputs: Vec::new(),
        running: None,
        spawned: None,
        starting: None,
        status: None,
    };
    while !shim.turn(&init_end)? {}
    shim.finish()
}

struct Shim {
    built: Built,
    clients: Vec<Client>,
    outputs: Vec<Output>,
    running: Option<Running>,
    /// The host's process id of what init is starting.
    spawned: Option<u32>,
    /// Which client asked for it.
    starting: Option<u64>,
    /// How the main process ended.
    status: Option<ExitStatus>,
}

/// A node's connection.
struct Client {
    stream: UnixStream,
    number: u64,
    unread: Vec<u8>,
    /// Wants to know when the log reaches beyond this.
    awaited: Option<LogPosition>,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        // Descriptors are reused, time is not.
        Self { stream, number: now_ns(), unread: Vec::new(), awaited: None }
    }
}

/// One of the app's two outputs.
struct Output {
    pipe: OwnedFd,
    stream: LogStream,
    splitter: LineSplitter,
}

/// What a descriptor that became ready is.
#[derive(Clone, Copy)]
enum Source {
    InitEnd,
    Init,
    Listener,
    Client(usize),
    Output(usize),
}

impl Shim {
    /// Waits once, and does what there is to do; whether the container has ended.
    fn turn(&mut self, init_end: &OwnedFd) -> Result<bool> {
        let mut sources =
            vec![(init_end.as_fd(), Source::InitEnd), (self.built.control.as_fd(), Source::Init)];
        if self.clients.len() < SHIM_CLIENTS_MAX {
            sources.push((self.built.listener.as_fd(), Source::Listener));
        }
        let clients = self.clients.iter().enumerate();
        sources.extend(clients.map(|(n, client)| (client.stream.as_fd(), Source::Client(n))));
        let outputs = self.outputs.iter().enumerate();
        sources.extend(outputs.map(|(n, output)| (output.pipe.as_fd(), Source::Output(n))));
        let ready = wait(&sources)?;

        // Backwards, so that removing one leaves the numbers of those before it.
        for source in ready.into_iter().rev() {
            match source {
                Source::Output(n) => {
                    if drain(&mut self.outputs[n], &mut self.built.log)? {
                        self.outputs.remove(n);
                    }
                }
                Source::Client(n) => {
                    if !self.hear(n)? {
                        self.clients.remove(n);
                    }
                }
                Source::Listener => self.accept()?,
                Source::Init => {
                    if self.hear_init()? {
                        return Ok(true);
                    }
                }
                Source::InitEnd => return Ok(true),
            }
        }
        self.tell_log_end();
        Ok(false)
    }

    fn accept(&mut self) -> Result<()> {
        match self.built.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true).context("serve a node")?;
                self.clients.push(Client::new(stream));
                Ok(())
            }
            // It gave up meanwhile.
            Err(_gone) => Ok(()),
        }
    }

    /// Reads what a client says; whether it is still there.
    fn hear(&mut self, number: usize) -> Result<bool> {
        let mut bytes = [0; 4096];
        loop {
            let client = &mut self.clients[number];
            match client.stream.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(length) => client.unread.extend_from_slice(&bytes[..length]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_gone) => return Ok(false),
            }
            while let Some(end) = client_line(&self.clients[number].unread) {
                let line: Vec<u8> = self.clients[number].unread.drain(..=end).collect();
                let Ok(message) = serde_json::from_slice(&line) else { return Ok(false) };
                if !self.serve(number, message)? {
                    return Ok(false);
                }
            }
            if self.clients[number].unread.len() > SHIM_MESSAGE_BYTES_MAX {
                return Ok(false);
            }
        }
    }

    /// Does what a client wants; whether it could be answered.
    fn serve(&mut self, number: usize, message: ToShim) -> Result<bool> {
        let reply = match message {
            ToShim::Status => FromShim::Status { running: self.running },
            ToShim::Start(process) => {
                if self.running.is_some() || self.starting.is_some() {
                    FromShim::StartFailed("a process was started already".to_owned())
                } else {
                    match self.start(&process) {
                        Ok(()) => {
                            self.starting = Some(self.clients[number].number);
                            return Ok(true);
                        }
                        Err(failure) => FromShim::StartFailed(failure.to_string()),
                    }
                }
            }
            ToShim::Signal(signal) => {
                // If init is gone, that is seen at the next turn.
                let _ = send(&self.built.control, &ToInit::Signal(signal), &[]);
                return Ok(true);
            }
            ToShim::Kill => {
                kill(self.built.init.0, Signal::SIGKILL).context("kill init")?;
                return Ok(true);
            }
            ToShim::AwaitLog(position) => {
                let awaited = &mut self.clients[number].awaited;
                *awaited = Some(awaited.map_or(position, |earlier| earlier.min(position)));
                return Ok(true);
            }
            ToShim::Setup(_) | ToShim::Connected => return Ok(false),
        };
        Ok(tell(&self.clients[number].stream, &reply).is_ok())
    }

    /// Hands init a process and the writing ends of its output.
    fn start(&mut self, process: &Process) -> Result<()> {
        let memory = memfd_create(c"process", MFdFlags::MFD_CLOEXEC).context("create a memfd")?;
        let mut file = fs::File::from(memory);
        let json = serde_json::to_vec(process).map_err(io::Error::from).context("encode")?;
        file.write_all(&json).context("write a memfd")?;
        io::Seek::rewind(&mut file).context("rewind a memfd")?;
        let root = self.built.setup.id_base;
        let (stdout, stdout_end) = output(LogStream::Stdout, root)?;
        let (stderr, stderr_end) = output(LogStream::Stderr, root)?;
        let fds = [file.as_raw_fd(), stdout_end.as_raw_fd(), stderr_end.as_raw_fd()];
        send(&self.built.control, &ToInit::Start, &fds).context("tell init")?;
        self.outputs = vec![stdout, stderr];
        Ok(())
    }

    /// Whether the container has ended.
    fn hear_init(&mut self) -> Result<bool> {
        let packet = match receive::<FromInit>(&self.built.control) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(true),
            Err(e) => return Err(e).context("hear from init"),
        };
        match packet.value {
            FromInit::Spawned => {
                self.spawned = packet.sender.and_then(|pid| u32::try_from(pid).ok());
            }
            FromInit::Started => {
                let running = Running { pid: self.spawned.unwrap_or(0), since_ms: now_ms() };
                self.running = Some(running);
                self.answer_start(&FromShim::Started(running));
            }
            FromInit::StartFailed(reason) => self.answer_start(&FromShim::StartFailed(reason)),
            // One process is the container's main one: its end is the end of all.
            FromInit::Exited(status) => {
                self.status = Some(status);
                return Ok(true);
            }
            FromInit::Ready | FromInit::Failed(_) => {}
        }
        Ok(false)
    }

    fn answer_start(&mut self, reply: &FromShim) {
        let asked = self.starting.take();
        // A client that is gone, or does not read, is noticed at its own turn.
        if let Some(client) = self.clients.iter().find(|client| Some(client.number) == asked) {
            let _ = tell(&client.stream, reply);
        }
    }

    fn tell_log_end(&mut self) {
        let end = self.built.log.end();
        for client in &mut self.clients {
            if client.awaited.is_some_and(|awaited| awaited < end) {
                client.awaited = None;
                let _ = tell(&client.stream, &FromShim::LogEnd(end));
            }
        }
    }

    /// Ends what is left, empties the pipes, and writes the end down.
    fn finish(mut self) -> Result<()> {
        // Init may have told us before it died.
        nonblocking(self.built.control.as_fd()).context("hear from init")?;
        while self.status.is_none() {
            match receive::<FromInit>(&self.built.control) {
                Ok(Some(packet)) => {
                    if let FromInit::Exited(status) = packet.value {
                        self.status = Some(status);
                    }
                }
                Ok(None) | Err(_) => break,
            }
        }
        let Self { built: Built { setup, files, init, mut log, .. }, outputs, status, .. } = self;
        // Returns when the kernel has ended every process of the pid namespace, so that nobody
        // holds the pipes any more (pid_namespaces(7)).
        let status = match (status, init.end().context("end init")?) {
            (Some(status), _) => status,
            (None, WaitStatus::Signaled(_, signal, _)) => ExitStatus::Signal(signal as i32),
            (None, _) => ExitStatus::Signal(Signal::SIGKILL as i32),
        };
        for mut output in outputs {
            while !drain(&mut output, &mut log)? {}
        }
        let oom_killed = fs::read_to_string(&setup.oom_counter)
            .ok()
            .and_then(|text| key_of(&text, "oom_kill"))
            .is_some_and(|count| count > 0);
        let exit = Exit { status, oom_killed, at_ms: now_ms() };
        let path = files.exit();
        write_json(&path, &exit, true).with_context(|| format!("write {}", path.display()))
    }
}

/// Moves what an output has into the log; whether it is closed.
fn drain(output: &mut Output, log: &mut LogWriter) -> Result<bool> {
    let mut bytes = vec![0; READ_BYTES];
    let Output { pipe, stream, splitter } = output;
    let length = match nix::unistd::read(&*pipe, &mut bytes) {
        Ok(length) => length,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
        Err(e) => return Err(e).context("read the app's output"),
    };
    let at_ns = now_ns();
    // A full disk loses lines: an app that waits for us would lose more.
    let mut push = |line: &[u8]| {
        let _ = log.push(at_ns, *stream, line);
    };
    match length {
        0 => splitter.flush(&mut push),
        length => splitter.push(&bytes[..length], &mut push),
    }
    let _ = log.write();
    Ok(length == 0)
}

fn client_line(unread: &[u8]) -> Option<usize> {
    unread.iter().position(|byte| *byte == b'\n')
}

/// A pipe for one of the app's outputs: our end, and the app's.
/// It is the container's root's, who passes it on to the app's user.
fn output(stream: LogStream, root: u32) -> Result<(Output, OwnedFd)> {
    let (pipe, app) = pipe2(OFlag::O_CLOEXEC).context("create a pipe")?;
    let (uid, gid) = (Uid::from_raw(root), Gid::from_raw(root));
    fchown(&app, Some(uid), Some(gid)).context("own the output")?;
    nonblocking(pipe.as_fd()).context("create a pipe")?;
    Ok((Output { pipe, stream, splitter: LineSplitter::default() }, app))
}

fn nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Waits until at least one is readable, closed or broken.
fn wait(sources: &[(BorrowedFd<'_>, Source)]) -> Result<Vec<Source>> {
    let mut fds: Vec<PollFd<'_>> =
        sources.iter().map(|(fd, _)| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e).context("wait for events"),
    }
    let ready = fds.iter().zip(sources).filter(|(fd, _)| fd.any().unwrap_or(false));
    Ok(ready.map(|(_, (_, source))| *source).collect())
}
