//! Raft's messages between nodes: one connection to each other node, on which calls are
//! pipelined; a frame is the call's number and a message of the replica's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::wire::{Dialer, RAFT_GREETING, Stream};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use replica::peers::{Envelope, PeerError, PeerResponse, Peers};
use replica::{Node, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::limits::{PEER_CONNECT_TIMEOUT, PEER_MESSAGE_BYTES_MAX, PEER_QUEUE_MAX};
use crate::security::SharedSecurity;

pub(crate) type Frames = Framed<Stream, LengthDelimitedCodec>;

/// Calls other nodes over TCP.
#[derive(Debug)]
pub(crate) struct TcpPeers {
    security: SharedSecurity,
    links: Mutex<BTreeMap<NodeId, Link>>,
}

/// The way to one other node. Its task ends when the connection does.
#[derive(Clone, Debug)]
struct Link {
    address: String,
    calls: mpsc::Sender<Call>,
}

#[derive(Debug)]
struct Call {
    envelope: Vec<u8>,
    answer: oneshot::Sender<Result<Bytes, Failure>>,
}

/// What went wrong, and whether the request may have arrived.
#[derive(Clone, Debug)]
enum Failure {
    Unreachable(String),
    Lost(String),
}

impl Peers for TcpPeers {
    async fn call(
        &self,
        target: NodeId,
        node: &Node,
        envelope: Envelope,
        timeout: Duration,
    ) -> Result<PeerResponse, PeerError> {
        let (answer, answered) = oneshot::channel();
        let call = Call { envelope: envelope.encode(), answer };
        let fail = |failure| match failure {
            Failure::Unreachable(reason) => PeerError::Unreachable { target, reason },
            Failure::Lost(reason) => PeerError::Lost { target, reason },
        };
        self.link(target, node).calls.try_send(call).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                fail(Failure::Unreachable("too many calls wait for it".to_owned()))
            }
            mpsc::error::TrySendError::Closed(_) => {
                fail(Failure::Unreachable("the connection has just ended".to_owned()))
            }
        })?;
        let bytes = match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(result)) => result.map_err(fail)?,
            Ok(Err(_)) => return Err(fail(Failure::Lost("the connection ended".to_owned()))),
            Err(_) => {
                let reason = format!("no answer within {} ms", timeout.as_millis());
                return Err(fail(Failure::Lost(reason)));
            }
        };
        PeerResponse::decode(&bytes).map_err(|error| fail(Failure::Lost(error.to_string())))
    }
}

impl TcpPeers {
    pub(crate) fn new(security: SharedSecurity) -> Self {
        Self { security, links: Mutex::default() }
    }

    /// The link to a node, made anew when there is none, it has ended, or the node has moved.
    fn link(&self, target: NodeId, node: &Node) -> Link {
        let mut links = self.links.lock().expect("no holder of the lock panics");
        if let Some(link) = links.get(&target)
            && link.address == node.address
            && !link.calls.is_closed()
        {
            return link.clone();
        }
        let (calls, queue) = mpsc::channel(PEER_QUEUE_MAX);
        let link = Link { address: node.address.clone(), calls };
        tokio::spawn(run_link(self.security.dialer(), node.address.clone(), queue));
        links.insert(target, link.clone());
        link
    }
}

/// Connects, and carries calls until the connection fails; what waited then is failed too, and
/// the next call makes a new link.
async fn run_link(dialer: Dialer, address: String, mut queue: mpsc::Receiver<Call>) {
    let frames = match connect(&dialer, &address).await {
        Ok(frames) => frames,
        Err(error) => {
            queue.close();
            while let Some(call) = queue.recv().await {
                let reason = format!("{address}: {error}");
                // The caller may have given up; then nobody minds.
                drop(call.answer.send(Err(Failure::Unreachable(reason))));
            }
            return;
        }
    };
    let waiting = Arc::new(Mutex::new(BTreeMap::new()));
    let (sink, stream) = frames.split();
    let reason = tokio::select! {
        reason = send_calls(sink, &mut queue, &waiting) => reason,
        reason = receive_answers(stream, &waiting) => reason,
    };
    queue.close();
    let sent = std::mem::take(&mut *waiting.lock().expect("no holder of the lock panics"));
    for answer in sent.into_values() {
        drop(answer.send(Err(Failure::Lost(reason.clone()))));
    }
    while let Some(call) = queue.recv().await {
        drop(call.answer.send(Err(Failure::Unreachable(reason.clone()))));
    }
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Result<Bytes, Failure>>>>>;

/// Returns why it ended.
async fn send_calls(
    mut sink: SplitSink<Frames, Bytes>,
    queue: &mut mpsc::Receiver<Call>,
    waiting: &Waiting,
) -> String {
    let mut number = 0;
    while let Some(call) = queue.recv().await {
        number += 1;
        let frame = frame(number, &call.envelope);
        {
            let mut waiting = waiting.lock().expect("no holder of the lock panics");
            // Callers that gave up leave their numbers behind.
            waiting.retain(|_, answer: &mut oneshot::Sender<_>| !answer.is_closed());
            waiting.insert(number, call.answer);
        }
        if let Err(error) = sink.feed(frame).await {
            return error.to_string();
        }
        if queue.is_empty()
            && let Err(error) = sink.flush().await
        {
            return error.to_string();
        }
    }
    "the node is ending".to_owned()
}

/// Returns why it ended.
async fn receive_answers(mut stream: SplitStream<Frames>, waiting: &Waiting) -> String {
    loop {
        let (number, bytes) = match stream.next().await {
            Some(Ok(frame)) => match unframe(frame) {
                Some(parts) => parts,
                None => return "an answer without a number".to_owned(),
            },
            Some(Err(error)) => return error.to_string(),
            None => return "the other side closed the connection".to_owned(),
        };
        let answer = waiting.lock().expect("no holder of the lock panics").remove(&number);
        if let Some(answer) = answer {
            drop(answer.send(Ok(bytes)));
        }
    }
}

async fn connect(dialer: &Dialer, address: &str) -> std::io::Result<Frames> {
    let timed_out = || std::io::Error::new(std::io::ErrorKind::TimedOut, "nobody answers");
    let dialled = dialer.dial(address, RAFT_GREETING);
    let stream =
        tokio::time::timeout(PEER_CONNECT_TIMEOUT, dialled).await.map_err(|_| timed_out())??;
    Ok(framed(stream))
}

/// A stream whose greeting has been said or read.
pub(crate) fn framed(stream: Stream) -> Frames {
    LengthDelimitedCodec::builder().max_frame_length(PEER_MESSAGE_BYTES_MAX).new_framed(stream)
}

/// A call's number, then its message.
pub(crate) fn frame(number: u64, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + message.len());
    frame.put_u64(number);
    frame.put_slice(message);
    frame.freeze()
}

/// The parts of a [`frame`]; `None` when it is too short to be one.
pub(crate) fn unframe(frame: BytesMut) -> Option<(u64, Bytes)> {
    let number: [u8; 8] = frame.get(..8)?.try_into().ok()?;
    Some((u64::from_be_bytes(number), frame.freeze().slice(8..)))
}
