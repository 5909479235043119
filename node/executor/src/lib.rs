//! Diego's executor: a recipe, step by step, in one container.
//!
//! Reading order: [`Sandbox`] is what is asked of a container and [`Recipe`] what is to be done in
//! it.

mod cell_lines;
mod environment;
mod image_layers;
mod recipe;
pub mod sandbox;

pub use cell_lines::CellLines;
pub use image_layers::cached_dependencies;
pub use recipe::{Recipe, Surroundings};
pub use sandbox::{Output, ProcessEnd, Sandbox};
