//! What is under way between a client and its daemon, on one channel.
//!
//! A connection is read by one loop of russh, which waits where a channel's messages are not taken,
//! and writes nothing meanwhile. So each channel has a connection to the daemon of its own: what is
//! not read of one holds up nobody else. The client's connection is one, and what a daemon does not
//! read holds it up.
//!
//! If the client's loop waited for the daemon's, and that one for the client's, both would for
//! ever: a command that talks before it listens would be enough. So at most one waits: while the
//! client's side waits for the daemon, everything that the daemon says is taken, the slower the
//! more it is, up to a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::limits::{QUEUED_BYTES_HIGH, QUEUED_BYTES_MAX};

#[derive(Debug, Default)]
pub(crate) struct Load {
    /// How many wait on the client's side for the daemon to take something or to answer.
    waiting: AtomicUsize,
    /// Bytes on their way to the client.
    queued: AtomicUsize,
    has_changed: Notify,
}

/// Held while the client's side waits for the daemon.
pub(crate) struct Waiting<'a>(&'a Load);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bytes on their way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Burden {
    load: Arc<Load>,
    bytes: usize,
}

impl Drop for Burden {
    fn drop(&mut self) {
        self.load.queued.fetch_sub(self.bytes, Ordering::SeqCst);
        self.load.has_changed.notify_waiters();
    }
}

/// More is on its way to a client than it may be.
#[derive(Debug)]
pub(crate) struct Overloaded;

impl Load {
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.has_changed.notify_waiters();
        Waiting(self)
    }

    /// Takes bytes in, before they are queued.
    pub(crate) fn put(self: &Arc<Self>, bytes: usize) -> Result<Burden, Overloaded> {
        let queued = self.queued.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let burden = Burden { load: Arc::clone(self), bytes };
        if queued > QUEUED_BYTES_MAX { Err(Overloaded) } else { Ok(burden) }
    }

    /// Returns when more of what the daemon says may be taken: the slower, the more waits already.
    /// What the client's side waits for may be behind all that.
    pub(crate) async fn room(&self) {
        loop {
            let changed = self.has_changed.notified();
            tokio::pin!(changed);
            // From now on no change is missed.
            changed.as_mut().enable();
            let queued = self.queued.load(Ordering::SeqCst);
            if queued <= QUEUED_BYTES_HIGH {
                return;
            }
            if self.waiting.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(pause(queued)).await;
                return;
            }
            changed.await;
        }
    }
}

/// Before the next message, of 32 KiB at most, where so many bytes wait.
fn pause(queued: usize) -> Duration {
    // Of the way from the one bound to the other, 32 MB, 3 MB and 300 KB a second.
    let third = (QUEUED_BYTES_MAX - QUEUED_BYTES_HIGH) / 3;
    match queued.saturating_sub(QUEUED_BYTES_HIGH) / third {
        0 => Duration::from_millis(1),
        1 => Duration::from_millis(10),
        _ => Duration::from_millis(100),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_is_always_heard() {
        let load = Arc::new(Load::default());
        load.room().await;
        let burden = load.put(QUEUED_BYTES_HIGH + 1).unwrap();
        let blink = Duration::from_secs(1);
        assert!(timeout(blink, load.room()).await.is_err());
        let waiting = load.wait();
        assert!(timeout(blink, load.room()).await.is_ok());
        drop(waiting);
        assert!(timeout(blink, load.room()).await.is_err());
        let other = Arc::clone(&load);
        let room = tokio::spawn(async move { other.room().await });
        tokio::task::yield_now().await;
        drop(burden);
        timeout(blink, room).await.unwrap().unwrap();
        let _burden = load.put(1).unwrap();
        assert!(load.put(QUEUED_BYTES_MAX).is_err());
        assert!(load.put(QUEUED_BYTES_MAX - 1).is_ok(), "what was too much is not there");
    }
}
