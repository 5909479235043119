//! What is brought into a container before its recipe runs: downloads that cells keep, and layers
//! over its root file system.

use serde::{Deserialize, Serialize};

/// An archive that is mounted read-only, downloaded once for all containers of a cell. Diego:
/// `models.CachedDependency`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedDependency {
    pub name: String,
    pub from: String,
    /// A directory in the container.
    pub to: String,
    pub cache_key: String,
    pub log_source: String,
    /// `md5`, `sha1` or `sha256`, with a value; both or neither.
    pub checksum_algorithm: String,
    pub checksum_value: String,
}

/// Diego: `models.ImageLayer`. Shared ones become cached dependencies, exclusive ones downloads of
/// the container's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageLayer {
    pub name: String,
    pub url: String,
    /// A directory in the container.
    pub destination_path: String,
    pub layer_type: LayerType,
    pub media_type: LayerMediaType,
    pub digest_algorithm: DigestAlgorithm,
    pub digest_value: String,
}

/// The first of each kind is what a client that says nothing sends; it is refused where it says
/// something must be said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LayerType {
    #[default]
    LayerTypeInvalid,
    Shared,
    Exclusive,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LayerMediaType {
    #[default]
    MediaTypeInvalid,
    Tgz,
    Tar,
    Zip,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DigestAlgorithm {
    #[default]
    #[serde(rename = "DigestAlgorithmInvalid")]
    Invalid,
    #[serde(rename = "SHA256")]
    Sha256,
    /// Of old clients.
    #[serde(rename = "SHA512")]
    Sha512,
}
