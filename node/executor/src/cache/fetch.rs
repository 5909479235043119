//! Gets one file from one URL: which may take several tries, none of them for ever.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use reqwest::header::{
    ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Client, Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::DownloadError;
use super::checksum::Checksum;
use super::index::{Index, Room, Validators};
use crate::limits::{
    DOWNLOAD_JITTER_MAX, DOWNLOAD_MAX, DOWNLOAD_PAUSE_FIRST, DOWNLOAD_PAUSE_MAX,
    DOWNLOAD_STALL_MAX, DOWNLOAD_TRIES_MAX, VALIDATOR_BYTES_MAX,
};

/// How long a download waits and how often it is tried. The defaults are Diego's, see
/// [`crate::limits`].
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Silence of a server.
    pub stall: Duration,
    /// One try.
    pub whole: Duration,
    /// At least 1.
    pub tries: u32,
    /// Before the second try; doubled for each further one.
    pub pause_first: Duration,
    /// The longest pause, without what chance adds.
    pub pause_max: Duration,
    /// What chance may add to a pause.
    pub jitter_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: DOWNLOAD_STALL_MAX,
            whole: DOWNLOAD_MAX,
            tries: DOWNLOAD_TRIES_MAX,
            pause_first: DOWNLOAD_PAUSE_FIRST,
            pause_max: DOWNLOAD_PAUSE_MAX,
            jitter_max: DOWNLOAD_JITTER_MAX,
        }
    }
}

impl Patience {
    /// Before the next try, when this many have failed.
    fn pause(&self, failed: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failed - 1).unwrap_or(u32::MAX);
        let jitter = self.jitter_max.mul_f64(rand::rng().random());
        self.pause_first.saturating_mul(doubled).min(self.pause_max) + jitter
    }
}

/// What is to be downloaded.
#[derive(Clone, Debug)]
pub struct Wanted {
    url: Url,
    /// The checksum of the client's own key, if it gave one.
    pub(super) key: Option<String>,
    pub(super) checksum: Option<Checksum>,
}

impl Wanted {
    /// From the texts of a recipe; the last three may be empty.
    ///
    /// # Errors
    ///
    /// The URL or the checksum is none.
    pub fn new(
        url: &str,
        cache_key: &str,
        checksum_algorithm: &str,
        checksum_value: &str,
    ) -> Result<Self, DownloadError> {
        let parsed = Url::parse(url).map_err(|error| DownloadError::Url(error.to_string()))?;
        // Diego makes names of MD5 sums, of which two keys could be made to share one.
        let key = (!cache_key.is_empty()).then(|| hex::encode(Sha256::digest(cache_key)));
        let checksum = Checksum::parse(checksum_algorithm, checksum_value)?;
        Ok(Self { url: parsed, key, checksum })
    }
}

/// What a server has answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// What is known is still current.
    Unchanged,
    New(Fetched),
}

/// A file, verified, with the room that it takes.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) file: NamedTempFile,
    pub(super) bytes: u64,
    pub(super) room: Room,
    pub(super) validators: Validators,
}

/// Where files are got from.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub(super) http: Client,
    pub(super) patience: Patience,
    pub(super) index: Arc<Index>,
}

impl Fetcher {
    /// Asks for the file, unless what the validators stand for is still current.
    pub(super) async fn fetch(
        &self,
        wanted: &Wanted,
        known: Option<&Validators>,
    ) -> Result<Answer, DownloadError> {
        let mut failed = 0;
        loop {
            let error = match timeout(self.patience.whole, self.attempt(wanted, known)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => DownloadError::Slow(self.patience.whole),
            };
            failed += 1;
            if failed >= self.patience.tries || !is_worth_a_try(&error) {
                return Err(error);
            }
            let pause = self.patience.pause(failed);
            tracing::info!(host = wanted.url.host_str(), %error, ?pause, "downloading again");
            sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        wanted: &Wanted,
        known: Option<&Validators>,
    ) -> Result<Answer, DownloadError> {
        let mut request = self.http.get(wanted.url.clone());
        if let Some(known) = known {
            let conditions =
                [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)];
            for (name, value) in conditions {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
        }
        let response = self.in_time(request.send()).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Answer::Unchanged),
            StatusCode::OK => {}
            status => return Err(DownloadError::Status(status.as_u16())),
        }
        let validators = Validators {
            etag: validator(response.headers(), &ETAG),
            last_modified: validator(response.headers(), &LAST_MODIFIED),
        };
        let (file, bytes, room) = self.receive(response, wanted.checksum.as_ref()).await?;
        Ok(Answer::New(Fetched { file, bytes, room, validators }))
    }

    async fn receive(
        &self,
        mut response: Response,
        checksum: Option<&Checksum>,
    ) -> Result<(NamedTempFile, u64, Room), DownloadError> {
        let made = self.index.make_file()?;
        let disk = DownloadError::disk(made.path());
        let mut file = File::from_std(made.as_file().try_clone().map_err(&disk)?);
        let mut room = self.index.room();
        let mut sum = checksum.map(Checksum::sum);
        let mut bytes = 0;
        while let Some(piece) = self.in_time(response.chunk()).await? {
            room.take_soon(piece.len() as u64).await?;
            if let Some(sum) = &mut sum {
                sum.update(&piece);
            }
            file.write_all(&piece).await.map_err(&disk)?;
            bytes += piece.len() as u64;
        }
        file.flush().await.map_err(&disk)?;
        if let (Some(checksum), Some(sum)) = (checksum, sum) {
            checksum.verify(sum)?;
        }
        Ok((made, bytes, room))
    }

    /// Waits for the server's next word.
    async fn in_time<T>(
        &self,
        word: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, DownloadError> {
        let word = timeout(self.patience.stall, word).await;
        let word = word.map_err(|_| DownloadError::Stalled(self.patience.stall))?;
        word.map_err(|error| DownloadError::Request(words(&error)))
    }
}

/// Diego tries again whatever went wrong, except where what came is not what was meant. What the
/// cell itself has no room for will not be better in a second.
fn is_worth_a_try(error: &DownloadError) -> bool {
    use DownloadError::{Disk, Full, Mismatch};
    !matches!(error, Mismatch { .. } | Full(_) | Disk { .. })
}

/// What is too long to be kept is as good as none.
fn validator(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    let is_good = !value.is_empty() && value.len() <= VALIDATOR_BYTES_MAX;
    is_good.then(|| value.to_owned())
}

/// A failed request in words that do not show its URL: the last of its causes.
pub(crate) fn words(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    match cause {
        Some(cause) => cause.to_string(),
        None if error.is_redirect() => "too many redirects".to_owned(),
        None => "the request failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let patience = Patience { jitter_max: Duration::ZERO, ..Patience::default() };
        let pauses: Vec<_> = [1, 2, 3, 4, 5, 40].map(|n| patience.pause(n).as_millis()).to_vec();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 5000, 5000]);
        let jittered = Patience::default().pause(1).as_millis();
        assert!((500..=700).contains(&jittered), "{jittered}");
    }

    #[test]
    fn keys_are_told_apart_and_none_is_none() {
        let key = |key| Wanted::new("http://a/", key, "", "").unwrap().key;
        assert_eq!(key(""), None);
        assert_ne!(key("a"), key("b"));
        assert!(matches!(Wanted::new("/a", "", "", ""), Err(DownloadError::Url(_))));
        assert!(matches!(Wanted::new("http://a/", "", "md5", "x"), Err(DownloadError::Value(_))));
    }
}
