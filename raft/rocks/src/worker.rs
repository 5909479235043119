//! The two threads of a disk: one syncs, one reads. Neither blocks whoever asks.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use replica::disk::Done;

use crate::limits;
use crate::store::Database;

/// Reads and calls back.
pub(crate) type Read = Box<dyn FnOnce(&Database) + Send>;

/// The threads. Dropping it ends them, after what was asked before.
#[derive(Debug)]
pub(crate) struct Workers {
    syncs: Option<SyncSender<Done<()>>>,
    reads: Option<SyncSender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(database: &Arc<Database>) -> io::Result<Self> {
        let (syncs, asked) = sync_channel(limits::SYNC_QUEUE_MAX);
        let of = database.clone();
        let flush = Builder::new().name("disk-sync".to_owned()).spawn(move || sync(&of, &asked))?;
        let (reads, asked) = sync_channel::<Read>(limits::READ_QUEUE_MAX);
        let of = database.clone();
        let read = Builder::new().name("disk-read".to_owned()).spawn(move || {
            for read in asked {
                read(&of);
            }
        })?;
        Ok(Self { syncs: Some(syncs), reads: Some(reads), threads: vec![flush, read] })
    }

    /// Asks for a sync.
    pub(crate) fn sync(&self, done: Done<()>) {
        let syncs = self.syncs.as_ref().expect("there is a thread until the drop");
        if let Err(unsent) = syncs.send(done) {
            (unsent.0)(Err(io::Error::other("the sync thread is gone")));
        }
    }

    /// Asks for a read. When its thread is gone, the answer of the read is dropped.
    pub(crate) fn read(&self, read: Read) {
        let reads = self.reads.as_ref().expect("there is a thread until the drop");
        let _gone = reads.send(read);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.syncs = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            // Dropped by one of its own callbacks, a thread must not wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _panicked = thread.join();
            }
        }
    }
}

/// Serves all syncs that were asked for meanwhile by one: four times the writes of a thread for
/// each append with 16 writers (measured at 256 bytes a write, August 2026), because a sync costs
/// the same for one as for many.
fn sync(database: &Database, asked: &Receiver<Done<()>>) {
    let mut failed: Option<String> = None;
    let mut waiting = Vec::new();
    while let Ok(first) = asked.recv() {
        waiting.push(first);
        waiting.extend(asked.try_iter().take(limits::SYNC_QUEUE_MAX));
        if failed.is_none() {
            // After a failed sync the kernel may forget what it could not write, and a second one
            // would succeed without it (the "fsyncgate" of PostgreSQL, 2018): never ask again.
            failed = database.sync().err().map(|error| error.to_string());
        }
        for done in waiting.drain(..) {
            done(match &failed {
                None => Ok(()),
                Some(reason) => Err(io::Error::other(reason.clone())),
            });
        }
    }
}
