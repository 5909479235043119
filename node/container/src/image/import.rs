//! Images from this machine's own files, without a registry: an OCI image layout, as a directory
//! or a tar, and what `docker save` writes (Docker's image specification v1.2, "Combined Image
//! JSON + Filesystem Changeset Format"). The file stays where it is and is read in place: nothing
//! of it is unpacked but the layers, and these go the same way as a registry's, verified by the
//! same digests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use oci_distribution::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest,
};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::image::config::Config;
use crate::image::digest::Hasher;
use crate::image::layer::Piece;
use crate::image::layout::descriptor;
use crate::image::manifest::{self, Blob, Compression, Document, Layer};
use crate::image::store::{Image, Lease, Store};
use crate::image::unpack::{self, Member};
use crate::image::{Digest, Error, LayerFault, Part};
use crate::limits::{
    CONFIG_BYTES_MAX, IMAGE_LAYERS_MAX, IMPORT_CHUNK_BYTES, IMPORT_ENTRIES_MAX, IMPORT_LINKS_MAX,
    INDEX_ENTRIES_MAX, MANIFEST_BYTES_MAX,
};

impl Store {
    /// Brings an image to the disk from `path`: an OCI image layout, as a directory or a tar, or a
    /// file of `docker save`; of one image, for this machine. A layer that the store has is not
    /// read again, so that a second import costs no more than the documents.
    ///
    /// # Errors
    /// [`Error::NotImported`] where it is none of these or holds what none of them may;
    /// [`Error::UnsupportedManifest`], [`Error::WrongPlatform`], [`Error::DigestMismatch`] and
    /// [`Error::Layer`] as for a registry's images; [`Error::Disk`]. Each names the path.
    pub async fn import(&self, path: &Path) -> Result<Image, Error> {
        let path = path.to_owned();
        let opened = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || Imported::open(&path)).await
        };
        let it = opened.map_err(|panic| Error::disk(&path)(io::Error::other(panic)))??;
        let diff_ids = &it.config.diff_ids;
        let lease = Arc::new(Lease::take(&self.inner, diff_ids.iter().copied().collect()));
        for (digest, bytes) in it.documents {
            if self.inner.blob(digest)?.is_none() {
                self.inner.keep_blob(digest, bytes).await?;
            }
        }
        let layers: BTreeMap<_, _> = diff_ids.iter().copied().zip(it.layers).collect();
        let image = path.display().to_string();
        let makes = layers.into_iter().map(|(diff_id, (layer, body))| {
            let image = &image;
            async move {
                let slots = &self.inner.slots;
                let _slot = slots.acquire().await.expect("the slots are never closed");
                if self.inner.has_layer(diff_id) {
                    return Ok(());
                }
                let feed = |send| async move {
                    let file = body.file_name.clone();
                    let fed = tokio::task::spawn_blocking(move || body.feed(&send)).await;
                    let fed = fed.unwrap_or_else(|panic| Err(io::Error::other(panic)));
                    fed.map_err(Error::disk(&file))
                };
                self.inner.make(image, diff_id, layer, None, feed).await
            }
        });
        // To the end of each: a failed import leaves nothing that is still being made.
        join_all(makes).await.into_iter().collect::<Result<(), _>>()?;
        self.image(it.digest, it.config, lease)
    }
}

/// An image in a file: its documents, verified, and where its layers are.
struct Imported {
    digest: Digest,
    config: Config,
    /// The manifest and the config.
    documents: [(Digest, Bytes); 2],
    /// Lowest first, as many as the config has.
    layers: Vec<(Layer, Body)>,
}

impl Imported {
    fn open(path: &Path) -> Result<Self, Error> {
        let source = Source::open(path)?;
        if source.has("oci-layout") && source.has("index.json") {
            Self::of_layout(&source)
        } else if source.has("manifest.json") {
            Self::of_docker_save(&source)
        } else {
            Err(source.refuse(
                "it is neither an OCI image layout (oci-layout, index.json) nor a file of \
                 docker save (manifest.json)",
            ))
        }
    }

    /// OCI image specification, "Image Layout".
    fn of_layout(source: &Source) -> Result<Self, Error> {
        let index = source.document("index.json", MANIFEST_BYTES_MAX)?;
        let mut digest = source.pick(&index)?;
        let mut bytes = source.blob(Part::Manifest, digest, MANIFEST_BYTES_MAX)?;
        let manifest = match source.parse(&bytes)? {
            Document::Image(manifest) => manifest,
            Document::Index(entries) => {
                let wanted = manifest::this_platform();
                let entry = manifest::pick(&entries, &wanted).ok_or_else(|| {
                    let offered = entries.iter().map(|entry| entry.platform.clone()).collect();
                    Error::WrongPlatform { image: source.name(), wanted, offered }
                })?;
                digest = entry.digest;
                bytes = source.blob(Part::Manifest, digest, MANIFEST_BYTES_MAX)?;
                match source.parse(&bytes)? {
                    Document::Image(manifest) => manifest,
                    Document::Index(_) => {
                        return Err(source.refuse(&format!("{digest} is an index in an index")));
                    }
                }
            }
        };
        let config_bytes = source.blob(Part::Config, manifest.config.digest, CONFIG_BYTES_MAX)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let Blob { digest, bytes: expected } = layer.blob;
            let body = source.body(&blob_name(digest))?;
            let actual = body.length();
            if actual != expected {
                let fault = LayerFault::Size { expected, actual };
                return Err(Error::Layer { image: source.name(), layer: digest, fault });
            }
            layers.push((*layer, body));
        }
        Self::new(source, [(digest, bytes), (manifest.config.digest, config_bytes)], layers)
    }

    /// Layers there have no digest but what the config says of their content, and there is no
    /// manifest: the store keeps one that says the same.
    fn of_docker_save(source: &Source) -> Result<Self, Error> {
        let list = source.document("manifest.json", MANIFEST_BYTES_MAX)?;
        let mut images: Vec<Saved> = serde_json::from_slice(&list)
            .map_err(|error| source.refuse(&format!("manifest.json: {error}")))?;
        let Some(saved) = images.pop().filter(|_| images.is_empty()) else {
            return Err(source.refuse(&format!(
                "it holds {} images, and one is expected: save it alone",
                // The one that was popped, unless there was none.
                if images.is_empty() { 0 } else { images.len() + 1 }
            )));
        };
        if saved.layers.len() > IMAGE_LAYERS_MAX {
            return Err(source.refuse(&format!("more than {IMAGE_LAYERS_MAX} layers")));
        }
        let config_bytes = source.document(&saved.config, CONFIG_BYTES_MAX)?;
        let digest = Digest::of(&config_bytes);
        let stem = saved.config.rsplit('/').next().unwrap_or_default();
        let stem = stem.strip_suffix(".json").unwrap_or(stem);
        if let Ok(expected) = format!("sha256:{stem}").parse::<Digest>() {
            source.verify(Part::Config, expected, digest)?;
        }
        let config = source.config(&config_bytes)?;
        source.check_count(config.diff_ids.len(), saved.layers.len())?;
        let (mut layers, mut descriptors) = (Vec::new(), Vec::new());
        for (diff_id, name) in config.diff_ids.iter().zip(&saved.layers) {
            let body = source.body(name)?;
            let compression = body.compression().map_err(Error::disk(&source.path))?;
            let (media_type, digest) = match compression {
                Compression::None => (IMAGE_LAYER_MEDIA_TYPE, *diff_id),
                Compression::Gzip => (IMAGE_LAYER_GZIP_MEDIA_TYPE, source.hash(&body)?),
                Compression::Zstd => (IMAGE_LAYER_ZSTD_MEDIA_TYPE, source.hash(&body)?),
            };
            let size = i64::try_from(body.length()).expect("a file's length is an off_t");
            descriptors.push(OciDescriptor {
                media_type: media_type.to_owned(),
                digest: digest.to_string(),
                size,
                ..OciDescriptor::default()
            });
            let blob = Blob { digest, bytes: body.length() };
            layers.push((Layer { blob, compression }, body));
        }
        let manifest = OciImageManifest {
            media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
            config: descriptor(IMAGE_CONFIG_MEDIA_TYPE, &config_bytes),
            layers: descriptors,
            ..OciImageManifest::default()
        };
        let manifest = serde_json::to_vec(&manifest).expect("a manifest is plain data");
        let manifest = Bytes::from(manifest);
        Self::new(source, [(Digest::of(&manifest), manifest), (digest, config_bytes)], layers)
    }

    fn new(
        source: &Source,
        documents: [(Digest, Bytes); 2],
        layers: Vec<(Layer, Body)>,
    ) -> Result<Self, Error> {
        let [(digest, _), (_, config)] = &documents;
        let config = source.config(config)?;
        source.check_count(config.diff_ids.len(), layers.len())?;
        config.check_platform(source.path.display())?;
        Ok(Self { digest: *digest, config, documents, layers })
    }
}

const IMAGE_LAYER_ZSTD_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// An image in the `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// The `index.json` of a layout. Its entries need no platform, so that it is not read as a
/// registry's index is.
#[derive(Deserialize)]
struct LayoutIndex {
    #[serde(default)]
    manifests: Vec<LayoutEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutEntry {
    digest: String,
    platform: Option<LayoutPlatform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct LayoutPlatform {
    os: String,
    architecture: String,
}

impl LayoutEntry {
    /// Builders add attestations, which are no images.
    fn is_attestation(&self) -> bool {
        let noted = self
            .annotations
            .as_ref()
            .is_some_and(|notes| notes.contains_key("vnd.docker.reference.type"));
        noted || self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }

    fn platform(&self) -> Option<String> {
        self.platform.as_ref().map(|it| format!("{}/{}", it.os, it.architecture))
    }
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Where an image is imported from.
struct Source {
    path: PathBuf,
    kind: SourceKind,
}

enum SourceKind {
    Directory(File),
    Archive { file: Arc<File>, members: BTreeMap<Vec<u8>, Member> },
}

impl Source {
    fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::NotImported { path: path.to_owned(), reason };
        // Whatever else it is, such as a pipe, is not waited for.
        let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let file = file.map_err(|error| refuse(error.to_string()))?;
        let metadata = file.metadata().map_err(|error| refuse(error.to_string()))?;
        if metadata.is_dir() {
            return Ok(Self { path: path.to_owned(), kind: SourceKind::Directory(file) });
        }
        if !metadata.is_file() {
            return Err(refuse("it is neither a file nor a directory".to_owned()));
        }
        let (file, bytes) = (Arc::new(file), metadata.len());
        let whole = Body { file_name: path.to_owned(), file: Arc::clone(&file), at: 0, end: bytes };
        match whole.compression().map_err(|error| refuse(error.to_string()))? {
            Compression::None => {}
            Compression::Gzip => {
                return Err(refuse("it is compressed: gunzip it first".to_owned()));
            }
            Compression::Zstd => {
                return Err(refuse("it is compressed: unzstd it first".to_owned()));
            }
        }
        let listed = unpack::list(&*file, IMPORT_ENTRIES_MAX).map_err(|fault| match fault {
            unpack::Fault::Input(error) => refuse(error.to_string()),
            unpack::Fault::Bad { entry, reason } => {
                refuse(format!("bad tar, entry {entry:?}: {reason}"))
            }
            unpack::Fault::TooLarge(limit) => refuse(format!("it has more than {limit}")),
            unpack::Fault::Disk { source, .. } => refuse(source.to_string()),
        })?;
        let mut members = BTreeMap::new();
        for (name, member) in listed {
            if let Member::File { begins, bytes: length } = &member
                && begins.checked_add(*length).is_none_or(|end| end > bytes)
            {
                let name = String::from_utf8_lossy(&name).into_owned();
                return Err(refuse(format!("bad tar: it ends within {name:?}")));
            }
            members.insert(plain(&name), member);
        }
        Ok(Self { path: path.to_owned(), kind: SourceKind::Archive { file, members } })
    }

    /// The path, as the image's name in errors.
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn refuse(&self, reason: &str) -> Error {
        Error::NotImported { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn has(&self, name: &str) -> bool {
        match &self.kind {
            SourceKind::Directory(_) => self.path.join(name).exists(),
            SourceKind::Archive { members, .. } => members.contains_key(name.as_bytes()),
        }
    }

    /// The bytes of a name that a document in the image gives. It leads nowhere but into the
    /// directory or archive.
    fn body(&self, name: &str) -> Result<Body, Error> {
        let missing = || self.refuse(&format!("it names {name:?}, which it does not hold"));
        match &self.kind {
            SourceKind::Directory(directory) => {
                let how = OpenHow::new()
                    .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
                    .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
                let opened = openat2(directory, name, how).map_err(|errno| {
                    #[expect(clippy::wildcard_enum_match_arm, reason = "errno has no end")]
                    match errno {
                        Errno::ENOENT | Errno::ENOTDIR => missing(),
                        Errno::EXDEV => self.refuse(&format!("{name:?} leads out of it")),
                        other => Error::disk(&self.path.join(name))(other.into()),
                    }
                })?;
                let file = File::from(opened);
                let file_name = self.path.join(name);
                let metadata = file.metadata().map_err(Error::disk(&file_name))?;
                if !metadata.is_file() {
                    return Err(self.refuse(&format!("{name:?} is no file")));
                }
                Ok(Body { file_name, file: Arc::new(file), at: 0, end: metadata.len() })
            }
            SourceKind::Archive { file, members } => {
                let mut key = plain(name.as_bytes());
                for _ in 0..IMPORT_LINKS_MAX {
                    match members.get(&key).ok_or_else(missing)? {
                        Member::File { begins, bytes } => {
                            return Ok(Body {
                                file_name: self.path.clone(),
                                file: Arc::clone(file),
                                at: *begins,
                                end: begins + bytes,
                            });
                        }
                        Member::HardLink(target) => key = plain(target),
                        Member::Symlink(target) => {
                            let parent = key.iter().rposition(|byte| *byte == b'/');
                            let parent = parent.map_or(&[][..], |end| &key[..end]);
                            key = plain(&[parent, b"/", target].concat());
                        }
                    }
                }
                Err(self.refuse(&format!("{name:?} is a link of too many links")))
            }
        }
    }

    fn document(&self, name: &str, bytes_max: u64) -> Result<Bytes, Error> {
        let mut body = self.body(name)?;
        if body.length() > bytes_max {
            let bytes = body.length();
            return Err(self.refuse(&format!("{name} has {bytes} bytes, of {bytes_max} at most")));
        }
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).map_err(Error::disk(&self.path))?;
        Ok(bytes.into())
    }

    fn blob(&self, what: Part, digest: Digest, bytes_max: u64) -> Result<Bytes, Error> {
        let bytes = self.document(&blob_name(digest), bytes_max)?;
        self.verify(what, digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    fn verify(&self, what: Part, expected: Digest, actual: Digest) -> Result<(), Error> {
        if actual == expected {
            return Ok(());
        }
        Err(Error::DigestMismatch { image: self.name(), what, expected, actual })
    }

    fn hash(&self, body: &Body) -> Result<Digest, Error> {
        let mut body = body.clone();
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; IMPORT_CHUNK_BYTES];
        loop {
            match body.read(&mut buffer).map_err(Error::disk(&self.path))? {
                0 => return Ok(hasher.finish()),
                got => hasher.update(&buffer[..got]),
            }
        }
    }

    fn config(&self, bytes: &[u8]) -> Result<Config, Error> {
        Config::parse(bytes).map_err(|reason| self.refuse(&format!("its config: {reason}")))
    }

    fn check_count(&self, in_config: usize, layers: usize) -> Result<(), Error> {
        if in_config == layers {
            return Ok(());
        }
        Err(self.refuse(&format!("its config names {in_config} layers, and the image {layers}")))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Document, Error> {
        manifest::parse(bytes, "").map_err(|fault| match fault {
            manifest::Fault::Unsupported(reason) => {
                Error::UnsupportedManifest { image: self.name(), reason }
            }
            manifest::Fault::Rubbish(reason) => self.refuse(&format!("its manifest: {reason}")),
        })
    }

    /// The one image of an `index.json`, or the one for this machine.
    fn pick(&self, index: &[u8]) -> Result<Digest, Error> {
        let wrong = |error: &dyn std::fmt::Display| self.refuse(&format!("index.json: {error}"));
        let mut index: LayoutIndex = serde_json::from_slice(index).map_err(|e| wrong(&e))?;
        if index.manifests.len() > INDEX_ENTRIES_MAX {
            return Err(wrong(&format!("more than {INDEX_ENTRIES_MAX} entries")));
        }
        index.manifests.retain(|entry| !entry.is_attestation());
        if index.manifests.len() > 1 {
            let wanted = manifest::this_platform();
            index.manifests.retain(|entry| entry.platform().is_none_or(|it| it == wanted));
        }
        match &index.manifests[..] {
            [entry] => entry
                .digest
                .parse()
                .map_err(|error| wrong(&format!("digest {:?}: {error}", entry.digest))),
            images => Err(self.refuse(&format!(
                "it holds {} images for this machine, and one is expected: copy it alone, as \
                 skopeo copy oci:DIRECTORY:TAG does",
                images.len()
            ))),
        }
    }
}

/// A name in an archive without `.` and with `..` as chroot(2) has it.
fn plain(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => parts.push(part.as_bytes()),
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join(&b'/')
}

/// A part of a file, from where it is read on; clones read on their own.
#[derive(Debug, Clone)]
struct Body {
    file_name: PathBuf,
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Body {
    fn length(&self) -> u64 {
        self.end - self.at
    }

    /// By its first bytes (RFC 1952; RFC 8878).
    fn compression(&self) -> io::Result<Compression> {
        let mut first = Vec::new();
        self.clone().take(4).read_to_end(&mut first)?;
        Ok(match first[..] {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            _ => Compression::None,
        })
    }

    /// Sends all of it. Blocks.
    fn feed(mut self, pieces: &mpsc::Sender<Piece>) -> io::Result<()> {
        while self.at < self.end {
            let mut chunk = vec![0; IMPORT_CHUNK_BYTES];
            let got = self.read(&mut chunk)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            chunk.truncate(got);
            if pieces.blocking_send(Piece::Bytes(chunk.into())).is_err() {
                // Nobody wants more: whoever does not says why.
                return Ok(());
            }
        }
        let _ = pieces.blocking_send(Piece::End);
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.length()).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests;
