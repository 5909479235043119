//! What is brought to a cell from outside, and kept as long as there is room (executor.md section
//! 14).
//!
//! Reading order: [`Downloader`] is what the rest uses; [`checksum`] and [`fetch`] get a file,
//! [`archive`] makes a plain tar of it, [`index`] keeps it and makes room for it.

mod archive;
mod blocking;
mod checksum;
mod dependencies;
mod downloader;
mod fetch;
mod index;

use std::path::{Path, PathBuf};
use std::{fs, io};

pub use dependencies::{DependencyLine, MountedDependency, NotDownloaded, bring_dependencies};
pub use downloader::{Archive, Dependency, Downloader};
pub(crate) use fetch::words;
pub use fetch::{Patience, Wanted};

/// The cache's directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// Why something could not be downloaded. Users are not told: a URL may hold secrets, and so may
/// what a server says; no message shows the URL.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("the URL is none: {0}")]
    Url(String),
    #[error("checksum algorithm {0:?} is not one of md5, sha1, sha256")]
    Algorithm(String),
    #[error("checksum value {0:?} is none")]
    Value(String),
    #[error("{0}")]
    Request(String),
    #[error("Download failed: Status code {0}")]
    Status(u16),
    #[error("the server was silent for {0:?}")]
    Stalled(std::time::Duration),
    #[error("it took longer than {0:?}")]
    Slow(std::time::Duration),
    #[error("checksum mismatch: expected {expected}, got {got}")]
    Mismatch { expected: String, got: String },
    #[error("unknown archive format")]
    Format,
    #[error("broken archive: {0}")]
    Broken(String),
    #[error("more than {0} bytes once unpacked")]
    Large(u64),
    #[error("no room for it: all of the cache's {0} bytes are in use")]
    Full(u64),
    #[error("not cacheable directory: cache key is missing")]
    KeyMissing,
    #[error("not cacheable directory: ETag and Last-Modified were missing from response")]
    ValidatorsMissing,
    #[error("{}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

impl DownloadError {
    fn disk(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Disk { path: path.clone(), source }
    }
}

/// Makes a directory that is empty, whatever was there.
pub(crate) fn empty_dir(path: &Path) -> Result<(), OpenError> {
    let made = match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => fs::create_dir_all(path),
    };
    made.map_err(|source| OpenError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
