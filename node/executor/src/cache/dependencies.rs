//! The cached dependencies of one container, all at once, and what its log says of them.

use std::path::PathBuf;

use container::container::LogStream;
use futures_util::future::try_join_all;
use model::dependency::CachedDependency;

use super::{Dependency, Wanted};
use crate::services::Services;
use crate::units;

/// A line for the container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependencyLine {
    pub stream: LogStream,
    pub source: String,
    pub text: String,
}

/// A dependency that is there, and where the container wants it.
#[derive(Debug)]
pub struct MountedDependency {
    pub dependency: Dependency,
    /// A directory in the container.
    pub to: PathBuf,
}

/// One of them could not be had. What Diego tells of it; a task may be started elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to download cached artifacts")]
pub struct NotDownloaded;

/// Brings all of a container's dependencies; the first that fails ends the others. Lines are of
/// `source` where a dependency names none of its own.
///
/// # Errors
///
/// One of them cannot be had, is not what it should be, or there is no room for it.
pub async fn bring_dependencies(
    services: &Services,
    dependencies: &[CachedDependency],
    source: &str,
    log: &(dyn Fn(DependencyLine) + Sync),
) -> Result<Vec<MountedDependency>, NotDownloaded> {
    try_join_all(dependencies.iter().map(|it| bring(services, it, source, log))).await
}

async fn bring(
    services: &Services,
    dependency: &CachedDependency,
    source: &str,
    log: &(dyn Fn(DependencyLine) + Sync),
) -> Result<MountedDependency, NotDownloaded> {
    let CachedDependency { name, from, cache_key, log_source, .. } = dependency;
    let source = if log_source.is_empty() { source } else { log_source };
    let tell = |text: String| {
        if !name.is_empty() {
            log(DependencyLine { stream: LogStream::Stdout, source: source.to_owned(), text });
        }
    };
    let _slot = services.download_slots.acquire().await.expect("nobody closes it");
    tell(format!("Downloading {name}..."));
    let brought = async {
        let (algorithm, value) = (&dependency.checksum_algorithm, &dependency.checksum_value);
        let wanted = Wanted::new(from, cache_key, algorithm, value)?;
        services.downloader.dependency(&wanted).await
    };
    let brought = brought.await.map_err(|error| {
        tracing::warn!(dependency = name, %error, "a cached dependency cannot be had");
        tell(format!("Downloading {name} failed"));
        NotDownloaded
    })?;
    let size = brought.downloaded().map(|bytes| format!(" ({})", units::size(bytes)));
    tell(format!("Downloaded {name}{}", size.unwrap_or_default()));
    Ok(MountedDependency { dependency: brought, to: PathBuf::from(&dependency.to) })
}
