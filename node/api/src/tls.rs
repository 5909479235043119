//! Mutual TLS, 1.2 and 1.3, between clients and nodes and between nodes: one authority vouches for
//! all of them.
//!
//! A node's certificate is for servers *and* clients (extended key usage, RFC 5280 4.2.1.12), with
//! the host's names; a client's is for clients only, so that no client can speak as a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::wire::{Dialer, Stream};

/// Where one side's certificates are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Of the authorities that vouch for the other side: one or more.
    pub ca: PathBuf,
    /// This side's own, and those between it and the authority.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A file cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsError {
    pub path: PathBuf,
    pub reason: String,
}

impl TlsFiles {
    /// Connects as whom the certificate names.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the file.
    pub fn dialer(&self) -> Result<Dialer, TlsError> {
        let (chain, key) = self.own()?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse(&self.cert, error))?
            .with_root_certificates(self.authorities()?)
            .with_client_auth_cert(chain, key)
            .map_err(|error| refuse(&self.key, error))?;
        Ok(Dialer::with_tls(config))
    }

    /// Accepts those for whom an authority vouches.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the file.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        self.acceptor_of(&[])
    }

    /// As [`Self::acceptor`], for a client that says which protocol it will speak (RFC 7301): the
    /// first of ours that is also his, or none where he names none.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the file.
    pub fn acceptor_of(&self, protocols: &[&str]) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let authorities = Arc::new(self.authorities()?);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider))
                .build()
                .map_err(|error| refuse(&self.ca, error))?;
        let (chain, key) = self.own()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse(&self.cert, error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| refuse(&self.key, error))?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            authorities.add(certificate).map_err(|error| refuse(&self.ca, error))?;
        }
        Ok(authorities)
    }

    fn own(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            refuse(&self.key, unreadable(&error, "it has no private key in PEM"))
        })?;
        Ok((certificates(&self.cert)?, key))
    }
}

/// All of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let nothing = "it has no certificate in PEM";
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refuse(path, unreadable(&error, nothing)))?;
    if all.is_empty() { Err(refuse(path, nothing)) } else { Ok(all) }
}

fn unreadable(error: &pem::Error, nothing: &str) -> String {
    if let pem::Error::Io(error) = error {
        return error.to_string();
    }
    if let pem::Error::NoItemsFound = error {
        return nothing.to_owned();
    }
    format!("{nothing}: {error}")
}

fn refuse(path: &Path, reason: impl ToString) -> TlsError {
    TlsError { path: path.to_owned(), reason: reason.to_string() }
}

/// Whom a certificate names, for which an authority has vouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The subject's common name; empty where it has none.
    pub name: String,
    /// Whether it may speak as a node: its certificate is for servers too.
    pub is_node: bool,
}

impl Peer {
    /// The other side of a connection; nothing where it has no TLS.
    #[must_use]
    pub fn of(stream: &Stream) -> Option<Self> {
        let Either::Right(stream) = stream else { return None };
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates()?.first()?;
        Some(Self::named_by(certificate))
    }

    fn named_by(certificate: &CertificateDer<'_>) -> Self {
        // What rustls has accepted can be read; what could not would name nobody.
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self { name: String::new(), is_node: false };
        };
        let mut names = certificate.subject().iter_common_name();
        let name = names.next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
        let usage = certificate.extended_key_usage().ok().flatten();
        Self { name, is_node: usage.is_some_and(|usage| usage.value.server_auth) }
    }
}

#[cfg(test)]
mod tests;
