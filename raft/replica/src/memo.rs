//! What replicas of one process may share: the states that entries lead to.
//!
//! Applying is pure, so a replica whose state is the very value that another's was may take what
//! the other's became. It lets one process hold a thousand replicas of a large state: they hold one
//! between them. Nothing is shared unless the configuration says so, and those that share keep no
//! rows and tell no events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Outcome, State};

use crate::limits::MEMO_ENTRIES_MAX;

/// The last entries that any of the replicas applied.
#[derive(Default)]
pub struct Memo(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    steps: BTreeMap<u64, Step>,
    bytes: u64,
}

/// What became of a state by one entry.
#[derive(Clone)]
pub(crate) struct Step {
    before: State,
    bytes: Arc<[u8]>,
    pub(crate) after: State,
    pub(crate) outcome: Outcome,
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo").finish_non_exhaustive()
    }
}

impl Memo {
    /// What became of this very state by these bytes at `index`, if somebody has done it.
    pub(crate) fn find(&self, index: u64, before: &State, bytes: &Arc<[u8]>) -> Option<Step> {
        let inner = self.lock();
        let step = inner.steps.get(&index)?;
        let is_same_entry = Arc::ptr_eq(&step.bytes, bytes) || step.bytes == *bytes;
        (is_same_entry && step.before.is_same(before)).then(|| step.clone())
    }

    pub(crate) fn keep(
        &self,
        index: u64,
        before: State,
        bytes: Arc<[u8]>,
        after: &State,
        outcome: &Outcome,
    ) {
        let mut inner = self.lock();
        let (after, outcome) = (after.clone(), outcome.clone());
        inner.bytes += bytes.len() as u64;
        inner.steps.insert(index, Step { before, bytes, after, outcome });
        while inner.steps.len() > MEMO_ENTRIES_MAX {
            inner.steps.pop_first();
        }
    }

    /// How many bytes the proposals had that were applied, each counted once.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
