//! The shim's account of the container's processes: what was asked of init, what runs, what has
//! ended, and the outputs that go to the log.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use super::super::logs::{LineSplitter, LogStream, LogWriter};
use super::super::process::{Launch, ProcessExit, ProcessState, Stdio};
use super::super::state::{now_ms, now_ns};
use super::packet::send;
use super::protocol::{FromInit, FromShim, Running, ToInit};
use super::pump::nonblocking;
use super::{Context as _, Result};
use crate::limits::PROCESSES_MAX;

/// Bytes taken from a pipe at a time: its default capacity (pipe(7)).
const READ_BYTES: usize = 64 * 1024;

/// All that was started, and is not forgotten.
#[derive(Debug, Default)]
pub(super) struct Processes {
    table: BTreeMap<String, ProcessState>,
    /// Asked of init and not answered, which it does in order.
    starting: VecDeque<Starting>,
    outputs: Vec<Output>,
    /// Whose end is the container's.
    essential: Option<String>,
    first: Option<Running>,
}

/// A process between the asking and the answer.
#[derive(Debug)]
struct Starting {
    /// Who asked.
    client: u64,
    name: String,
    essential: bool,
    /// On the host.
    pid: u32,
    /// For who asked.
    ends: Vec<OwnedFd>,
}

/// One of a process's outputs, on its way to the log.
#[derive(Debug)]
struct Output {
    pipe: OwnedFd,
    process: String,
    source: String,
    stream: LogStream,
    splitter: LineSplitter,
}

/// An answer to who asked for a process.
#[derive(Debug)]
pub(super) struct Answer {
    pub client: u64,
    pub reply: FromShim,
    pub ends: Vec<OwnedFd>,
}

/// What a word of init's means for others.
#[derive(Debug)]
pub(super) enum Heard {
    Nothing,
    /// A launch is answered; where it went well, the process is to be told of as well.
    Answered(Answer, Option<(String, ProcessState)>),
    /// A process has ended; whether that is the container's end.
    Ended(String, ProcessExit, bool),
}

impl Processes {
    pub(super) fn table(&self) -> &BTreeMap<String, ProcessState> {
        &self.table
    }

    pub(super) fn first(&self) -> Option<Running> {
        self.first
    }

    /// Hands a process to init. The answer comes later, unless one is returned.
    pub(super) fn launch(
        &mut self,
        client: u64,
        launch: &Launch,
        control: &OwnedFd,
        root: u32,
    ) -> Option<FromShim> {
        let is_known = self.table.contains_key(&launch.name)
            || self.starting.iter().any(|starting| starting.name == launch.name);
        if is_known {
            return Some(FromShim::Exists);
        }
        if self.table.len() + self.starting.len() >= PROCESSES_MAX {
            let reason = format!("{PROCESSES_MAX} processes are remembered, and no more can be");
            return Some(FromShim::LaunchFailed(reason));
        }
        match self.hand_over(client, launch, control, root) {
            Ok(()) => None,
            Err(failure) => Some(FromShim::LaunchFailed(failure.to_string())),
        }
    }

    fn hand_over(
        &mut self,
        client: u64,
        launch: &Launch,
        control: &OwnedFd,
        root: u32,
    ) -> Result<()> {
        let memory = memfd_create(c"process", MFdFlags::MFD_CLOEXEC).context("create a memfd")?;
        let mut file = File::from(memory);
        let json = serde_json::to_vec(launch).map_err(io::Error::from).context("encode")?;
        file.write_all(&json).context("write a memfd")?;
        io::Seek::rewind(&mut file).context("rewind a memfd")?;

        // Theirs are closed here when they have been sent.
        let (mut theirs, mut ends, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        match &launch.stdio {
            Stdio::Log { source } => {
                for stream in [LogStream::Stdout, LogStream::Stderr] {
                    let (ours, app) = pipe(root)?;
                    nonblocking(ours.as_fd()).context("create a pipe")?;
                    theirs.push(app);
                    outputs.push(Output {
                        pipe: ours,
                        process: launch.name.clone(),
                        source: source.clone(),
                        stream,
                        splitter: LineSplitter::default(),
                    });
                }
            }
            Stdio::Pipes => {
                let (stdout, stdout_end) = pipe(root)?;
                let (stderr, stderr_end) = pipe(root)?;
                let (stdin_end, stdin) = pipe(root)?;
                theirs.extend([stdout_end, stderr_end, stdin_end]);
                ends.extend([stdin, stdout, stderr]);
            }
            Stdio::Null | Stdio::Terminal { .. } => {}
        }
        let fds: Vec<_> =
            [file.as_raw_fd()].into_iter().chain(theirs.iter().map(|fd| fd.as_raw_fd())).collect();
        send(control, &ToInit::Start, &fds).context("tell init")?;
        self.outputs.extend(outputs);
        self.starting.push_back(Starting {
            client,
            name: launch.name.clone(),
            essential: launch.essential,
            pid: 0,
            ends,
        });
        Ok(())
    }

    /// Takes what init said, the sender's process id on the host, and the descriptors beside it.
    /// `oom_killed` is asked only when a process has ended.
    pub(super) fn heard(
        &mut self,
        message: FromInit,
        sender: Option<u32>,
        fds: Vec<OwnedFd>,
        log: &mut LogWriter,
        oom_killed: impl FnOnce() -> bool,
    ) -> Result<Heard> {
        match message {
            FromInit::Terminal => {
                if let Some(starting) = self.starting.front_mut() {
                    starting.ends = fds;
                }
                Ok(Heard::Nothing)
            }
            FromInit::Spawned => {
                if let Some(starting) = self.starting.front_mut() {
                    starting.pid = sender.unwrap_or(0);
                }
                Ok(Heard::Nothing)
            }
            FromInit::Started => {
                let Some(Starting { client, name, essential, pid, ends }) =
                    self.starting.pop_front()
                else {
                    return Ok(Heard::Nothing);
                };
                let running = Running { pid, since_ms: now_ms() };
                self.first.get_or_insert(running);
                if essential {
                    self.essential = Some(name.clone());
                }
                let state = ProcessState::Running { pid, since_ms: running.since_ms };
                self.table.insert(name.clone(), state);
                let answer = Answer { client, reply: FromShim::Launched, ends };
                Ok(Heard::Answered(answer, Some((name, state))))
            }
            FromInit::StartFailed(reason) => {
                let Some(Starting { client, name, .. }) = self.starting.pop_front() else {
                    return Ok(Heard::Nothing);
                };
                self.outputs.retain(|output| output.process != name);
                let reply = FromShim::LaunchFailed(reason);
                Ok(Heard::Answered(Answer { client, reply, ends: Vec::new() }, None))
            }
            FromInit::Exited { name, status } => {
                // What it wrote is in the log before anyone hears that it has ended.
                self.drain_process(&name, log)?;
                let exit = ProcessExit { status, oom_killed: oom_killed(), at_ms: now_ms() };
                if let Some(state) = self.table.get_mut(&name) {
                    *state = ProcessState::Exited(exit);
                }
                let is_the_end = self.essential.as_ref() == Some(&name);
                Ok(Heard::Ended(name, exit, is_the_end))
            }
            FromInit::Ready | FromInit::Failed(_) => Ok(Heard::Nothing),
        }
    }

    /// Forgets a process that has ended; one that runs stays.
    pub(super) fn forget(&mut self, name: &str) {
        if matches!(self.table.get(name), Some(ProcessState::Exited(_))) {
            self.table.remove(name);
        }
    }

    /// The pipes to be watched, in an order that holds until the next call of [`Self::drain`].
    pub(super) fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.outputs.iter().map(|output| output.pipe.as_fd())
    }

    /// Moves what an output has into the log, once; closed ones go.
    pub(super) fn drain(&mut self, number: usize, log: &mut LogWriter) -> Result<()> {
        if self.outputs[number].read(log)? == Read::Closed {
            self.outputs.remove(number);
        }
        Ok(())
    }

    /// Moves all that a process has written into the log, its last line as well if that has no
    /// end. Its children may write on.
    fn drain_process(&mut self, name: &str, log: &mut LogWriter) -> Result<()> {
        for output in self.outputs.iter_mut().filter(|output| output.process == name) {
            output.read_all(log)?;
        }
        let _ = log.write();
        Ok(())
    }

    /// Moves everything into the log: nobody writes any more.
    pub(super) fn drain_all(&mut self, log: &mut LogWriter) -> Result<()> {
        self.outputs.iter_mut().try_for_each(|output| output.read_all(log))
    }
}

/// How a read of a pipe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Some,
    Nothing,
    Closed,
}

impl Output {
    fn read(&mut self, log: &mut LogWriter) -> Result<Read> {
        let mut bytes = vec![0; READ_BYTES];
        let length = match nix::unistd::read(&self.pipe, &mut bytes) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => return Ok(Read::Nothing),
            Err(Errno::EINTR) => return Ok(Read::Some),
            Err(e) => return Err(e).context("read the app's output"),
        };
        if length == 0 {
            self.flush(log);
            let _ = log.write();
            return Ok(Read::Closed);
        }
        let Self { source, stream, splitter, .. } = self;
        let at_ns = now_ns();
        // A full disk loses lines: an app that waits for us would lose more.
        splitter.push(&bytes[..length], |line| {
            let _ = log.push_app(at_ns, *stream, source, line);
        });
        let _ = log.write();
        Ok(Read::Some)
    }

    /// At most as much as fits into a few pipes: a child that never stops writing ends nothing.
    fn read_all(&mut self, log: &mut LogWriter) -> Result<()> {
        const READS_MAX: usize = 64;
        for _ in 0..READS_MAX {
            if self.read(log)? != Read::Some {
                break;
            }
        }
        self.flush(log);
        Ok(())
    }

    fn flush(&mut self, log: &mut LogWriter) {
        let Self { source, stream, splitter, .. } = self;
        splitter.flush(|line| {
            let _ = log.push_app(now_ns(), *stream, source, line);
        });
    }
}

/// A pipe whose ends are both the container's root's, who passes its own on to the app's user.
fn pipe(root: u32) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).context("create a pipe")?;
    let (uid, gid) = (Uid::from_raw(root), Gid::from_raw(root));
    fchown(&write, Some(uid), Some(gid)).context("own a pipe")?;
    Ok((read, write))
}
