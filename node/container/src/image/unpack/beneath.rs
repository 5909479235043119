//! File operations that cannot leave a directory, whatever the names and links in it say.
//!
//! Every directory is reached by one openat2(2) from the root's descriptor with
//! RESOLVE_IN_ROOT: the kernel resolves `..` and absolute symlinks as chroot(2) would, in one
//! step, so there is no gap between a check and its use, and no rule of ours to get wrong.
//! RESOLVE_NO_MAGICLINKS refuses links that jump (those in /proc), RESOLVE_NO_XDEV mounts. The
//! last component is then made relative to that descriptor with calls that do not follow links:
//! O_EXCL, mkdirat, symlinkat, linkat without AT_SYMLINK_FOLLOW, unlinkat.
//!
//! Chosen over chroot(2) (as Docker does), which needs a process of its own, and over cap-std,
//! whose sandbox refuses absolute symlinks that image layers are full of.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlink, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use xattr::FileExt;

use crate::limits::{LAYER_DEPTH_MAX, LAYER_SYMLINKS_MAX};

/// How overlayfs marks a directory that hides what lies below it (kernel documentation,
/// filesystems/overlayfs, "whiteouts and opaque directories").
const OPAQUE: &str = "trusted.overlay.opaque";

/// Why something beneath the root did not work.
#[derive(Debug)]
pub(super) enum Trouble {
    /// What was asked for makes no sense.
    Bad(String),
    /// The kernel says no.
    Kernel(Errno),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "errno has no end")]
        match errno {
            // The fault of the names, not of the disk.
            Errno::ENAMETOOLONG => Self::Bad("a name is too long".to_owned()),
            Errno::ELOOP => Self::Bad("too many symlinks".to_owned()),
            Errno::ENOTDIR => Self::Bad("a parent is not a directory".to_owned()),
            Errno::EINVAL => Self::Bad("a name that Linux does not take".to_owned()),
            Errno::EXDEV => Self::Bad("a path that leaves the layer".to_owned()),
            _ => Self::Kernel(errno),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Kernel(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

type Result<T> = std::result::Result<T, Trouble>;

/// A directory that is the world to everything done through it.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    real: PathBuf,
    /// The directory reached last: tars list a directory's children together.
    last: Option<(PathBuf, Rc<OwnedFd>)>,
}

impl Root {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let fd = OwnedFd::from(File::open(path)?);
        let real = real_path(&fd)?;
        Ok(Self { fd, real, last: None })
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The directory at a clean relative path (empty for the root), through symlinks.
    pub(super) fn find(&self, path: &Path) -> Result<OwnedFd> {
        self.resolve(path).map_err(Trouble::from)
    }

    fn resolve(&self, path: &Path) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how =
            OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(
                ResolveFlag::RESOLVE_IN_ROOT
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS
                    | ResolveFlag::RESOLVE_NO_XDEV,
            );
        loop {
            // EAGAIN: something on the whole machine was renamed during a `..`.
            match openat2(&self.fd, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// The directory at a clean relative path, made (0755, root's) with its parents if missing.
    pub(super) fn find_or_make(&mut self, path: &Path) -> Result<Rc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(fd));
        }
        let mut links = LAYER_SYMLINKS_MAX;
        let fd = loop {
            match self.resolve(path) {
                Ok(fd) => break Rc::new(fd),
                // ENOTDIR: perhaps a whiteout of this layer stands in the way.
                Err(Errno::ENOENT | Errno::ENOTDIR) => self.make(path, &mut links)?,
                Err(errno) => return Err(errno.into()),
            }
        };
        self.check_depth(&fd)?;
        self.last = Some((path.to_owned(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// Makes what is missing on the way to `path`. A symlink to nothing has its target made; the
    /// caller then tries again, for as many links as are left.
    fn make(&self, path: &Path, links: &mut usize) -> Result<()> {
        let mut path = path.to_owned();
        'again: loop {
            let mut parent = PathBuf::new();
            for name in path.clone().iter() {
                let whole = parent.join(name);
                if self.resolve(&whole).is_err() {
                    let above = self.resolve(&parent)?;
                    self.check_depth(&above)?;
                    if let Some(target) = make_one(&above, name)? {
                        *links = links.checked_sub(1).ok_or(Errno::ELOOP)?;
                        let real = real_path(&above)?;
                        let base = real.strip_prefix(&self.real).unwrap_or_else(|_| Path::new(""));
                        path = clean(&base.join(target));
                        continue 'again;
                    }
                }
                parent = whole;
            }
            *links = links.checked_sub(1).ok_or(Errno::ELOOP)?;
            return Ok(());
        }
    }

    /// Symlinks can nest directories deeper than any one path is long.
    fn check_depth(&self, directory: &OwnedFd) -> Result<()> {
        let real = real_path(directory)?;
        let depth = real.components().count().saturating_sub(self.real.components().count());
        if depth > LAYER_DEPTH_MAX {
            return Err(Trouble::Bad(format!("more than {LAYER_DEPTH_MAX} directories deep")));
        }
        Ok(())
    }

    /// Removes whatever `name` is, with all beneath it; nothing is fine.
    pub(super) fn remove(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        // A directory or a link on the way to the cached one may be what goes.
        self.last = None;
        remove_all(parent, name)
    }
}

/// Makes a directory; or returns where a dangling symlink of that name points.
fn make_one(parent: &OwnedFd, name: &OsStr) -> Result<Option<PathBuf>> {
    match make_directory(parent, name) {
        Ok(()) => return Ok(None),
        Err(Trouble::Kernel(Errno::EEXIST)) => {}
        Err(other) => return Err(other),
    }
    match stat(parent, name)? {
        Some(found) if is_whiteout(&found) => {
            replace_whiteout(parent, name)?;
            Ok(None)
        }
        Some(found) if kind(&found) == SFlag::S_IFLNK => Ok(Some(readlinkat(parent, name)?.into())),
        _ => Err(Errno::ENOTDIR.into()),
    }
}

/// Makes a directory, 0755 whatever the umask.
pub(super) fn make_directory(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
    let made = open_directory(parent, name)?;
    Ok(fchmod(&made, Mode::from_bits_truncate(0o755))?)
}

/// A directory where this layer's whiteout stood: what is below stays hidden.
pub(super) fn replace_whiteout(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
    make_directory(parent, name)?;
    make_opaque(&open_directory(parent, name)?)
}

/// Opens a directory itself, not one that a symlink of that name points to.
pub(super) fn open_directory(parent: &OwnedFd, name: &OsStr) -> Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?.into())
}

/// Makes a file that was not there: no link is followed.
pub(super) fn create_file(parent: &OwnedFd, name: &OsStr) -> Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::from_bits_truncate(0o600))?.into())
}

/// Hides `name` of lower layers: a character device 0/0.
pub(super) fn make_whiteout(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    Ok(mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), 0)?)
}

/// Hides all that lower layers have in this directory.
pub(super) fn make_opaque(directory: &File) -> Result<()> {
    Ok(directory.set_xattr(OPAQUE, b"y")?)
}

/// What `name` is, not what it points to.
pub(super) fn stat(parent: &OwnedFd, name: &OsStr) -> Result<Option<FileStat>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

/// Devices of the image are left out, so the only one here is a whiteout.
pub(super) fn is_whiteout(found: &FileStat) -> bool {
    kind(found) == SFlag::S_IFCHR
}

/// As deep as [`LAYER_DEPTH_MAX`] at most.
fn remove_all(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let directory = OwnedFd::from(open_directory(parent, name)?);
    for child in children(directory.try_clone()?)? {
        remove_all(&directory, &child)?;
    }
    Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
}

fn children(directory: OwnedFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory)?.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Where the kernel says that a descriptor is.
fn real_path(fd: &OwnedFd) -> std::io::Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(readlink(link.as_str())?.into())
}

/// A path as seen from the root: relative, without `.` and `..`; `..` at the root stays there.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.as_os_str().as_bytes().split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                clean.pop();
            }
            name => clean.push(OsStr::from_bytes(name)),
        }
    }
    clean
}
