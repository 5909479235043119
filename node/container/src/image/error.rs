//! Why an image could not be had, in words for whoever asked for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use crate::image::Digest;

/// Why an image could not be had. Every text names the image, host, path or digest it is about;
/// none holds a credential. Cloning is cheap: all who wait for one layer get the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The text is no reference to an image.
    #[error("invalid image reference {text:?}: {reason}")]
    InvalidReference {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry knows no such repository, or hides it. Diego's text, full stop included.
    #[error("{image} does not exist or you do not have permissions to see it.")]
    NotFoundOrDenied {
        /// The image asked for.
        image: String,
    },
    /// The repository is there, the tag or digest is not.
    #[error("{image} does not exist: its repository has no such tag or digest")]
    NoSuchVersion {
        /// The image asked for.
        image: String,
    },
    /// The registry refused the credentials. The second half is Diego's text.
    #[error("{image}: authorization failed: username and password are invalid")]
    BadCredentials {
        /// The image asked for.
        image: String,
    },
    /// The registry's certificate is signed by nobody this machine trusts. Diego's text first.
    #[error(
        "This registry is insecure. To pull images from this registry, please use the \
         --insecure-registry option. ({host}: {reason})"
    )]
    UntrustedRegistry {
        /// The registry, `host[:port]`.
        host: String,
        /// What the TLS library says.
        reason: String,
    },
    /// The registry does not speak TLS, and nobody said that it need not.
    #[error(
        "registry {host} speaks plain HTTP, which is taken only from registries that the operator \
         lists: insecure in [registries]"
    )]
    PlainRegistry {
        /// The registry, `host[:port]`.
        host: String,
    },
    /// What is asked has neither the image nor the API that registries have.
    #[error(
        "{image}: {host} does not speak version 2 of the registry API (it answers {status} for \
         /v2/); if it is a registry of version 1, which is not supported, push the image to one of \
         version 2"
    )]
    NoRegistry {
        /// The image asked for.
        image: String,
        /// Who was asked, `host[:port]`.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// No answer from the registry, or one that broke off, after the last try.
    #[error("cannot reach registry {host} for {image}: {reason}")]
    Unreachable {
        /// The image asked for.
        image: String,
        /// The registry, `host[:port]`.
        host: String,
        /// What the network says.
        reason: String,
    },
    /// The registry asks to be left alone for longer than a pull waits, or again and again.
    #[error("{image}: registry {host} limits the rate of pulls{}", retry_after_text(.retry_after))]
    RateLimited {
        /// The image asked for.
        image: String,
        /// The registry, `host[:port]`.
        host: String,
        /// How long the registry asks to wait, if it says.
        retry_after: Option<Duration>,
    },
    /// An HTTP status that means none of the above.
    #[error("{image}: registry {host} answered {status} for the {what}{}", message_text(.message))]
    Status {
        /// The image asked for.
        image: String,
        /// The registry, `host[:port]`.
        host: String,
        /// What was asked for.
        what: Part,
        /// The HTTP status.
        status: u16,
        /// The registry's own words, cut short.
        message: String,
    },
    /// An answer that makes no sense.
    #[error("{image}: registry {host} answered rubbish for the {what}: {reason}")]
    Rubbish {
        /// The image asked for.
        image: String,
        /// The registry, `host[:port]`.
        host: String,
        /// What was asked for.
        what: Part,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest in a format from before 2016 or of something that is not an image.
    #[error("{image}: {reason}")]
    UnsupportedManifest {
        /// The image asked for.
        image: String,
        /// Which format it is, and what to do.
        reason: String,
    },
    /// The image is not built for this kind of machine.
    #[error("{image} has no image for {wanted}; it has {}", offered_text(.offered))]
    WrongPlatform {
        /// The image asked for.
        image: String,
        /// This machine, `os/architecture`.
        wanted: String,
        /// What the image is built for.
        offered: Vec<String>,
    },
    /// The bytes are not those that the digest names.
    #[error("{image}: {what} digest mismatch; expected: {expected}, actual {actual}")]
    DigestMismatch {
        /// The image asked for.
        image: String,
        /// The manifest or the config; a layer's mismatch is a [`LayerFault`].
        what: Part,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// One layer could not be fetched or unpacked.
    #[error("{image}: layer {layer}: {fault}")]
    Layer {
        /// The image asked for.
        image: String,
        /// The layer's digest in the manifest.
        layer: Digest,
        /// What went wrong.
        fault: LayerFault,
    },
    /// The layers, compressed as they are, pass the container's disk limit. Diego's text.
    #[error("{image}: layers exceed disk quota {bytes}/{limit} bytes")]
    TooLarge {
        /// The image asked for.
        image: String,
        /// All layers, as the registry has them.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A file or directory is no image that can be imported.
    #[error("cannot import {path}: {reason}", path = .path.display())]
    NotImported {
        /// What was to be imported.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This machine's disk would not do as told.
    #[error("{path}: {source}", path = .path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel says.
        source: Arc<io::Error>,
    },
    /// Another process holds the store.
    #[error("image store {path} is in use by another process", path = .path.display())]
    StoreInUse {
        /// The store's directory.
        path: PathBuf,
    },
}

/// What is wrong with a layer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LayerFault {
    /// The compressed bytes are not those that the manifest names.
    #[error("layerID digest mismatch; expected: {expected}, actual {actual}")]
    Digest {
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The unpacked tar is not the one that the config names.
    #[error("diffID digest mismatch; expected: {expected}, actual {actual}")]
    DiffId {
        /// The digest in the config.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// More or fewer compressed bytes than the manifest says.
    #[error(
        "layer size is different from the value in the manifest; \
         expected: {expected}, actual {actual}"
    )]
    Size {
        /// The size in the manifest.
        expected: u64,
        /// What came, or what the registry said would come.
        actual: u64,
    },
    /// The body does not decompress.
    #[error("cannot decompress: {reason}")]
    Compression {
        /// What the decoder says.
        reason: String,
    },
    /// The tar is malformed or holds what no layer may.
    #[error("bad tar, entry {entry:?}: {reason}")]
    Tar {
        /// The entry's name, or the number of the entry whose name cannot be read.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The layer unpacks to more than this machine takes.
    #[error("unpacks to more than {limit}")]
    TooLarge {
        /// The bound that it passes.
        limit: String,
    },
    /// The layer did not arrive in the time that one may take.
    #[error("took longer than {0:?} to arrive")]
    TooSlow(Duration),
    /// Nobody went on with it.
    #[error("the fetch was given up")]
    GivenUp,
}

/// A part of an image that a registry is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The registry itself: which protocol, which credentials.
    Registry,
    /// The manifest, or the index of manifests.
    Manifest,
    /// The config.
    Config,
    /// The layer of this digest.
    Layer(Digest),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry => f.write_str("registry API"),
            Self::Manifest => f.write_str("manifest"),
            Self::Config => f.write_str("config"),
            Self::Layer(digest) => write!(f, "layer {digest}"),
        }
    }
}

impl Error {
    /// For `map_err` on what is done to `path`.
    pub(crate) fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { path, source: Arc::new(source) }
    }
}

fn retry_after_text(retry_after: &Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |after| format!("; it asks to wait {} s", after.as_secs()))
}

fn message_text(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn offered_text(offered: &[String]) -> String {
    if offered.is_empty() { "none that names its platform".to_owned() } else { offered.join(", ") }
}
