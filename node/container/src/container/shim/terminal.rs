//! A terminal of the container's own for one process (pty(7)), from its instance of devpts.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::fcntl::OFlag;
use nix::libc;
use nix::libc::winsize;
use nix::unistd::Uid;

use super::syscalls::replace_standard;
use super::{Context as _, Result};

// ioctl_tty(2)
nix::ioctl_write_ptr_bad!(set_lock, libc::TIOCSPTLCK, libc::c_int);
nix::ioctl_write_int_bad!(open_peer, libc::TIOCGPTPEER);
nix::ioctl_write_int_bad!(take_controlling, libc::TIOCSCTTY);
nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, winsize);

/// Both sides of a new terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    #[expect(unsafe_code, reason = "ioctls")]
    pub(super) fn open(rows: u16, columns: u16) -> Result<Self> {
        let master = File::options().read(true).write(true).open("/dev/pts/ptmx");
        let master = OwnedFd::from(master.context("open /dev/pts/ptmx")?);
        let fd = master.as_raw_fd();
        let size = winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: `fd` is open, and both arguments are of the types that ioctl_tty(2) names.
        unsafe { set_lock(fd, &0) }.context("unlock a terminal")?;
        // SAFETY: as above.
        unsafe { set_size(fd, &raw const size) }.context("set a terminal's size")?;
        let flags = (OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits();
        // SAFETY: as above; the argument is a number.
        let slave = unsafe { open_peer(fd, flags) }.context("open a terminal")?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        Ok(Self { master, slave })
    }

    /// Makes it the calling process's, which leads a session without one.
    #[expect(unsafe_code, reason = "an ioctl")]
    pub(super) fn take(&self, user: Uid) -> Result<()> {
        for standard in 0..=2 {
            replace_standard(&self.slave, standard).context("set the standard files")?;
        }
        // The group stays tty's, as devpts has made it.
        nix::unistd::fchown(&self.slave, Some(user), None).context("own the terminal")?;
        // SAFETY: the descriptor is open; 0 takes it from nobody.
        unsafe { take_controlling(self.slave.as_raw_fd(), 0) }.context("take the terminal")?;
        Ok(())
    }
}
