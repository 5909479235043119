//! Work that blocks: on a thread of its own, and not for longer than somebody waits for it.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether anybody still waits for the work.
#[derive(Clone, Debug, Default)]
pub(super) struct Halt(Arc<AtomicBool>);

impl Halt {
    /// Reads as `input` does, and fails once nobody waits any more.
    pub(super) fn reading<R>(&self, input: R) -> Reading<R> {
        Reading { input, halt: self.clone() }
    }
}

/// See [`Halt::reading`].
#[derive(Debug)]
pub(super) struct Reading<R> {
    input: R,
    halt: Halt,
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.halt.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        self.input.read(buffer)
    }
}

impl<R: Seek> Seek for Reading<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.input.seek(to)
    }
}

/// Does the work. Whoever stops waiting halts it at its next reading.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Halt) -> T + Send + 'static,
) -> T {
    /// Halts when it is dropped.
    struct Waiting(Halt);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.0.store(true, Ordering::Relaxed);
        }
    }
    let waiting = Waiting(Halt::default());
    let halt = waiting.0.clone();
    match tokio::task::spawn_blocking(move || work(&halt)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shut down, and nobody is polled again.
            Err(_) => std::future::pending().await,
        },
    }
}
