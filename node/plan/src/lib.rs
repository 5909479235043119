//! What should be done next: the leader's turn and the cell's reconciliation, pure.
//!
//! Reading order: [`turn`], the leader's only entry, with [`presence`], `convergence`,
//! `evacuation`, `callbacks` and `auction` as its steps and [`report`] as its explanation; then [`cell`], the cell's only
//! entry.
//!
//! Deliberately absent: clocks, randomness, effects, and any memory from one call to the next.
//! What is proposed here is optimistic; [`model::apply()`] checks everything again.

mod auction;
mod callbacks;
pub mod cell;
mod convergence;
mod evacuation;
pub mod limits;
pub mod presence;
pub mod report;
pub mod settings;
pub mod turn;

pub use cell::{CellAction, Container, Handle, Observed, Work, reconcile};
pub use presence::Sightings;
pub use report::{Report, Wait};
pub use settings::Settings;
pub use turn::{Look, Plan, turn};
