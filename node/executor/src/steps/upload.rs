//! Upload: a file of the container, sent to a URL.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use container::container::LogStream;
use md5::Md5;
use model::action::UploadAction;
use reqwest::Url;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::failure::{Ending, Failure};
use crate::limits::{UPLOAD_BYTES_MAX, UPLOAD_MAX, UPLOAD_TRIES_MAX};
use crate::place::Place;
use crate::ready::Ready;
use crate::sandbox::Sandbox;
use crate::units;

/// That its beginning was told.
const BEGIN: &str = "begin";
/// How the step ended.
const END: &str = "end";
/// Bytes between the container and the disk.
const PIECE_BYTES: usize = 64 << 10;

/// An upload that the node's death has cut short begins anew, as its server may not have heard
/// the end of it, and is told of once.
pub(super) async fn upload<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &UploadAction,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    ready.set();
    let notes = scene.notes(&place.key);
    if let Some(ending) = notes.get(END) {
        return ending;
    }
    // Diego: nothing cuts the wait for a slot short.
    let _slot = scene.services.upload_slots.acquire().await.expect("nobody closes it");
    let sink = place.sink.named(&action.log_source);
    let artifact = &action.artifact;
    let tell = async |stream, line: String| {
        if !artifact.is_empty() {
            sink.write(scene.sandbox, stream, &line).await;
        }
    };
    if notes.is_first(BEGIN).await {
        tell(LogStream::Stdout, format!("Uploading {artifact}...")).await;
    }
    let result = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Failure::Cancelled),
        result = send(scene, action) => result,
    };
    let ending = match &result {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(key = place.key, %error, "an upload failed");
            Err(error.failure(artifact))
        }
    };
    notes.set(END, &ending).await;
    match result {
        Ok(bytes) => {
            let size = units::size(bytes);
            tell(LogStream::Stdout, format!("Uploaded {artifact} ({size})")).await;
        }
        Err(error) => tell(LogStream::Stderr, format!("{} for {artifact}", error.words())).await,
    }
    ending
}

/// Why a file could not be sent. A URL may hold secrets, so no message shows it.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("{0}")]
    Url(String),
    #[error("make {}: {source}", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("a file in {}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Open(String),
    #[error("{0}")]
    Copy(String),
    #[error("{0}")]
    Send(String),
}

impl UploadError {
    /// What the log says.
    fn words(&self) -> &'static str {
        match self {
            Self::Url(_) => "Failed to parse URL",
            Self::Directory { .. } => "Failed to create temp dir",
            Self::File { .. } => "Failed to create temp file",
            Self::Open(_) => "Failed to establish stream from container",
            Self::Copy(_) => "Failed to copy stream contents into temp file",
            Self::Send(_) => "Failed to upload payload",
        }
    }

    fn failure(&self, artifact: &str) -> Failure {
        match self {
            Self::Url(_) | Self::Send(_) => Failure::Other(self.to_string()),
            Self::Directory { .. } | Self::File { .. } | Self::Open(_) | Self::Copy(_) => {
                let words = self.words();
                let said = if artifact.is_empty() {
                    words.to_owned()
                } else {
                    format!("{words} for {artifact}")
                };
                Failure::Emittable(said)
            }
        }
    }
}

/// Copies the file out of the container and sends it, which may take several tries. Returns its
/// length.
async fn send<S: Sandbox>(scene: &Scene<'_, S>, action: &UploadAction) -> Result<u64, UploadError> {
    let url = url(&action.to)?;
    let payload = Payload::copy(scene, action).await?;
    let mut tries = 1;
    loop {
        match payload.post(&scene.services.http, url.clone()).await {
            Ok(()) => return Ok(payload.bytes),
            Err(reason) if tries == UPLOAD_TRIES_MAX => return Err(UploadError::Send(reason)),
            Err(reason) => tracing::info!(reason, tries, "an upload is tried again"),
        }
        tries += 1;
    }
}

fn url(text: &str) -> Result<Url, UploadError> {
    let refuse = |reason: &str| UploadError::Url(format!("parse {text:?}: {reason}"));
    let url = Url::parse(text).map_err(|_| refuse("invalid URI for request"))?;
    if !url.has_host() {
        return Err(refuse("no host in request URL"));
    }
    Ok(url)
}

/// A file of a container, on the cell's own disk until it is dropped.
struct Payload {
    path: TempPath,
    bytes: u64,
    md5: String,
    sha256: String,
}

impl Payload {
    async fn copy<S: Sandbox>(
        scene: &Scene<'_, S>,
        action: &UploadAction,
    ) -> Result<Self, UploadError> {
        let dir: &Path = &scene.services.uploads_dir;
        tokio::fs::create_dir_all(dir)
            .await
            .map_err(|source| UploadError::Directory { path: dir.to_owned(), source })?;
        let (file, path) = tempfile::NamedTempFile::new_in(dir)
            .map_err(|source| UploadError::File { path: dir.to_owned(), source })?
            .into_parts();
        let (stream, to) = tokio::io::duplex(PIECE_BYTES);
        let mut sums = Sums::default();
        let (read, kept) = tokio::join!(
            scene.sandbox.read_file(&action.user, &action.from, to),
            sums.keep(stream, File::from_std(file)),
        );
        kept.map_err(|error| UploadError::Copy(error.to_string()))?;
        match read {
            Ok(_) => {}
            Err(error) if sums.bytes == 0 => return Err(UploadError::Open(error)),
            Err(error) => return Err(UploadError::Copy(error)),
        }
        Ok(Self {
            path,
            bytes: sums.bytes,
            md5: BASE64.encode(sums.md5.finalize()),
            sha256: BASE64.encode(sums.sha256.finalize()),
        })
    }

    async fn post(&self, http: &reqwest::Client, url: Url) -> Result<(), String> {
        let file = File::open(&self.path).await.map_err(|error| error.to_string())?;
        let request = http
            .post(url)
            .timeout(UPLOAD_MAX)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, self.bytes)
            .header("Content-MD5", &self.md5)
            .header("Content-Digest", format!("sha-256=:{}:", self.sha256))
            .body(reqwest::Body::wrap_stream(ReaderStream::new(file)));
        let response = request.send().await.map_err(|error| crate::cache::words(&error))?;
        let status = response.status().as_u16();
        if status >= 400 { Err(format!("Upload failed: Status code {status}")) } else { Ok(()) }
    }
}

/// What has been kept of a file so far.
#[derive(Default)]
struct Sums {
    bytes: u64,
    md5: Md5,
    sha256: Sha256,
}

impl Sums {
    async fn keep(&mut self, mut stream: DuplexStream, mut file: File) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = stream.read(&mut piece).await?;
            let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else {
                return file.flush().await;
            };
            self.bytes += read as u64;
            if self.bytes > UPLOAD_BYTES_MAX {
                let reason = format!("more than {UPLOAD_BYTES_MAX} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
            }
            self.md5.update(piece);
            self.sha256.update(piece);
            file.write_all(piece).await?;
        }
    }
}
