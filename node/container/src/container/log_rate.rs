//! How much a container may log: bytes a second, as its owner asks, and lines a second, as the
//! operator says.
//!
//! Diego's rule (executor, `depot/log_streamer/log_rate_limiter.go`): a bucket of one second's
//! worth for each; a line that finds too little in one of them is dropped with all that follow
//! within a second, and one line says so in its place.
//! What is dropped is gone; the app is never made to wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRate {
    /// Bytes of lines, without their ends, a second. A longer line never passes; 0 lets nothing
    /// pass, and nothing is said of it.
    pub bytes_per_second: Option<u64>,
    /// Lines a second, set by the operator.
    pub lines_per_second: Option<u32>,
}

/// How long all lines are dropped after one that was too much.
const SILENCE: Duration = Duration::from_secs(1);

/// What becomes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    /// It is dropped, and this line, which no limit holds back, stands in its place.
    Replace(String),
}

/// One container's limits and what is left of them, for all of its processes and both of their
/// outputs together.
#[derive(Clone, Debug)]
pub(super) struct LogRateLimiter {
    bytes: Option<Bucket>,
    lines: Option<Bucket>,
    silent_until: Duration,
}

impl LogRateLimiter {
    pub(super) fn new(rate: LogRate) -> Self {
        Self {
            bytes: rate.bytes_per_second.map(Bucket::full),
            lines: rate.lines_per_second.map(|lines| Bucket::full(lines.into())),
            silent_until: Duration::ZERO,
        }
    }

    /// Decides on a line of `bytes` bytes at `now`, by a clock that does not go back.
    pub(super) fn admit(&mut self, now: Duration, bytes: usize) -> Verdict {
        if self.bytes.as_ref().is_some_and(|bucket| bucket.rate == 0) || now < self.silent_until {
            return Verdict::Drop;
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if let Some(bucket) = &mut self.bytes
            && !bucket.take(now, bytes)
        {
            self.silent_until = now + SILENCE;
            let rate = bucket.rate;
            let notice = format!("app instance exceeded log rate limit ({rate} bytes/sec)");
            return Verdict::Replace(notice);
        }
        if let Some(bucket) = &mut self.lines
            && !bucket.take(now, 1)
        {
            self.silent_until = now + SILENCE;
            return Verdict::Replace(format!(
                "app instance exceeded log rate limit ({} log-lines/sec) set by platform operator",
                bucket.rate
            ));
        }
        Verdict::Pass
    }
}

/// A token bucket that holds one second's worth.
#[derive(Clone, Debug)]
struct Bucket {
    /// Tokens a second.
    rate: u64,
    /// Billionths of a token: what a nanosecond adds is then a whole number.
    tokens: u128,
    at: Duration,
}

const BILLION: u128 = 1_000_000_000;

impl Bucket {
    fn full(rate: u64) -> Self {
        Self { rate, tokens: u128::from(rate) * BILLION, at: Duration::ZERO }
    }

    fn take(&mut self, now: Duration, wanted: u64) -> bool {
        let rate = u128::from(self.rate);
        let gained = now.saturating_sub(self.at).as_nanos().saturating_mul(rate);
        self.tokens = self.tokens.saturating_add(gained).min(rate * BILLION);
        self.at = now;
        match self.tokens.checked_sub(u128::from(wanted) * BILLION) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_NOTICE: &str = "app instance exceeded log rate limit (100 bytes/sec)";
    const LINES_NOTICE: &str =
        "app instance exceeded log rate limit (3 log-lines/sec) set by platform operator";

    /// The verdicts on lines, each at a millisecond and of some bytes.
    fn verdicts(rate: LogRate, lines: &[(u64, usize)]) -> Vec<Verdict> {
        let mut limiter = LogRateLimiter::new(rate);
        let admit = |(at, bytes): &(u64, usize)| limiter.admit(Duration::from_millis(*at), *bytes);
        lines.iter().map(admit).collect()
    }

    fn bytes(bytes_per_second: u64) -> LogRate {
        LogRate { bytes_per_second: Some(bytes_per_second), lines_per_second: None }
    }

    fn replaced(notice: &str) -> Verdict {
        Verdict::Replace(notice.to_owned())
    }

    use Verdict::{Drop, Pass};

    #[test]
    fn without_a_limit_all_passes() {
        assert_eq!(verdicts(LogRate::default(), &[(0, usize::MAX), (0, 1)]), [Pass, Pass]);
    }

    #[test]
    fn a_limit_of_nothing_is_silent() {
        assert_eq!(verdicts(bytes(0), &[(0, 1), (5000, 0)]), [Drop, Drop]);
    }

    #[test]
    fn one_seconds_worth_may_come_at_once_and_what_is_used_comes_back() {
        let lines = [(0, 60), (0, 40), (500, 50), (1500, 100)];
        assert_eq!(verdicts(bytes(100), &lines), [Pass, Pass, Pass, Pass]);
    }

    #[test]
    fn too_much_is_said_once_and_a_second_is_silent() {
        let lines =
            [(0, 100), (0, 1), (1, 1), (999, 0), (1000, 99), (1000, 2), (1999, 1), (2000, 1)];
        let notice = replaced(BYTES_NOTICE);
        let wanted = [Pass, notice.clone(), Drop, Drop, Pass, notice, Drop, Pass];
        assert_eq!(verdicts(bytes(100), &lines), wanted);
    }

    #[test]
    fn a_line_longer_than_the_limit_never_passes() {
        let notice = replaced(BYTES_NOTICE);
        assert_eq!(verdicts(bytes(100), &[(0, 101), (9000, 101)]), [notice.clone(), notice]);
    }

    #[test]
    fn the_operator_counts_lines() {
        let rate = LogRate { bytes_per_second: None, lines_per_second: Some(3) };
        let lines = [(0, 9), (0, 9), (0, 9), (0, 9), (500, 9), (1000, 9)];
        let wanted = [Pass, Pass, Pass, replaced(LINES_NOTICE), Drop, Pass];
        assert_eq!(verdicts(rate, &lines), wanted);
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let rate = LogRate { bytes_per_second: Some(u64::MAX), lines_per_second: Some(u32::MAX) };
        let lines = [(0, usize::MAX), (u64::MAX, usize::MAX)];
        assert_eq!(verdicts(rate, &lines), [Pass, Pass]);
    }
}
