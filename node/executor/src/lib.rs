//! Diego's executor: a recipe, step by step, in one container.
//!
//! Reading order: [`Sandbox`] is what is asked of a container and [`Recipe`] what is to be done in
//! it. [`Downloader`] brings files from outside.

mod cache;
mod cell_lines;
mod environment;
mod image_layers;
pub mod limits;
mod recipe;
pub mod sandbox;
#[cfg(test)]
mod testing;

pub use cache::{Archive, Dependency, DownloadError, Downloader, OpenError, Patience, Wanted};
pub use cell_lines::CellLines;
pub use image_layers::cached_dependencies;
pub use recipe::{Recipe, Surroundings};
pub use sandbox::{Output, ProcessEnd, Sandbox};
