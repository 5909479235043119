//! Time that outlives the node: microseconds since the Unix epoch for what is noted, which within
//! one life only goes forward, by the runtime's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::limits::RESUME_GRACE;
use crate::place::Notes;
use crate::sandbox::Sandbox;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    opened: Instant,
    opened_at: Duration,
}

/// When something began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// Since the Unix epoch.
    at: Duration,
    /// Whether it began in a former life of the node.
    pub(crate) is_former: bool,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let opened_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { opened: Instant::now(), opened_at }
    }

    fn now(self) -> Duration {
        self.opened_at + self.opened.elapsed()
    }

    /// When what the notes are about began: now, unless it is noted under the name already.
    pub(crate) async fn begin<S: Sandbox>(self, notes: &Notes<'_, S>, name: &str) -> Begin {
        if let Some(at) = notes.get(name) {
            return Begin { at: Duration::from_micros(at), is_former: true };
        }
        let now = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        notes.set(name, &now).await;
        Begin { at: Duration::from_micros(now), is_former: false }
    }

    /// How long ago that was; zero for a time to come, where the machine's clock was set back.
    pub(crate) fn since(self, begin: Begin) -> Duration {
        self.now().saturating_sub(begin.at)
    }

    /// When it will have been `long` ago; if it began in a former life of the node, not before
    /// [`RESUME_GRACE`] from now.
    pub(crate) fn deadline(self, begin: Begin, long: Duration) -> Instant {
        // A clock that was set back must not make anyone wait longer than from now on.
        let left = long.saturating_sub(self.since(begin));
        let least = if begin.is_former { RESUME_GRACE.min(long) } else { Duration::ZERO };
        Instant::now() + left.max(least)
    }
}
