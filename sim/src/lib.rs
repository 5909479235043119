//! The simulated world: many nodes from one seed.
