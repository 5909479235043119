//! How the admin service travels: length-delimited postcard messages over any byte stream.
//!
//! A connection opens with eight bytes that say which protocol follows, so that one listener can
//! serve the admin service, Raft and [attached streams](crate::attach).

use std::io;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::tokio_serde::{Deserializer, Serializer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

use crate::admin::{AdminClient, AdminRequest, AdminResponse};
use crate::limits::{CONNECT_TIMEOUT, MESSAGE_BYTES_MAX};

/// What the first eight bytes of a connection say. The last is the protocol's version.
pub const ADMIN_GREETING: [u8; 8] = *b"GAVELAD\x01";
pub const RAFT_GREETING: [u8; 8] = *b"GAVELRA\x01";
pub const ATTACH_GREETING: [u8; 8] = *b"GAVELAT\x01";

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

/// How a client, or a node, connects to nodes.
#[derive(Clone, Debug, Default)]
pub struct Dialer {}

/// A connection to or from a node.
pub type Stream = TcpStream;

impl Dialer {
    /// Connects to `HOST:PORT`, and says which protocol follows.
    ///
    /// # Errors
    ///
    /// The address does not resolve, or nobody answers there within
    /// [`CONNECT_TIMEOUT`](crate::limits::CONNECT_TIMEOUT).
    pub async fn dial(&self, address: &str, greeting: [u8; 8]) -> io::Result<Stream> {
        let dialled = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&greeting).await?;
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

/// Connects to the admin service of a node without TLS.
///
/// # Errors
///
/// As [`Dialer::dial`].
pub async fn connect(address: &str) -> io::Result<AdminClient> {
    Dialer::default().admin(address).await
}
