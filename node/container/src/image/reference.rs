//! Names of images: Diego's rootfs URLs, Docker's names, and what both mean.
//!
//! Never asks a registry anything; that a name is well formed says nothing about the image.

use std::fmt;
use std::net::IpAddr;

use crate::image::{Digest, Error};

/// Docker Hub's name in references, and where its registry really answers.
pub(super) const HUB: &str = "docker.io";
pub(super) const HUB_ENDPOINT: &str = "registry-1.docker.io";
/// Longest repository name with its registry (distribution's reference grammar).
const NAME_BYTES_MAX: usize = 255;
/// Longest tag (distribution's reference grammar).
const TAG_BYTES_MAX: usize = 128;

/// An image in a registry: which registry, which repository, and a tag or a digest.
/// A tag is a question that the registry may answer differently tomorrow; a digest is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Version {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// Reads a desired LRP's or task's `rootfs`: `docker:///user/image#tag`,
    /// `docker://host:port/repo#tag`, or either with `@sha256:HEX` (or `@sha256#HEX`, as Cloud
    /// Controller writes it). As a Diego cell does: the first `#` of the URL stands for `:`, an
    /// empty host is Docker Hub, and no tag and no digest mean `latest`.
    ///
    /// A host that is written is taken as the registry, dot or no dot.
    ///
    /// # Errors
    /// [`Error::InvalidReference`] for other schemes and for what the grammar does not allow.
    pub fn from_rootfs(rootfs: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| invalid(rootfs, reason);
        let rest = rootfs
            .strip_prefix("docker://")
            .ok_or_else(|| invalid("the rootfs of a Docker image starts with docker://"))?;
        let rest = rest.replacen('#', ":", 1);
        let (host, path) = rest
            .split_once('/')
            .ok_or_else(|| invalid("the path that names the image is missing"))?;
        if path.is_empty() {
            return Err(invalid("the path that names the image is missing"));
        }
        if host.is_empty() {
            return Self::from_name(path).map_err(|reason| invalid(&reason));
        }
        Self::from_parts(host, path).map_err(|reason| invalid(&reason))
    }

    /// Reads a name as `docker pull` takes it: `nginx`, `user/app:v2`,
    /// `host:5000/repo@sha256:…`. The first part is a registry if it holds a `.` or a `:` or is
    /// `localhost`; otherwise the image is on Docker Hub, where a name of one part is in
    /// `library/`.
    ///
    /// # Errors
    /// [`Error::InvalidReference`], naming what the grammar does not allow.
    pub fn from_docker_name(name: &str) -> Result<Self, Error> {
        if name.contains("://") {
            return Err(invalid(name, "a Docker name should not contain a scheme"));
        }
        Self::from_name(name).map_err(|reason| invalid(name, &reason))
    }

    fn from_name(name: &str) -> Result<Self, String> {
        match name.split_once('/') {
            Some((host, path)) if is_registry(host) => Self::from_parts(host, path),
            _ => Self::from_parts(HUB, name),
        }
    }

    fn from_parts(registry: &str, rest: &str) -> Result<Self, String> {
        let registry = match registry {
            "index.docker.io" | HUB_ENDPOINT => HUB,
            other => other,
        };
        check_registry(registry)?;
        let (repository, version) = split_version(rest)?;
        let repository = if registry == HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        check_repository(&repository)?;
        if registry.len() + 1 + repository.len() > NAME_BYTES_MAX {
            return Err(format!("the name is longer than {NAME_BYTES_MAX} bytes"));
        }
        Ok(Self { registry: registry.to_owned(), repository, version })
    }

    /// The registry as references name it: `docker.io` or `host[:port]`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within its registry, such as `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, unless a digest pins the image.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// The digest, if one pins the image.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(*digest),
        }
    }

    /// The same repository, pinned.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { version: Version::Digest(digest), ..self.clone() }
    }

    /// The image as a `rootfs` URL; [`Reference::from_rootfs`] reads it back as the same.
    #[must_use]
    pub fn to_rootfs(&self) -> String {
        let first = self.repository.split('/').next().unwrap_or_default();
        // Without a host, a first part that looks like one would be read as the registry.
        let is_hub = self.registry == HUB && !is_registry(first);
        let host = if is_hub { "" } else { &self.registry };
        match &self.version {
            Version::Tag(tag) => format!("docker://{host}/{}#{tag}", self.repository),
            Version::Digest(digest) => format!("docker://{host}/{}@{digest}", self.repository),
        }
    }

    /// `host[:port]` of the machine to ask.
    pub(crate) fn endpoint(&self) -> &str {
        if self.registry == HUB { HUB_ENDPOINT } else { &self.registry }
    }

    /// The last part of a manifest's URL: the tag or the digest.
    pub(crate) fn version(&self) -> String {
        match &self.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        }
    }
}

/// In full, as Docker writes it: `docker.io/library/nginx:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// Docker's rule for the first part of a name of several.
fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

/// True for this machine's own addresses: `localhost`, 127.0.0.0/8 and `[::1]`, with or without
/// a port. Docker lets these speak plain HTTP.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host_name(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `host[:port]` without the port, and an IPv6 address without its brackets.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn invalid(text: &str, reason: &str) -> Error {
    Error::InvalidReference { text: text.to_owned(), reason: reason.to_owned() }
}

/// Splits `repo`, `repo:tag` or `repo@digest`.
fn split_version(rest: &str) -> Result<(&str, Version), String> {
    if let Some((repository, digest)) = rest.split_once('@') {
        if repository.contains(':') {
            return Err("a tag and a digest together are not supported; keep one".to_owned());
        }
        let digest = digest.parse().map_err(|e| format!("{e}, not {digest:?}"))?;
        return Ok((repository, Version::Digest(digest)));
    }
    let Some((repository, tag)) = rest.split_once(':') else {
        return Ok((rest, Version::Tag("latest".to_owned())));
    };
    check_tag(tag)?;
    Ok((repository, Version::Tag(tag.to_owned())))
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
fn check_tag(tag: &str) -> Result<(), String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = tag.bytes().next().is_some_and(word);
    let rest = tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if !first || !rest || tag.len() > TAG_BYTES_MAX {
        return Err(format!(
            "{tag:?} is not a tag: up to {TAG_BYTES_MAX} letters, digits and _ . -, \
             not starting with . or -"
        ));
    }
    Ok(())
}

/// Parts of `[a-z0-9]+` joined by `.`, `_`, `__` or dashes, between slashes.
fn check_repository(repository: &str) -> Result<(), String> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository's name must be lower case".to_owned());
    }
    for part in repository.split('/') {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let edges =
            part.bytes().next().is_some_and(plain) && part.bytes().next_back().is_some_and(plain);
        let inner = part.split(|c: char| c.is_ascii() && plain(c as u8)).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        });
        if !edges || !inner {
            return Err(format!(
                "{part:?} is not a part of a repository's name: lower-case letters and digits, \
                 with . _ __ or - between them"
            ));
        }
    }
    Ok(())
}

/// `host[:port]`: a DNS name, an IPv4 address, or an IPv6 address in brackets.
fn check_registry(registry: &str) -> Result<(), String> {
    let (name, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest
                .split_once(']')
                .ok_or_else(|| format!("the registry {registry:?} lacks a closing bracket"))?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("{address:?} is not an IPv6 address"));
            }
            ("localhost", port)
        }
        None => match registry.find(':') {
            Some(colon) => registry.split_at(colon),
            None => (registry, ""),
        },
    };
    let label = |label: &str| {
        let dash = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && !dash && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !name.split('.').all(label) {
        return Err(format!("{name:?} is not the name of a registry's host"));
    }
    let port_is_good = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|b| b.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|port| port > 0)
        }
        None => port.is_empty(),
    };
    if !port_is_good {
        return Err(format!("the registry {registry:?} has no port between 1 and 65535"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
