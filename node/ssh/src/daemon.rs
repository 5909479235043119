//! The way to an instance's SSH daemon: there, the proxy is the client.

use std::net::SocketAddrV4;
use std::sync::Arc;

use russh::client::{self, AuthResult, ChannelOpenHandle, DisconnectReason};
use russh::keys::{PublicKeyOrCertificate, decode_secret_key};
use russh::{Channel, ChannelOpenFailure};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fingerprint;
use crate::limits::{ANSWER_MAX, DAEMON_MAX, MESSAGES_MAX};
use crate::relay::{self, Ties};
use crate::signer::KeySigner;
use crate::target::Target;

/// Why the daemon cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("{0}: {1}")]
    Connect(SocketAddrV4, std::io::Error),
    #[error("{0} says nothing")]
    Silent(SocketAddrV4),
    #[error("the daemon's host key is not the one of the diego-ssh route")]
    WrongKey,
    #[error("the private key of the diego-ssh route cannot be read: {0}")]
    BadKey(String),
    #[error("the daemon does not let user {0:?} of the diego-ssh route in")]
    Refused(String),
    #[error("the daemon: {0}")]
    Ssh(#[from] russh::Error),
}

/// A connection to a daemon that has let the proxy in.
pub(crate) struct Line {
    pub(crate) daemon: client::Handle<Caller>,
    pub(crate) ties: Ties,
}

impl Line {
    /// Whether no channel is on it.
    pub(crate) fn is_free(&self) -> bool {
        // This one's, and the caller's.
        Arc::strong_count(&self.ties.place) <= 2
    }
}

/// Connects, makes sure who it is, and logs in. Where it is the first, the visitor goes when the
/// daemon hangs up.
pub(crate) async fn connect(
    target: &Target,
    ties: Ties,
    is_first: bool,
) -> Result<Line, Unreachable> {
    let address = target.address;
    let daemon = timeout(DAEMON_MAX, log_in(target, ties.clone(), is_first)).await;
    let daemon = daemon.unwrap_or(Err(Unreachable::Silent(address)))?;
    Ok(Line { daemon, ties })
}

async fn log_in(
    target: &Target,
    ties: Ties,
    is_first: bool,
) -> Result<client::Handle<Caller>, Unreachable> {
    let stream = TcpStream::connect(target.address)
        .await
        .map_err(|error| Unreachable::Connect(target.address, error))?;
    let _ = stream.set_nodelay(true);
    let config = client::Config { channel_buffer_size: MESSAGES_MAX, ..client::Config::default() };
    let caller = Caller { fingerprint: target.host_fingerprint.clone(), ties, is_first };
    let connected = client::connect_stream(Arc::new(config), stream, caller).await;
    let mut daemon = connected.map_err(|error| {
        let is_other = matches!(error, russh::Error::UnknownKey);
        if is_other { Unreachable::WrongKey } else { Unreachable::Ssh(error) }
    })?;
    let user = &target.user;
    if !target.private_key.is_empty() {
        let key = decode_secret_key(&target.private_key, None)
            .map_err(|error| Unreachable::BadKey(error.to_string()))?;
        // What an old daemon does not say, it takes SHA-256 for (RFC 8332).
        let hash = daemon.best_supported_rsa_hash().await?;
        let hash = hash.unwrap_or(Some(russh::keys::HashAlg::Sha256));
        let (public, mut signer) = (key.public_key().clone(), KeySigner(key));
        let answer = daemon.authenticate_publickey_with(user, public, hash, &mut signer).await;
        if answer.map_err(russh::Error::from)?.success() {
            return Ok(daemon);
        }
    }
    if !user.is_empty() && !target.password.is_empty() {
        let answer = daemon.authenticate_password(user, &target.password).await?;
        if answer.success() {
            return Ok(daemon);
        }
    }
    if target.private_key.is_empty() && target.password.is_empty() {
        let answer: AuthResult = daemon.authenticate_none(user).await?;
        if answer.success() {
            return Ok(daemon);
        }
    }
    Err(Unreachable::Refused(user.clone()))
}

/// What the daemon says that no channel is told.
pub(crate) struct Caller {
    fingerprint: String,
    ties: Ties,
    is_first: bool,
}

impl client::Handler for Caller {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        if self.fingerprint.is_empty() {
            return Ok(true);
        }
        Ok(match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                fingerprint::fits(&self.fingerprint, key)
            }
            // None is asked for.
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }

    /// A connection to a port that the daemon was asked to listen on.
    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<client::Msg>,
        connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        let ties = self.ties.clone();
        let (connected, originator) = (connected_address.to_owned(), originator_address.to_owned());
        // The client's answer may take its time, and the daemon is heard meanwhile.
        tokio::spawn(async move {
            let opening = ties.client.channel_open_forwarded_tcpip(
                connected,
                connected_port,
                originator,
                originator_port,
            );
            let opening = ties.ending.now.run_until_cancelled(timeout(ANSWER_MAX, opening));
            match opening.await {
                Some(Ok(Ok(mine))) => {
                    reply.accept().await;
                    relay::join(mine, channel, &ties, false);
                }
                Some(Ok(Err(russh::Error::ChannelOpenFailure(reason)))) => {
                    reply.reject(reason).await;
                }
                Some(_) | None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        tracing::debug!(?reason, "an instance's SSH daemon hangs up");
        if self.is_first {
            self.ties.ending.daemon.cancel();
        }
        Ok(())
    }
}
