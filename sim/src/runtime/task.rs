//! What a spawner holds: a handle that gives the task's result, or says that it was killed or
//! panicked.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::executor::{self, TaskFuture};

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Its group was killed.
    #[error("task was killed")]
    Killed,
    /// It panicked, saying this.
    #[error("task panicked: {0}")]
    Panicked(String),
}

struct State<T> {
    result: Option<Result<T, JoinError>>,
    waiter: Option<Waker>,
}

struct Shared<T>(Mutex<State<T>>);

impl<T> Shared<T> {
    fn with<R>(&self, f: impl FnOnce(&mut State<T>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Gives a task's result. Dropping it lets the task run on.
pub struct JoinHandle<T>(Arc<Shared<T>>);

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinHandle").finish_non_exhaustive()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.with(|state| match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        })
    }
}

/// Settles the handle however the task ends: dropped unsettled, the task was killed.
struct Settle<T>(Option<Arc<Shared<T>>>);

impl<T> Settle<T> {
    fn settle(&mut self, result: Result<T, JoinError>) {
        if let Some(shared) = self.0.take() {
            let waiter = shared.with(|state| {
                state.result = Some(result);
                state.waiter.take()
            });
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }
}

impl<T> Drop for Settle<T> {
    fn drop(&mut self) {
        self.settle(Err(JoinError::Killed));
    }
}

/// Makes a future into a task and its handle.
pub(super) fn new<F>(future: F) -> (TaskFuture, JoinHandle<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let state = State { result: None, waiter: None };
    let shared = Arc::new(Shared(Mutex::new(state)));
    let mut settle = Settle(Some(shared.clone()));
    let task = async move {
        let result = {
            let mut future = pin!(future);
            poll_fn(|cx| {
                // The future is not polled again after a panic, so what it left broken is unseen.
                match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                    Ok(polled) => polled.map(Ok),
                    Err(payload) => Poll::Ready(Err(message(&*payload))),
                }
            })
            .await
        };
        settle.settle(result.map_err(|message| {
            executor::current().panicked(message.clone());
            JoinError::Panicked(message)
        }));
    };
    (Box::pin(task), JoinHandle(shared))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic that is not text".into())
}
