//! Time as the log tells it: what the leader's clock said when it proposed.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Milliseconds: a moment since the Unix epoch, or the length of a wait.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    /// Nanoseconds since the Unix epoch, the unit of Diego's API.
    #[must_use]
    pub fn as_nanos(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX).saturating_mul(1_000_000)
    }

    #[must_use]
    pub fn saturating_sub(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Self;
    fn add(self, wait: Self) -> Self {
        Self(self.0.saturating_add(wait.0))
    }
}

impl Sub for Millis {
    type Output = Self;
    /// The wait between two moments; nothing when `earlier` is the later one.
    fn sub(self, earlier: Self) -> Self {
        self.saturating_sub(earlier)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
