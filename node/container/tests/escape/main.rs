//! What a hostile container tries, and that it fails, and that its neighbour does not notice.
//!
//! Each test has a neighbour that serves a file and runs an ordinary program on demand. During
//! and after the attack it must answer within [`scene::ANSWER_MAX`], its file must be intact, and
//! its program must get what programs ordinarily get.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod bombs;
mod host;
mod kernel;
mod neighbours;
mod scene;
#[expect(dead_code, reason = "the runtime's own tests use the rest")]
#[path = "../runtime/world.rs"]
mod world;
