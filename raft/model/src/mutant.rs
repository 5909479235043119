//! Deliberate bugs, one at a time, which the simulator's checkers must find (`sim mutants`).
//!
//! A place that can be wrong asks `mutant!("name")`. Without the feature `mutants`, which nothing
//! but the simulator's own turns on, the answer is the constant `false`: the bugs are not there.
//! With it one mutant at a time, or none, is alive on the thread that asks.

/// Whether the code here is to be wrong in the way that has this name.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::is_alive($name)
    };
}

/// Whether the code here is to be wrong in the way that has this name: never, in this build.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

#[cfg(feature = "mutants")]
mod alive {
    use std::cell::Cell;

    thread_local! {
        static ALIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Lets one mutant live on this thread, or none.
    pub fn enliven(name: Option<&'static str>) {
        ALIVE.set(name);
    }

    /// Whether the mutant of this name lives on this thread.
    #[must_use]
    pub fn is_alive(name: &str) -> bool {
        ALIVE.get() == Some(name)
    }
}

#[cfg(feature = "mutants")]
pub use alive::{enliven, is_alive};
