//! Virtual time: instants, each group's clock, and what waits for them.
//!
//! A group's clock may run fast or slow against true time, as a machine's crystal does; it never
//! goes back. Only the simulator sees true time.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::executor::{self, TimerKey};
use crate::rng::nanos;

/// What a group's clock shows: nanoseconds since an epoch a day before the run, so that code may
/// subtract from an early instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimInstant(u64);

/// The first instant of every run: one day.
const FIRST_NS: u64 = 24 * 3600 * 1_000_000_000;

impl SimInstant {
    /// Nanoseconds since the run began, by the clock that gave this instant.
    pub fn since_start_ns(self) -> u64 {
        self.0.saturating_sub(FIRST_NS)
    }
}

impl Add<Duration> for SimInstant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        // Saturates: "never" is written as a duration of centuries.
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for SimInstant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for SimInstant {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.checked_sub(nanos(rhs)).expect("no instant is before the epoch"))
    }
}

impl SubAssign<Duration> for SimInstant {
    fn sub_assign(&mut self, rhs: Duration) {
        *self = *self - rhs;
    }
}

impl Sub for SimInstant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(rhs.0))
    }
}

impl openraft_rt::Instant for SimInstant {
    fn now() -> Self {
        executor::current().local_now()
    }
}

/// A clock that gains or loses a fixed number of parts in a million of true time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    drift_ppm: i32,
}

impl Clock {
    const MILLION: u128 = 1_000_000;

    /// A clock that gains `drift_ppm` microseconds a second, or loses them if negative.
    ///
    /// # Panics
    /// When the clock would stand still or go back.
    pub fn drifting(drift_ppm: i32) -> Self {
        assert!(drift_ppm > -1_000_000, "a clock that loses everything stands still");
        Self { drift_ppm }
    }

    fn rate(self) -> u128 {
        u128::try_from(1_000_000 + i64::from(self.drift_ppm)).expect("checked when made")
    }

    /// What it shows `true_ns` after the run began.
    pub(super) fn at(self, true_ns: u64) -> SimInstant {
        let local = u128::from(true_ns) * self.rate() / Self::MILLION;
        SimInstant(FIRST_NS.saturating_add(u64::try_from(local).unwrap_or(u64::MAX)))
    }

    /// The first true nanosecond at which it shows `instant` or later.
    pub(super) fn when(self, instant: SimInstant) -> u64 {
        let local = u128::from(instant.since_start_ns());
        u64::try_from((local * Self::MILLION).div_ceil(self.rate())).unwrap_or(u64::MAX)
    }
}

/// Waits until the clock of the group that polls it shows an instant.
#[derive(Debug)]
#[must_use = "a sleep that is not awaited does nothing"]
pub struct Sleep {
    deadline: SimInstant,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(super) fn until(deadline: SimInstant) -> Self {
        Self { deadline, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let executor = executor::current();
        if executor.local_now() >= self.deadline {
            return Poll::Ready(());
        }
        let set = self.timer.is_some_and(|timer| executor.update_timer(timer, cx.waker()));
        if !set {
            self.timer = Some(executor.set_timer(self.deadline, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(timer), Some(executor)) = (self.timer, executor::try_current()) {
            executor.cancel_timer(timer);
        }
    }
}

/// The deadline came before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

/// A future with a deadline.
#[must_use = "a timeout that is not awaited does nothing"]
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F> fmt::Debug for Timeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("sleep", &self.sleep).finish_non_exhaustive()
    }
}

impl<F: Future> Timeout<F> {
    pub(super) fn new(future: F, deadline: SimInstant) -> Self {
        Self { future: Box::pin(future), sleep: Sleep::until(deadline) }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_reaches_every_deadline() {
        for drift_ppm in [-500_000, -200, -1, 0, 1, 200, 999_999] {
            let clock = Clock::drifting(drift_ppm);
            for local_ns in [0, 1, 7, 999, 1_000_003, 123_456_789_012] {
                let deadline = SimInstant(FIRST_NS + local_ns);
                let due = clock.when(deadline);
                assert!(clock.at(due) >= deadline, "{drift_ppm} ppm wakes too early");
                assert!(due == 0 || clock.at(due - 1) < deadline, "{drift_ppm} ppm wakes late");
            }
        }
    }

    #[test]
    fn a_fast_clock_is_ahead() {
        let second = 1_000_000_000;
        let shown = |ppm| Clock::drifting(ppm).at(second).since_start_ns();
        assert_eq!([shown(-100), shown(0), shown(100)], [999_900_000, second, 1_000_100_000]);
    }

    #[test]
    fn forever_saturates() {
        let forever = SimInstant(FIRST_NS) + Duration::MAX;
        assert!(forever > SimInstant(FIRST_NS));
        assert_eq!(forever + Duration::from_secs(1), forever);
    }
}
