//! A connection that knows when it was used last, and that can be ended from outside.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// When something was last read or written.
#[derive(Debug)]
pub(crate) struct Activity {
    begun: Instant,
    /// Milliseconds after `begun`.
    last: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), last: AtomicU64::new(0) })
    }

    fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Returns when nothing has happened for so long.
    pub(crate) async fn idle(&self, most: Duration) {
        loop {
            let last = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= most {
                return;
            }
            tokio::time::sleep_until(last + most).await;
        }
    }
}

/// Reads and writes are told of, and fail once it is over.
pub(crate) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>, end: CancellationToken) -> Self {
        Self { stream, activity, end: Box::pin(end.cancelled_owned()) }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.touch();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.activity.touch();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_and_words_put_it_off() {
        let (mine, mut theirs) = tokio::io::duplex(64);
        let activity = Activity::new();
        let end = CancellationToken::new();
        let mut mine = Watched::new(mine, Arc::clone(&activity), end.clone());
        let begun = Instant::now();
        let most = Duration::from_secs(300);
        let talk = async {
            tokio::time::sleep(Duration::from_secs(200)).await;
            theirs.write_all(b"x").await.unwrap();
            assert_eq!(mine.read_u8().await.unwrap(), b'x');
            tokio::time::sleep(Duration::from_secs(200)).await;
            mine.write_all(b"y").await.unwrap();
        };
        tokio::join!(activity.idle(most), talk);
        assert_eq!(begun.elapsed().as_secs(), 700);
        end.cancel();
        assert_eq!(mine.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
