//! Layers between stores of one operator: each layer has one home among them, which alone asks the
//! registry and passes on what comes while it comes, so that however many stores want a layer at
//! once, the registry sends it once. Whoever receives verifies; whoever is the home of nothing
//! sends nothing.
//!
//! A home keeps layers as the registry has them, compressed, in `DIR/packed/HEX`, within a bound;
//! those used longest ago go first. HEX says where a layer is from ([`origin`]): who asks for it by
//! an image of another registry has it from that one. Unpacked layers cannot be sent: no digest covers a directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};

use crate::image::digest::Hasher;
use crate::image::layer::{self, Fetch, Piece};
use crate::image::manifest::{Blob, Compression, Layer};
use crate::image::proofs::origin;
use crate::image::registry::Session;
use crate::image::steps::step;
use crate::image::store::{Inner, Store, Talk, lock};
use crate::image::{Credentials, Digest, Error, LayerFault, Reference};
use crate::limits::{
    LAYER_SHARED_CHUNK_BYTES, NEIGHBOUR_PATIENCE_MAX, NEIGHBOUR_RATE_MIN, NEIGHBOUR_STALL_MAX,
};

/// A layer that a store wants of another.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// An image that has the layer.
    pub image: Reference,
    /// The layer's digest in the manifest.
    pub layer: Digest,
    /// Its length there.
    pub bytes: u64,
    /// Of the recipe's own, to ask the registry with.
    pub user: Option<Credentials>,
}

/// Which store is a layer's home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// Nobody: the registry is asked.
    Nobody,
    /// This store.
    Here,
    /// The store of this name.
    There(String),
}

/// The other stores. All of them name the same home for a layer, but for the moments in which
/// one has come or gone.
pub trait Neighbours: std::fmt::Debug + Send + Sync {
    /// Where a layer is to be asked for.
    fn home(&self, wanted: &Wanted) -> Home;

    /// Asks a store for a layer: a stream of its bytes from the first on, which ends early when
    /// the store cannot go on.
    fn ask<'a>(
        &'a self,
        name: &'a str,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, io::Result<Box<dyn AsyncRead + Send + Unpin>>>;
}

/// Where the layers of a store came from since it was opened, each counted once it was whole, and
/// how many times it has sent one to another store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origins {
    /// From a registry or a mirror.
    pub registry: u64,
    /// From another store.
    pub neighbours: u64,
    /// To another store.
    pub sent: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) registry: AtomicU64,
    pub(super) neighbours: AtomicU64,
    sent: AtomicU64,
}

/// A layer that is being brought home, for all who read it meanwhile.
#[derive(Debug)]
pub(super) struct Pack {
    file: Arc<File>,
    news: watch::Receiver<PackNews>,
}

#[derive(Debug, Clone, Default)]
struct PackNews {
    got: u64,
    done: Option<Result<(), Error>>,
}

/// A layer at its home, to be read from the first byte on, as far as it is there.
#[derive(Debug)]
pub struct Shared {
    file: Arc<File>,
    /// None when all of it is there.
    news: Option<watch::Receiver<PackNews>>,
    at: u64,
    bytes: u64,
}

impl Shared {
    /// The next bytes, once they are there; none after the last.
    ///
    /// # Errors
    /// The disk would not, or the registry ended it; in words.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.at == self.bytes {
            return Ok(None);
        }
        let there = match &mut self.news {
            None => self.bytes,
            Some(news) => {
                let at = self.at;
                let news = news.wait_for(|news| news.got > at || news.done.is_some()).await;
                let news = news.map_err(|_| io::Error::other("the fetch was given up"))?.clone();
                match news.done {
                    Some(Err(error)) => return Err(io::Error::other(error)),
                    _ => news.got,
                }
            }
        };
        let length = there.saturating_sub(self.at).min(LAYER_SHARED_CHUNK_BYTES);
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (file, at) = (Arc::clone(&self.file), self.at);
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact_at(&mut buffer, at).map(|()| Bytes::from(buffer))
        });
        let chunk = read.await.map_err(io::Error::other)??;
        self.at += length;
        Ok(Some(chunk))
    }
}

/// Where a layer's bytes come from, if not from a registry.
pub(super) enum Incoming {
    Shared(Shared),
    Stream(Box<dyn AsyncRead + Send + Unpin>),
}

impl Incoming {
    /// Passes all of a layer's bytes on, within a time that its length allows.
    pub(super) async fn feed(
        mut self,
        bytes: u64,
        pieces: mpsc::Sender<Piece>,
        advanced: &(dyn Fn(u64) + Send + Sync),
    ) -> io::Result<()> {
        let all = async {
            let mut got = 0;
            while got < bytes {
                let next = tokio::time::timeout(NEIGHBOUR_STALL_MAX, self.next()).await;
                let Some(chunk) = next.map_err(|_| io::ErrorKind::TimedOut)?? else {
                    let reason = format!("it ended after {got} of {bytes} bytes");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
                };
                got += chunk.len() as u64;
                advanced(got.min(bytes));
                if pieces.send(Piece::Bytes(chunk)).await.is_err() {
                    return Ok(());
                }
            }
            // Nobody listening is no failure of the stream.
            let _ = pieces.send(Piece::End).await;
            Ok(())
        };
        let patience = NEIGHBOUR_PATIENCE_MAX
            .saturating_add(std::time::Duration::from_secs(bytes / NEIGHBOUR_RATE_MIN));
        tokio::time::timeout(patience, all).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Shared(shared) => shared.next().await,
            Self::Stream(stream) => {
                let size = usize::try_from(LAYER_SHARED_CHUNK_BYTES).map_err(io::Error::other)?;
                let mut buffer = bytes::BytesMut::with_capacity(size);
                let got = stream.read_buf(&mut buffer).await?;
                Ok((got > 0).then(|| buffer.freeze()))
            }
        }
    }
}

impl Store {
    /// From now on layers are asked for at their homes.
    pub fn meet(&self, neighbours: Arc<dyn Neighbours>) {
        // Who is met twice stays the same.
        let _ = self.inner.neighbours.set(neighbours);
    }

    /// Where this store's layers came from.
    #[must_use]
    pub fn origins(&self) -> Origins {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { registry, neighbours, sent } = &self.inner.counters;
        Origins { registry: count(registry), neighbours: count(neighbours), sent: count(sent) }
    }

    /// A layer for another store, from this one as its home: what is not there is fetched.
    ///
    /// # Errors
    /// [`Error::Disk`]. What else goes wrong is said while it is read.
    pub fn share(&self, wanted: &Wanted) -> Result<Shared, Error> {
        let talk = Talk::new(&self.inner.clients, &wanted.image, wanted.user.as_ref());
        let blob = Blob { digest: wanted.layer, bytes: wanted.bytes };
        let shared = self.inner.pack(Arc::new(talk), blob)?;
        self.inner.counters.sent.fetch_add(1, Ordering::Relaxed);
        Ok(shared)
    }
}

impl Inner {
    /// Opens the packed layer, beginning to fetch it if it is not there.
    pub(super) fn pack(self: &Arc<Self>, talk: Arc<Talk>, blob: Blob) -> Result<Shared, Error> {
        let from = origin(&talk.reference, blob.digest);
        let path = self.packed_path(from);
        let mut packs = lock(&self.packs);
        let bytes = blob.bytes;
        if let Some(Pack { file, news }) = packs.get(&from) {
            let (file, news) = (Arc::clone(file), Some(news.clone()));
            return Ok(Shared { file, news, at: 0, bytes });
        }
        match File::open(&path) {
            // One of another length is not what is wanted: whoever wants it is misled.
            Ok(file) if file.metadata().is_ok_and(|found| found.len() == bytes) => {
                // The time of its last use; one that cannot be set only makes it go earlier.
                let _ = file.set_modified(SystemTime::now());
                return Ok(Shared { file: Arc::new(file), news: None, at: 0, bytes });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::disk(&path)(error)),
        }
        let incomplete = self.incomplete(blob.digest);
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&incomplete.path)
            .map_err(Error::disk(&incomplete.path))?;
        let file = Arc::new(file);
        let (tell, news) = watch::channel(PackNews::default());
        packs.insert(from, Pack { file: Arc::clone(&file), news: news.clone() });
        drop(packs);
        let (inner, its_file) = (Arc::clone(self), Arc::clone(&file));
        tokio::spawn(async move {
            let result = inner.fill(&talk, blob, &its_file, &tell).await.and_then(|()| {
                step("pack whole");
                fs::rename(&incomplete.path, &path).map_err(Error::disk(&path))?;
                step("pack in place");
                inner.trim_packed()
            });
            if let Err(error) = &result {
                tracing::debug!(layer = %blob.digest, %error, "not brought home");
            }
            // Off the board first: who comes now looks at the disk.
            lock(&inner.packs).remove(&from);
            tell.send_modify(|news| news.done = Some(result));
        });
        Ok(Shared { file, news: Some(news), at: 0, bytes })
    }

    async fn fill(
        &self,
        talk: &Talk,
        blob: Blob,
        file: &Arc<File>,
        tell: &watch::Sender<PackNews>,
    ) -> Result<(), Error> {
        let _slot = self.pack_slots.acquire().await.expect("the slots are never closed");
        talk.ask(&self.clients, |session| self.fill_from(session, talk, blob, file, tell)).await?;
        self.counters.registry.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn fill_from(
        &self,
        session: &Session,
        talk: &Talk,
        blob: Blob,
        file: &Arc<File>,
        tell: &watch::Sender<PackNews>,
    ) -> Result<(), Error> {
        let image = talk.reference.to_string();
        let layer = Layer { blob, compression: Compression::None };
        let fetch = Fetch { session, image: &image, layer };
        let (send, mut pieces) = layer::channel();
        let path = self.packed_path(origin(&talk.reference, blob.digest));
        let (file, its_tell) = (Arc::clone(file), tell.clone());
        let thread = tokio::task::spawn_blocking(move || -> io::Result<Option<Digest>> {
            let mut hasher = Hasher::default();
            let mut out = &*file;
            step("pack begun");
            io::Seek::rewind(&mut out)?;
            out.set_len(0)?;
            while let Some(piece) = pieces.blocking_recv() {
                match piece {
                    Piece::Bytes(bytes) => {
                        hasher.update(&bytes);
                        out.write_all(&bytes)?;
                        step("pack half-way");
                        its_tell.send_modify(|news| news.got += bytes.len() as u64);
                    }
                    Piece::End => return Ok(Some(hasher.finish())),
                }
            }
            Ok(None)
        });
        tell.send_modify(|news| news.got = 0);
        let fed = fetch.feed(send, &|_| {}).await;
        let wrote = thread.await.map_err(|panic| Error::disk(&path)(io::Error::other(panic)))?;
        fed?;
        let expected = blob.digest;
        match wrote.map_err(Error::disk(&path))? {
            Some(actual) if actual == expected => Ok(()),
            Some(actual) => Err(fetch.fault(LayerFault::Digest { expected, actual })),
            None => Err(session.unreachable("the fetch was given up".to_owned()).error),
        }
    }

    fn packed_path(&self, from: Digest) -> std::path::PathBuf {
        self.dir.join("packed").join(from.hex())
    }

    /// Removes packed layers, those used longest ago first, until the rest is within the bound.
    /// Who reads one reads on.
    fn trim_packed(&self) -> Result<(), Error> {
        let dir = self.dir.join("packed");
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::disk(&dir))? {
            let path = entry.map_err(Error::disk(&dir))?.path();
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((used, metadata.len(), path));
        }
        found.sort();
        let mut total: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in found {
            if total <= self.clients.share_bytes_max() {
                break;
            }
            fs::remove_file(&path).map_err(Error::disk(&path))?;
            total -= bytes;
        }
        Ok(())
    }
}
