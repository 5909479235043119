//! Attached streams: a process in an instance's container, or a connection to one of its ports,
//! on a connection of its own to any node.
//!
//! After [`ATTACH_GREETING`] come frames: a length of four bytes, then a message in postcard. The
//! node says [`FromNode::Ready`], the client [`Open`], the node [`FromNode::Opened`] or
//! [`FromNode::Failed`], and bytes go both ways until the node says how it ended. Whoever closes
//! the connection before that has gone: the process is hung up.
//!
//! A node that is lost before it was ready was asked for nothing; one that is lost later may have
//! done it, so no other is asked to run the same ([`NotOpened`]).
//!
//! Output is held up by the connection alone: a client that does not read holds up its process.
//! Input has a window of [`ATTACH_WINDOW_BYTES`], so that the node always reads, and hears of a
//! signal or of a client's end, although the process does not.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use model::{CellId, ProcessGuid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::Error;
use crate::limits::{
    ATTACH_CHUNK_BYTES_MAX, ATTACH_FRAME_BYTES_MAX, ATTACH_OPEN_TIMEOUT, ATTACH_READY_TIMEOUT,
    ATTACH_WINDOW_BYTES,
};
use crate::wire::{ATTACH_GREETING, Dialer, Stream};

/// What a stream is for; a client's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub process_guid: ProcessGuid,
    pub index: u32,
    pub what: What,
    /// By a node that passes a client's wish on, and by nobody else.
    pub relayed: Option<Relayed>,
}

/// A client's wish, passed on by the node that it asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// The cell that holds the container; another does not look further.
    pub on: CellId,
    /// The client, as that node knows it.
    pub who: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    Exec(Exec),
    /// A TCP connection from inside the container's network.
    Forward(Forward),
}

/// A process beside the app's, with its environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program and its arguments; nothing is the image's shell.
    pub command: Vec<String>,
    /// As the image's `USER`; the app's where absent.
    pub user: Option<String>,
    /// Without one, standard input, output and error are apart.
    pub terminal: Option<Terminal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// What it understands: the value of `TERM`.
    pub kind: String,
    pub size: Size,
}

/// Of a terminal's window, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Where to connect to; what listens in the container itself where absent.
    pub host: Option<std::net::Ipv4Addr>,
    pub port: u16,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNode {
    /// First, and once.
    Open(Box<Open>),
    /// 1 to [`ATTACH_CHUNK_BYTES_MAX`] bytes, within the window.
    Input(Bytes),
    /// No more input comes.
    InputEnd,
    Resize(Size),
    /// For the process and its group.
    Signal(i32),
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNode {
    /// The process runs, or the port is connected to.
    Opened,
    /// Of standard output, the terminal or the connection.
    Output(Bytes),
    /// Of standard error.
    Errors(Bytes),
    /// So many bytes of input have been taken, and as many more may be sent.
    InputTaken(u32),
    /// What is connected to sends no more; it may still read. Of a connection only.
    OutputEnd,
    /// The process has ended, and all that it wrote was sent; or the connection is over. The last.
    Ended(End),
    /// It was not opened, or cannot go on. The last.
    Failed(Error),
    /// The client may say what the stream is for. The first.
    Ready,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The process, with this status; a connection, with 0.
    Code(i32),
    /// The process, by this signal; whether the container was out of memory.
    Signal { number: i32, oom_killed: bool },
}

impl End {
    /// As a shell has it: a signal is 128 and its number.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal { number, .. } => 128 + number,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal { number, oom_killed: false } => write!(f, "killed by signal {number}"),
            Self::Signal { number, oom_killed: true } => {
                write!(f, "killed by signal {number} (out of memory)")
            }
        }
    }
}

/// A connection whose greeting has been said or read.
pub type Frames<S> = Framed<S, LengthDelimitedCodec>;

#[must_use]
pub fn frames<S: AsyncRead + AsyncWrite>(stream: S) -> Frames<S> {
    LengthDelimitedCodec::builder().max_frame_length(ATTACH_FRAME_BYTES_MAX).new_framed(stream)
}

/// A message as a frame's content.
///
/// # Panics
///
/// Never: the messages are plain data.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    Bytes::from(postcard::to_stdvec(message).expect("messages are plain data"))
}

/// # Errors
///
/// [`io::ErrorKind::InvalidData`]: it is no message, or more than one.
pub fn decode<T: DeserializeOwned>(frame: &BytesMut) -> io::Result<T> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let (message, rest) =
        postcard::take_from_bytes(frame).map_err(|error| invalid(error.to_string()))?;
    if rest.is_empty() { Ok(message) } else { Err(invalid("bytes after a message".to_owned())) }
}

/// The next message; nothing when the other side has closed the connection.
///
/// # Errors
///
/// The connection fails, or what comes is no message.
pub async fn receive<S, T>(frames: &mut S) -> io::Result<Option<T>>
where
    S: StreamExt<Item = io::Result<BytesMut>> + Unpin,
    T: DeserializeOwned,
{
    match frames.next().await {
        Some(frame) => decode(&frame?).map(Some),
        None => Ok(None),
    }
}

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// The node was not reached, or is none: it was asked for nothing, and another may be.
    #[error("{0}")]
    Unreached(io::Error),
    /// The node was asked, and its answer did not come: it may have done what it was asked for.
    #[error("{0}")]
    Lost(io::Error),
    /// The node has said no.
    #[error("{0}")]
    Failed(Error),
}

/// Connects to a node that is ready to be asked; it was asked for nothing yet.
///
/// # Errors
///
/// The node is not reached, or does not answer as one within [`ATTACH_READY_TIMEOUT`].
pub async fn ready(dialer: &Dialer, address: &str) -> io::Result<Frames<Stream>> {
    let mut frames = frames(dialer.dial(address, ATTACH_GREETING).await?);
    let first = tokio::time::timeout(ATTACH_READY_TIMEOUT, receive(&mut frames))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
    match first {
        Some(FromNode::Ready) => Ok(frames),
        Some(_) => Err(out_of_order()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Opens a stream at a node.
///
/// # Errors
///
/// [`NotOpened`]: and whether it may have been opened nevertheless.
pub async fn open(dialer: &Dialer, address: &str, open: Open) -> Result<Frames<Stream>, NotOpened> {
    let mut frames = ready(dialer, address).await.map_err(NotOpened::Unreached)?;
    let answered = async {
        // What a failed send has sent is not known.
        frames.send(encode(&ToNode::Open(Box::new(open)))).await?;
        match receive(&mut frames).await? {
            Some(answer @ (FromNode::Opened | FromNode::Failed(_))) => Ok(answer),
            Some(_) => Err(out_of_order()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    match tokio::time::timeout(ATTACH_OPEN_TIMEOUT, answered).await {
        Ok(Ok(FromNode::Failed(error))) => Err(NotOpened::Failed(error)),
        Ok(Ok(_)) => Ok(frames),
        Ok(Err(error)) => Err(NotOpened::Lost(error)),
        Err(_) => {
            Err(NotOpened::Lost(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")))
        }
    }
}

fn out_of_order() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the node's words are out of order")
}

/// How much input a client may send now.
#[derive(Clone, Debug)]
pub struct Window(Arc<Semaphore>);

impl Default for Window {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ATTACH_WINDOW_BYTES)))
    }
}

impl Window {
    /// Waits until so many bytes may be sent, [`ATTACH_CHUNK_BYTES_MAX`] at most.
    ///
    /// # Panics
    ///
    /// It is more than that.
    pub async fn take(&self, bytes: usize) {
        assert!(bytes <= ATTACH_CHUNK_BYTES_MAX, "{bytes} bytes are no chunk");
        let bytes = u32::try_from(bytes).expect("a chunk");
        self.0.acquire_many(bytes).await.expect("it is never closed").forget();
    }

    /// The node has taken so many; more than were sent are not believed.
    pub fn taken(&self, bytes: u32) {
        let room = ATTACH_WINDOW_BYTES.saturating_sub(self.0.available_permits());
        self.0.add_permits(usize::try_from(bytes).unwrap_or(usize::MAX).min(room));
    }
}

/// What a client may not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a stream is opened once")]
    OpenedTwice,
    #[error("input of no bytes, or of more than {ATTACH_CHUNK_BYTES_MAX}")]
    Chunk,
    #[error("more than {ATTACH_WINDOW_BYTES} bytes of input that were not taken")]
    Window,
    #[error("input after its end")]
    AfterEnd,
    #[error("a terminal's size where there is no terminal")]
    NoTerminal,
    #[error("signal {0} does not exist")]
    Signal(i32),
}

/// What a node believes of what an open stream's client says.
#[derive(Clone, Copy, Debug)]
pub struct Intake {
    has_terminal: bool,
    has_ended: bool,
    /// Bytes that came and were not taken.
    waiting: usize,
}

impl Intake {
    #[must_use]
    pub fn new(has_terminal: bool) -> Self {
        Self { has_terminal, has_ended: false, waiting: 0 }
    }

    /// # Errors
    ///
    /// [`Violation`]: the client is not one of ours.
    pub fn check(&mut self, message: &ToNode) -> Result<(), Violation> {
        /// Of Linux (signal(7)), the real-time ones included.
        const SIGNAL_MAX: i32 = 64;
        match message {
            ToNode::Open(_) => Err(Violation::OpenedTwice),
            ToNode::Input(_) | ToNode::InputEnd if self.has_ended => Err(Violation::AfterEnd),
            ToNode::Input(bytes) => {
                if bytes.is_empty() || bytes.len() > ATTACH_CHUNK_BYTES_MAX {
                    return Err(Violation::Chunk);
                }
                self.waiting += bytes.len();
                if self.waiting > ATTACH_WINDOW_BYTES { Err(Violation::Window) } else { Ok(()) }
            }
            ToNode::InputEnd => {
                self.has_ended = true;
                Ok(())
            }
            ToNode::Resize(_) if !self.has_terminal => Err(Violation::NoTerminal),
            ToNode::Signal(number) if !(1..=SIGNAL_MAX).contains(number) => {
                Err(Violation::Signal(*number))
            }
            ToNode::Resize(_) | ToNode::Signal(_) => Ok(()),
        }
    }

    /// So many bytes that came were taken, and the client is told.
    pub fn taken(&mut self, bytes: usize) {
        self.waiting = self.waiting.checked_sub(bytes).expect("what was taken had come");
    }
}

#[cfg(test)]
mod tests;
