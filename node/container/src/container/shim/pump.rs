//! The shim's second half: serves nodes, moves the app's output into the log, and writes down
//! how it ended.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;

use super::super::cgroup::key_of;
use super::super::logs::LogPosition;
use super::super::process::ProcessState;
use super::super::spec::{Exit, ExitStatus};
use super::super::state::{now_ms, now_ns, write_json};
use super::build::{Built, tell};
use super::packet::{receive, send, send_line};
use super::processes::{Answer, Heard, Processes};
use super::protocol::{FromInit, FromShim, Setup, ToInit, ToShim};
use super::syscalls::pidfd;
use super::{Context as _, Result};
use crate::limits::{SHIM_CLIENTS_MAX, SHIM_MESSAGE_BYTES_MAX};

/// Serves until the container has ended and its end is on disk.
pub(super) fn run(built: Built) -> Result<()> {
    let init_end = pidfd(built.init.0).context("watch init")?;
    built.node.set_nonblocking(true).context("serve the node")?;
    let mut maker = Client::new(built.node.try_clone().context("serve the node")?);
    maker.is_told = true;
    let mut shim =
        Shim { built, clients: vec![maker], processes: Processes::default(), status: None };
    while !shim.turn(&init_end)? {}
    shim.finish()
}

struct Shim {
    built: Built,
    clients: Vec<Client>,
    processes: Processes,
    /// How the essential process ended.
    status: Option<ExitStatus>,
}

/// A node's connection.
struct Client {
    stream: UnixStream,
    number: u64,
    unread: Vec<u8>,
    /// Wants to know when the log reaches beyond this.
    awaited: Option<LogPosition>,
    /// Whether it is told of every process.
    is_told: bool,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        // Descriptors are reused, time is not.
        Self { stream, number: now_ns(), unread: Vec::new(), awaited: None, is_told: false }
    }
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
        let outputs = self.processes.pipes().enumerate();
        sources.extend(outputs.map(|(n, pipe)| (pipe, Source::Output(n))));
        let ready = wait(&sources)?;

        // Backwards, so that removing one leaves the numbers of those before it.
        for source in ready.into_iter().rev() {
            match source {
                Source::Output(n) => self.processes.drain(n, &mut self.built.log)?,
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

    /// Does what a client wants; whether it is still there.
    fn serve(&mut self, number: usize, message: ToShim) -> Result<bool> {
        let reply = match message {
            ToShim::Status => {
                self.clients[number].is_told = true;
                FromShim::Status {
                    init_pid: self.built.init.0.as_raw().unsigned_abs(),
                    first: self.processes.first(),
                    processes: self.processes.table().clone(),
                }
            }
            ToShim::Launch(launch) => {
                let (client, root) = (self.clients[number].number, self.built.setup.id_base);
                match self.processes.launch(client, &launch, &self.built.control, root) {
                    Some(reply) => reply,
                    None => return Ok(true),
                }
            }
            ToShim::Signal(signal) => {
                // If init is gone, that is seen at the next turn.
                let _ = send(&self.built.control, &ToInit::Signal(signal), &[]);
                return Ok(true);
            }
            ToShim::SignalProcess { name, signal } => {
                let _ = send(&self.built.control, &ToInit::SignalProcess { name, signal }, &[]);
                return Ok(true);
            }
            ToShim::Forget { name } => {
                self.processes.forget(&name);
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
            ToShim::Log { at_ns, stream, source, text } => {
                let log = &mut self.built.log;
                for line in text.split(['\n', '\r']).filter(|line| !line.is_empty()) {
                    // As with the app's own lines.
                    let _ = log.push(at_ns, stream, &source, line.as_bytes());
                }
                let _ = log.write();
                return Ok(true);
            }
            ToShim::Setup(_) | ToShim::Connected => return Ok(false),
        };
        Ok(tell(&self.clients[number].stream, &reply).is_ok())
    }

    /// Whether the container has ended.
    fn hear_init(&mut self) -> Result<bool> {
        let packet = match receive::<FromInit>(&self.built.control) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(true),
            Err(e) => return Err(e).context("hear from init"),
        };
        let Built { setup, log, .. } = &mut self.built;
        let sender = packet.sender.and_then(|pid| u32::try_from(pid).ok());
        let oom_killed = || oom_killed(setup);
        match self.processes.heard(packet.value, sender, packet.fds, log, oom_killed)? {
            Heard::Nothing => {}
            Heard::Answered(answer, started) => {
                if let Some((name, state)) = started {
                    self.tell_all(&FromShim::Process { name, state });
                }
                self.answer(&answer);
            }
            Heard::Ended(_, exit, true) => {
                self.status = Some(exit.status);
                return Ok(true);
            }
            Heard::Ended(name, exit, false) => {
                let state = ProcessState::Exited(exit);
                self.tell_all(&FromShim::Process { name, state });
            }
        }
        Ok(false)
    }

    /// A client that is gone, or does not read, is noticed at its own turn.
    fn answer(&self, answer: &Answer) {
        if let Some(client) = self.clients.iter().find(|client| client.number == answer.client) {
            let _ = send_line(&client.stream, &answer.reply, &answer.ends);
        }
    }

    fn tell_all(&self, message: &FromShim) {
        for client in self.clients.iter().filter(|client| client.is_told) {
            let _ = tell(&client.stream, message);
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
            match self.hear_init() {
                Ok(false) => {}
                Ok(true) | Err(_) => break,
            }
        }
        let Self {
            built: Built { setup, files, init, mut log, .. }, mut processes, status, ..
        } = self;
        // Returns when the kernel has ended every process of the pid namespace, so that nobody
        // holds the pipes any more (pid_namespaces(7)).
        let status = match (status, init.end().context("end init")?) {
            (Some(status), _) => status,
            (None, WaitStatus::Signaled(_, signal, _)) => ExitStatus::Signal(signal as i32),
            (None, _) => ExitStatus::Signal(Signal::SIGKILL as i32),
        };
        processes.drain_all(&mut log)?;
        let _ = log.write();
        let exit = Exit { status, oom_killed: oom_killed(&setup), at_ms: now_ms() };
        let path = files.exit();
        write_json(&path, &exit, true).with_context(|| format!("write {}", path.display()))
    }
}

/// Whether the kernel has killed any of the container's processes for want of memory.
fn oom_killed(setup: &Setup) -> bool {
    fs::read_to_string(&setup.oom_counter)
        .ok()
        .and_then(|text| key_of(&text, "oom_kill"))
        .is_some_and(|count| count > 0)
}

fn client_line(unread: &[u8]) -> Option<usize> {
    unread.iter().position(|byte| *byte == b'\n')
}

pub(super) fn nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
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
