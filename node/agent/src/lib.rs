//! One node: model, plan and replica joined by loops.
//!
//! - [`world`] is what a node asks of the world it runs in;
//! - [`node`] starts the loops and is the handle that faces hold;
//! - [`leader`] takes turns while this node leads;
//! - [`cell`] makes the containers here match the records that name them;
//! - [`contract`] is what the containers of every world promise;
//! - [`callbacks`] tells clients that their tasks have ended;
//! - [`requests`] is what people and programs ask, [`members`] what operators ask of who takes
//!   part;
//! - [`soft`] is what nodes tell each other beside the log.
//!
//! Deliberately absent: tokio's clock, RocksDB, tarpc, HTTP, Linux. Time and tasks come from the
//! replica's runtime, the rest from the [`world::World`], so that the simulator runs this code.

pub mod callbacks;
pub mod cell;
pub mod contract;
pub mod leader;
pub mod limits;
pub mod members;
pub mod node;
pub mod requests;
pub mod soft;
pub mod world;

pub use node::Agent;
pub use requests::RequestError;
pub use world::{Containers, World};
