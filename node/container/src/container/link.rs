//! The node's end of the connection to one shim.
//!
//! One task per container, asleep until the shim or a verb has something to say.
//! The end of the connection is the container's end: then the exit record says how, and if
//! there is none, the shim was killed, and everything in the container with it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::libc;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc};

use super::cgroup::Cgroups;
use super::error::{Context as _, Error, Result};
use super::process::ProcessState;
use super::runtime::{AbortOnDrop, Container, Event, Inner, Shim, blocking, lock};
use super::shim::packet::receive_line;
use super::shim::protocol::{FromShim, ToShim};
use super::spec::{ContainerId, ContainerState, Exit, ExitStatus};
use super::state::{Files, SOCKET, now_ms, read_json};
use crate::limits::{SHIM_REPLY_WAIT_MAX, SHIM_REQUESTS_MAX};

/// A connection before anyone else uses it.
#[derive(Debug)]
pub(super) struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self { lines: BufReader::new(read).lines(), write }
    }

    pub(super) async fn send(&mut self, message: &ToShim) -> Result<()> {
        send(&mut self.write, message).await
    }

    /// The next message; `None` when the shim is gone.
    pub(super) async fn receive(&mut self) -> Option<FromShim> {
        // A line that cannot be read is as good as none: the shim is not one of ours.
        let line = self.lines.next_line().await.ok().flatten()?;
        serde_json::from_str(&line).ok()
    }
}

async fn send(write: &mut OwnedWriteHalf, message: &ToShim) -> Result<()> {
    let context = || "tell the shim".to_owned();
    let mut line = serde_json::to_vec(message).map_err(std::io::Error::from).context(context)?;
    line.push(b'\n');
    write.write_all(&line).await.context(context)
}

/// Starts a shim that waits for its `Setup`.
pub(super) async fn spawn_shim(
    shim: &Shim,
    id: &ContainerId,
    files: &Files,
) -> Result<(ShimProcess, Connection)> {
    let (shim, id, files) = (shim.clone(), id.clone(), files.clone());
    let (child, ours) = blocking(move || -> Result<_> {
        let context = || format!("start the shim {}", shim.program.display());
        let (ours, theirs) = StdUnixStream::pair().context(context)?;
        let stderr = std::fs::File::create(files.stderr()).context(context)?;
        let child = Command::new(&shim.program)
            .args(&shim.args)
            .arg(id.as_str())
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .context(context)?;
        ours.set_nonblocking(true).context(context)?;
        Ok((child, ours))
    })
    .await?;
    let child = ShimProcess(Some(child));
    let stream = UnixStream::from_std(ours).context(|| "use the shim's socket".to_owned())?;
    Ok((child, Connection::new(stream)))
}

/// A shim that is our own child: killed, unless let go, and reaped.
#[derive(Debug)]
pub(super) struct ShimProcess(Option<Child>);

impl ShimProcess {
    /// Its process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.0.as_ref().map(Child::id)
    }

    /// Waits for its end, for at most the moment between closing its socket and dying.
    pub(super) async fn reap(mut self) {
        if let Some(mut child) = self.0.take() {
            blocking(move || child.wait().map(drop).unwrap_or_default()).await;
        }
    }

    /// Kills it, and with it all that it has started.
    pub(super) async fn kill(mut self) {
        if let Some(child) = &mut self.0 {
            // It may be dead already, and is not reaped, so nobody else is hit.
            let _ = child.kill();
        }
        self.reap().await;
    }
}

/// How verbs speak to a running shim.
#[derive(Clone, Debug)]
pub(super) struct ShimLink(mpsc::Sender<ToShim>);

impl ShimLink {
    /// Says something that has no answer. If the shim is gone, so is all that it could be about.
    pub(super) async fn tell(&self, message: ToShim) {
        let _ = self.0.send(message).await;
    }
}

/// Watches a container from now on.
/// `child` is its shim if that is our own child and not a former node's.
pub(super) fn watch(
    inner: &Inner,
    container: &Arc<Container>,
    connection: Connection,
    child: Option<ShimProcess>,
) {
    let (requests, received) = mpsc::channel(SHIM_REQUESTS_MAX);
    let watcher = Watcher {
        container: Arc::downgrade(container),
        id: container.record.spec.id.clone(),
        files: container.files.clone(),
        cgroups: Arc::clone(&inner.cgroups),
        events: inner.events.clone(),
    };
    let task = tokio::spawn(watcher.run(connection, received, child));
    *lock(&container.link) = Some(ShimLink(requests));
    *lock(&container.watcher) = Some(AbortOnDrop(task.abort_handle()));
}

/// Holds the container weakly: the table owns it, and ends this task with it.
struct Watcher {
    container: std::sync::Weak<Container>,
    id: ContainerId,
    files: Files,
    cgroups: Arc<Cgroups>,
    events: broadcast::Sender<Event>,
}

impl Watcher {
    async fn run(
        self,
        mut connection: Connection,
        mut requests: mpsc::Receiver<ToShim>,
        child: Option<ShimProcess>,
    ) {
        loop {
            tokio::select! {
                message = connection.receive() => match message {
                    Some(message) => self.heard(message),
                    None => break,
                },
                Some(message) = requests.recv() => {
                    if connection.send(&message).await.is_err() {
                        break;
                    }
                }
            }
        }
        if let Some(child) = child {
            child.reap().await;
        }
        let exit = self.exit().await;
        self.set(ContainerState::Exited(exit));
    }

    fn heard(&self, message: FromShim) {
        let Some(container) = self.container.upgrade() else { return };
        match message {
            FromShim::Process { name, state } => {
                if let ProcessState::Running { pid, since_ms } = state
                    && *container.state.borrow() == Some(ContainerState::Created)
                {
                    self.set(ContainerState::Running { pid, since_ms });
                }
                container.processes.send_modify(|processes| {
                    processes.insert(name, state);
                });
            }
            FromShim::LogEnd(position) => {
                container.log_end.send_replace(position);
            }
            // Asked for only while a container is made or adopted, or on another connection.
            FromShim::Namespaces { .. }
            | FromShim::Created { .. }
            | FromShim::Failed(_)
            | FromShim::Status { .. }
            | FromShim::Launched
            | FromShim::LaunchFailed(_)
            | FromShim::Exists => {}
        }
    }

    /// How the container ended; its shim is gone.
    async fn exit(&self) -> Exit {
        let (files, cgroups, id) = (self.files.clone(), Arc::clone(&self.cgroups), self.id.clone());
        blocking(move || exit_of(&files, &cgroups, &id)).await
    }

    fn set(&self, state: ContainerState) {
        let Some(container) = self.container.upgrade() else { return };
        container.state.send_replace(Some(state));
        if let Some(info) = container.info() {
            let _ = self.events.send(Event::Changed(info));
        }
    }
}

/// Connects to the shim of a container by way of its directory's descriptor, as a socket's path
/// has 108 bytes (unix(7)).
pub(super) fn connect(files: &Files) -> std::io::Result<StdUnixStream> {
    let dir = OwnedFd::from(File::open(&files.dir)?);
    StdUnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Says things on a connection of its own, of which the last has an answer, and returns that with
/// the descriptors that come along. The shim takes them in order. Blocks until it is there.
pub(super) fn ask(files: &Files, messages: &[ToShim]) -> std::io::Result<(FromShim, Vec<OwnedFd>)> {
    let mut stream = connect(files)?;
    stream.set_read_timeout(Some(SHIM_REPLY_WAIT_MAX))?;
    let mut lines = Vec::new();
    for message in messages {
        serde_json::to_writer(&mut lines, message)?;
        lines.push(b'\n');
    }
    stream.write_all(&lines)?;
    receive_line(&stream)?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// Reads the exit record of a container without a shim.
/// Without a record the shim was killed: that of the container's processes which the kernel
/// has not ended yet are ended here, so that "exited" is true.
pub(super) fn exit_of(files: &Files, cgroups: &Cgroups, id: &ContainerId) -> Exit {
    match read_json::<Exit>(&files.exit()) {
        Ok(Some(exit)) => exit,
        recorded => {
            if let Err(error) = recorded.and_then(|_torn| cgroups.kill(id)) {
                tracing::warn!(%id, %error, "end what a dead shim left");
            }
            Exit {
                status: ExitStatus::Signal(libc::SIGKILL),
                oom_killed: cgroups.oom_killed(id),
                at_ms: now_ms(),
            }
        }
    }
}

/// What was expected of a shim that is gone, or said something else.
pub(super) fn unexpected(id: &ContainerId, wanted: &str, got: Option<FromShim>) -> Error {
    let reason = match got {
        Some(message) => format!("it said {message:?} where {wanted} was due"),
        None => format!("it ended where {wanted} was due"),
    };
    Error::Shim { id: id.clone(), reason }
}
