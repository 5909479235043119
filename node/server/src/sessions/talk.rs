//! The bytes between a client and a process or a port, in both directions at once.
//!
//! What the client says is always read, so that its end is heard at once; what goes to it waits
//! for it, and holds up whoever writes. See [`api::attach`].

use std::io;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use api::Error;
use api::attach::{self, End, Frames, FromNode, Intake, Size, ToNode};
use api::limits::{ATTACH_CHUNK_BYTES_MAX, ATTACH_WINDOW_BYTES};
use api::wire::Stream;
use bytes::{Bytes, BytesMut};
use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::limits::{
    SESSION_FAREWELL_MAX, SESSION_FRAMES_MAX, SESSION_OUTPUT_BYTES_AFTER_END_MAX,
    SESSION_OUTPUT_LINGER,
};

/// Says why nothing was opened, or goes on.
pub(super) async fn refuse(mut frames: Frames<Stream>, error: Error) {
    let said = frames.send(attach::encode(&FromNode::Failed(error)));
    // Who does not listen is not told.
    drop(tokio::time::timeout(SESSION_FAREWELL_MAX, said).await);
}

/// What a client asks for beside bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Resize(Size),
    Signal(i32),
}

/// How a talk was over.
#[derive(Debug)]
pub(super) enum Over {
    /// The other end has ended, and the client knows.
    Ended(End),
    /// The client has gone, with the reason where there is one.
    Gone(Option<io::Error>),
    /// The client said what none of ours says.
    Violated(String),
}

pub(super) type Input = Box<dyn AsyncWrite + Send + Unpin>;
pub(super) type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A client on an open stream.
#[derive(Debug)]
pub(super) struct Talk {
    frames: Frames<Stream>,
    intake: Mutex<Intake>,
}

impl Talk {
    /// Tells the client that the stream is open.
    pub(super) async fn begin(mut frames: Frames<Stream>, has_terminal: bool) -> io::Result<Self> {
        frames.send(attach::encode(&FromNode::Opened)).await?;
        Ok(Self { frames, intake: Mutex::new(Intake::new(has_terminal)) })
    }

    /// With a process: over when it has ended, and what it wrote was sent.
    pub(super) async fn with_process(
        self,
        (input, output, errors): (Input, Output, Option<Output>),
        controls: &mpsc::Sender<Control>,
        ended: impl Future<Output = End>,
    ) -> Over {
        self.run(controls, async |answers, taken| {
            let has_ended = CancellationToken::new();
            let outputs = async {
                tokio::join!(
                    pass_on(output, FromNode::Output, &answers, &has_ended),
                    async {
                        if let Some(errors) = errors {
                            pass_on(errors, FromNode::Errors, &answers, &has_ended).await;
                        }
                    },
                    async {
                        let end = ended.await;
                        has_ended.cancel();
                        end
                    }
                )
            };
            tokio::select! {
                (.., end) = outputs => end,
                () = async {
                    taken.pass_to(input, &answers).await;
                    std::future::pending().await
                } => unreachable!("it is pending for ever"),
            }
        })
        .await
    }

    /// With a connection: over when both sides have ended, or it breaks.
    pub(super) async fn with_connection(self, (input, output): (Input, Output)) -> Over {
        // Nobody heeds what a client asks for beside bytes.
        let (controls, _) = mpsc::channel(1);
        self.run(&controls, async |answers, taken| {
            let never = CancellationToken::new();
            let sending = async {
                pass_on(output, FromNode::Output, &answers, &never).await;
                // A client that is gone has ended all this already.
                drop(answers.send(FromNode::OutputEnd).await);
            };
            tokio::join!(sending, taken.pass_to(input, &answers));
            End::Code(0)
        })
        .await
    }

    /// Reads the client and writes to it while `work` lasts; then says how it ended.
    async fn run(
        self,
        controls: &mpsc::Sender<Control>,
        work: impl AsyncFnOnce(mpsc::Sender<FromNode>, Taken<'_>) -> End,
    ) -> Over {
        let Self { frames, intake } = self;
        let (mut sink, stream) = frames.split();
        let (answers, mut queue) = mpsc::channel::<FromNode>(SESSION_FRAMES_MAX);
        let (input, taken) = {
            let (near, far) = tokio::io::duplex(ATTACH_WINDOW_BYTES);
            (tokio::io::split(near).1, tokio::io::split(far).0)
        };
        let sending = async {
            while let Some(answer) = queue.recv().await {
                let end = if let FromNode::Ended(end) = answer { Some(end) } else { None };
                sink.feed(attach::encode(&answer)).await?;
                if let Some(end) = end {
                    sink.close().await?;
                    return Ok(end);
                }
                if queue.is_empty() {
                    sink.flush().await?;
                }
            }
            Err(io::Error::other("what is attached ended without a word"))
        };
        let working = async {
            let taken = Taken { input: taken, intake: &intake };
            let end = work(answers.clone(), taken).await;
            drop(answers.send(FromNode::Ended(end)).await);
            std::future::pending().await
        };
        let mut listening = pin!(listen(stream, &intake, input, controls));
        let end = tokio::select! {
            sent = sending => match sent {
                Ok(end) => end,
                Err(error) => return Over::Gone(Some(error)),
            },
            over = &mut listening => return over,
            () = working => unreachable!("it is pending for ever"),
        };
        // A connection closed with input unread is reset, and the client would not hear the last.
        drop(tokio::time::timeout(SESSION_FAREWELL_MAX, listening).await);
        Over::Ended(end)
    }
}

/// Reads what the client says, until it is gone.
async fn listen(
    mut stream: SplitStream<Frames<Stream>>,
    intake: &Mutex<Intake>,
    input: WriteHalf<tokio::io::DuplexStream>,
    controls: &mpsc::Sender<Control>,
) -> Over {
    let mut input = Some(input);
    loop {
        let message: ToNode = match attach::receive(&mut stream).await {
            Ok(Some(message)) => message,
            Ok(None) => return Over::Gone(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Over::Violated(error.to_string());
            }
            Err(error) => return Over::Gone(Some(error)),
        };
        if let Err(violation) = lock(intake).check(&message) {
            return Over::Violated(violation.to_string());
        }
        let control = match message {
            ToNode::Input(bytes) => {
                if let Some(input) = &mut input {
                    // There is room, as the window is as large; and nobody reads who has ended.
                    drop(input.write_all(&bytes).await);
                }
                continue;
            }
            ToNode::InputEnd => {
                if let Some(mut input) = input.take() {
                    drop(input.shutdown().await);
                }
                continue;
            }
            ToNode::Resize(size) => Control::Resize(size),
            ToNode::Signal(number) => Control::Signal(number),
            ToNode::Open(_) => return Over::Violated("a stream is opened once".to_owned()),
        };
        // Where nobody heeds them they mean nothing.
        let _ = controls.send(control).await;
    }
}

/// The input that came and was not taken yet.
struct Taken<'a> {
    input: ReadHalf<tokio::io::DuplexStream>,
    intake: &'a Mutex<Intake>,
}

impl Taken<'_> {
    /// Hands all of it over, and its end. Where it is not wanted any more it goes nowhere, so that
    /// who sends it is not held up.
    async fn pass_to(mut self, to: Input, answers: &mpsc::Sender<FromNode>) {
        let mut to = Some(to);
        let mut buffer = BytesMut::with_capacity(ATTACH_CHUNK_BYTES_MAX);
        loop {
            buffer.clear();
            let length = self.input.read_buf(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                break;
            }
            if let Some(wanted) = &mut to
                && wanted.write_all(&buffer).await.is_err()
            {
                to = None;
            }
            lock(self.intake).taken(length);
            let taken = u32::try_from(length).expect("a chunk");
            drop(answers.send(FromNode::InputTaken(taken)).await);
        }
        if let Some(mut to) = to {
            drop(to.shutdown().await);
        }
    }
}

/// Sends all that is written until its end. Once `has_ended`, others may hold it open: what is in
/// it then is sent, and no more is waited for.
async fn pass_on(
    mut from: Output,
    wrap: impl Fn(Bytes) -> FromNode,
    answers: &mpsc::Sender<FromNode>,
    has_ended: &CancellationToken,
) {
    let mut after_end = 0;
    let mut buffer = BytesMut::new();
    while after_end < SESSION_OUTPUT_BYTES_AFTER_END_MAX {
        buffer.reserve(ATTACH_CHUNK_BYTES_MAX);
        let silence = async {
            has_ended.cancelled().await;
            tokio::time::sleep(SESSION_OUTPUT_LINGER).await;
        };
        let mut bounded = (&mut from).take(ATTACH_CHUNK_BYTES_MAX as u64);
        let length = tokio::select! {
            biased;
            length = bounded.read_buf(&mut buffer) => length.unwrap_or(0),
            () = silence => 0,
        };
        if length == 0 || answers.send(wrap(buffer.split().freeze())).await.is_err() {
            return;
        }
        if has_ended.is_cancelled() {
            after_end += length;
        }
    }
}

/// What the lock guards is valid at every moment.
fn lock(intake: &Mutex<Intake>) -> std::sync::MutexGuard<'_, Intake> {
    intake.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
