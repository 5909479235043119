//! Criterion benches, and races against peers on the same machine.
