//! What the cache holds: which of it is current, who uses it, and what goes when room is needed.
//!
//! Everything is made in `making/` and renamed into place, and a record beside it, written last,
//! says what it is: what has no record at the next start was half-done, and goes. Nothing that is
//! in use goes, and all that lies in the directory, finished or not, is counted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempDir};

use super::blocking::blocking;
use super::checksum::Checksum;
use super::{DownloadError, OpenError, empty_dir};
use crate::limits::CACHE_ROOM_STEP_BYTES;

/// Where things are made.
const MAKING: &str = "making";

/// What is kept under a cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// A plain tar, to be unpacked into containers.
    Tar,
    /// What was in it, to be mounted into containers.
    Directory,
}

impl Form {
    fn extension(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Directory => "d",
        }
    }
}

/// By what a server knows whether what is kept is still current (RFC 9110 section 8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

impl Validators {
    pub(super) fn are_there(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// What is known of one thing that is kept, and written beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) form: Form,
    /// The checksum of the client's cache key: nobody else should find two keys of one.
    pub(super) key: String,
    pub(super) validators: Validators,
    /// What its download has been verified against. It serves nobody who demands another one.
    pub(super) verified: Option<Checksum>,
    /// The room that it takes.
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    users: u32,
    /// Of all entries, the one with the lowest was used least recently.
    used: u64,
}

#[derive(Debug, Default)]
struct State {
    /// By the number in their names.
    entries: BTreeMap<u64, Entry>,
    /// What is served, by its key; an older one of a key goes when nobody uses it any more.
    current: BTreeMap<(Form, String), u64>,
    /// Of entries and all that is being made.
    bytes: u64,
    next: u64,
    /// How often anything was used.
    uses: u64,
    /// What is no longer counted and not yet deleted.
    rubbish: Vec<PathBuf>,
}

/// The things that are kept, and the room for more.
#[derive(Debug)]
pub(super) struct Index {
    dir: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

impl Index {
    /// Finds what is kept and deletes what is half-done. Nothing finished goes: who uses what is
    /// not known yet.
    pub(super) fn open(dir: &Path, bytes_max: u64) -> Result<Arc<Self>, OpenError> {
        let failed = |source| OpenError { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        empty_dir(&dir.join(MAKING))?;
        let state = State::recover(dir).map_err(failed)?;
        Ok(Arc::new(Self { dir: dir.to_owned(), bytes_max, state: Mutex::new(state) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// What is counted.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// A file of which nothing stays unless it is kept.
    pub(super) fn make_file(&self) -> Result<NamedTempFile, DownloadError> {
        let dir = self.dir.join(MAKING);
        NamedTempFile::new_in(&dir).map_err(DownloadError::disk(&dir))
    }

    /// A directory of which nothing stays unless it is kept.
    pub(super) fn make_dir(&self) -> Result<TempDir, DownloadError> {
        let dir = self.dir.join(MAKING);
        TempDir::new_in(&dir).map_err(DownloadError::disk(&dir))
    }

    /// What is current under the key, in use from now on, if it has been verified against what is
    /// demanded.
    pub(super) fn find(
        self: &Arc<Self>,
        form: Form,
        key: &str,
        demanded: Option<&Checksum>,
    ) -> Option<Lease> {
        let mut state = self.state();
        let number = *state.current.get(&(form, key.to_owned()))?;
        let known = &state.entries.get(&number)?.record;
        let is_good = demanded.is_none_or(|demanded| known.verified.as_ref() == Some(demanded));
        is_good.then(|| self.lease(&mut state, number))
    }

    /// The thing that lies at this path, in use from now on, also if it is no longer current.
    pub(super) fn find_at(self: &Arc<Self>, path: &Path) -> Option<Lease> {
        let mut state = self.state();
        let number = state
            .entries
            .iter()
            .find(|(number, entry)| path == self.path(**number, entry.record.form));
        let number = *number?.0;
        Some(self.lease(&mut state, number))
    }

    fn lease(self: &Arc<Self>, state: &mut State, number: u64) -> Lease {
        state.uses += 1;
        let used = state.uses;
        let entry = state.entries.get_mut(&number).expect("what is leased is there");
        entry.users += 1;
        entry.used = used;
        let path = self.path(number, entry.record.form);
        // Only how recently it was used is lost where this fails.
        let _ = File::open(self.record_path(number))
            .and_then(|record| record.set_modified(SystemTime::now()));
        let record = entry.record.clone();
        Lease { index: Arc::clone(self), number, path, record }
    }

    /// Keeps a finished tar, whose room it becomes, instead of what its key has stood for.
    pub(super) fn keep_file(
        self: &Arc<Self>,
        file: NamedTempFile,
        record: Record,
        room: Room,
    ) -> Result<Lease, DownloadError> {
        let place = |path: &Path| {
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        self.keep(record, room, place)
    }

    /// Keeps a finished directory, whose room it becomes, instead of what its key has stood for.
    pub(super) fn keep_dir(
        self: &Arc<Self>,
        dir: TempDir,
        record: Record,
        room: Room,
    ) -> Result<Lease, DownloadError> {
        let place = |path: &Path| {
            // Costs less than an fsync(2) of each file.
            syncfs(File::open(dir.path())?)?;
            fs::rename(dir.path(), path)?;
            // It is no longer there to be deleted.
            let _ = dir.keep();
            Ok(())
        };
        self.keep(record, room, place)
    }

    fn keep(
        self: &Arc<Self>,
        mut record: Record,
        mut room: Room,
        place: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<Lease, DownloadError> {
        record.bytes = room.taken;
        let number = {
            let mut state = self.state();
            state.next += 1;
            state.next - 1
        };
        let path = self.path(number, record.form);
        place(&path).map_err(DownloadError::disk(&path))?;
        if let Err(error) = self.write_record(number, &record) {
            self.state().rubbish.push(path);
            return Err(error);
        }
        let mut state = self.state();
        state.bytes = state.bytes - std::mem::take(&mut room.bytes) + record.bytes;
        state.current.insert((record.form, record.key.clone()), number);
        state.entries.insert(number, Entry { record, users: 0, used: 0 });
        Ok(self.lease(&mut state, number))
    }

    fn write_record(&self, number: u64, record: &Record) -> Result<(), DownloadError> {
        let mut file = self.make_file()?;
        let path = self.record_path(number);
        let mut write = || {
            file.write_all(&serde_json::to_vec(record).expect("records are plain data"))?;
            file.as_file().sync_all()
        };
        let written = write().and_then(|()| {
            file.persist(&path)?;
            File::open(&self.dir)?.sync_all()
        });
        written.map_err(DownloadError::disk(&path))
    }

    /// The key no longer stands for anything.
    pub(super) fn forget(&self, form: Form, key: &str) {
        self.state().current.remove(&(form, key.to_owned()));
    }

    /// Room of which nothing is taken yet.
    pub(super) fn room(self: &Arc<Self>) -> Room {
        Room { index: Arc::clone(self), bytes: 0, taken: 0 }
    }

    /// Counts `bytes` more, after what is used least recently has gone as far as it takes.
    fn claim(&self, bytes: u64) -> Result<(), DownloadError> {
        let mut state = self.state();
        let idle = state.entries.values().filter(|entry| entry.users == 0);
        let idle: u64 = idle.map(|entry| entry.record.bytes).sum();
        if state.bytes - idle + bytes > self.bytes_max {
            return Err(DownloadError::Full(self.bytes_max));
        }
        while state.bytes + bytes > self.bytes_max {
            let number = state.least_needed().expect("there is enough that nobody needs");
            let entry = state.entries.remove(&number).expect("it was just found");
            state.bytes -= entry.record.bytes;
            let key = (entry.record.form, entry.record.key);
            if state.current.get(&key) == Some(&number) {
                state.current.remove(&key);
            }
            // The record goes first: what has none is half-done.
            state.rubbish.push(self.record_path(number));
            state.rubbish.push(self.path(number, key.0));
        }
        state.bytes += bytes;
        Ok(())
    }

    /// Deletes what has gone. What cannot be deleted goes at the next start.
    fn sweep(&self) {
        loop {
            // It stays listed until it is gone: whoever sweeps may be halted.
            let Some(path) = self.state().rubbish.first().cloned() else { return };
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "not deleted");
            }
            self.state().rubbish.retain(|other| *other != path);
        }
    }

    fn path(&self, number: u64, form: Form) -> PathBuf {
        self.dir.join(format!("{number:016x}.{}", form.extension()))
    }

    fn record_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.json"))
    }
}

impl State {
    fn recover(dir: &Path) -> io::Result<Self> {
        let mut found = Vec::new();
        let mut strange = Vec::new();
        for file in fs::read_dir(dir)? {
            let path = file?.path();
            match read_record(&path) {
                Some((number, used, record)) => found.push((used, number, record)),
                None => strange.push(path),
            }
        }
        let mut state = Self::default();
        found.sort_by_key(|(used, number, _)| (*used, *number));
        for (_, number, record) in found {
            let data = dir.join(format!("{number:016x}.{}", record.form.extension()));
            let is_there = match record.form {
                Form::Tar => data.is_file(),
                Form::Directory => data.is_dir(),
            };
            if !is_there {
                strange.push(dir.join(format!("{number:016x}.json")));
                continue;
            }
            strange.retain(|path| *path != data);
            state.bytes += record.bytes;
            state.next = state.next.max(number + 1);
            // The latest of a key is the current one.
            let current = state.current.entry((record.form, record.key.clone())).or_insert(number);
            *current = number.max(*current);
            state.uses += 1;
            state.entries.insert(number, Entry { record, users: 0, used: state.uses });
        }
        for path in strange.into_iter().filter(|path| *path != dir.join(MAKING)) {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
        Ok(state)
    }

    /// What nobody uses: first what is no longer current, then what was used least recently.
    fn least_needed(&self) -> Option<u64> {
        let idle = self.entries.iter().filter(|(_, entry)| entry.users == 0);
        let least = idle.min_by_key(|(number, entry)| {
            let key = (entry.record.form, entry.record.key.clone());
            (self.current.get(&key) == Some(*number), entry.used)
        });
        least.map(|(number, _)| *number)
    }
}

/// The record in a file of the cache, its number and when what it is of was used; none where the
/// file is something else, or cannot be read.
fn read_record(path: &Path) -> Option<(u64, SystemTime, Record)> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let is_number = digits.len() == 16 && digits.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let number = is_number.then(|| u64::from_str_radix(digits, 16).ok()).flatten()?;
    let used = fs::metadata(path).and_then(|file| file.modified()).ok()?;
    Some((number, used, serde_json::from_slice(&fs::read(path).ok()?).ok()?))
}

/// A thing that is in use until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    index: Arc<Index>,
    number: u64,
    pub(super) path: PathBuf,
    pub(super) record: Record,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.index.state();
        let entry = state.entries.get_mut(&self.number).expect("what is in use does not go");
        entry.users -= 1;
    }
}

/// Room for what is being made; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    index: Arc<Index>,
    /// What is counted.
    bytes: u64,
    /// What is needed of it.
    taken: u64,
}

impl Room {
    /// Takes `bytes` more. It blocks while what has gone is deleted.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), DownloadError> {
        if self.count(bytes)? {
            self.index.sweep();
        }
        Ok(())
    }

    /// The same, without blocking.
    pub(super) async fn take_soon(&mut self, bytes: u64) -> Result<(), DownloadError> {
        if self.count(bytes)? {
            let index = Arc::clone(&self.index);
            blocking(move |_| index.sweep()).await;
        }
        Ok(())
    }

    /// Whether something has gone for it, and is to be deleted.
    fn count(&mut self, bytes: u64) -> Result<bool, DownloadError> {
        let taken = self.taken + bytes;
        if taken > self.bytes {
            // As much at a time as there is, so that small caches hold what fits.
            let short = taken - self.bytes;
            let step = short.max(CACHE_ROOM_STEP_BYTES.min(self.index.bytes_max / 16));
            if self.index.claim(step).is_ok() {
                self.bytes += step;
            } else {
                self.index.claim(short)?;
                self.bytes += short;
            }
        }
        self.taken = taken;
        Ok(!self.index.state().rubbish.is_empty())
    }

    /// Gives all of it back, to begin anew.
    pub(super) fn clear(&mut self) {
        self.index.state().bytes -= std::mem::take(&mut self.bytes);
        self.taken = 0;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.clear();
    }
}
