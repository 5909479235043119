//! Crash back-off: when an instance that crashed starts again.
//!
//! Source: Diego's `bbs/models/restart_calculator.go` (lifecycle.md section 3.3).

use crate::limits::{
    CRASH_RESET, RESTART_WAIT_MAX, RESTART_WAIT_MIN, RESTARTS_IMMEDIATE, RESTARTS_MAX,
};
use crate::mutant;
use crate::time::Millis;

/// What follows a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Now,
    At(Millis),
    /// Not again by itself.
    Never,
}

/// The crash count after one more crash of an instance that ran since `running_since`, or did
/// not get as far as running.
#[must_use]
pub fn count_after_crash(count: u32, running_since: Option<Millis>, now: Millis) -> u32 {
    match running_since {
        Some(since) if now - since > CRASH_RESET => 1,
        _ => count.saturating_add(1),
    }
}

/// What follows the `count`-th crash in a row, which happened at `crashed_at`.
#[must_use]
pub fn after_crash(count: u32, crashed_at: Millis) -> Restart {
    if count < RESTARTS_IMMEDIATE {
        return Restart::Now;
    }
    if count >= RESTARTS_MAX {
        return Restart::Never;
    }
    // floor(log2(ceil(16 min / 30 s))) doublings reach the longest wait.
    let doublings = (count - RESTARTS_IMMEDIATE).min(5);
    let wait = Millis((RESTART_WAIT_MIN.0 << doublings).min(RESTART_WAIT_MAX.0));
    let wait = if mutant!("restart-early") { Millis(wait.0 / 2) } else { wait };
    Restart::At(crashed_at + wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_diegos() {
        let secs = |count| match after_crash(count, Millis(0)) {
            Restart::Now => Some(0),
            Restart::At(at) => Some(at.0 / 1000),
            Restart::Never => None,
        };
        let table = [
            (1, Some(0)),
            (2, Some(0)),
            (3, Some(30)),
            (4, Some(60)),
            (5, Some(120)),
            (6, Some(240)),
            (7, Some(480)),
            (8, Some(960)),
            (199, Some(960)),
            (200, None),
            (u32::MAX, None),
        ];
        for (count, wait) in table {
            assert_eq!(secs(count), wait, "after crash {count}");
        }
    }

    #[test]
    fn a_healthy_while_resets_the_count() {
        let five_minutes = Millis::from_secs(300);
        assert_eq!(count_after_crash(7, Some(Millis(0)), five_minutes), 8);
        assert_eq!(count_after_crash(7, Some(Millis(0)), five_minutes + Millis(1)), 1);
        assert_eq!(count_after_crash(7, None, five_minutes + Millis(1)), 8);
        assert_eq!(count_after_crash(u32::MAX, None, Millis(0)), u32::MAX);
    }
}
