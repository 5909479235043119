//! openraft's runtime, simulated: one thread, virtual time, every choice from one seed.
//!
//! Code under simulation spawns, sleeps and draws through openraft's `AsyncRuntime`, and so never
//! knows. The functions of this module are the simulator's side door: task groups that can be
//! killed at any await point, clocks that drift, and the trace. Nothing here sleeps, starts a
//! thread or reads a real clock.

mod channels;
mod executor;
mod task;
mod time;
mod watch;

use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant, OptionalSend};

pub use self::channels::{
    Mpsc, MpscReceiver, MpscSender, MpscWeakSender, Mutex, Oneshot, OneshotSender,
};
use self::executor::Executor;
pub use self::executor::{Group, Panic};
pub use self::task::{JoinError, JoinHandle};
pub use self::time::{Clock, Elapsed, SimInstant, Sleep, Timeout};
pub use self::watch::{Receiver, Ref, Sender, Watch};
use crate::rng::Rng;
use crate::trace::{Listener, Trace};

/// One simulated world's executor. Dropping it drops every task.
pub struct SimRuntime {
    executor: Rc<Executor>,
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRuntime")
            .field("now_ns", &self.executor.now_ns())
            .finish_non_exhaustive()
    }
}

impl SimRuntime {
    /// An executor whose every choice follows from `seed`.
    pub fn with_seed(seed: u64) -> Self {
        Self { executor: Rc::new(Executor::new(seed)) }
    }

    /// From here on every event is told to `listener`.
    pub fn listen(&mut self, listener: Listener) {
        self.executor.listen(listener);
    }

    /// Reads the trace.
    pub fn trace<T>(&self, read: impl FnOnce(&Trace) -> T) -> T {
        self.executor.with_trace(read)
    }

    /// Virtual time since the run began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.executor.now_ns())
    }

    /// Every panic of a task so far.
    pub fn panics(&self) -> Vec<Panic> {
        self.executor.panics()
    }
}

impl Drop for SimRuntime {
    fn drop(&mut self) {
        self.executor.clear();
    }
}

/// Makes a new group of tasks: one life of a node.
pub fn new_group(label: impl Into<String>, clock: Clock) -> Group {
    executor::current().new_group(label.into(), clock)
}

/// Spawns a task into a group. A killed group takes none: the handle then says `Killed`.
pub fn spawn_in<F>(group: Group, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (task, handle) = task::new(future);
    executor::current().spawn(group, task);
    handle
}

/// Drops every task of a group wherever it waits, at once, and refuses it any more. Destructors
/// run, so whatever must not hear them (disk, network) is cut off from the group before.
///
/// # Panics
/// For `Group::WORLD`.
pub fn kill(group: Group) {
    executor::current().kill(group);
}

/// The group of the running task.
pub fn current_group() -> Group {
    executor::current().current_group()
}

/// How many tasks a group has.
pub fn tasks_of(group: Group) -> usize {
    executor::current().tasks_of(group)
}

/// True virtual time since the run began: for the simulator, never for code under simulation.
pub fn true_time() -> Duration {
    Duration::from_nanos(executor::current().now_ns())
}

/// Every panic of a task so far.
pub fn panics() -> Vec<Panic> {
    executor::current().panics()
}

/// Puts an event of the running group into the trace.
pub fn event(name: &'static str, fields: &[(&'static str, u64)]) {
    executor::current().event(name, fields, String::new);
}

/// As [`event`], with something more to tell whoever listens.
pub fn event_with(
    name: &'static str,
    fields: &[(&'static str, u64)],
    detail: impl FnOnce() -> String,
) {
    executor::current().event(name, fields, detail);
}

impl AsyncRuntime for SimRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Rng;
    type Mpsc = Mpsc;
    type Watch = Watch;
    type Oneshot = Oneshot;
    type Mutex<T: OptionalSend + 'static> = Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        spawn_in(current_group(), future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(SimInstant::now() + duration)
    }

    fn sleep_until(deadline: SimInstant) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        Timeout::new(future, SimInstant::now() + duration)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: SimInstant,
        future: F,
    ) -> Timeout<F> {
        Timeout::new(future, deadline)
    }

    fn is_panic(join_error: &JoinError) -> bool {
        match join_error {
            JoinError::Panicked(_) => true,
            JoinError::Killed => false,
        }
    }

    fn thread_rng() -> Rng {
        Rng::stream(executor::current().draw_seed(), "thread")
    }

    /// Seed 0: for openraft's test suite, which cannot give one.
    fn new(_threads: usize) -> Self {
        Self::with_seed(0)
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.executor.run(future)
    }

    /// Runs `f` as a task, in zero virtual time: there are no threads.
    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let handle = Self::spawn(async move { f() });
        async move { handle.await.map_err(io::Error::other) }
    }
}

#[cfg(test)]
mod tests;
