//! The executor's sandbox on Linux: one container of the runtime's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use container::container::{
    ContainerId, Ends, Error, ExitStatus, Launch, LogStream, Process, Program, Runtime, Stdio,
};
use executor::sandbox::EndSignal;
use executor::{Output, ProcessEnd, Sandbox};
use nix::libc::{SIGKILL, SIGTERM};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::limits::{CAPTURE_WAIT_MAX, CAPTURED_BYTES_MAX};

/// What precedes a mark's key among the container's labels.
const MARK: &str = "gavel.mark.";

/// A container, as its recipe sees it.
#[derive(Clone, Debug)]
pub(super) struct ContainerSandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtime: Runtime,
    id: ContainerId,
    address: Ipv4Addr,
    /// What reads the outputs of processes whose output is captured.
    captures: Mutex<BTreeMap<String, JoinHandle<Vec<u8>>>>,
    /// Whether all processes have been asked to end already.
    is_terminated: AtomicBool,
}

impl ContainerSandbox {
    pub(super) fn new(runtime: Runtime, id: ContainerId, address: Ipv4Addr) -> Self {
        let captures = Mutex::default();
        let is_terminated = AtomicBool::new(false);
        Self(Arc::new(Inner { runtime, id, address, captures, is_terminated }))
    }

    /// SIGTERM for every process, also those that nobody has by name, such as daemons. From now on
    /// none is told a second time.
    pub(super) async fn terminate_all(&self) {
        if !self.0.is_terminated.swap(true, Ordering::Relaxed) {
            let _ = self.0.runtime.signal(&self.0.id, SIGTERM).await;
        }
    }

    async fn launch(&self, key: &str, program: Program, stdio: Stdio) -> Result<Ends, Error> {
        let launch = Launch { name: key.to_owned(), program, stdio, essential: false };
        self.0.runtime.launch(&self.0.id, launch).await
    }

    /// Starts a program of ours that is spoken to by pipes.
    async fn launch_ours(&self, verb: &str, program: Program) -> Result<Ours, String> {
        // New in each life of the node: what a former one left may not be forgotten yet.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let key = format!("{verb}/{}", now.as_nanos());
        match self.launch(&key, program, Stdio::Pipes).await.map_err(in_words)? {
            Ends::Pipes { stdin, stdout, stderr } => Ok(Ours { key, stdin, stdout, stderr }),
            Ends::None | Ends::Terminal(_) => Err("the container's shim gave no pipes".to_owned()),
        }
    }

    /// How a program of ours ended, which is then forgotten: with what it said, if not well.
    async fn end_of_ours(&self, key: &str, said: &[u8]) -> Result<(), String> {
        let end = self.ended(key).await;
        self.forget(key).await;
        match (end.status.code(), String::from_utf8_lossy(said).trim()) {
            (0, _) => Ok(()),
            (code, "") => Err(format!("Exited with status {code}")),
            (_, said) => Err(said.to_owned()),
        }
    }
}

/// A program of ours that runs, and its pipes.
struct Ours {
    key: String,
    stdin: File,
    stdout: File,
    stderr: File,
}

/// Why a process did not start, without the container's name, which its owner does not know.
fn in_words(error: Error) -> String {
    if let Error::Start { reason, .. } = error { reason } else { error.to_string() }
}

/// Everything that comes, of which so much is kept.
async fn read_to_end(file: File) -> Vec<u8> {
    let mut kept = Vec::new();
    let Ok(mut pipe) = pipe::Receiver::from_file(file) else { return kept };
    let mut bytes = vec![0; 8192];
    // A pipe that cannot be read is as good as closed.
    while let Ok(length @ 1..) = pipe.read(&mut bytes).await {
        let room = CAPTURED_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..length.min(room)]);
    }
    kept
}

impl Sandbox for ContainerSandbox {
    async fn start(&self, key: &str, process: Process, output: Output) -> Result<(), String> {
        let stdio = match output {
            Output::Log { source } => Stdio::Log { source },
            Output::Discard => Stdio::Null,
            Output::Capture => Stdio::Pipes,
        };
        match self.launch(key, Program::Image(process), stdio).await {
            Ok(Ends::Pipes { stdout, stderr, .. }) => {
                let capture = tokio::spawn(async {
                    let (mut both, errors) = tokio::join!(read_to_end(stdout), read_to_end(stderr));
                    both.extend_from_slice(&errors);
                    both.truncate(CAPTURED_BYTES_MAX);
                    both
                });
                let mut captures = self.0.captures.lock().expect("no holder of the lock panics");
                captures.insert(key.to_owned(), capture);
                Ok(())
            }
            Ok(Ends::None | Ends::Terminal(_)) | Err(Error::ProcessExists { .. }) => Ok(()),
            Err(error) => Err(in_words(error)),
        }
    }

    async fn ended(&self, key: &str) -> ProcessEnd {
        let ended = self.0.runtime.process_ended(&self.0.id, key).await;
        let capture = self.0.captures.lock().expect("no holder of the lock panics").remove(key);
        let output = match capture {
            // A child of the process may hold the pipe for ever.
            Some(capture) => match tokio::time::timeout(CAPTURE_WAIT_MAX, capture).await {
                Ok(Ok(output)) => output,
                Ok(Err(_)) | Err(_) => Vec::new(),
            },
            None => Vec::new(),
        };
        match ended {
            Ok(exit) => ProcessEnd { status: exit.status, oom_killed: exit.oom_killed, output },
            // The container is gone, and with it all that ran in it.
            Err(_) => ProcessEnd { status: ExitStatus::Signal(SIGKILL), oom_killed: false, output },
        }
    }

    async fn signal(&self, key: &str, signal: EndSignal) {
        let signal = match signal {
            EndSignal::Terminate if self.0.is_terminated.load(Ordering::Relaxed) => return,
            EndSignal::Terminate => SIGTERM,
            EndSignal::Kill => SIGKILL,
        };
        let _ = self.0.runtime.signal_process(&self.0.id, key, signal).await;
    }

    async fn forget(&self, key: &str) {
        let _ = self.0.runtime.forget_process(&self.0.id, key).await;
    }

    async fn unpack<R: AsyncRead + Send + Unpin + 'static>(
        &self,
        user: &str,
        directory: &str,
        mut tar: R,
    ) -> Result<(), String> {
        let (user, directory) = (user.to_owned(), directory.to_owned());
        let ours = self.launch_ours("unpack", Program::Unpack { user, directory }).await?;
        let stdin = pipe::Sender::from_file(ours.stdin).map_err(|error| error.to_string());
        let sent = async {
            let mut stdin = stdin?;
            let mut bytes = vec![0; 64 * 1024];
            loop {
                match tar.read(&mut bytes).await {
                    Ok(0) => return Ok(()),
                    // One that reads no further says why at its end.
                    Ok(length) => match stdin.write_all(&bytes[..length]).await {
                        Ok(()) => {}
                        Err(_) => return Ok(()),
                    },
                    Err(error) => {
                        // Before its input ends, which could look like the archive's end.
                        self.signal(&ours.key, EndSignal::Kill).await;
                        self.ended(&ours.key).await;
                        return Err(error.to_string());
                    }
                }
            }
        };
        let (sent, _, said) =
            tokio::join!(sent, read_to_end(ours.stdout), read_to_end(ours.stderr));
        let done = self.end_of_ours(&ours.key, &said).await;
        sent.and(done)
    }

    async fn read_file<W: AsyncWrite + Send + Unpin + 'static>(
        &self,
        user: &str,
        path: &str,
        mut to: W,
    ) -> Result<u64, String> {
        let (user, path) = (user.to_owned(), path.to_owned());
        let ours = self.launch_ours("read", Program::ReadFile { user, path }).await?;
        drop(ours.stdin);
        let copied = async {
            let mut stdout = pipe::Receiver::from_file(ours.stdout)?;
            let length = tokio::io::copy(&mut stdout, &mut to).await?;
            to.shutdown().await?;
            io::Result::Ok(length)
        };
        let (copied, said) = tokio::join!(copied, read_to_end(ours.stderr));
        self.end_of_ours(&ours.key, &said).await?;
        copied.map_err(|error| error.to_string())
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        match self.0.runtime.connect(&self.0.id, port).await {
            Ok(connected) => connected,
            Err(gone) => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, gone.to_string())),
        }
    }

    fn address(&self) -> Ipv4Addr {
        self.0.address
    }

    async fn log(&self, stream: LogStream, source: &str, text: &str) {
        let _ = self.0.runtime.log(&self.0.id, stream, source, text).await;
    }

    async fn mark(&self, key: &str, value: &str) {
        let label = format!("{MARK}{key}");
        if let Err(error) = self.0.runtime.set_label(&self.0.id, &label, value).await {
            // Without it a later life of the node does this step again.
            tracing::warn!(container = %self.0.id, %error, "a step is not written down");
        }
    }

    fn marked(&self, key: &str) -> Option<String> {
        let info = self.0.runtime.get(&self.0.id).ok()?;
        info.labels.get(&format!("{MARK}{key}")).cloned()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let captures = self.captures.get_mut().expect("no holder of the lock panics");
        captures.values().for_each(JoinHandle::abort);
    }
}
