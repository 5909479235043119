//! How good a cell is for a container, as a whole number: lower is better.
//!
//! Diego (auction.md section 6) adds floats: the mean of the used shares of memory, disk and
//! containers after the placement, `starting_container_weight` for each container that is starting there,
//! `bin_pack_first_fit_weight` for each cell before it in its zone (not for tasks), and 1000 for
//! each instance of the same process (for a task: for each task). Here the same sum is counted in
//! [`UNIT`]s, thrice, so that the mean needs no division. Shares are rounded down, each by less
//! than a billionth, the same on every machine.

use model::Capacity;

/// One full share: a resource used to the last.
const UNIT: u64 = 1_000_000_000;
/// A weight of one thousandth.
const THOUSANDTH: u64 = 3 * UNIT / 1000;
/// Diego: the auction runner's `localityOffset`, 1000.
const SAME: u64 = 3 * UNIT * 1000;

/// What a container asks of a cell, besides being one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    /// Mebibytes.
    pub(super) memory_mb: u64,
    /// Mebibytes.
    pub(super) disk_mb: u64,
}

/// What is taken of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Mebibytes.
    pub(super) memory_mb: u64,
    /// Mebibytes.
    pub(super) disk_mb: u64,
    pub(super) containers: u64,
    /// Of the containers, those that have not started yet.
    pub(super) starting: u64,
    /// Of the containers, those of tasks.
    pub(super) tasks: u64,
}

/// The part of the score that the cell brings along, whatever is placed there next.
pub(super) fn of_load(taken: &Taken, capacity: &Capacity, starting_weight: u32) -> u64 {
    share(taken.memory_mb, capacity.memory_mb)
        + share(taken.disk_mb, capacity.disk_mb)
        + share(taken.containers, capacity.containers)
        + weighed(taken.starting, starting_weight)
}

/// The part that `count` things of some weight in thousandths bring, at most an eighth of all
/// numbers so that no sum overflows.
pub(super) fn weighed(count: u64, weight: u32) -> u64 {
    count.saturating_mul(u64::from(weight).saturating_mul(THOUSANDTH)).min(u64::MAX / 8)
}

/// The part that the new container brings; the same on all cells of one capacity.
pub(super) fn of_need(need: Need, capacity: &Capacity) -> u64 {
    share(need.memory_mb, capacity.memory_mb)
        + share(need.disk_mb, capacity.disk_mb)
        + share(1, capacity.containers)
}

/// The part for its like: instances of the same process, or tasks.
pub(super) fn of_same(count: u64) -> u64 {
    count.saturating_mul(SAME).min(u64::MAX / 8)
}

/// `part` of `whole` in units, at most one. Nothing of nothing is nothing.
fn share(part: u64, whole: u32) -> u64 {
    let whole = u64::from(whole);
    (part.min(whole) * UNIT).checked_div(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { memory_mb: 1000, disk_mb: 0, containers: 10 };

    #[test]
    fn shares_are_thirds_and_whole() {
        let taken = Taken { memory_mb: 250, containers: 1, ..Taken::default() };
        assert_eq!(of_load(&taken, &CAPACITY, 250), UNIT / 4 + UNIT / 10);
        let need = Need { memory_mb: 500, disk_mb: 0 };
        assert_eq!(of_need(need, &CAPACITY), UNIT / 2 + UNIT / 10);
    }

    #[test]
    fn one_of_the_same_outweighs_thousands_that_start() {
        let starting = |starting| of_load(&Taken { starting, ..Taken::default() }, &CAPACITY, 250);
        assert!(starting(3999) < of_same(1));
        assert_eq!(starting(4000), of_same(1));
        assert_eq!(starting(4), 3 * UNIT);
    }

    #[test]
    fn extremes_stay_in_order() {
        let all = u64::from(u32::MAX);
        let capacity = Capacity { memory_mb: u32::MAX, disk_mb: u32::MAX, containers: u32::MAX };
        let taken =
            Taken { memory_mb: all, disk_mb: all, containers: all, starting: all, tasks: all };
        let need = Need { memory_mb: all, disk_mb: all };
        let sum = of_load(&taken, &capacity, 250)
            .checked_add(of_need(need, &capacity))
            .and_then(|sum| sum.checked_add(of_same(all)));
        assert!(sum.is_some(), "no sum of parts overflows");
        let over = Taken { memory_mb: 2 * all, ..taken };
        assert_eq!(of_load(&over, &capacity, 250), of_load(&taken, &capacity, 250));
    }
}
