//! Where a process may die in the middle of changing the store, by name, so that a test can have
//! it die exactly there. Nothing outside of tests.

#[cfg(not(test))]
pub(crate) fn step(_name: &str) {}

/// Kills this process, as `kill -9` does, where the environment says so.
#[cfg(test)]
pub(crate) fn step(name: &str) {
    if std::env::var_os(DIE_AT).is_some_and(|at| at == name) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// The environment variable that names the step.
#[cfg(test)]
pub(crate) const DIE_AT: &str = "GAVEL_TEST_DIE_AT";
