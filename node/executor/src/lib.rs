//! Diego's executor: a recipe, step by step, in one container.
//!
//! Reading order: [`sandbox`] is what is asked of a container.

pub mod sandbox;

pub use sandbox::{Output, ProcessEnd, Sandbox};
