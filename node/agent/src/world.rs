//! What a node asks of the world it runs in. The server answers with tokio and Linux, the
//! simulator with virtual time and containers that are only records.

use std::time::Duration;

use model::{Millis, Task};
use plan::Settings;
use plan::cell::{Container, Handle, Work};
use replica::AsyncRuntime;
use replica::disk::Disk;
use replica::peers::Peers;

/// The parts of a world, and its clock.
pub trait World: Send + Sync + 'static {
    type Runtime: AsyncRuntime;
    type Disk: Disk;
    type Peers: Peers;
    type Containers: Containers;

    /// The wall clock's time. It may jump; what must not go back is clamped by apply.
    fn now(&self) -> Millis;

    /// How long a stretch of the world's time takes.
    fn duration(&self, stretch: Millis) -> Duration {
        Duration::from_millis(stretch.0)
    }

    /// The stretch of the world's time that a duration is: the inverse of [`Self::duration`].
    fn stretch(&self, duration: Duration) -> Millis {
        Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// How the cluster is planned while this node leads.
    fn settings(&self) -> Settings {
        Settings::default()
    }

    fn containers(&self) -> &Self::Containers;

    /// Tells a client that its task has ended: one request to the task's callback URL, whose end
    /// the caller may not wait for. Returns the status of the answer, after redirections.
    fn call_back(&self, task: &Task) -> impl Future<Output = Result<u16, CallbackError>> + Send;
}

/// The client was not reached, or did not answer: the address, the connection or the URL is bad.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CallbackError(pub String);

/// The containers of one cell.
pub trait Containers: Send + Sync + 'static {
    /// Brings the image here, makes the container and starts its process. When this returns
    /// `Ok`, [`Containers::list`] names the container.
    fn create(
        &self,
        handle: &Handle,
        work: &Work,
    ) -> impl Future<Output = Result<(), CreateFailure>> + Send;

    /// Asks the container's processes to end, and after their grace makes them. Returns when
    /// they have ended.
    fn stop(&self, handle: &Handle) -> impl Future<Output = ()> + Send;

    /// Removes everything of a container, whatever state it is in. Idempotent.
    fn destroy(&self, handle: &Handle) -> impl Future<Output = Result<(), String>> + Send;

    /// All containers here, of this life of the node and of former ones.
    fn list(&self) -> Vec<Found>;

    /// Waits until the list may differ from what it was when the version was `seen`, and returns
    /// the version then. The first call passes 0.
    fn changed(&self, seen: u64) -> impl Future<Output = u64> + Send;
}

/// One container, as found on the cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub handle: Handle,
    pub container: Container,
}

/// Why a container was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateFailure {
    /// What went wrong, in Diego's words, for instance `failed to create container: no room`.
    pub reason: String,
    /// Whether another try, perhaps elsewhere, may do: nothing of the user's has run yet.
    pub retryable: bool,
}
