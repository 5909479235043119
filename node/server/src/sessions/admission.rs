//! How many sessions there may be at once, on this node and in one container.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};

use api::Error;
use container::container::ContainerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{SESSIONS_MAX, SESSIONS_PER_CONTAINER_MAX};

#[derive(Debug)]
pub(super) struct Admission {
    room: Arc<Semaphore>,
    of_containers: Mutex<BTreeMap<ContainerId, usize>>,
}

/// Until it is dropped, one session more.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    admission: &'a Admission,
    container: ContainerId,
    _room: OwnedSemaphorePermit,
}

impl Default for Admission {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(SESSIONS_MAX)), of_containers: Mutex::default() }
    }
}

impl Admission {
    /// # Errors
    ///
    /// Says which bound is reached.
    pub(super) fn admit(&self, container: &ContainerId) -> Result<Admitted<'_>, Error> {
        let full = |bound: usize, of: &str| {
            Error::Unavailable(format!("{bound} sessions are open {of}, and no more can be"))
        };
        let _room = Arc::clone(&self.room)
            .try_acquire_owned()
            .map_err(|_| full(SESSIONS_MAX, "on this node"))?;
        let mut containers = self.of_containers.lock().expect("no holder of the lock panics");
        let count = containers.entry(container.clone()).or_insert(0);
        if *count >= SESSIONS_PER_CONTAINER_MAX {
            return Err(full(SESSIONS_PER_CONTAINER_MAX, "in this container"));
        }
        *count += 1;
        Ok(Admitted { admission: self, container: container.clone(), _room })
    }

    /// Admits no more, and returns when all that were admitted have ended.
    pub(super) async fn close(&self) {
        let all = u32::try_from(SESSIONS_MAX).expect("a small number");
        if let Ok(all) = self.room.acquire_many(all).await {
            all.forget();
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut containers =
            self.admission.of_containers.lock().expect("no holder of the lock panics");
        if let Entry::Occupied(mut count) = containers.entry(self.container.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ContainerId {
        ContainerId::new(format!("c{number}")).unwrap()
    }

    #[test]
    fn a_full_container_and_a_full_node_admit_nobody() {
        let admission = Admission::default();
        let mut admitted: Vec<_> =
            (0..SESSIONS_PER_CONTAINER_MAX).map(|_| admission.admit(&id(0)).unwrap()).collect();
        let refused = admission.admit(&id(0)).unwrap_err().to_string();
        assert_eq!(refused, "64 sessions are open in this container, and no more can be");
        drop(admitted.pop());
        admitted.push(admission.admit(&id(0)).unwrap());
        for number in SESSIONS_PER_CONTAINER_MAX..SESSIONS_MAX {
            admitted.push(admission.admit(&id(number)).unwrap());
        }
        let refused = admission.admit(&id(SESSIONS_MAX)).unwrap_err().to_string();
        assert_eq!(refused, "512 sessions are open on this node, and no more can be");
        admitted.clear();
        assert!(admission.of_containers.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn closing_waits_for_all_and_admits_no_more() {
        let admission = Admission::default();
        let admitted = admission.admit(&id(0)).unwrap();
        let mut closing = Box::pin(admission.close());
        assert!(futures_util::FutureExt::now_or_never(&mut closing).is_none());
        // Who waits for all has the first right to what is left.
        assert!(admission.admit(&id(1)).is_err());
        drop(admitted);
        closing.await;
        assert!(admission.admit(&id(0)).is_err());
    }
}
