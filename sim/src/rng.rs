//! Randomness: everything random in a run comes from its seed, through named streams.
//!
//! A stream belongs to one part of the world (the schedule, one disk, the network, ...), so that
//! drawing more in one part does not change what another part draws. Chances are whole parts of
//! a million, never floats: the same draw on every machine.

use std::convert::Infallible;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng, TryRng};

/// A chance in parts of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(pub u32);

impl PerMillion {
    /// Never happens.
    pub const NEVER: PerMillion = PerMillion(0);
    /// Always happens.
    pub const ALWAYS: PerMillion = PerMillion(1_000_000);
}

/// One stream of random numbers.
///
/// Xoshiro256++ is a portable generator: its numbers are the same on every platform.
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// The stream called `name` of a run's `seed`. Equal arguments give equal streams.
    pub fn stream(seed: u64, name: &str) -> Self {
        let mut hash = Hash::default();
        hash.u64(seed);
        hash.bytes(name.as_bytes());
        Self(Xoshiro256PlusPlus::seed_from_u64(hash.value()))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.random()
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is zero: there is no such number.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a number below zero was asked for");
        self.0.random_range(0..bound)
    }

    /// An index into something `len` long.
    ///
    /// # Panics
    /// When `len` is zero.
    pub fn index(&mut self, len: usize) -> usize {
        assert!(len > 0, "an index into nothing was asked for");
        self.0.random_range(0..len)
    }

    /// Whether something happens that has this chance.
    pub fn chance(&mut self, chance: PerMillion) -> bool {
        // Drawn even when the answer is sure, so that turning a fault off does not shift the
        // stream for everything after it.
        self.below(u64::from(PerMillion::ALWAYS.0)) < u64::from(chance.0)
    }

    /// A duration of at least `low` and at most `high`, to the nanosecond.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        assert!(low <= high, "an empty range of durations was asked for");
        Duration::from_nanos(self.0.random_range(nanos(low)..=nanos(high)))
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When `items` is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }
}

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(dst)
    }
}

/// A running 64-bit hash: of streams' names and of traces. Not for anything that an adversary
/// may choose.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Takes in one number.
    pub fn u64(&mut self, value: u64) {
        // Multiply-xor with rotation (the FxHash step): one multiplication for each poll.
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Takes in bytes and their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.u64(u64::from_le_bytes(word));
        }
        self.u64(bytes.len() as u64);
    }

    /// The hash of everything taken in so far.
    pub fn value(self) -> u64 {
        // SplitMix64's finaliser: every bit in changes every bit out.
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A duration in whole nanoseconds.
///
/// # Panics
/// Past 584 years, which no run lasts.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a simulated duration is below 584 years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_repeats_itself_and_differs_from_others() {
        let draw = |seed, name| {
            let mut rng = Rng::stream(seed, name);
            [rng.any(), rng.any(), rng.any()]
        };
        assert_eq!(draw(1, "disk"), draw(1, "disk"));
        assert_ne!(draw(1, "disk"), draw(2, "disk"));
        assert_ne!(draw(1, "disk"), draw(1, "network"));
    }

    /// The numbers themselves are pinned: a seed kept today must mean the same run tomorrow.
    #[test]
    fn the_numbers_of_a_seed_do_not_change() {
        let mut rng = Rng::stream(7, "pinned");
        assert_eq!([rng.any(), rng.any()], PINNED);
    }
    const PINNED: [u64; 2] = [10_363_019_468_131_228_511, 2_893_129_381_181_414_970];

    #[test]
    fn chances_come_true_as_often_as_they_say() {
        let mut rng = Rng::stream(3, "chance");
        let hits = (0..100_000).filter(|_| rng.chance(PerMillion(250_000))).count();
        assert!((24_000..26_000).contains(&hits), "{hits} of 100000 at one in four");
        assert!((0..1000).all(|_| !rng.chance(PerMillion::NEVER)));
        assert!((0..1000).all(|_| rng.chance(PerMillion::ALWAYS)));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut rng = Rng::stream(9, "shuffle");
        let mut items: Vec<u32> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn durations_stay_within_their_bounds() {
        let mut rng = Rng::stream(5, "between");
        let (low, high) = (Duration::from_micros(10), Duration::from_micros(12));
        assert!((0..1000).map(|_| rng.between(low, high)).all(|d| low <= d && d <= high));
        assert_eq!(rng.between(low, low), low);
    }
}
