//! What a recipe asks of its container. The real one is `container`'s; tests have one of their
//! own, with a clock that they turn.
//!
//! A container outlives its node, and so does what has been done in it: processes are known by
//! their keys, which are places in the recipe, and marks are kept with the container. A recipe
//! that is executed again, by a node that has just been started, finds what it did before and
//! goes on from there.

use std::io;

use container::container::{ExitStatus, LogStream, Process};
use tokio::io::{AsyncRead, AsyncWrite};

/// Where a process's standard output and error go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the container's log, each line as of this source, for instance `APP/PROC/WEB`.
    Log { source: String },
    /// To nobody.
    Discard,
    /// To [`ProcessEnd::output`]. Of a process that a former life of the node has started, what
    /// came before is lost.
    Capture,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    pub status: ExitStatus,
    /// Whether the kernel has killed any of the container's processes for want of memory.
    pub oom_killed: bool,
    /// What it wrote, both outputs together, up to a bound; empty unless captured.
    pub output: Vec<u8>,
}

/// A signal that ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// One container, as a recipe sees it. Clones are handles to the same one.
pub trait Sandbox: Clone + Send + Sync + 'static {
    /// Starts a process, unless one of this key was started before, in this or a former life of
    /// the node and whether it runs or has ended: then nothing happens.
    ///
    /// # Errors
    ///
    /// There is no such program, user or directory, or the container is gone: in words that its
    /// owner understands. Nothing was started.
    fn start(
        &self,
        key: &str,
        process: Process,
        output: Output,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Waits until the process of this key, which was started, has ended. Where the whole
    /// container ends, so does it.
    fn ended(&self, key: &str) -> impl Future<Output = ProcessEnd> + Send;

    /// Signals the process of this key, and those that it has started and not put into sessions
    /// of their own. Where it has ended, nothing happens.
    fn signal(&self, key: &str, signal: EndSignal) -> impl Future<Output = ()> + Send;

    /// Forgets a process that has ended, so that its key may be used again.
    fn forget(&self, key: &str) -> impl Future<Output = ()> + Send;

    /// Unpacks a tar stream in the container, as the user, below a directory that is made if
    /// missing.
    ///
    /// # Errors
    ///
    /// The user is unknown, the archive is broken, something cannot be written there, or reading
    /// fails.
    fn unpack<R: AsyncRead + Send + Unpin + 'static>(
        &self,
        user: &str,
        directory: &str,
        tar: R,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Reads a file of the container as the user into `to`: `path` itself, or where it is a
    /// directory the first file in it by name. Returns its length in bytes.
    ///
    /// # Errors
    ///
    /// The user or the file does not exist or cannot be read, or writing fails.
    fn read_file<W: AsyncWrite + Send + Unpin + 'static>(
        &self,
        user: &str,
        path: &str,
        to: W,
    ) -> impl Future<Output = Result<u64, String>> + Send;

    /// Connects to a TCP port at the container's own address, from inside of its network.
    ///
    /// # Errors
    ///
    /// As connect(2); [`io::ErrorKind::AddrNotAvailable`] where it has no address.
    fn connect(&self, port: u16) -> impl Future<Output = io::Result<tokio::net::TcpStream>> + Send;

    /// The container's own address, as messages show it.
    fn address(&self) -> std::net::Ipv4Addr;

    /// Adds a line to the container's log, whatever its log rate limit.
    fn log(&self, stream: LogStream, source: &str, text: &str) -> impl Future<Output = ()> + Send;

    /// Keeps a note with the container, for a later life of the node; it is on disk when this
    /// returns, as far as the node's own death goes.
    fn mark(&self, key: &str, value: &str) -> impl Future<Output = ()> + Send;

    /// What was kept under the key, in this or a former life.
    fn marked(&self, key: &str) -> Option<String>;
}
