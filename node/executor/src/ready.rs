//! When a recipe is ready: its container counts as running once every member has said so
//! (executor.md section 4).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A step's right to say, once, that it is ready. A step that drops it never is.
#[derive(Debug)]
pub(crate) struct Ready {
    /// How many members are still awaited, of each group around the step, outermost first.
    awaited: Vec<Arc<AtomicUsize>>,
    whole: Arc<Notify>,
}

impl Ready {
    /// For the whole recipe; `whole` is notified once, with one permit.
    pub(crate) fn of(whole: &Arc<Notify>) -> Self {
        Self { awaited: Vec::new(), whole: Arc::clone(whole) }
    }

    /// For a step of which nobody wants to know.
    pub(crate) fn ignored() -> Self {
        Self::of(&Arc::new(Notify::new()))
    }

    pub(crate) fn set(mut self) {
        while let Some(awaited) = self.awaited.pop() {
            if awaited.fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
        }
        self.whole.notify_one();
    }

    /// One for each member of a group, which is ready when all of them are: a group of none at
    /// once.
    pub(crate) fn split(self, members: usize) -> Vec<Self> {
        if members == 0 {
            self.set();
            return Vec::new();
        }
        let group = Arc::new(AtomicUsize::new(members));
        let member = || {
            let awaited = self.awaited.iter().chain([&group]).map(Arc::clone).collect();
            Self { awaited, whole: Arc::clone(&self.whole) }
        };
        (0..members).map(|_| member()).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_group_is_ready_when_all_of_its_members_are() {
        let whole = Arc::new(Notify::new());
        let mut outer = Ready::of(&whole).split(2);
        let inner = outer.remove(0).split(2);
        for member in inner {
            assert!(whole.notified().now_or_never().is_none());
            member.set();
        }
        assert!(whole.notified().now_or_never().is_none());
        outer.remove(0).set();
        assert!(whole.notified().now_or_never().is_some());
    }

    #[test]
    fn one_that_is_dropped_is_never_ready() {
        let whole = Arc::new(Notify::new());
        let mut members = Ready::of(&whole).split(2);
        drop(members.remove(0));
        members.remove(0).set();
        assert!(whole.notified().now_or_never().is_none());
        assert!(Ready::of(&whole).split(0).is_empty());
        assert!(whole.notified().now_or_never().is_some(), "an empty group is ready");
    }
}
