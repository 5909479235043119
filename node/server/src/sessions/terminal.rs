//! A terminal's master side as a stream of bytes.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use api::attach::Size;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Clones are the same terminal; with the last of them it hangs up.
#[derive(Clone, Debug)]
pub(super) struct Terminal(Arc<AsyncFd<File>>);

impl Terminal {
    pub(super) fn new(master: File) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        #[expect(unsafe_code, reason = "tokio leaves to its caller that a descriptor stays open")]
        // SAFETY: a file owns its descriptor, which is the same until it is dropped.
        let master = unsafe { AsyncFd::register(master) }?;
        Ok(Self(Arc::new(master)))
    }

    /// Tells those in front of it that its window has changed (SIGWINCH).
    pub(super) fn resize(&self, size: Size) -> io::Result<()> {
        let size = rustix::termios::Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let Ok(read) = ready.try_io(|fd| fd.get_ref().read(buffer.initialize_unfilled()))
            else {
                continue;
            };
            return Poll::Ready(match read {
                Ok(length) => {
                    buffer.advance(length);
                    Ok(())
                }
                // Nobody has the other side open any more: the end (tty_ioctl(4) does not say so).
                Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(()),
                Err(error) => Err(error),
            });
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            if let Ok(written) = ready.try_io(|fd| fd.get_ref().write(bytes)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The end of input on a terminal is a character that who types sends: there is none else.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
