//! The simulated disk: batches written, synced when the seed lets them, and lost at a crash if
//! they were not.
//!
//! What is kept is an [`Image`] of the caller's making; the disk only knows that batches change
//! it, in order, and that a crash keeps a prefix of that order: all that was synced and, of the
//! rest, as much as the seed says. A write-ahead log behaves so: a torn record ends what recovery
//! reads. It knows no files.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft_rt::AsyncRuntime;

use crate::limits;
use crate::rng::{PerMillion, Rng};
use crate::runtime::{self, SimRuntime};

/// What a disk holds: changed by batches and by nothing else.
pub trait Image: Clone + Default + Send + 'static {
    /// Changes that happen together or not at all.
    type Batch: Send + 'static;

    /// Makes the changes of a batch.
    fn change(&mut self, batch: &Self::Batch);
}

/// How the disk fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wear {
    /// The least that a sync takes.
    pub sync_min: Duration,
    /// The most that an ordinary sync takes.
    pub sync_max: Duration,
    /// How many syncs are slow.
    pub slow: PerMillion,
    /// The most that a slow sync takes.
    pub slow_max: Duration,
    /// The most that a read takes.
    pub read_max: Duration,
    /// How many syncs fail, after which the disk does until it is restarted.
    pub fail: PerMillion,
    /// How many writes fail, likewise.
    pub write_fails: PerMillion,
    /// How many reads give bytes with a bit flipped. What is stored is as it was: a second look
    /// finds it whole.
    pub flips: PerMillion,
}

impl Wear {
    /// A disk with nothing wrong, as fast as a good one (0.14 ms to 0.31 ms, measured).
    pub const NEW: Wear = Wear {
        sync_min: Duration::from_micros(140),
        sync_max: Duration::from_micros(310),
        slow: PerMillion::NEVER,
        slow_max: Duration::from_micros(310),
        read_max: Duration::from_micros(50),
        fail: PerMillion::NEVER,
        write_fails: PerMillion::NEVER,
        flips: PerMillion::NEVER,
    };

    /// A mix of its own for each run.
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            sync_min: Duration::from_micros(rng.below(200)),
            sync_max: Duration::from_millis(*rng.pick(&[1, 5, 20])),
            slow: PerMillion(*rng.pick(&[0, 1_000, 10_000, 50_000])),
            slow_max: Duration::from_millis(*rng.pick(&[100, 500, 3_000])),
            read_max: Duration::from_micros(*rng.pick(&[0, 100, 5_000])),
            fail: PerMillion(*rng.pick(&[0, 0, 100, 1_000])),
            write_fails: PerMillion(*rng.pick(&[0, 0, 100, 1_000])),
            flips: PerMillion(*rng.pick(&[0, 0, 5_000, 50_000])),
        }
    }
}

/// Why the disk did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The node that held this handle has crashed.
    #[error("the disk belongs to a later life of the node")]
    Gone,
    /// A sync or a write failed, and so does everything after it.
    #[error("the disk failed")]
    Failed,
    /// There is no room for more.
    #[error("no space left on device")]
    NoSpace,
    /// More was written without a sync than [`limits::DISK_UNSYNCED_BATCHES_MAX`].
    #[error("the disk holds too much that is not synced")]
    Unsynced,
}

/// What a crash did to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed {
    /// Unsynced batches that are there all the same.
    pub kept: u64,
    /// Unsynced batches that are not.
    pub lost: u64,
}

/// A node's hold on its disk, good for one life of the node. Clones are the same hold.
pub struct Disk<I: Image> {
    platter: Arc<Mutex<Platter<I>>>,
    life: u64,
}

struct Platter<I: Image> {
    live: I,
    synced: I,
    unsynced: VecDeque<I::Batch>,
    /// How many batches were ever synced.
    synced_batches: u64,
    life: u64,
    /// When it failed, in this life.
    failed: Option<Duration>,
    /// Something that was read in this life was not what is stored.
    flipped: bool,
    /// Takes no writes.
    full: bool,
    /// Syncs say that they are done and are not: a fault that checkers must find.
    lies: bool,
    wear: Wear,
    rng: Rng,
}

impl<I: Image> Platter<I> {
    fn settle(&mut self, through: u64) {
        while self.synced_batches < through {
            let batch = self.unsynced.pop_front().expect("what is settled was written");
            self.synced.change(&batch);
            self.synced_batches += 1;
        }
    }
}

impl<I: Image> Clone for Disk<I> {
    fn clone(&self) -> Self {
        Self { platter: self.platter.clone(), life: self.life }
    }
}

impl<I: Image> fmt::Debug for Disk<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("life", &self.life).finish_non_exhaustive()
    }
}

impl<I: Image> Disk<I> {
    /// An empty disk.
    pub fn new(wear: Wear, rng: Rng) -> Self {
        let platter = Platter {
            live: I::default(),
            synced: I::default(),
            unsynced: VecDeque::new(),
            synced_batches: 0,
            life: 0,
            failed: None,
            flipped: false,
            full: false,
            lies: false,
            wear,
            rng,
        };
        Self { platter: Arc::new(Mutex::new(platter)), life: 0 }
    }

    fn any_life(&self) -> MutexGuard<'_, Platter<I>> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn this_life(&self) -> Result<MutexGuard<'_, Platter<I>>, DiskError> {
        let platter = self.any_life();
        if platter.life != self.life {
            return Err(DiskError::Gone);
        }
        if platter.failed.is_some() {
            return Err(DiskError::Failed);
        }
        Ok(platter)
    }

    /// Writes a batch: readable at once, durable when a sync that is asked for later is done.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn write(&self, batch: I::Batch) -> Result<(), DiskError> {
        let mut platter = self.this_life()?;
        if platter.unsynced.len() >= limits::DISK_UNSYNCED_BATCHES_MAX {
            return Err(DiskError::Unsynced);
        }
        let chance = platter.wear.write_fails;
        let fails = platter.rng.chance(chance);
        if fails || platter.full {
            platter.failed = Some(runtime::true_time());
            let (name, error) = match fails {
                true => ("write_failed", DiskError::Failed),
                false => ("disk_full", DiskError::NoSpace),
            };
            runtime::event(name, &[]);
            return Err(error);
        }
        platter.live.change(&batch);
        platter.unsynced.push_back(batch);
        Ok(())
    }

    /// Calls `done`, in the group of the caller, once every batch written so far is durable.
    /// Syncs may overtake each other.
    pub fn sync(&self, done: impl FnOnce(Result<(), DiskError>) + Send + 'static) {
        let asked = self.this_life().map(|mut platter| {
            let Wear { sync_min, sync_max, slow, slow_max, fail, .. } = platter.wear;
            let is_slow = platter.rng.chance(slow);
            let most = if is_slow { slow_max } else { sync_max };
            let takes = platter.rng.between(sync_min, most.max(sync_min));
            let fails = platter.rng.chance(fail);
            let through = platter.synced_batches + platter.unsynced.len() as u64;
            (takes, is_slow, fails, through)
        });
        let disk = self.clone();
        drop(SimRuntime::spawn(async move {
            let settled = match asked {
                Ok((takes, is_slow, fails, through)) => {
                    if is_slow {
                        runtime::event("sync_slow", &[]);
                    }
                    SimRuntime::sleep(takes).await;
                    disk.settle(through, fails)
                }
                Err(error) => Err(error),
            };
            done(settled);
        }));
    }

    fn settle(&self, through: u64, fails: bool) -> Result<(), DiskError> {
        let mut platter = self.this_life()?;
        if fails {
            platter.failed = Some(runtime::true_time());
            runtime::event("disk_failed", &[]);
            return Err(DiskError::Failed);
        }
        if !platter.lies {
            platter.settle(through);
        }
        Ok(())
    }

    /// Reads what is written.
    ///
    /// # Errors
    /// Nothing was read.
    pub fn read<T>(&self, read: impl FnOnce(&I) -> T) -> Result<T, DiskError> {
        Ok(read(&self.this_life()?.live))
    }

    /// Reads what is written now, and calls `done` with it, in the group of the caller, as late
    /// as a disk does.
    pub fn read_later<T: Send + 'static>(
        &self,
        read: impl FnOnce(&I) -> T,
        done: impl FnOnce(Result<T, DiskError>) + Send + 'static,
    ) {
        let answer = self.this_life().map(|mut platter| {
            let most = platter.wear.read_max;
            let takes = platter.rng.between(Duration::ZERO, most);
            (takes, read(&platter.live))
        });
        drop(SimRuntime::spawn(async move {
            match answer {
                Ok((takes, value)) => {
                    SimRuntime::sleep(takes).await;
                    done(Ok(value));
                }
                Err(error) => done(Err(error)),
            }
        }));
    }

    /// Flips a bit of what was read, if the seed has it so.
    pub fn wear_out(&self, bytes: &mut [u8]) {
        let mut platter = self.any_life();
        let chance = platter.wear.flips;
        if platter.rng.chance(chance) && !bytes.is_empty() {
            let at = platter.rng.index(bytes.len());
            let bit = platter.rng.below(8);
            bytes[at] ^= 1 << bit;
            platter.flipped = true;
            runtime::event("bit_flipped", &[]);
        }
    }

    /// Changes what is stored, by no batch: both what is written and, of it, what is synced.
    pub fn rot<T>(&self, rot: impl FnOnce(&mut I, &mut I, &mut Rng) -> T) -> T {
        let mut platter = self.any_life();
        let Platter { live, synced, rng, .. } = &mut *platter;
        rot(live, synced, rng)
    }

    /// From here on there is room for more, or none.
    pub fn set_full(&self, full: bool) {
        self.any_life().full = full;
    }

    /// Reads what a look into the disk shows, whoever's life it is: for checkers.
    pub fn inspect<T>(&self, read: impl FnOnce(&I) -> T) -> T {
        read(&self.any_life().live)
    }

    /// What a crash now could not take: for checkers.
    pub fn inspect_synced<T>(&self, read: impl FnOnce(&I) -> T) -> T {
        read(&self.any_life().synced)
    }

    /// The node loses power, before its tasks are killed: every hold is void from here on, and
    /// what was not synced is kept up to a point that the seed says.
    pub fn crash(&self) -> Crashed {
        let mut platter = self.any_life();
        let unsynced = platter.unsynced.len();
        let kept = platter.rng.index(unsynced + 1) as u64;
        let through = platter.synced_batches + kept;
        platter.settle(through);
        platter.unsynced.clear();
        platter.live = platter.synced.clone();
        platter.life += 1;
        platter.failed = None;
        platter.flipped = false;
        Crashed { kept, lost: unsynced as u64 - kept }
    }

    /// The hold of the node's present life, taken when it starts.
    pub fn open(&self) -> Self {
        let life = self.any_life().life;
        Self { platter: self.platter.clone(), life }
    }

    /// Changes how the disk fares from here on.
    pub fn set_wear(&self, wear: Wear) {
        self.any_life().wear = wear;
    }

    /// From here on syncs do nothing, and do not say so.
    pub fn lie(&self) {
        self.any_life().lies = true;
    }

    /// How long ago it failed, if it has in this life.
    pub fn failed_for(&self) -> Option<Duration> {
        let failed = self.any_life().failed?;
        Some(runtime::true_time() - failed)
    }

    /// Whether it has failed in this life, or shown what is not stored.
    pub fn has_failed(&self) -> bool {
        let platter = self.any_life();
        platter.failed.is_some() || platter.flipped
    }
}

#[cfg(test)]
mod tests;
