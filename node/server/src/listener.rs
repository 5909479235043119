//! Accepts connections, learns from their first eight bytes what they are, and hands them on.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use api::wire::{ADMIN_GREETING, ATTACH_GREETING, IMAGE_GREETING, RAFT_GREETING, Stream};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use replica::peers::{Envelope, PeerResponse};
use tarpc::server::{BaseChannel, Channel};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::door::{Door, Host};
use crate::faces::admin::AdminFace;
use crate::limits::{
    CALLS_PER_CONNECTION_MAX, CONNECTIONS_MAX, GREETING_TIMEOUT, LAYERS_SENT_AT_ONCE_MAX,
    PEER_CALLS_MAX,
};
use crate::neighbours;
use crate::peers::{frame, framed, unframe};
use crate::security::{Security, SharedSecurity};

/// Accepts until the task is dropped. A flood of connections waits in the kernel's queue.
pub(crate) async fn accept(listener: TcpListener, security: SharedSecurity, door: Door) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sending = Arc::new(Semaphore::new(LAYERS_SENT_AT_ONCE_MAX));
    loop {
        let permit =
            Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer is gone already: others may still get through.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let (security, door) = (Arc::clone(&security), door.clone());
        let sending = Arc::clone(&sending);
        tokio::spawn(async move {
            if let Err(error) = serve(stream, from, &security, door, &sending).await {
                tracing::debug!(%from, %error, "a connection ended");
            }
            drop(permit);
        });
    }
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    security: &Security,
    door: Door,
    sending: &Semaphore,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    api::wire::keep_alive(&stream)?;
    let (mut stream, caller) = security.accept(stream, from).await?;
    let mut greeting = [0; 8];
    tokio::time::timeout(GREETING_TIMEOUT, stream.read_exact(&mut greeting)).await??;
    match greeting {
        RAFT_GREETING | IMAGE_GREETING if !caller.may_be_node => {
            let reason = "its certificate is a client's, and it speaks as a node";
            Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason))
        }
        RAFT_GREETING => serve_peer(stream, door).await,
        IMAGE_GREETING => match door.host() {
            Host::Member(faces) => {
                let _room = sending.acquire().await.expect("the semaphore is never closed");
                Box::pin(neighbours::serve(stream, faces.images())).await
            }
            Host::Newcomer(_) => Err(std::io::Error::other("this node is no member yet")),
        },
        ADMIN_GREETING | ATTACH_GREETING => match door.host() {
            Host::Member(faces) if greeting == ADMIN_GREETING => {
                serve_admin(stream, faces.admin).await;
                Ok(())
            }
            Host::Member(faces) => faces.attach.serve(stream, caller).await,
            // Closed at once, so that the client asks another node.
            Host::Newcomer(_) => Err(std::io::Error::other("this node is no member yet")),
        },
        _ => {
            let reason = "it speaks none of a node's protocols, of this version";
            Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason))
        }
    }
}

async fn serve_admin(stream: Stream, face: AdminFace) {
    use api::Admin;
    let channel = BaseChannel::with_defaults(api::wire::serve(stream));
    channel
        .execute(face.serve())
        .for_each_concurrent(CALLS_PER_CONNECTION_MAX, |call| async {
            // A task of its own, so that one slow call holds up no other.
            drop(tokio::spawn(call).await);
        })
        .await;
}

/// Answers another node's calls: begun in the order they came, answered as they are done.
async fn serve_peer(stream: Stream, door: Door) -> std::io::Result<()> {
    let (mut sink, mut stream) = framed(stream).split();
    let (answers, mut queue) = mpsc::channel::<Bytes>(PEER_CALLS_MAX);
    let sender = tokio::spawn(async move {
        while let Some(answer) = queue.recv().await {
            sink.feed(answer).await?;
            if queue.is_empty() {
                sink.flush().await?;
            }
        }
        std::io::Result::Ok(())
    });
    while let Some(received) = stream.next().await {
        let malformed =
            |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
        let (number, bytes) =
            unframe(received?).ok_or_else(|| malformed("a call without a number".to_owned()))?;
        let envelope = Envelope::decode(&bytes).map_err(|error| malformed(error.to_string()))?;
        // Room for the answer first: a peer that reads no answers gets no more calls in.
        let Ok(room) = answers.clone().reserve_owned().await else { break };
        let host = door.host();
        let mut answering: Pin<Box<dyn Future<Output = PeerResponse> + Send>> =
            Box::pin(async move { host.answer(envelope).await });
        match poll_once(answering.as_mut()).await {
            Some(response) => drop(room.send(frame(number, &response.encode()))),
            None => {
                tokio::spawn(async move {
                    let response = answering.await;
                    room.send(frame(number, &response.encode()));
                });
            }
        }
    }
    drop(answers);
    sender.await.map_err(std::io::Error::other)?
}

/// Begins a future, so that what it does first happens now and in order.
async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
