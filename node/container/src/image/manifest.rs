//! Reads manifests and indexes, and picks the image for this machine. Pure: bytes in, facts out.

use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry,
    OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex,
    OciImageManifest,
};
use serde::Deserialize;

use crate::image::Digest;
use crate::limits::{CONFIG_BYTES_MAX, IMAGE_LAYERS_MAX, INDEX_ENTRIES_MAX};

/// What a registry is told that we take. Schema 1 is not among them, so a registry that can
/// convert does so, and one that cannot says that it has no such manifest.
pub(crate) const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.index.v1+json";

/// What stands behind a tag or digest.
#[derive(Debug)]
pub(crate) enum Document {
    Image(Manifest),
    Index(Vec<Entry>),
}

/// One image: its config and its layers, lowest first.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Layer>,
}

/// Bytes in the registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

/// A layer's bytes in the registry and how they are packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) blob: Blob,
    pub(crate) compression: Compression,
}

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// An image of an index and the machine it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) digest: Digest,
    /// `os/architecture`, with `/variant` where the index gives one.
    pub(crate) platform: String,
}

/// Why bytes are not a manifest that we take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A known format that is not supported, and what to do.
    Unsupported(String),
    /// No manifest at all.
    Rubbish(String),
}

/// Reads a manifest or an index. The body's own `mediaType` decides, then the answer's content
/// type, then what the body holds: registries are known to send `text/plain`.
pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Document, Fault> {
    let probe: Probe = serde_json::from_slice(bytes).map_err(rubbish)?;
    let header = content_type.split(';').next().unwrap_or_default().trim();
    if probe.schema_version == Some(1) || header.starts_with(SCHEMA_1_PREFIX) {
        return Err(Fault::Unsupported(
            "the image is in Docker's manifest version 2 schema 1, which is not supported; \
             push it again with Docker 1.10 or newer, or convert it: \
             skopeo copy --format v2s2 docker://IMAGE docker://IMAGE"
                .to_owned(),
        ));
    }
    if probe.schema_version != Some(2) {
        return Err(Fault::Rubbish("it has no schemaVersion 2".to_owned()));
    }
    let media_type = probe.media_type.as_deref().unwrap_or(header);
    match media_type {
        IMAGE_MANIFEST_MEDIA_TYPE | OCI_IMAGE_MEDIA_TYPE => image(bytes),
        IMAGE_MANIFEST_LIST_MEDIA_TYPE | OCI_IMAGE_INDEX_MEDIA_TYPE => index(bytes),
        _ if probe.media_type.is_some() => Err(Fault::Unsupported(format!(
            "its manifest is of type {media_type:?}, which is not an image's"
        ))),
        _ if probe.manifests.is_some() => index(bytes),
        _ => image(bytes),
    }
}

const SCHEMA_1_PREFIX: &str = "application/vnd.docker.distribution.manifest.v1+";

/// Enough of a document to tell what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u8>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

fn rubbish(reason: impl ToString) -> Fault {
    Fault::Rubbish(reason.to_string())
}

fn image(bytes: &[u8]) -> Result<Document, Fault> {
    let raw: OciImageManifest = serde_json::from_slice(bytes).map_err(rubbish)?;
    if raw.layers.len() > IMAGE_LAYERS_MAX {
        return Err(rubbish(format!("more than {IMAGE_LAYERS_MAX} layers")));
    }
    if !is_config(&raw.config.media_type) {
        return Err(Fault::Unsupported(format!(
            "its config is of type {:?}: an artifact in a registry, not an image to run",
            raw.config.media_type
        )));
    }
    let config = blob(&raw.config)?;
    if config.bytes > CONFIG_BYTES_MAX {
        return Err(rubbish(format!("a config of {} bytes", config.bytes)));
    }
    let layers = raw.layers.iter().map(layer).collect::<Result<_, _>>()?;
    Ok(Document::Image(Manifest { config, layers }))
}

fn is_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
            // Written by old builders.
            | "application/octet-stream"
            | "application/json"
            | ""
    )
}

fn blob(raw: &OciDescriptor) -> Result<Blob, Fault> {
    let digest =
        raw.digest.parse().map_err(|e| rubbish(format!("digest {:?}: {e}", raw.digest)))?;
    let bytes =
        u64::try_from(raw.size).map_err(|_| rubbish(format!("{digest} of size {}", raw.size)))?;
    Ok(Blob { digest, bytes })
}

/// Diego's rule: contains gzip, or is empty: gzip; zstd: zstd; else a plain tar.
fn layer(raw: &OciDescriptor) -> Result<Layer, Fault> {
    let media_type = raw.media_type.as_str();
    if media_type.contains("foreign") || media_type.contains("nondistributable") {
        return Err(Fault::Unsupported(format!(
            "layer {} is not in the registry (type {media_type:?})",
            raw.digest
        )));
    }
    if media_type.contains("encrypted") {
        return Err(Fault::Unsupported(format!("layer {} is encrypted", raw.digest)));
    }
    let compression = if media_type.is_empty() || media_type.contains("gzip") {
        Compression::Gzip
    } else if media_type.contains("zstd") {
        Compression::Zstd
    } else {
        Compression::None
    };
    Ok(Layer { blob: blob(raw)?, compression })
}

fn index(bytes: &[u8]) -> Result<Document, Fault> {
    let raw: OciImageIndex = serde_json::from_slice(bytes).map_err(rubbish)?;
    if raw.manifests.len() > INDEX_ENTRIES_MAX {
        return Err(rubbish(format!("more than {INDEX_ENTRIES_MAX} entries")));
    }
    raw.manifests.iter().filter_map(entry).collect::<Result<_, _>>().map(Document::Index)
}

/// `None` for what is no image: builders add attestations as entries of platform
/// `unknown/unknown`, and other tools add signatures and artifacts.
fn entry(raw: &ImageIndexEntry) -> Option<Result<Entry, Fault>> {
    let is_image =
        matches!(raw.media_type.as_str(), IMAGE_MANIFEST_MEDIA_TYPE | OCI_IMAGE_MEDIA_TYPE);
    let is_attestation = raw
        .annotations
        .as_ref()
        .is_some_and(|notes| notes.contains_key("vnd.docker.reference.type"));
    let platform = raw.platform.as_ref()?;
    let (os, architecture) = (platform.os.to_string(), platform.architecture.to_string());
    if !is_image || is_attestation || os == "unknown" {
        return None;
    }
    let variant = platform.variant.as_ref().map_or_else(String::new, |v| format!("/{v}"));
    let digest = raw.digest.parse().map_err(|e| rubbish(format!("digest {:?}: {e}", raw.digest)));
    Some(digest.map(|digest| Entry { digest, platform: format!("{os}/{architecture}{variant}") }))
}

/// This machine as images name it, `linux/amd64`: Go's names for architectures.
pub(crate) fn this_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// The entry for `wanted`: without a variant if there is one, else the lowest variant (amd64 has
/// v2 and later for newer processors, arm64 has v8 for all).
pub(crate) fn pick<'a>(entries: &'a [Entry], wanted: &str) -> Option<&'a Entry> {
    let of_wanted = |entry: &&Entry| {
        entry
            .platform
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // min_by_key keeps the first of equals, as Docker does.
    entries.iter().filter(of_wanted).min_by_key(|entry| &entry.platform)
}

#[cfg(test)]
mod tests;
