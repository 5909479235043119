//! What the recipes of one cell share: how long they wait, how many of them do the same thing at
//! once, and what brings files from outside.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use reqwest::Client;
use tokio::sync::Semaphore;

use crate::cache::{self, Downloader, Patience};
use crate::clock::Clock;
use crate::limits::{
    CACHE_BYTES_MAX, CONNECT_MAX, DOWNLOADS_AT_ONCE_MAX, EXIT_WAIT, GRACEFUL_INTERVAL,
    HEALTHY_INTERVAL, MONITOR_RUNS_AT_ONCE_MAX, PROBE_TIMEOUT, REDIRECTS_MAX, UNHEALTHY_INTERVAL,
    UPLOADS_AT_ONCE_MAX,
};

/// An operator's choices. The defaults are Diego's, see [`crate::limits`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// From SIGTERM to SIGKILL. Diego wants at least 10 s.
    pub graceful_interval: Duration,
    /// From SIGKILL until a process is given up.
    pub exit_wait: Duration,
    /// Between two checks of a healthy instance.
    pub healthy_interval: Duration,
    /// Between two checks of an instance that is not healthy yet, or not ready.
    pub unhealthy_interval: Duration,
    /// One declared check, where it says nothing itself.
    pub probe_timeout: Duration,
    /// What the cache of downloads may take of the disk, in bytes.
    pub cache_bytes_max: u64,
    /// How long downloads wait and how often they are tried.
    pub patience: Patience,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            graceful_interval: GRACEFUL_INTERVAL,
            exit_wait: EXIT_WAIT,
            healthy_interval: HEALTHY_INTERVAL,
            unhealthy_interval: UNHEALTHY_INTERVAL,
            probe_timeout: PROBE_TIMEOUT,
            cache_bytes_max: CACHE_BYTES_MAX,
            patience: Patience::default(),
        }
    }
}

/// What the recipes of one cell share.
#[derive(Debug)]
pub struct Services {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) http: Client,
    pub(crate) downloader: Downloader,
    /// Where files lie that are being uploaded.
    pub(crate) uploads_dir: PathBuf,
    pub(crate) download_slots: Semaphore,
    pub(crate) upload_slots: Semaphore,
    pub(crate) monitor_slots: Semaphore,
}

/// What recipes need cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    #[error(transparent)]
    Cache(#[from] cache::OpenError),
}

impl Services {
    /// Finds or makes everything below `dir`, which is nobody else's. It blocks while it deletes
    /// what a former life has left half-done.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, read or cleaned.
    pub fn open(dir: &Path, settings: Settings, http: Client) -> Result<Self, OpenError> {
        let downloader = Downloader::open(
            &dir.join("cache"),
            settings.cache_bytes_max,
            settings.patience,
            http.clone(),
        )?;
        let uploads_dir = dir.join("uploads");
        cache::empty_dir(&uploads_dir)?;
        Ok(Self {
            settings,
            clock: Clock::new(),
            http,
            downloader,
            uploads_dir,
            download_slots: Semaphore::new(DOWNLOADS_AT_ONCE_MAX),
            upload_slots: Semaphore::new(UPLOADS_AT_ONCE_MAX),
            monitor_slots: Semaphore::new(MONITOR_RUNS_AT_ONCE_MAX),
        })
    }

    /// The cell's downloads, for the dependencies of containers that are found again.
    #[must_use]
    pub fn downloader(&self) -> &Downloader {
        &self.downloader
    }
}

/// The client for downloads and uploads. Certificates are trusted that are the system's or in
/// `ca_certificates`, each in PEM; on a machine without any of either, no server is, and only
/// plain HTTP works.
///
/// # Errors
///
/// A certificate is none.
pub fn http_client(ca_certificates: &[Vec<u8>]) -> Result<Client, reqwest::Error> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails if the process has chosen another provider, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let certificates = ca_certificates
        .iter()
        .map(|pem| reqwest::Certificate::from_pem(pem))
        .collect::<Result<Vec<_>, _>>()?;
    let builder = || {
        Client::builder()
            .user_agent(concat!("gavel/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
            .connect_timeout(CONNECT_MAX)
    };
    let client = builder().tls_certs_merge(certificates.clone()).build();
    client.or_else(|_| builder().tls_certs_only(certificates).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_had_with_and_without_certificates() {
        assert!(http_client(&[]).is_ok());
        let rubbish = "-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n";
        assert!(http_client(&[rubbish.into()]).is_err());
    }
}
