//! Download: an archive from a URL, unpacked in the container.

use container::container::LogStream;
use model::action::DownloadAction;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::cache::Wanted;
use crate::failure::{Ending, Failure};
use crate::limits::DOWNLOAD_ERROR_LINE_BYTES_MAX;
use crate::place::Place;
use crate::ready::Ready;
use crate::sandbox::Sandbox;
use crate::units;

/// That its beginning was told.
const BEGIN: &str = "begin";
/// How the step ended.
const END: &str = "end";

/// A download that the node's death has cut short begins anew, and is told of once.
pub(super) async fn download<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &DownloadAction,
    place: Place,
    stop: CancellationToken,
    ready: Ready,
) -> Ending {
    ready.set();
    let notes = scene.notes(&place.key);
    if let Some(ending) = notes.get(END) {
        return ending;
    }
    let sink = place.sink.named(&action.log_source);
    let artifact = &action.artifact;
    let perform = async {
        let _slot = scene.services.download_slots.acquire().await.expect("nobody closes it");
        if !artifact.is_empty() && notes.is_first(BEGIN).await {
            let line = format!("Downloading {artifact}...");
            sink.write(scene.sandbox, LogStream::Stdout, &line).await;
        }
        bring(scene, action, &place.key).await
    };
    let result = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Failure::Cancelled),
        result = perform => result,
    };
    let ending = result.clone().map(drop).map_err(Failure::Emittable);
    notes.set(END, &ending).await;
    match result {
        Err(reason) => {
            let line = error_line(&reason);
            sink.write(scene.sandbox, LogStream::Stderr, &line).await;
        }
        Ok(_) if artifact.is_empty() => {}
        Ok(downloaded) => {
            let size = downloaded.map(|bytes| format!(" ({})", units::size(bytes)));
            let line = format!("Downloaded {artifact}{}", size.unwrap_or_default());
            sink.write(scene.sandbox, LogStream::Stdout, &line).await;
        }
    }
    ending
}

/// How many bytes came over the wire: none where the cache had it; or in words why it failed.
async fn bring<S: Sandbox>(
    scene: &Scene<'_, S>,
    action: &DownloadAction,
    key: &str,
) -> Result<Option<u64>, String> {
    let named = |artifact: &str| {
        if artifact.is_empty() { String::new() } else { format!(" {artifact}") }
    };
    let artifact = named(&action.artifact);
    let archive = async {
        let (algorithm, value) = (&action.checksum_algorithm, &action.checksum_value);
        let wanted = Wanted::new(&action.from, &action.cache_key, algorithm, value)?;
        scene.services.downloader.archive(&wanted).await
    };
    let archive = archive.await.map_err(|error| {
        tracing::warn!(key, %error, "a download failed");
        format!("Downloading{artifact} failed")
    })?;
    let downloaded = archive.downloaded();
    scene
        .sandbox
        .unpack(&action.user, &action.to, archive)
        .await
        .map_err(|error| format!("Copying{artifact} into the container failed: {error}"))?;
    Ok(downloaded)
}

/// The line for a reason, whose end makes room for saying so where it is too long. Diego counts
/// the end of the line as well.
fn error_line(reason: &str) -> String {
    const CUT: &str = " (error truncated)";
    if reason.len() < DOWNLOAD_ERROR_LINE_BYTES_MAX {
        return reason.to_owned();
    }
    let end = reason.floor_char_boundary(DOWNLOAD_ERROR_LINE_BYTES_MAX - CUT.len());
    format!("{}{CUT}", &reason[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut_in_its_line() {
        assert_eq!(error_line(&"x".repeat(1023)), "x".repeat(1023));
        let cut = error_line(&"x".repeat(1024));
        assert_eq!(cut, format!("{} (error truncated)", "x".repeat(1006)));
        assert_eq!(error_line(&"ä".repeat(1000)).len(), 1024);
    }
}
