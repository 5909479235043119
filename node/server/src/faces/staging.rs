//! Staging an image: a task that a cell takes, waited for on this node's own state, and gone
//! afterwards, whatever comes of it. See [`crate::staging`].

use std::sync::Arc;
use std::time::Duration;

use api::Error;
use api::admin::StagedImage;
use container::image::{Credentials, Reference};
use model::{CellId, Command, ProcessGuid, Refusal, State, Task, TaskDefinition, TaskGuid, task};
use plan::report::Wait;
use replica::replica::ProposeError;

use crate::limits::{STAGING_ATTEMPTS_MAX, STAGING_PAUSE};
use crate::secrets::{Owner, SealError, Secrets};
use crate::staging;
use crate::world::NodeAgent;

/// What staging needs of a node.
pub(super) trait Cluster: Clone + Send + Sync + 'static {
    /// Has commands agreed as one proposal; each is accepted or refused by itself, in order.
    fn propose(
        &self,
        commands: Vec<Command>,
    ) -> impl Future<Output = Result<Vec<Result<bool, Refusal>>, ProposeError>> + Send;

    /// Waits until this finds something in the state as this node has applied it; nothing where the
    /// node ends.
    fn until<T: Send>(
        &self,
        look: impl FnMut(&State) -> Option<T> + Send,
    ) -> impl Future<Output = Option<T>> + Send;

    /// Why a task waits for a cell, as the leader has it.
    fn waiting(&self, task_guid: TaskGuid) -> impl Future<Output = Option<Wait>> + Send;
}

/// What is to be staged, and for which app.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) app: ProcessGuid,
    pub(super) reference: Reference,
    /// The recipe's own user of the registry.
    pub(super) user: Option<Credentials>,
}

/// How one task ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Staged(Box<StagedImage>),
    /// Another would end so too.
    Failed(String),
    /// Nobody has asked the registry, or its answer is lost.
    Again(String),
}

/// What a task has come to.
enum Found {
    Over(Arc<Task>),
    /// No cell takes it; the leader would try again after a long rest.
    Rejected(String),
    /// Somebody has deleted it.
    Gone,
}

/// Stages an image, by one task after another where a cell is lost or none takes it.
///
/// # Errors
///
/// [`Error::Image`] says why the image is of no use, or why no cell has told of it within
/// `patience`.
pub(super) async fn stage<C: Cluster>(
    cluster: &C,
    secrets: &Secrets,
    wish: &Wish,
    patience: Duration,
) -> Result<StagedImage, Error> {
    let reference = &wish.reference;
    let give_up = tokio::time::Instant::now() + patience;
    let mut last = String::new();
    for attempt in 1..=STAGING_ATTEMPTS_MAX {
        if attempt > 1 {
            tracing::info!(image = %reference, attempt, reason = last, "staging is tried again");
            tokio::time::sleep(STAGING_PAUSE).await;
        }
        let mut one = Attempt::new(cluster, attempt);
        let definition = definition(secrets, &one.guid, wish)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        match tokio::time::timeout_at(give_up, one.run(definition)).await {
            Ok(Ok(Ended::Staged(image))) => return Ok(*image),
            Ok(Ok(Ended::Failed(reason))) => return Err(Error::Image(reason)),
            Ok(Ok(Ended::Again(reason))) => last = reason,
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                // What is known best of one that has hardly begun is why the one before has ended.
                let is_new = one.seen.is_none() && !last.is_empty();
                let why = if is_new { last } else { one.why_not_over().await };
                let waited = patience.as_secs();
                return Err(Error::Image(format!(
                    "{reference} is not staged after {waited} s: {why}"
                )));
            }
        }
    }
    Err(Error::Image(format!("{reference} is not staged, {STAGING_ATTEMPTS_MAX} times: {last}")))
}

fn definition(
    secrets: &Secrets,
    guid: &TaskGuid,
    wish: &Wish,
) -> Result<TaskDefinition, SealError> {
    let mut definition = staging::definition(&wish.app, &wish.reference);
    if let Some(Credentials { username, password }) = &wish.user {
        definition.image_password = secrets.seal(Owner::Task(guid), username, password)?;
        definition.image_username.clone_from(username);
    }
    Ok(definition)
}

/// One task. Dropped, it is ended and deleted.
struct Attempt<C: Cluster> {
    cluster: C,
    guid: TaskGuid,
    /// Whether this node has seen the task in its state, and the last cell that it was on.
    seen: Option<Option<CellId>>,
}

impl<C: Cluster> Attempt<C> {
    fn new(cluster: &C, attempt: u32) -> Self {
        let guid = format!("staging-{:016x}-{attempt}", rand::random::<u64>()).into();
        Self { cluster: cluster.clone(), guid, seen: None }
    }

    async fn run(&mut self, definition: TaskDefinition) -> Result<Ended, Error> {
        let command = Command::DesireTask {
            task_guid: self.guid.clone(),
            domain: staging::DOMAIN.into(),
            definition: Box::new(definition),
        };
        let agreed = match self.cluster.propose(vec![command]).await {
            Ok(results) => results,
            // Whether it is desired or not: it only reads, and another may be.
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        };
        for result in agreed {
            result?;
        }
        let Self { cluster, guid, seen } = &mut *self;
        match cluster.until(|state| look(state, guid, seen)).await {
            Some(Found::Over(task)) => Ok(self.ended(&task)),
            Some(Found::Rejected(reason)) => {
                let help = self.cluster.waiting(self.guid.clone()).await.map(|wait| wait.help);
                let help = help.map(|help| format!(" ({help})")).unwrap_or_default();
                Ok(Ended::Again(format!("no cell takes it: {reason}{help}")))
            }
            Some(Found::Gone) => Ok(Ended::Failed("its staging task was deleted".to_owned())),
            None => Err(Error::Unavailable("the node ends".to_owned())),
        }
    }

    fn ended(&self, task: &Task) -> Ended {
        let end = task.result().expect("it is over");
        let cell_id = self.seen.clone().flatten();
        let on = || cell_id.as_ref().map_or(String::new(), |cell| format!(" (on {cell})"));
        if !end.failed {
            return match staging::metadata(&end.result) {
                Ok(metadata) => {
                    let task_guid = task.task_guid.clone();
                    Ended::Staged(Box::new(StagedImage { metadata, task_guid, cell_id }))
                }
                Err(reason) => Ended::Failed(format!("{reason}{}", on())),
            };
        }
        let reason = format!("{}{}", end.failure_reason, on());
        let is_final = end.result == staging::NO_ANSWER || end.failure_reason == task::CANCELLED;
        if is_final { Ended::Failed(reason) } else { Ended::Again(reason) }
    }

    /// What is awaited when nobody waits any longer.
    async fn why_not_over(&self) -> String {
        if let Some(Wait { why, help, .. }) = self.cluster.waiting(self.guid.clone()).await {
            return format!("no cell takes it: {why} ({help})");
        }
        match &self.seen {
            Some(Some(cell)) => format!("{cell} still asks its registry"),
            Some(None) => "it waits for a cell".to_owned(),
            None => "this node is behind the others".to_owned(),
        }
    }
}

/// What has become of a task; nothing while nothing has. `seen` remembers whether it was there, and
/// on which cell.
fn look(state: &State, guid: &TaskGuid, seen: &mut Option<Option<CellId>>) -> Option<Found> {
    let Some(task) = state.task(guid) else {
        // Before it was seen it is not applied here yet.
        return seen.is_some().then_some(Found::Gone);
    };
    let cell = task.cell().cloned();
    let known = seen.get_or_insert(None);
    if cell.is_some() {
        *known = cell;
    }
    if task.result().is_some() {
        return Some(Found::Over(Arc::clone(task)));
    }
    let is_rejected = task.rejection_count > 0 && task.cell().is_none();
    is_rejected.then(|| Found::Rejected(task.rejection_reason.clone()))
}

impl<C: Cluster> Drop for Attempt<C> {
    /// What cannot be agreed now expires by itself, some minutes after it has ended.
    fn drop(&mut self) {
        let (cluster, task_guid) = (self.cluster.clone(), self.guid.clone());
        tokio::spawn(async move {
            // In order, and each refused where it comes too late: one that is over is not cancelled.
            let end = vec![
                Command::CancelTask { task_guid: task_guid.clone() },
                Command::ResolvingTask { task_guid: task_guid.clone() },
                Command::DeleteTask { task_guid: task_guid.clone() },
            ];
            if let Err(error) = cluster.propose(end).await {
                tracing::info!(task = %task_guid, %error, "a staging task is left to expire");
            }
        });
    }
}

impl Cluster for NodeAgent {
    /// On a task of its own: a client that hangs up must not stop a change half-way.
    async fn propose(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<bool, Refusal>>, ProposeError> {
        let agent = self.clone();
        let proposed = tokio::spawn(async move { agent.propose_all(commands).await });
        proposed.await.expect("proposing does not panic")
    }

    async fn until<T: Send>(&self, mut look: impl FnMut(&State) -> Option<T> + Send) -> Option<T> {
        let mut watcher = self.replica().watch();
        loop {
            // The first change is there at once, and what comes after the look is another.
            watcher.changed().await?;
            if let Some(found) = look(&self.read_stale().state) {
                return Some(found);
            }
        }
    }

    async fn waiting(&self, task_guid: TaskGuid) -> Option<Wait> {
        self.waiting_task(task_guid).await
    }
}

#[cfg(test)]
mod tests;
