//! A process in a container, as if it ran here: its input, output, signals and exit status are
//! this program's. And ports of a container, as if they were here.
//!
//! - `terminal`: this side's terminal, raw while a process has it;
//! - `forward`: ports.

mod forward;
mod terminal;

use std::future::pending;
use std::io::Read;
use std::process::ExitCode;

use api::attach::{self, End, Frames, FromNode, ToNode, What, Window};
use api::limits::ATTACH_CHUNK_BYTES_MAX;
use api::wire::Stream;
use bytes::Bytes;
use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

pub(crate) use forward::{Forwarding, Rule, parse_rule};
pub(crate) use terminal::RawTerminal;

use crate::client::Client;
use crate::commands::Instance;
use crate::failure::Failure;
use crate::limits::ATTACHED_WAITING_MAX;

/// A process, as a person or a script wants it.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Nothing is the image's shell.
    pub(crate) command: Vec<String>,
    pub(crate) user: Option<String>,
    /// Whether it may have a terminal, where there is one here.
    pub(crate) may_have_terminal: bool,
}

/// Starts a process beside the app's, and is it until it ends.
///
/// # Errors
///
/// It does not start, or is lost on the way.
pub(crate) async fn run(
    client: &Client,
    instance: &Instance,
    wish: Wish,
) -> Result<ExitCode, Failure> {
    let terminal = if wish.may_have_terminal { RawTerminal::here() } else { None };
    let exec = attach::Exec {
        command: wish.command,
        user: wish.user,
        terminal: terminal.as_ref().map(RawTerminal::described),
    };
    let frames = client.attach(&open(instance, What::Exec(exec))).await?;
    let end = {
        // Raw until the end of this block, whatever happens in it.
        let raw = terminal.map(RawTerminal::make_raw).transpose()?;
        be(frames, raw.is_some()).await?
    };
    if let End::Signal { .. } = end {
        eprintln!("{instance}: {end}");
    }
    // What does not fit is no success.
    Ok(ExitCode::from(u8::try_from(end.status()).unwrap_or(u8::MAX)))
}

fn open(instance: &Instance, what: What) -> attach::Open {
    let Instance { app, index } = instance.clone();
    attach::Open { process_guid: app, index, what, relayed: None }
}

/// Everything that goes on until the process has ended, at once.
async fn be(frames: Frames<Stream>, has_terminal: bool) -> Result<End, Failure> {
    // From here on they are the process's.
    let signals = Signals::listen()?;
    let (mut sink, stream) = frames.split();
    let (said, mut queue) = mpsc::channel::<ToNode>(ATTACHED_WAITING_MAX);
    let window = Window::default();
    let sending = async {
        while let Some(message) = queue.recv().await {
            if let Err(error) = sink.send(attach::encode(&message)).await {
                return lost(&error);
            }
        }
        pending().await
    };
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    tokio::select! {
        end = receive(stream, &window, &mut stdout, &mut stderr) => end,
        failure = sending => Err(failure),
        never = feed(standard_input(), &window, &said) => match never {},
        end = signals.pass_on(has_terminal, &said) => Ok(end),
    }
}

/// Writes what comes, until the end.
async fn receive(
    mut stream: SplitStream<Frames<Stream>>,
    window: &Window,
    output: &mut (impl AsyncWrite + Unpin),
    errors: &mut (impl AsyncWrite + Unpin),
) -> Result<End, Failure> {
    loop {
        match attach::receive(&mut stream).await {
            Ok(Some(FromNode::Output(bytes))) => write(output, &bytes).await?,
            Ok(Some(FromNode::Errors(bytes))) => write(errors, &bytes).await?,
            Ok(Some(FromNode::InputTaken(bytes))) => window.taken(bytes),
            Ok(Some(FromNode::Ready | FromNode::OutputEnd | FromNode::Opened)) => {}
            Ok(Some(FromNode::Ended(end))) => return Ok(end),
            Ok(Some(FromNode::Failed(error))) => return Err(Failure::Refused(error)),
            Ok(None) => return Err(lost(&std::io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(lost(&error)),
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Failure> {
    to.write_all(bytes).await.map_err(Failure::Output)?;
    to.flush().await.map_err(Failure::Output)
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::Failed(format!("the connection was lost, and with it the process: {error}"))
}

/// Standard input, read by a thread of its own: one that waits for a key must not keep the program
/// from ending. Nothing comes after an end.
fn standard_input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(ATTACHED_WAITING_MAX);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; ATTACH_CHUNK_BYTES_MAX];
        // One that cannot be read has ended.
        while let Ok(length @ 1..) = stdin.read(&mut buffer) {
            if sender.blocking_send(Bytes::copy_from_slice(&buffer[..length])).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Sends input as the window allows, and its end.
async fn feed(
    mut input: mpsc::Receiver<Bytes>,
    window: &Window,
    said: &mpsc::Sender<ToNode>,
) -> std::convert::Infallible {
    while let Some(bytes) = input.recv().await {
        window.take(bytes.len()).await;
        drop(said.send(ToNode::Input(bytes)).await);
    }
    drop(said.send(ToNode::InputEnd).await);
    pending().await
}

/// What this program is told by signals.
#[derive(Debug)]
struct Signals {
    resized: Signal,
    interrupted: Signal,
    terminated: Signal,
    hung_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Failed(format!("signals: {error}")));
        Ok(Self {
            resized: listen(SignalKind::window_change())?,
            interrupted: listen(SignalKind::interrupt())?,
            terminated: listen(SignalKind::terminate())?,
            hung_up: listen(SignalKind::hangup())?,
        })
    }

    /// Passes them on. On a terminal keys do that, and a window's change is told. Asked to end a
    /// second time, this program does, and the process is hung up.
    async fn pass_on(mut self, has_terminal: bool, said: &mpsc::Sender<ToNode>) -> End {
        let mut was_asked = false;
        loop {
            let kind = tokio::select! {
                _ = self.resized.recv() => {
                    if let Some(terminal) = RawTerminal::here().filter(|_| has_terminal) {
                        drop(said.send(ToNode::Resize(terminal.described().size)).await);
                    }
                    continue;
                }
                _ = self.interrupted.recv() => SignalKind::interrupt(),
                _ = self.terminated.recv() => SignalKind::terminate(),
                _ = self.hung_up.recv() => SignalKind::hangup(),
            };
            let number = kind.as_raw_value();
            // Who hangs up is not there to see the rest.
            if was_asked || kind == SignalKind::hangup() {
                return End::Code(128 + number);
            }
            was_asked = true;
            drop(said.send(ToNode::Signal(number)).await);
        }
    }
}
