//! End to end: real processes, real containers, a real registry.
