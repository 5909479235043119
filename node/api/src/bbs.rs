//! Diego's own messages (bbs-wire.md section 4), and what they mean in the model's words.
//!
//! - `messages` are compiled from the files in `proto/`;
//! - `action`, `desired_lrp`, `task`, `parts` read and write what a client desires;
//! - `actual_lrp`, `cell` write what has become of it;
//! - [`event`] writes what has changed, under the names that streams have for it;
//! - [`error`] writes refusals, and [`downgrade`] what clients of old revisions can read.
//!
//! Deliberately absent: HTTP, and any decision.

mod action;
mod actual_lrp;
mod cell;
mod desired_lrp;
pub mod downgrade;
pub mod error;
pub mod event;
mod parts;
mod task;
#[cfg(test)]
mod tests;

pub use actual_lrp::{actual_lrp, groups};
pub use cell::{cell_presence, cell_presence_json};
pub use desired_lrp::{desired_lrp, desired_lrp_from, routing_info, scheduling_info, update_from};
pub use error::Malformed;
pub use task::{task, task_from};

/// The messages, as they are on the wire.
#[expect(clippy::derive_partial_eq_without_eq, clippy::doc_markdown, reason = "generated")]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/models.rs"));
}
