//! The staging tasks of this cell: each asks a registry about one image, as this cell is
//! configured to speak to it, and has no container ([`crate::staging`]).
//!
//! For the agent it is a container like others: it starts, ends with a result, is stopped and
//! removed. A node that is started again knows of none, which fails the task as any whose container
//! is gone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};

use agent::world::{CreateFailure, Found};
use container::image::{Credentials, Reference, Store};
use model::TaskGuid;
use plan::cell::{Container, Handle};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::not_created;
use crate::limits::{STAGING_FETCH_MAX, STAGINGS_AT_ONCE_MAX};
use crate::staging;

/// Of one cell.
#[derive(Debug)]
pub(super) struct Stagings {
    images: Arc<Store>,
    room: Arc<Semaphore>,
    versions: watch::Sender<u64>,
    jobs: Mutex<BTreeMap<TaskGuid, Job>>,
}

/// What is to be asked, and as whom.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) reference: Reference,
    pub(super) credentials: Option<Credentials>,
}

/// One that has begun. Dropped, it asks no more.
#[derive(Debug)]
struct Job {
    cancelled: CancellationToken,
    /// None while it is not over.
    outcome: watch::Receiver<Option<Container>>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

impl Stagings {
    pub(super) fn new(images: Arc<Store>, versions: watch::Sender<u64>) -> Self {
        let room = Arc::new(Semaphore::new(STAGINGS_AT_ONCE_MAX));
        Self { images, room, versions, jobs: Mutex::default() }
    }

    /// Begins one. A question that makes no sense is asked nobody, and has failed.
    pub(super) fn begin(
        &self,
        guid: &TaskGuid,
        question: Result<Question, String>,
    ) -> Result<(), CreateFailure> {
        let (ended, outcome) = watch::channel(None);
        let cancelled = CancellationToken::new();
        match self.jobs().entry(guid.clone()) {
            Entry::Occupied(_) => return Err(not_created(&"it is staging already", false)),
            Entry::Vacant(place) => {
                place.insert(Job { cancelled: cancelled.clone(), outcome });
            }
        }
        let (images, room) = (Arc::clone(&self.images), Arc::clone(&self.room));
        let versions = self.versions.clone();
        tokio::spawn(async move {
            let asked = async {
                let question = question?;
                let _room = room.acquire().await.expect("it is never closed");
                ask(&images, &question).await
            };
            let answer = tokio::select! {
                answer = asked => answer,
                () = cancelled.cancelled() => Err("staging was ended".to_owned()),
            };
            ended.send_replace(Some(over(answer)));
            versions.send_modify(|version| *version += 1);
        });
        self.versions.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Ends one, and returns when it has; whether there is one.
    pub(super) async fn stop(&self, guid: &TaskGuid) -> bool {
        let mut outcome = {
            let jobs = self.jobs();
            let Some(job) = jobs.get(guid) else { return false };
            job.cancelled.cancel();
            job.outcome.clone()
        };
        // Gone with its task, it has nothing to wait for.
        let _ = outcome.wait_for(Option::is_some).await;
        true
    }

    /// Whether there was one.
    pub(super) fn remove(&self, guid: &TaskGuid) -> bool {
        self.jobs().remove(guid).is_some()
    }

    /// Ends all.
    pub(super) fn close(&self) {
        self.jobs().clear();
    }

    pub(super) fn list(&self) -> Vec<Found> {
        let found = |(guid, job): (&TaskGuid, &Job)| Found {
            handle: Handle::Task(guid.clone()),
            container: job.outcome.borrow().clone().unwrap_or(Container::Starting),
        };
        self.jobs().iter().map(found).collect()
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<TaskGuid, Job>> {
        self.jobs.lock().expect("no holder of the lock panics")
    }
}

async fn ask(images: &Store, question: &Question) -> Result<String, String> {
    let Question { reference, credentials } = question;
    let resolving = images.resolve(reference, credentials.as_ref());
    let resolved = tokio::time::timeout(STAGING_FETCH_MAX, resolving)
        .await
        .map_err(|_| {
            let seconds = STAGING_FETCH_MAX.as_secs();
            format!("{reference}: its registry did not tell of it within {seconds} s")
        })?
        .map_err(|error| error.to_string())?;
    staging::result(reference, &resolved)
}

fn over(answer: Result<String, String>) -> Container {
    match answer {
        Ok(result) => Container::Exited { failed: false, reason: String::new(), result },
        Err(reason) => {
            let result = staging::NO_ANSWER.to_owned();
            Container::Exited { failed: true, reason, result }
        }
    }
}
