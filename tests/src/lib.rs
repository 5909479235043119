//! End to end: real processes, real containers, a real registry.
//!
//! - [`host`]: a machine of a test's own, in namespaces, that takes all it runs with it;
//! - [`cluster`]: `gavel dev` on a host, and the client commands typed at it;
//! - [`nodes`]: `gavel node`, each by a file of its own;
//! - [`registry`]: Debian's `docker-registry` and images made by `umoci`; a registry that lies;
//! - [`terminal`]: a person at a terminal.
//!
//! `tests-web` (`src/bin/web.rs`) is an app that speaks what the router carries.

pub mod cluster;
pub mod host;
pub mod nodes;
pub mod registry;
pub mod terminal;

use std::time::{Duration, Instant};

/// Looks again and again until something is so.
///
/// # Panics
///
/// It is not so after `patience`: with what was awaited, and what was seen last.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let give_up = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= give_up => {
                panic!("{what}: not so after {patience:?}; seen last:\n{seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
