//! DNS for this node's containers, at their gateway: names of the cluster from this node's own
//! copy of its records, and the rest from the node's resolvers.
//!
//! Answers nobody but containers of this node, and none of them more than its share.

mod message;
mod records;
mod shares;
mod upstream;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use container::container::AddressRange;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use self::message::{Answer, Question, Transport, Verdict, decide};
pub(crate) use self::records::Records;
use self::shares::Shares;
pub(crate) use self::upstream::Upstream;
use crate::limits::{
    DNS_CONNECTIONS_MAX, DNS_CONNECTIONS_OF_CONTAINER_MAX, DNS_FORWARDS_MAX,
    DNS_FORWARDS_OF_CONTAINER_MAX, DNS_IDLE_MAX, DNS_MESSAGE_BYTES_MAX,
};

/// The port of DNS.
const PORT: u16 = 53;
/// After a failure that is not a client's.
const PAUSE: Duration = Duration::from_millis(50);

/// The sockets at the gateway.
#[derive(Debug)]
pub(crate) struct Listener {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listener {
    /// # Errors
    ///
    /// Another program has the port there, most likely at every address of the host.
    pub(crate) async fn bind(gateway: Ipv4Addr) -> io::Result<Self> {
        Self::bind_to((gateway, PORT).into()).await
    }

    async fn bind_to(address: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        Ok(Self { tcp: TcpListener::bind(udp.local_addr()?).await?, udp })
    }
}

/// Who knows the cluster's names.
pub(crate) trait Book: Send + Sync + 'static {
    /// By labels in lower case.
    fn look_up(&self, labels: &[String]) -> Answer;
}

/// Serves until the task is dropped.
pub(crate) async fn serve(
    listener: Listener,
    clients: AddressRange,
    upstream: Upstream,
    book: impl Book,
) {
    let face = Arc::new(Face {
        clients,
        upstream,
        book,
        forwards: Shares::new(DNS_FORWARDS_MAX, DNS_FORWARDS_OF_CONTAINER_MAX),
        connections: Shares::new(DNS_CONNECTIONS_MAX, DNS_CONNECTIONS_OF_CONTAINER_MAX),
    });
    tokio::join!(Arc::clone(&face).serve_udp(listener.udp), face.serve_tcp(listener.tcp));
}

struct Face<B> {
    clients: AddressRange,
    upstream: Upstream,
    book: B,
    forwards: Shares,
    connections: Shares,
}

impl<B: Book> Face<B> {
    /// The address of a container; others are not spoken to.
    fn client(&self, from: SocketAddr) -> Option<Ipv4Addr> {
        let IpAddr::V4(address) = from.ip() else { return None };
        self.clients.contains(address).then_some(address)
    }

    async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; DNS_MESSAGE_BYTES_MAX];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "a question was not received");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(client) = self.client(from) else { continue };
            match self.decide(&buffer[..length], Transport::Udp) {
                Verdict::Reply(reply) => send(&socket, &reply, from).await,
                Verdict::Ignore => {}
                Verdict::Forward(question) => {
                    // Who has asked too much is not heard; the question comes again.
                    let Some(share) = self.forwards.take(client) else { continue };
                    let (face, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    tokio::spawn(async move {
                        if let Some(reply) = face.forward(&question, Transport::Udp).await {
                            send(&socket, &reply, from).await;
                        }
                        drop(share);
                    });
                }
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let share = self.client(from).and_then(|client| self.connections.take(client));
            let Some(share) = share else { continue };
            let face = Arc::clone(&self);
            tokio::spawn(async move {
                // Whoever hangs up is done.
                let _ = face.serve_connection(stream).await;
                drop(share);
            });
        }
    }

    /// One question after the other.
    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let message =
                timeout(DNS_IDLE_MAX, upstream::read(&mut stream, DNS_MESSAGE_BYTES_MAX)).await??;
            let reply = match self.decide(&message, Transport::Tcp) {
                Verdict::Reply(reply) => Some(reply),
                Verdict::Forward(question) => self.forward(&question, Transport::Tcp).await,
                Verdict::Ignore => None,
            };
            let Some(reply) = reply else { return Ok(()) };
            timeout(DNS_IDLE_MAX, upstream::write(&mut stream, &reply)).await??;
        }
    }

    fn decide(&self, message: &[u8], transport: Transport) -> Verdict {
        decide(message, transport, |labels| self.book.look_up(labels))
    }

    async fn forward(&self, question: &Question, transport: Transport) -> Option<Vec<u8>> {
        match self.upstream.ask(question, transport).await {
            Some(reply) => Some(reply),
            None => question.failure(),
        }
    }
}

/// A client that is gone misses its answer.
async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(reply, to).await {
        tracing::debug!(%to, %error, "an answer was not sent");
    }
}
