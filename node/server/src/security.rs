//! How this node's connections are secured: mutual TLS as configured, read anew when its files have
//! changed; or nothing, which is for loopback addresses unless the operator says otherwise.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use api::tls::{Peer, TlsError, TlsFiles};
use api::wire::{Dialer, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use crate::limits::{GREETING_TIMEOUT, TLS_LOOK};
use crate::sessions::Visitor;

/// The first byte of a TLS connection: a handshake record (RFC 8446 5.1).
const HANDSHAKE: u8 = 22;

/// Of one node.
#[derive(Debug)]
pub(crate) struct Security(Option<Certified>);

#[derive(Debug)]
struct Certified {
    files: TlsFiles,
    /// What clients may say they speak, see [`TlsFiles::acceptor_of`].
    protocols: &'static [&'static str],
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    looked_at: Instant,
    seen: [Option<Seen>; 3],
    loaded: Loaded,
}

/// What a file is told apart by.
type Seen = (SystemTime, u64);

#[derive(Clone)]
struct Loaded {
    acceptor: TlsAcceptor,
    dialer: Dialer,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys are nobody's business.
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) visitor: Visitor,
    /// Whether it may speak as a node of the cluster: without TLS, anybody.
    pub(crate) may_be_node: bool,
}

impl Security {
    /// For nodes, and clients that speak as ours.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: a file cannot be used.
    pub(crate) fn open(files: Option<TlsFiles>) -> Result<Self, TlsError> {
        Self::of(files, &[])
    }

    /// For clients that speak HTTP.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: a file cannot be used.
    pub(crate) fn open_http(files: Option<TlsFiles>) -> Result<Self, TlsError> {
        Self::of(files, &["h2", "http/1.1"])
    }

    fn of(files: Option<TlsFiles>, protocols: &'static [&'static str]) -> Result<Self, TlsError> {
        let certified = |files: TlsFiles| {
            let (looked_at, seen) = (Instant::now(), look(&files));
            let current = Current { looked_at, seen, loaded: load(&files, protocols)? };
            Ok(Certified { files, protocols, current: Mutex::new(current) })
        };
        files.map(certified).transpose().map(Self)
    }

    /// How other nodes are reached.
    pub(crate) fn dialer(&self) -> Dialer {
        self.0.as_ref().map(|certified| certified.now().dialer).unwrap_or_default()
    }

    /// Agrees with a client on how to go on.
    ///
    /// # Errors
    ///
    /// The client has no certificate that is trusted here, or speaks plainly where it must not.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> std::io::Result<(Stream, Caller)> {
        let Some(certified) = &self.0 else {
            let visitor = Visitor { name: None, address };
            return Ok((Either::Left(stream), Caller { visitor, may_be_node: true }));
        };
        let accepting = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
                part_from(stream).await;
                let reason = "it speaks without TLS, which this node requires";
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
            }
            match certified.now().acceptor.accept(stream).into_fallible().await {
                Ok(stream) => Ok(Either::Right(Box::new(stream.into()))),
                Err((error, stream)) => {
                    part_from(stream).await;
                    Err(error)
                }
            }
        };
        let stream: Stream = tokio::time::timeout(GREETING_TIMEOUT, accepting).await??;
        let peer = Peer::of(&stream);
        let may_be_node = peer.as_ref().is_some_and(|peer| peer.is_node);
        let visitor = Visitor { name: peer.map(|peer| peer.name), address };
        Ok((stream, Caller { visitor, may_be_node }))
    }
}

/// Closes a connection whose client may still be speaking, so that it hears why: one closed with
/// words unread is reset, and what was said on it lost.
async fn part_from(mut stream: TcpStream) {
    const UNHEARD_BYTES_MAX: u64 = 64 << 10;
    if stream.shutdown().await.is_ok() {
        let rest = &mut stream.take(UNHEARD_BYTES_MAX);
        // Who does not hang up is hung up on, by the timeout of the whole.
        let _ = tokio::io::copy(rest, &mut tokio::io::sink()).await;
    }
}

impl Certified {
    /// What the files say, at most [`TLS_LOOK`] ago. Files that cannot be used, as while they are
    /// being replaced, change nothing.
    fn now(&self) -> Loaded {
        let mut current = self.current.lock().expect("no holder of the lock panics");
        if current.looked_at.elapsed() >= TLS_LOOK {
            current.looked_at = Instant::now();
            let seen = look(&self.files);
            if seen != current.seen {
                match load(&self.files, self.protocols) {
                    Ok(loaded) => {
                        tracing::info!(cert = %self.files.cert.display(), "certificates were renewed");
                        current.loaded = loaded;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "certificates are not renewed; the old ones are used");
                    }
                }
                current.seen = seen;
            }
        }
        current.loaded.clone()
    }
}

fn load(files: &TlsFiles, protocols: &[&str]) -> Result<Loaded, TlsError> {
    Ok(Loaded { acceptor: files.acceptor_of(protocols)?, dialer: files.dialer()? })
}

fn look(files: &TlsFiles) -> [Option<Seen>; 3] {
    let seen = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [&files.ca, &files.cert, &files.key].map(|path| seen(path))
}

/// Whether a node without TLS may listen there: its clients are on this machine.
pub(crate) fn is_private(addresses: impl IntoIterator<Item = SocketAddr>) -> bool {
    addresses.into_iter().all(|address| address.ip().is_loopback())
}

/// Shared by all of a node's connections.
pub(crate) type SharedSecurity = Arc<Security>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_private() {
        let is_private = |addresses: &[&str]| {
            is_private(addresses.iter().map(|address| address.parse().unwrap()))
        };
        assert!(is_private(&["127.0.0.1:7440", "[::1]:7440"]));
        assert!(!is_private(&["127.0.0.1:7440", "10.0.0.1:7440"]));
        assert!(!is_private(&["0.0.0.0:7440"]));
        assert!(!is_private(&["[::]:7440"]));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let file = |name: &str| Path::new("/no/such").join(name);
        let files = TlsFiles { ca: file("ca"), cert: file("cert"), key: file("key") };
        let error = Security::open(Some(files)).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/"), "{error}");
    }
}
