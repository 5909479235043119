//! Downloads through the cache: what is kept is asked for under the condition that it has changed,
//! and one at a time of each key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::{fs, io};

use reqwest::Client;
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

use super::archive::{self, Tar};
use super::blocking::blocking;
use super::fetch::{Answer, Fetched, Fetcher, Patience, Wanted};
use super::index::{Form, Index, Lease, Record, Room, Validators};
use super::{DownloadError, OpenError};
use crate::limits::{ARCHIVE_BYTES_MAX, CACHE_ENTRY_BYTES};

/// It has not changed, says a server that was not asked whether it has.
const UNASKED: DownloadError = DownloadError::Status(304);

/// The downloads of one cell. Clones are handles to the same ones.
#[derive(Clone, Debug)]
pub struct Downloader {
    fetcher: Fetcher,
    pub(super) index: Arc<Index>,
    pub(super) archive_bytes_max: u64,
    /// Of each key that is being asked for.
    busy: Arc<Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>>,
}

impl Downloader {
    /// Finds what is kept below `dir`, which is nobody else's.
    ///
    /// After a restart of the node, whatever a container still uses is to be named to
    /// [`Downloader::adopt`] before anything is downloaded: until then it is in nobody's use.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, read or cleaned.
    pub fn open(
        dir: &Path,
        bytes_max: u64,
        patience: Patience,
        http: Client,
    ) -> Result<Self, OpenError> {
        let index = Index::open(dir, bytes_max)?;
        let fetcher = Fetcher { http, patience, index: Arc::clone(&index) };
        let archive_bytes_max = ARCHIVE_BYTES_MAX;
        Ok(Self { fetcher, index, archive_bytes_max, busy: Arc::default() })
    }

    /// A plain tar of the archive that is wanted, whatever its form.
    ///
    /// # Errors
    ///
    /// It cannot be had, is not what it should be, or there is no room for it.
    pub async fn archive(&self, wanted: &Wanted) -> Result<Archive, DownloadError> {
        let Some(key) = &wanted.key else {
            return match self.fetcher.fetch(wanted, None).await? {
                Answer::New(fetched) => self.passing(fetched).await,
                Answer::Unchanged => Err(UNASKED),
            };
        };
        let _turn = self.turn(Form::Tar, key).await;
        let known = self.index.find(Form::Tar, key, wanted.checksum.as_ref());
        let validators = known.as_ref().map(|lease| &lease.record.validators);
        let fetched = match (self.fetcher.fetch(wanted, validators).await?, known) {
            (Answer::Unchanged, Some(lease)) => return Archive::kept(lease, None).await,
            (Answer::Unchanged, None) => return Err(UNASKED),
            (Answer::New(fetched), _) => fetched,
        };
        if !fetched.validators.are_there() {
            self.index.forget(Form::Tar, key);
            return self.passing(fetched).await;
        }
        let (downloaded, validators) = (fetched.bytes, fetched.validators.clone());
        let mut tar = self.tar(fetched).await?;
        tar.room.take_soon(CACHE_ENTRY_BYTES).await?;
        let record = record(Form::Tar, key, validators, wanted);
        let index = Arc::clone(&self.index);
        let kept = blocking(move |_| index.keep_file(tar.file, record, tar.room)).await;
        Archive::kept(kept?, Some(downloaded)).await
    }

    /// What is in the archive that is wanted, in a directory that is not written to as long as
    /// anybody holds it. It belongs to the ids that the archive says.
    ///
    /// # Errors
    ///
    /// It cannot be had, is not what it should be, cannot be kept, or there is no room for it.
    pub async fn dependency(&self, wanted: &Wanted) -> Result<Dependency, DownloadError> {
        let key = wanted.key.as_ref().ok_or(DownloadError::KeyMissing)?;
        let _turn = self.turn(Form::Directory, key).await;
        let known = self.index.find(Form::Directory, key, wanted.checksum.as_ref());
        let validators = known.as_ref().map(|lease| &lease.record.validators);
        let fetched = match (self.fetcher.fetch(wanted, validators).await?, known) {
            (Answer::Unchanged, Some(lease)) => return Ok(Dependency { lease, downloaded: None }),
            (Answer::Unchanged, None) => return Err(UNASKED),
            (Answer::New(fetched), _) => fetched,
        };
        if !fetched.validators.are_there() {
            self.index.forget(Form::Directory, key);
            return Err(DownloadError::ValidatorsMissing);
        }
        let (downloaded, validators) = (fetched.bytes, fetched.validators.clone());
        let tar = self.tar(fetched).await?;
        let record = record(Form::Directory, key, validators, wanted);
        let (index, bytes_max) = (Arc::clone(&self.index), self.archive_bytes_max);
        let lease = blocking(move |halt| {
            let dir = index.make_dir()?;
            let mut room = index.room();
            // What it will take at most, but for what holes there are: each entry has a header.
            room.take(tar.bytes + CACHE_ENTRY_BYTES)?;
            let disk = DownloadError::disk(tar.file.path());
            let input = halt.reading(fs::File::open(tar.file.path()).map_err(disk)?);
            let bytes = container::image::expand(input, dir.path(), bytes_max)
                .map_err(|error| DownloadError::Broken(error.to_string()))?;
            room.take(bytes.saturating_sub(tar.bytes))?;
            index.keep_dir(dir, record, room)
        });
        Ok(Dependency { lease: lease.await?, downloaded: Some(downloaded) })
    }

    /// The directory of a dependency that a container uses since before the node was started;
    /// none where it is no longer there.
    #[must_use]
    pub fn adopt(&self, directory: &Path) -> Option<Dependency> {
        let lease = self.index.find_at(directory)?;
        (lease.record.form == Form::Directory).then_some(Dependency { lease, downloaded: None })
    }

    async fn tar(&self, fetched: Fetched) -> Result<Tar, DownloadError> {
        let (index, bytes_max) = (Arc::clone(&self.index), self.archive_bytes_max);
        blocking(move |halt| archive::to_tar(fetched, &index, bytes_max, halt)).await
    }

    /// A tar that is not kept.
    async fn passing(&self, fetched: Fetched) -> Result<Archive, DownloadError> {
        let downloaded = fetched.bytes;
        let Tar { file, room, .. } = self.tar(fetched).await?;
        let opened = fs::File::open(file.path()).map_err(DownloadError::disk(file.path()))?;
        // Its name goes now, and its room with this.
        let file = File::from_std(opened);
        Ok(Archive { file, downloaded: Some(downloaded), _lease: None, _room: Some(room) })
    }

    /// Waits until nobody else asks for the same.
    async fn turn(&self, form: Form, key: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut busy = self.busy.lock().expect("no holder of the lock panics");
            busy.retain(|_, turn| turn.strong_count() > 0);
            let slot = busy.entry(format!("{form:?} {key}")).or_default();
            slot.upgrade().unwrap_or_else(|| {
                let turn = Arc::default();
                *slot = Arc::downgrade(&turn);
                turn
            })
        };
        turn.lock_owned().await
    }
}

fn record(form: Form, key: &str, validators: Validators, wanted: &Wanted) -> Record {
    let (key, verified) = (key.to_owned(), wanted.checksum.clone());
    Record { form, key, validators, verified, bytes: 0 }
}

/// A tar, open for reading. It does not go before this is dropped.
#[derive(Debug)]
pub struct Archive {
    file: File,
    downloaded: Option<u64>,
    _lease: Option<Lease>,
    _room: Option<Room>,
}

impl Archive {
    async fn kept(lease: Lease, downloaded: Option<u64>) -> Result<Self, DownloadError> {
        let file = File::open(&lease.path).await.map_err(DownloadError::disk(&lease.path))?;
        Ok(Self { file, downloaded, _lease: Some(lease), _room: None })
    }

    /// How many bytes came over the wire; none where it was kept from before.
    #[must_use]
    pub fn downloaded(&self) -> Option<u64> {
        self.downloaded
    }
}

impl AsyncRead for Archive {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().file).poll_read(context, buffer)
    }
}

/// A directory, to be mounted into containers. It does not go before this is dropped.
#[derive(Debug)]
pub struct Dependency {
    lease: Lease,
    downloaded: Option<u64>,
}

impl Dependency {
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.lease.path.clone()
    }

    /// How many bytes came over the wire; none where it was kept from before.
    #[must_use]
    pub fn downloaded(&self) -> Option<u64> {
        self.downloaded
    }
}
