//! How the admin service travels: length-delimited postcard messages over any byte stream.
//!
//! A connection opens with eight bytes that say which protocol follows, so that one listener can
//! serve the admin service, Raft and [attached streams](crate::attach).

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::tokio_serde::{Deserializer, Serializer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};
use tokio_util::either::Either;

use crate::admin::{AdminClient, AdminRequest, AdminResponse};
use crate::limits::{
    CONNECT_TIMEOUT, KEEP_ALIVE_IDLE, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_PROBES, MESSAGE_BYTES_MAX,
};

/// What the first eight bytes of a connection say. The last is the protocol's version.
pub const ADMIN_GREETING: [u8; 8] = *b"GAVELAD\x01";
pub const RAFT_GREETING: [u8; 8] = *b"GAVELRA\x01";
pub const IMAGE_GREETING: [u8; 8] = *b"GAVELIM\x01";
pub const ATTACH_GREETING: [u8; 8] = *b"GAVELAT\x02";

/// postcard, for tokio-serde, which brings none of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<T: Serialize> Serializer<T> for Postcard {
    type Error = io::Error;
    fn serialize(self: Pin<&mut Self>, item: &T) -> io::Result<Bytes> {
        postcard::to_stdvec(item).map(Bytes::from).map_err(io::Error::other)
    }
}

impl<T: DeserializeOwned> Deserializer<T> for Postcard {
    type Error = io::Error;
    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<T> {
        postcard::from_bytes(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// The framing both sides use: a length of four bytes, then the message.
#[must_use]
pub fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MESSAGE_BYTES_MAX).new_codec()
}

/// The server's side of a stream whose greeting has been read.
pub fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
) -> tarpc::serde_transport::Transport<
    S,
    tarpc::ClientMessage<AdminRequest>,
    tarpc::Response<AdminResponse>,
    Postcard,
> {
    tarpc::serde_transport::new(framing().framed(stream), Postcard)
}

/// How a client, or a node, connects to nodes: without TLS unless it is given.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    tls: Option<Arc<ClientConfig>>,
}

/// A connection to or from a node; what TLS keeps is large.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Dialer {
    /// See [`TlsFiles::dialer`](crate::tls::TlsFiles::dialer).
    pub(crate) fn with_tls(config: ClientConfig) -> Self {
        Self { tls: Some(Arc::new(config)) }
    }

    /// Whether connections are encrypted, and both sides known to each other.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects to `HOST:PORT`, and says which protocol follows.
    ///
    /// # Errors
    ///
    /// The address does not resolve, nobody answers there within
    /// [`CONNECT_TIMEOUT`](crate::limits::CONNECT_TIMEOUT), or the two do not trust each other.
    /// With TLS 1.3 a node that does not trust the client says so only on the first read.
    pub async fn dial(&self, address: &str, greeting: [u8; 8]) -> io::Result<Stream> {
        let dialled = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            keep_alive(&stream)?;
            let mut stream = match &self.tls {
                None => Either::Left(stream),
                Some(config) => Either::Right(Box::new(encrypted(config, address, stream).await?)),
            };
            stream.write_all(&greeting).await?;
            stream.flush().await?;
            Ok(stream)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, dialled)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "nobody answers"))?
    }

    /// Connects to a node's admin service; the client's tasks run on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`Dialer::dial`].
    pub async fn admin(&self, address: &str) -> io::Result<AdminClient> {
        let stream = self.dial(address, ADMIN_GREETING).await?;
        let transport = tarpc::serde_transport::new(framing().framed(stream), Postcard);
        Ok(AdminClient::new(tarpc::client::Config::default(), transport).spawn())
    }
}

/// Has the kernel ask on a silent connection whether the other machine is still there; one
/// that is suspended, or reads slowly, is.
///
/// # Errors
///
/// As setsockopt(2).
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    let patience = KEEP_ALIVE_INTERVAL * KEEP_ALIVE_PROBES;
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(KEEP_ALIVE_IDLE)
            .with_interval(KEEP_ALIVE_INTERVAL)
            .with_retries(KEEP_ALIVE_PROBES),
    )?;
    // The same for what was sent and is not acknowledged, where the kernel asks nothing.
    socket.set_tcp_user_timeout(Some(KEEP_ALIVE_IDLE + patience))
}

async fn encrypted(
    config: &Arc<ClientConfig>,
    address: &str,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{host}: {error}")))?;
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    let failed = |error: io::Error| {
        // What a node without TLS does with what it cannot read.
        let is_hung_up =
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        let hint = if is_hung_up { ": does this node have TLS?" } else { "" };
        io::Error::new(error.kind(), format!("TLS: {error}{hint}"))
    };
    handshake.await.map(TlsStream::Client).map_err(failed)
}

/// Connects to the admin service of a node without TLS.
///
/// # Errors
///
/// As [`Dialer::dial`].
pub async fn connect(address: &str) -> io::Result<AdminClient> {
    Dialer::default().admin(address).await
}
