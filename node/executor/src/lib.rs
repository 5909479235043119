//! Diego's executor: a recipe, step by step, in one container.
//!
//! Reading order: [`Sandbox`] is what is asked of a container and [`Recipe`] what is to be done in
//! it; [`execute`] does it, by `steps` and `health`, to its [`Outcome`]. [`Services`] is what the
//! recipes of a cell share, among it the [`Downloader`] and its cache.
//!
//! What is deliberately absent: the cluster, Linux, images, and tasks of the runtime that nobody
//! waits for. Executing a recipe is one future, which may be dropped at any moment, as the node
//! may die: see [`sandbox`] for how it goes on.

mod cache;
mod cell_lines;
mod clock;
mod environment;
mod execute;
mod failure;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod health;
mod image_layers;
pub mod limits;
mod outcome;
mod place;
mod ready;
mod recipe;
pub mod sandbox;
mod services;
mod steps;
#[cfg(test)]
mod testing;
mod units;

pub use cache::{
    Archive, Dependency, DependencyLine, DownloadError, Downloader, MountedDependency,
    NotDownloaded, Patience, Wanted, bring_dependencies,
};
pub use cell_lines::CellLines;
pub use execute::execute;
pub use image_layers::cached_dependencies;
pub use outcome::{Outcome, Progress};
pub use recipe::{Recipe, Surroundings};
pub use sandbox::{Output, ProcessEnd, Sandbox};
pub use services::{OpenError, Services, Settings, http_client};
