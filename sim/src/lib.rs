//! The simulated world: many nodes from one seed.

pub mod check;
pub mod coverage;
pub mod disk;
pub mod history;
pub mod limits;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod network;
pub mod rng;
pub mod runtime;
pub mod scale;
pub mod trace;
pub mod world;
