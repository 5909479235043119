//! The store: manifests and configs under their digests, unpacked layers under their diff ids,
//! each fetched and unpacked at most once however many pulls want it. What stands under its
//! final name is whole and verified: everything is made in `incomplete/` and renamed.
//!
//! ```text
//! DIR/lock                      held by the process that has the store open
//! DIR/blobs/HEX                 manifests, indexes, configs; named by sha256
//! DIR/proofs/HEX/HEX            whom a document was given to ([`proofs`](super::proofs))
//! DIR/layers/HEX/root           a layer, named by the sha256 of its uncompressed tar
//! DIR/layers/HEX/bytes          the length of its files together, decimal
//! DIR/layers/HEX/from/HEX       which registry has sent it
//! DIR/packed/HEX                a layer as the registry has it, for other stores ([`share`])
//! DIR/incomplete/               emptied at open
//! ```
//!
//! A layer is named by its diff id alone, not by a chain of ids as in Diego's grootfs: overlayfs
//! stacks directories that know nothing of each other, so images share a layer wherever it stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::try_join_all;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::syncfs;
use tokio::sync::{OnceCell, Semaphore, watch};

use crate::image::config::Config;
use crate::image::layer::{self, Ended, Fetch};
use crate::image::manifest::{self, Document, Fault, Layer, Manifest};
use crate::image::proofs::{Asker, Proofs, origin};
use crate::image::registry::{Clients, Endpoint, Session};
use crate::image::share::{Counters, Home, Incoming, Neighbours, Pack, Wanted};
use crate::image::steps::step;
use crate::image::{
    Credentials, Digest, Error, ImageConfig, LayerFault, Part, Progress, Reference, Registries,
};
use crate::limits::{LAYERS_AT_ONCE_MAX, PACKS_AT_ONCE_MAX};

/// A content-addressed store of images on this machine's disk. Clones are handles to the same.
///
/// The directory is root's alone (0700): layers hold setuid programs that nobody on the host may
/// run.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

/// What a reference means today, without its layers.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The reference pinned to the image for this machine.
    pub reference: Reference,
    /// Digest of that image's manifest.
    pub digest: Digest,
    /// What the image says about the process to run on it.
    pub config: ImageConfig,
    /// Compressed length of each layer, lowest first: what a pull may have to fetch.
    pub layers_bytes: Vec<u64>,
}

impl Resolved {
    /// Compressed length of all layers. Diego refuses an image of which this alone passes the
    /// disk limit.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.layers_bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// An image on this machine's disk. As long as a clone of it lives, its layers are not collected.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: Digest,
    /// What the image says about the process to run on it.
    pub config: ImageConfig,
    /// Directories for overlayfs, lowest first, each once; whiteouts are in its form
    /// (`trusted.*`), and owners are the image's own ids. Empty for an image without layers.
    pub layers: Vec<PathBuf>,
    /// Length of all files of all layers: what counts against a disk limit.
    pub bytes: u64,
    _lease: Arc<Lease>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dir: PathBuf,
    pub(super) clients: Clients,
    _lock: Flock<File>,
    pub(super) slots: Semaphore,
    flights: Mutex<HashMap<Digest, Flight>>,
    /// Diff ids of layers that somebody holds, and how many do.
    pub(super) leases: Mutex<BTreeMap<Digest, usize>>,
    /// Names what is incomplete.
    made: AtomicU64,
    pub(super) neighbours: OnceLock<Arc<dyn Neighbours>>,
    /// Layers on their way home, by where they are from.
    pub(super) packs: Mutex<HashMap<Digest, Pack>>,
    pub(super) pack_slots: Semaphore,
    pub(super) counters: Counters,
}

/// A layer on its way, for all who wait for it.
#[derive(Debug)]
struct Flight {
    source: Source,
    tell: Arc<watch::Sender<News>>,
}

/// From where and for whom a layer is fetched: those of one source share its failure, too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    registry: String,
    repository: String,
    credentials: Option<Credentials>,
}

#[derive(Debug, Clone, Default)]
struct News {
    got: u64,
    done: Option<Result<(), Error>>,
}

/// One image asked for by one user. Registry and mirrors are spoken to only when something is
/// missing.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) reference: Reference,
    credentials: Option<Credentials>,
    asker: Asker,
    /// The registry itself last.
    endpoints: Vec<(Endpoint, OnceCell<Session>)>,
}

/// An image's documents, verified.
#[derive(Debug)]
struct Documents {
    digest: Digest,
    manifest: Manifest,
    config: Config,
}

impl Store {
    /// Opens the store in `dir`, making it if need be, and removes what an earlier process left
    /// half-made. Blocks for that; call it before serving.
    ///
    /// # Errors
    /// [`Error::StoreInUse`] while another process has it open; [`Error::Disk`].
    pub fn open(dir: &Path, registries: Registries) -> Result<Self, Error> {
        let make = |path: &Path, mode| {
            DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::disk(path))
        };
        make(dir, 0o700)?;
        let path = dir.join("lock");
        let file = File::create(&path).map_err(Error::disk(&path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Error::StoreInUse { path: dir.to_owned() })?;
        let incomplete = dir.join("incomplete");
        match fs::remove_dir_all(&incomplete) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::disk(&incomplete)(error));
            }
            _ => {}
        }
        for name in ["incomplete", "blobs", "proofs", "layers", "packed"] {
            make(&dir.join(name), 0o755)?;
        }
        let inner = Inner {
            dir: dir.to_owned(),
            clients: Clients::new(registries),
            _lock: lock,
            slots: Semaphore::new(LAYERS_AT_ONCE_MAX),
            flights: Mutex::default(),
            leases: Mutex::default(),
            made: AtomicU64::new(0),
            neighbours: OnceLock::new(),
            packs: Mutex::default(),
            pack_slots: Semaphore::new(PACKS_AT_ONCE_MAX),
            counters: Counters::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Asks the registry what the reference means today for a machine of this kind: manifest and
    /// config only, verified. Nothing is kept. The registry is asked in any case, so whoever
    /// gets an answer may see the image.
    ///
    /// # Errors
    /// Whatever [`Error`] tells of registries.
    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Resolved, Error> {
        let talk = Talk::new(&self.inner.clients, reference, credentials);
        let found = self.inner.documents(&talk, Keep::No).await?;
        Ok(Resolved {
            reference: reference.with_digest(found.digest),
            digest: found.digest,
            layers_bytes: found.manifest.layers.iter().map(|layer| layer.blob.bytes).collect(),
            config: found.config.image,
        })
    }

    /// Brings an image to the disk. A digest in the reference is taken at its word, so an image
    /// that the store has is served without its registry to whom that has given it before; a tag
    /// is resolved first.
    ///
    /// Cancelling is safe: what nobody waits for any more is given up and leaves nothing.
    ///
    /// # Errors
    /// Whatever [`Error`] tells of registries, layers and disks. Layers that did arrive stay.
    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        progress: &dyn Progress,
    ) -> Result<Image, Error> {
        self.pull_within(None, reference, credentials, progress).await
    }

    /// As [`Store::pull`], for a container whose disk limit counts its image's layers: one that is
    /// too large by its manifest alone is refused before any layer is fetched.
    ///
    /// # Errors
    /// As [`Store::pull`], and [`Error::TooLarge`].
    pub async fn pull_within(
        &self,
        bytes_max: Option<u64>,
        reference: &Reference,
        credentials: Option<&Credentials>,
        progress: &dyn Progress,
    ) -> Result<Image, Error> {
        let talk = Arc::new(Talk::new(&self.inner.clients, reference, credentials));
        let found = self.inner.documents(&talk, Keep::Yes).await?;
        let sizes = found.manifest.layers.iter().map(|layer| layer.blob.bytes);
        let bytes = sizes.fold(0, u64::saturating_add);
        if let Some(limit) = bytes_max.filter(|limit| bytes > *limit) {
            return Err(Error::TooLarge { image: reference.to_string(), bytes, limit });
        }
        let diff_ids = &found.config.diff_ids;
        let lease = Arc::new(Lease::take(&self.inner, diff_ids.iter().copied().collect()));
        let mut wanted = BTreeMap::new();
        for (diff_id, layer) in diff_ids.iter().zip(&found.manifest.layers) {
            wanted.entry(*diff_id).or_insert(*layer);
        }
        let fetches =
            wanted.iter().map(|(diff_id, layer)| self.ensure(&talk, *diff_id, *layer, progress));
        try_join_all(fetches).await?;
        self.image(found.digest, found.config, lease)
    }

    /// An image whose layers are all there.
    pub(super) fn image(
        &self,
        digest: Digest,
        config: Config,
        lease: Arc<Lease>,
    ) -> Result<Image, Error> {
        let Config { image: config, diff_ids, .. } = config;
        let mut bytes = 0u64;
        for diff_id in &diff_ids {
            bytes = bytes.saturating_add(self.inner.layer_bytes(*diff_id)?);
            self.inner.mark_used(*diff_id);
        }
        let layers = uppermost(&diff_ids).map(|diff_id| self.inner.layer_root(diff_id)).collect();
        Ok(Image { digest, config, layers, bytes, _lease: lease })
    }

    /// Waits until the layer is there, fetching it unless somebody else is.
    async fn ensure(
        &self,
        talk: &Arc<Talk>,
        diff_id: Digest,
        layer: Layer,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        progress.started(layer.blob.digest, layer.blob.bytes);
        let mut told = 0;
        let from = origin(&talk.reference, layer.blob.digest);
        while !self.inner.has_layer_from(diff_id, from) {
            let (mut news, shares_failure) = self.join(talk, diff_id, layer);
            let result = loop {
                let now = news.borrow_and_update().clone();
                // Another source may pack the same layer to another length.
                let got = now.got.min(layer.blob.bytes);
                if got > told {
                    progress.advanced(layer.blob.digest, got - told);
                    told = got;
                }
                if now.done.is_some() || news.changed().await.is_err() {
                    break news.borrow().done.clone();
                }
            };
            match result {
                // If it is from where we wanted it.
                Some(Ok(())) => {}
                // Somebody else's credentials or registry failed, not ours.
                Some(Err(error)) if shares_failure => return Err(error),
                // Given up, as nobody waited at that moment.
                Some(Err(_)) | None => {}
            }
        }
        progress.done(layer.blob.digest);
        Ok(())
    }

    /// The flight that brings the layer, and whether its failure is ours as well.
    fn join(
        &self,
        talk: &Arc<Talk>,
        diff_id: Digest,
        layer: Layer,
    ) -> (watch::Receiver<News>, bool) {
        let source = talk.source();
        let mut flights = lock(&self.inner.flights);
        if let Some(flight) = flights.get(&diff_id) {
            return (flight.tell.subscribe(), flight.source == source);
        }
        let (tell, news) = watch::channel(News::default());
        let tell = Arc::new(tell);
        flights.insert(diff_id, Flight { source, tell: Arc::clone(&tell) });
        let landing = Landing { inner: Arc::clone(&self.inner), diff_id };
        let talk = Arc::clone(talk);
        tokio::spawn(async move {
            let result = tokio::select! {
                result = landing.inner.fetch(&talk, diff_id, layer, &tell) => Some(result),
                () = tell.closed() => None,
            };
            // Off the board first: who comes now looks at the disk, not at this flight.
            drop(landing);
            tell.send_modify(|news| news.done = result);
        });
        (news, true)
    }
}

/// Takes a flight off the board, however it ends.
struct Landing {
    inner: Arc<Inner>,
    diff_id: Digest,
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.inner.flights).remove(&self.diff_id);
    }
}

/// Whether documents that were fetched are written to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// And what the store has need not be fetched.
    Yes,
    No,
}

impl Inner {
    /// The documents of the image for this machine.
    async fn documents(&self, talk: &Talk, keep: Keep) -> Result<Documents, Error> {
        let reference = &talk.reference;
        let top = match reference.digest() {
            Some(digest) if keep == Keep::Yes => self.manifest(talk, digest, keep).await?,
            pinned => self.fetch_manifest(talk, &reference.version(), pinned, keep).await?,
        };
        let (digest, manifest) = match top {
            (digest, Document::Image(manifest)) => (digest, manifest),
            (_, Document::Index(entries)) => {
                let wanted = manifest::this_platform();
                let entry = manifest::pick(&entries, &wanted).ok_or_else(|| {
                    let offered = entries.iter().map(|entry| entry.platform.clone()).collect();
                    Error::WrongPlatform { image: reference.to_string(), wanted, offered }
                })?;
                match self.manifest(talk, entry.digest, keep).await? {
                    (digest, Document::Image(manifest)) => (digest, manifest),
                    (digest, Document::Index(_)) => {
                        let reason = format!("{digest} is an index within an index");
                        return Err(talk.rubbish(Part::Manifest, reason));
                    }
                }
            }
        };
        let config = self.config(talk, &manifest, keep).await?;
        Ok(Documents { digest, manifest, config })
    }

    /// A manifest by digest, from the disk if it is there and was given to who asks.
    async fn manifest(
        &self,
        talk: &Talk,
        digest: Digest,
        keep: Keep,
    ) -> Result<(Digest, Document), Error> {
        if let Some(bytes) = self.given(talk, digest)? {
            return Ok((digest, talk.parse(&bytes, "")?));
        }
        self.fetch_manifest(talk, &digest.to_string(), Some(digest), keep).await
    }

    async fn fetch_manifest<'a>(
        &self,
        talk: &'a Talk,
        version: &str,
        expected: Option<Digest>,
        keep: Keep,
    ) -> Result<(Digest, Document), Error> {
        let ask = |session: &'a Session| async move {
            let (bytes, content_type) = session.manifest(version).await?;
            let actual = Digest::of(&bytes);
            talk.verify(Part::Manifest, expected.unwrap_or(actual), actual)?;
            Ok((actual, talk.parse(&bytes, &content_type)?, bytes))
        };
        let (actual, document, bytes) = talk.ask(&self.clients, ask).await?;
        if keep == Keep::Yes {
            self.keep_given(talk, actual, bytes).await?;
        }
        Ok((actual, document))
    }

    async fn config<'a>(
        &self,
        talk: &'a Talk,
        manifest: &Manifest,
        keep: Keep,
    ) -> Result<Config, Error> {
        let digest = manifest.config.digest;
        let bytes = match self.given(talk, digest)? {
            Some(bytes) => bytes,
            None => {
                let ask = |session: &'a Session| async move {
                    let bytes = session.config(manifest.config).await?;
                    talk.verify(Part::Config, digest, Digest::of(&bytes))?;
                    Ok(bytes)
                };
                let bytes = talk.ask(&self.clients, ask).await?;
                if keep == Keep::Yes {
                    self.keep_given(talk, digest, bytes.clone()).await?;
                }
                bytes
            }
        };
        let config = Config::parse(&bytes).map_err(|reason| talk.rubbish(Part::Config, reason))?;
        let (ids, layers) = (config.diff_ids.len(), manifest.layers.len());
        if ids != layers {
            let reason = format!("it names {ids} layers, and the manifest {layers}");
            return Err(talk.rubbish(Part::Config, reason));
        }
        config.check_platform(&talk.reference)?;
        Ok(config)
    }

    pub(super) fn proofs(&self, document: Digest) -> Proofs {
        Proofs::of(self.dir.join("proofs").join(document.hex()))
    }

    /// A document that the store has and that was given to who asks.
    fn given(&self, talk: &Talk, digest: Digest) -> Result<Option<Bytes>, Error> {
        if self.proofs(digest).has_any(&talk.asker) { self.blob(digest) } else { Ok(None) }
    }

    /// Keeps a document that was just given to who asks.
    async fn keep_given(&self, talk: &Talk, digest: Digest, bytes: Bytes) -> Result<(), Error> {
        if self.blob(digest)?.is_none() {
            self.keep_blob(digest, bytes).await?;
        }
        let proved = self.proofs(digest).add_asker(&talk.asker);
        proved.map_err(Error::disk(&self.blob_path(digest)))
    }

    /// A document that the store has. One that the disk has spoilt is as good as none.
    pub(super) fn blob(&self, digest: Digest) -> Result<Option<Bytes>, Error> {
        let path = self.blob_path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(Some(bytes.into())),
            Ok(_) => {
                tracing::warn!(path = %path.display(), "not the bytes that it is named by");
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::disk(&path)(error)),
        }
    }

    pub(super) async fn keep_blob(&self, digest: Digest, bytes: Bytes) -> Result<(), Error> {
        let incomplete = self.incomplete(digest);
        let (path, blobs) = (self.blob_path(digest), self.dir.join("blobs"));
        on_a_thread(&path.clone(), move || {
            let mut file = File::create(&incomplete.path)?;
            step("document begun");
            file.write_all(&bytes)?;
            file.sync_all()?;
            step("document written");
            fs::rename(&incomplete.path, path)?;
            step("document in place");
            File::open(blobs)?.sync_all()
        })
        .await
    }

    /// Fetches and unpacks one layer, unless it is there by now.
    async fn fetch(
        self: &Arc<Self>,
        talk: &Arc<Talk>,
        diff_id: Digest,
        layer: Layer,
        tell: &watch::Sender<News>,
    ) -> Result<(), Error> {
        let _slot = self.slots.acquire().await.expect("the slots are never closed");
        if self.has_layer_from(diff_id, origin(&talk.reference, layer.blob.digest)) {
            return Ok(());
        }
        if self.fetch_at_home(talk, diff_id, layer, tell).await? {
            return Ok(());
        }
        let ask = |session| self.fetch_from(session, talk, diff_id, layer, tell);
        talk.ask(&self.clients, ask).await?;
        self.counters.registry.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Fetches from the layer's home, unless it has none. Whatever goes wrong there is no failure:
    /// the registry has the last word.
    async fn fetch_at_home(
        self: &Arc<Self>,
        talk: &Arc<Talk>,
        diff_id: Digest,
        layer: Layer,
        tell: &watch::Sender<News>,
    ) -> Result<bool, Error> {
        let Some(neighbours) = self.neighbours.get() else { return Ok(false) };
        let blob = layer.blob;
        let wanted = Wanted {
            image: talk.reference.clone(),
            layer: blob.digest,
            bytes: blob.bytes,
            user: talk.credentials.clone(),
        };
        let home = neighbours.home(&wanted);
        let incoming = match &home {
            Home::Nobody => return Ok(false),
            Home::Here => self.pack(Arc::clone(talk), blob).map(Incoming::Shared),
            Home::There(name) => {
                let asked = neighbours.ask(name, &wanted).await;
                asked.map(Incoming::Stream).map_err(|error| elsewhere(talk, name, &error))
            }
        };
        let result = match incoming {
            Ok(incoming) => {
                let feed = |send| async move {
                    let advanced = |got| tell.send_modify(|news| news.got = got);
                    let fed = incoming.feed(blob.bytes, send, &advanced).await;
                    fed.map_err(|error| elsewhere(talk, "its home", &error))
                };
                let from = origin(&talk.reference, layer.blob.digest);
                self.make(&talk.reference.to_string(), diff_id, layer, Some(from), feed).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                if home != Home::Here {
                    self.counters.neighbours.fetch_add(1, Ordering::Relaxed);
                }
                Ok(true)
            }
            Err(error @ Error::Disk { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(layer = %blob.digest, ?home, %error, "not had from its home");
                Ok(false)
            }
        }
    }

    /// Unpacks what `feed` sends, and publishes it once it is whole and verified, as from there.
    /// `image` is for errors.
    pub(super) async fn make<F: Future<Output = Result<(), Error>>>(
        &self,
        image: &str,
        diff_id: Digest,
        layer: Layer,
        from: Option<Digest>,
        feed: impl FnOnce(tokio::sync::mpsc::Sender<layer::Piece>) -> F,
    ) -> Result<(), Error> {
        let (send, pieces) = layer::channel();
        let making = Making {
            incomplete: self.incomplete(diff_id),
            layers: self.dir.join("layers"),
            layer: self.layer_dir(diff_id),
            from,
        };
        let path = making.incomplete.path.clone();
        let thread = tokio::task::spawn_blocking(move || making.run(pieces, layer, diff_id));
        let fed = feed(send).await;
        let made = thread.await.map_err(|panic| Error::disk(&path)(io::Error::other(panic)))?;
        // If feeding failed, the thread only knows that no more came.
        fed?;
        let fault = match made {
            Ok(()) => return Ok(()),
            Err(Ended::Disk { entry, source }) => {
                return Err(Error::disk(&path.join(entry))(source));
            }
            Err(Ended::Fault(fault)) => fault,
            Err(Ended::GivenUp) => LayerFault::GivenUp,
        };
        Err(Error::Layer { image: image.to_owned(), layer: layer.blob.digest, fault })
    }

    async fn fetch_from(
        &self,
        session: &Session,
        talk: &Talk,
        diff_id: Digest,
        layer: Layer,
        tell: &watch::Sender<News>,
    ) -> Result<(), Error> {
        let image = talk.reference.to_string();
        let fetch = Fetch { session, image: &image, layer };
        let feed =
            |send| async { fetch.feed(send, &|got| tell.send_modify(|news| news.got = got)).await };
        let from = origin(&talk.reference, layer.blob.digest);
        self.make(&image, diff_id, layer, Some(from), feed).await
    }

    pub(super) fn incomplete(&self, digest: Digest) -> Incomplete {
        Incomplete { path: self.incomplete_path(digest) }
    }

    /// A path of its own in `incomplete/`.
    pub(super) fn incomplete_path(&self, digest: Digest) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.dir.join("incomplete").join(format!("{}-{number}", digest.hex()))
    }

    pub(super) fn has_layer(&self, diff_id: Digest) -> bool {
        self.layer_dir(diff_id).exists()
    }

    /// Whether the layer is there and came from there.
    fn has_layer_from(&self, diff_id: Digest, from: Digest) -> bool {
        senders(&self.layer_dir(diff_id)).has(from)
    }

    pub(super) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.hex())
    }

    pub(super) fn layer_dir(&self, diff_id: Digest) -> PathBuf {
        self.dir.join("layers").join(diff_id.hex())
    }

    fn layer_root(&self, diff_id: Digest) -> PathBuf {
        self.layer_dir(diff_id).join("root")
    }

    /// The time of a layer's last use is that of its `bytes`, for [`Store::trim`]. One that
    /// cannot be set only makes the layer go earlier.
    fn mark_used(&self, diff_id: Digest) {
        let file = File::options().write(true).open(self.layer_dir(diff_id).join("bytes"));
        let set = file.and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = set {
            tracing::debug!(layer = %diff_id, %error, "its last use is not noted");
        }
    }

    pub(super) fn last_used(&self, diff_id: Digest) -> SystemTime {
        let metadata = fs::metadata(self.layer_dir(diff_id).join("bytes"));
        metadata.and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(super) fn layer_bytes(&self, diff_id: Digest) -> Result<u64, Error> {
        let path = self.layer_dir(diff_id).join("bytes");
        let text = fs::read_to_string(&path).map_err(Error::disk(&path))?;
        text.parse().map_err(|e| Error::disk(&path)(io::Error::new(io::ErrorKind::InvalidData, e)))
    }

    /// The documents of an image that the store has, without asking anybody.
    pub(super) fn kept(&self, digest: Digest) -> Result<Option<(Digest, Vec<Digest>)>, Error> {
        let Some(bytes) = self.blob(digest)? else {
            return Ok(None);
        };
        let Ok(Document::Image(manifest)) = manifest::parse(&bytes, "") else {
            return Ok(None);
        };
        let config = self.blob(manifest.config.digest)?;
        let config = config.and_then(|bytes| Config::parse(&bytes).ok());
        Ok(config.map(|config| (manifest.config.digest, config.diff_ids)))
    }
}

/// Who has sent a layer.
fn senders(layer: &Path) -> Proofs {
    Proofs::of(layer.join("from"))
}

/// What went wrong at another store.
fn elsewhere(talk: &Talk, host: &str, error: &io::Error) -> Error {
    let (image, host) = (talk.reference.to_string(), host.to_owned());
    Error::Unreachable { image, host, reason: error.to_string() }
}

/// What a thread needs to make one layer.
struct Making {
    incomplete: Incomplete,
    layers: PathBuf,
    layer: PathBuf,
    from: Option<Digest>,
}

impl Making {
    fn run(
        self,
        pieces: tokio::sync::mpsc::Receiver<layer::Piece>,
        layer: Layer,
        diff_id: Digest,
    ) -> Result<(), Ended> {
        let disk = |source| Ended::Disk { entry: String::new(), source };
        let root = self.incomplete.path.join("root");
        DirBuilder::new().recursive(true).mode(0o755).create(&root).map_err(disk)?;
        step("layer begun");
        let bytes = layer::receive(pieces, layer, diff_id, &root)?;
        step("layer unpacked");
        self.publish(bytes).map_err(disk)
    }

    /// Renames the layer into place once all of it has reached the disk: a machine that loses
    /// its power has the whole layer or none. One syncfs(2) costs less than an fsync of each file.
    fn publish(&self, bytes: u64) -> io::Result<()> {
        fs::write(self.incomplete.path.join("bytes"), bytes.to_string())?;
        if let Some(from) = self.from {
            senders(&self.incomplete.path).add(from)?;
        }
        step("layer measured");
        syncfs(File::open(&self.incomplete.path)?)?;
        step("layer synced");
        match fs::rename(&self.incomplete.path, &self.layer) {
            // It was there, from elsewhere; or a fetch that was given up too late to stop has made
            // it meanwhile.
            Err(_) if self.layer.exists() => {
                return self.from.map_or(Ok(()), |from| senders(&self.layer).add(from));
            }
            result => result?,
        }
        step("layer in place");
        File::open(&self.layers)?.sync_all()
    }
}

/// A path of which nothing stays unless it is renamed away.
pub(super) struct Incomplete {
    pub(super) path: PathBuf,
}

impl Drop for Incomplete {
    fn drop(&mut self) {
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "left behind until the next start");
        }
    }
}

impl Talk {
    pub(super) fn new(clients: &Clients, reference: &Reference, own: Option<&Credentials>) -> Self {
        let endpoints = clients.endpoints(reference, own);
        Self {
            reference: reference.clone(),
            credentials: own.cloned(),
            asker: clients.asker(reference, own),
            endpoints: endpoints.into_iter().map(|it| (it, OnceCell::new())).collect(),
        }
    }

    fn source(&self) -> Source {
        Source {
            registry: self.reference.registry().to_owned(),
            repository: self.reference.repository().to_owned(),
            credentials: self.credentials.clone(),
        }
    }

    /// Asks the mirrors in their order, then the registry, whose word is the last. A mirror's
    /// failure, wrong bytes among them, is nobody's but the mirror's.
    pub(super) async fn ask<'a, T, F: Future<Output = Result<T, Error>>>(
        &'a self,
        clients: &Clients,
        ask: impl Fn(&'a Session) -> F,
    ) -> Result<T, Error> {
        let mut last = None;
        for (endpoint, session) in &self.endpoints {
            let open = || Session::open(clients, &self.reference, endpoint);
            let asked = match session.get_or_try_init(open).await {
                Ok(session) => ask(session).await,
                Err(error) => Err(error),
            };
            match asked {
                Err(error) if endpoint.is_mirror && !matches!(error, Error::Disk { .. }) => {
                    tracing::warn!(mirror = endpoint.host, %error, "a mirror is passed over");
                    last = Some(error);
                }
                answer => return answer,
            }
        }
        Err(last.expect("the registry itself is among the endpoints"))
    }

    fn parse(&self, bytes: &[u8], content_type: &str) -> Result<Document, Error> {
        manifest::parse(bytes, content_type).map_err(|fault| match fault {
            Fault::Unsupported(reason) => {
                Error::UnsupportedManifest { image: self.reference.to_string(), reason }
            }
            Fault::Rubbish(reason) => self.rubbish(Part::Manifest, reason),
        })
    }

    fn verify(&self, what: Part, expected: Digest, actual: Digest) -> Result<(), Error> {
        if actual == expected {
            return Ok(());
        }
        Err(Error::DigestMismatch { image: self.reference.to_string(), what, expected, actual })
    }

    fn rubbish(&self, what: Part, reason: String) -> Error {
        let (image, host) = (self.reference.to_string(), self.reference.endpoint().to_owned());
        Error::Rubbish { image, host, what, reason }
    }
}

/// Holds layers against collection.
#[derive(Debug)]
pub(super) struct Lease {
    inner: Arc<Inner>,
    diff_ids: BTreeSet<Digest>,
}

impl Lease {
    pub(super) fn take(inner: &Arc<Inner>, diff_ids: BTreeSet<Digest>) -> Self {
        let mut leases = lock(&inner.leases);
        for diff_id in &diff_ids {
            *leases.entry(*diff_id).or_default() += 1;
        }
        drop(leases);
        Self { inner: Arc::clone(inner), diff_ids }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = lock(&self.inner.leases);
        for diff_id in &self.diff_ids {
            if let Some(count) = leases.get_mut(diff_id) {
                *count -= 1;
                if *count == 0 {
                    leases.remove(diff_id);
                }
            }
        }
    }
}

/// Each layer once, where it stands highest: overlayfs takes no directory twice, and what a
/// layer says again further up hides what it said below.
fn uppermost(diff_ids: &[Digest]) -> impl Iterator<Item = Digest> {
    let last = |(i, id): &(usize, &Digest)| !diff_ids[i + 1..].contains(id);
    diff_ids.iter().enumerate().filter(last).map(|(_, id)| *id)
}

/// The lock of a map that is whole between any two statements, so a panic elsewhere spoils
/// nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what blocks on the disk where blocking is allowed.
pub(super) async fn on_a_thread<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(Error::disk(path))
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod documents_tests;
#[cfg(test)]
mod proofs_tests;
#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod share_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
