//! Unpacks one layer's tar into a directory, in the form that overlayfs stacks (OCI image
//! specification, "Image Layer Filesystem Changeset"). Nothing is written outside the directory,
//! whatever the tar says: see [`beneath`].

mod beneath;
mod tar;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use xattr::FileExt;

use self::beneath::{Root, Trouble};
use self::tar::{Entry, Kind, Tar};
use crate::limits::{
    LAYER_DEPTH_MAX, LAYER_DIRECTORY_NAMES_BYTES_MAX, LAYER_ENTRIES_MAX, LAYER_UNPACKED_BYTES_MAX,
};

/// What marks a removal in a layer, and a removal of all that a directory held.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so are AUFS's own housekeeping: Docker leaves them out.
const AUFS: &[u8] = b".wh..wh.";

/// How a layer could not be unpacked.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The stream broke, or does not decompress.
    Input(io::Error),
    /// The tar says what no layer may say.
    Bad { entry: String, reason: String },
    /// A bound is passed.
    TooLarge(String),
    /// The disk would not.
    Disk { entry: String, source: io::Error },
}

/// How much a tar may unpack to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: LAYER_UNPACKED_BYTES_MAX, entries: LAYER_ENTRIES_MAX }
    }
}

/// What an archive is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A layer over others, where names that begin with `.wh.` are whiteouts.
    Layer,
    /// The whole of it, where they are names like others.
    Whole,
}

/// Unpacks the tar of a layer into `root`, a directory that exists and is empty, and reads the
/// input to its end. Returns the length of all files together, as the tar declares it.
///
/// Owners are the tar's own ids: whoever mounts the layer maps them. Needs root's rights
/// (chown, mknod, trusted attributes).
pub(crate) fn unpack(input: impl Read, root: &Path, bounds: Bounds) -> Result<u64, Fault> {
    unpack_as(Meaning::Layer, input, root, bounds)
}

/// Unpacks a tar that is no layer into a directory that exists and is empty, as safely and with
/// the same needs. Returns the length of all files together, `bytes_max` at most.
///
/// # Errors
///
/// The tar is broken, hostile or too large, or the disk would not.
pub fn expand(input: impl Read, directory: &Path, bytes_max: u64) -> io::Result<u64> {
    let bounds = Bounds { bytes: bytes_max, ..Bounds::default() };
    unpack_as(Meaning::Whole, input, directory, bounds).map_err(|fault| match fault {
        Fault::Input(error) => error,
        Fault::Bad { entry, reason } => io::Error::other(format!("{entry}: {reason}")),
        Fault::TooLarge(limit) => io::Error::other(format!("more than {limit}")),
        Fault::Disk { entry, source } => {
            io::Error::new(source.kind(), format!("{entry}: {source}"))
        }
    })
}

/// A file or a link in a tar that stays as it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Member {
    /// Where its bytes are.
    File { begins: u64, bytes: u64 },
    /// From where the link is.
    Symlink(Vec<u8>),
    /// From the archive's root.
    HardLink(Vec<u8>),
}

/// What a tar holds by name, the last of each name, without reading the bodies.
pub(crate) fn list(
    input: impl Read + Seek,
    entries_max: usize,
) -> Result<BTreeMap<Vec<u8>, Member>, Fault> {
    let mut tar = Tar::new(input);
    let mut members = BTreeMap::new();
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        if entries > entries_max {
            return Err(Fault::TooLarge(format!("{entries_max} entries")));
        }
        let begins = tar.pass()?;
        let member = match entry.kind {
            Kind::File if entry.pieces.is_none() => Member::File { begins, bytes: entry.bytes },
            Kind::Symlink => Member::Symlink(entry.link),
            Kind::HardLink => Member::HardLink(entry.link),
            Kind::File | Kind::Directory | Kind::Other => continue,
        };
        members.insert(entry.path, member);
    }
    Ok(members)
}

pub(crate) fn unpack_as(
    meaning: Meaning,
    input: impl Read,
    root: &Path,
    bounds: Bounds,
) -> Result<u64, Fault> {
    let disk = |source| Fault::Disk { entry: String::new(), source };
    let mut tar = Tar::new(input);
    let mut layer = Layer {
        meaning,
        root: Root::open(root).map_err(disk)?,
        bytes: 0,
        directories: BTreeMap::new(),
        directory_names_bytes: 0,
        bounds,
    };
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        if entries > bounds.entries {
            return Err(Fault::TooLarge(format!("{} entries", bounds.entries)));
        }
        layer.add(&mut tar, &entry)?;
    }
    tar.drain()?;
    layer.finish()?;
    Ok(layer.bytes)
}

struct Layer {
    meaning: Meaning,
    root: Root,
    bytes: u64,
    /// Mode and time of each directory that the tar lists: set last, when nothing is made in
    /// them any more.
    directories: BTreeMap<PathBuf, (u32, (i64, u32))>,
    directory_names_bytes: usize,
    bounds: Bounds,
}

impl Layer {
    fn add<R: Read>(&mut self, tar: &mut Tar<R>, entry: &Entry) -> Result<(), Fault> {
        let path = beneath::clean(Path::new(OsStr::from_bytes(&entry.path)));
        self.add_at(tar, entry, &path).map_err(|trouble| match trouble {
            Stop::Fault(fault) => fault,
            Stop::Trouble(Trouble::Bad(reason)) => Fault::Bad { entry: name_of(entry), reason },
            Stop::Trouble(Trouble::Kernel(errno)) => {
                Fault::Disk { entry: name_of(entry), source: errno.into() }
            }
        })
    }

    fn add_at<R: Read>(
        &mut self,
        tar: &mut Tar<R>,
        entry: &Entry,
        path: &Path,
    ) -> Result<(), Stop> {
        if path.components().count() > LAYER_DEPTH_MAX {
            return Err(bad(format!("more than {LAYER_DEPTH_MAX} directories deep")));
        }
        let Some(name) = path.file_name() else {
            return self.add_root(entry);
        };
        if entry.kind == Kind::Other {
            return Ok(());
        }
        let parent = self.root.find_or_make(path.parent().unwrap_or_else(|| Path::new("")))?;
        if self.meaning == Meaning::Layer
            && let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT)
        {
            return self.hide(&parent, name, OsStr::from_bytes(hidden));
        }
        match entry.kind {
            Kind::Directory => self.add_directory(&parent, name, entry, path),
            Kind::File => self.add_file(tar, &parent, name, entry),
            Kind::Symlink => self.add_symlink(&parent, name, entry),
            Kind::HardLink => self.add_hard_link(&parent, name, entry),
            Kind::Other => Ok(()),
        }
    }

    /// `./` or `/`: the attributes of the layer's root.
    fn add_root(&mut self, entry: &Entry) -> Result<(), Stop> {
        if entry.kind != Kind::Directory {
            return Err(bad("no name".to_owned()));
        }
        let root = File::from(self.root.fd().try_clone().map_err(Trouble::from)?);
        own(&root, entry)?;
        set_xattrs(&root, entry)?;
        self.remember(Path::new(""), entry)
    }

    fn hide(&mut self, parent: &Rc<OwnedFd>, whole: &OsStr, hidden: &OsStr) -> Result<(), Stop> {
        let whole = whole.as_bytes();
        if whole == OPAQUE {
            // The descriptor only names the directory (O_PATH); attributes need a real one.
            let directory = beneath::open_directory(parent, OsStr::new("."))?;
            return Ok(beneath::make_opaque(&directory)?);
        }
        if whole.starts_with(AUFS) {
            return Ok(());
        }
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(bad("a whiteout of nothing".to_owned()));
        }
        // A whiteout hides what lower layers have, never what this one has (OCI).
        match beneath::stat(parent, hidden)? {
            None => Ok(beneath::make_whiteout(parent, hidden)?),
            Some(found) if beneath::kind(&found) == SFlag::S_IFDIR => {
                Ok(beneath::make_opaque(&beneath::open_directory(parent, hidden)?)?)
            }
            Some(_) => Ok(()),
        }
    }

    fn add_directory(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &OsStr,
        entry: &Entry,
        path: &Path,
    ) -> Result<(), Stop> {
        match beneath::stat(parent, name)? {
            Some(found) if beneath::kind(&found) == SFlag::S_IFDIR => {}
            Some(found) if beneath::is_whiteout(&found) => {
                beneath::replace_whiteout(parent, name)?;
            }
            Some(_) => {
                self.root.remove(parent, name)?;
                beneath::make_directory(parent, name)?;
            }
            None => beneath::make_directory(parent, name)?,
        }
        let directory = beneath::open_directory(parent, name)?;
        own(&directory, entry)?;
        set_xattrs(&directory, entry)?;
        self.remember(path, entry)
    }

    fn remember(&mut self, path: &Path, entry: &Entry) -> Result<(), Stop> {
        let known = self.directories.insert(path.to_owned(), (entry.mode, entry.mtime));
        if known.is_none() {
            self.directory_names_bytes += path.as_os_str().len();
        }
        if self.directory_names_bytes > LAYER_DIRECTORY_NAMES_BYTES_MAX {
            let limit = format!("{LAYER_DIRECTORY_NAMES_BYTES_MAX} bytes of directory names");
            return Err(Stop::Fault(Fault::TooLarge(limit)));
        }
        Ok(())
    }

    fn add_file<R: Read>(
        &mut self,
        tar: &mut Tar<R>,
        parent: &Rc<OwnedFd>,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(entry.bytes);
        if self.bytes > self.bounds.bytes {
            return Err(Stop::Fault(Fault::TooLarge(format!("{} bytes", self.bounds.bytes))));
        }
        self.make_room(parent, name)?;
        let mut file = beneath::create_file(parent, name)?;
        match &entry.pieces {
            None => copy(tar, &mut file, entry.bytes)?,
            Some(pieces) => {
                file.set_len(entry.bytes).map_err(Trouble::from)?;
                for (offset, length) in pieces {
                    file.seek(SeekFrom::Start(*offset)).map_err(Trouble::from)?;
                    copy(tar, &mut file, *length)?;
                }
            }
        }
        // Owner before mode and capabilities: a change of owner clears both.
        own(&file, entry)?;
        fchmod(&file, mode(entry.mode)).map_err(Trouble::from)?;
        set_xattrs(&file, entry)?;
        futimens(&file, &time(entry.mtime), &time(entry.mtime)).map_err(Trouble::from)?;
        Ok(())
    }

    fn add_symlink(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<(), Stop> {
        if entry.link.is_empty() {
            return Err(bad("a symlink to nothing".to_owned()));
        }
        self.make_room(parent, name)?;
        symlinkat(OsStr::from_bytes(&entry.link), parent, name).map_err(Trouble::from)?;
        let (uid, gid) = owner(entry);
        fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(Trouble::from)?;
        let time = time(entry.mtime);
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(Trouble::from)?;
        Ok(())
    }

    /// The target is a path from the layer's root; a symlink at its end is linked, not followed.
    fn add_hard_link(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<(), Stop> {
        let target = beneath::clean(Path::new(OsStr::from_bytes(&entry.link)));
        let missing =
            || bad(format!("a hard link to {:?}, which the layer does not hold", target.display()));
        let target_name = target.file_name().ok_or_else(missing)?;
        let target_parent = match self.root.find(target.parent().unwrap_or_else(|| Path::new(""))) {
            Ok(found) => found,
            Err(Trouble::Kernel(Errno::ENOENT)) => return Err(missing()),
            Err(other) => return Err(other.into()),
        };
        let found = beneath::stat(&target_parent, target_name)?.ok_or_else(missing)?;
        if beneath::is_whiteout(&found) {
            return Err(missing());
        }
        if beneath::kind(&found) == SFlag::S_IFDIR {
            return Err(bad(format!("a hard link to {:?}, a directory", target.display())));
        }
        if let Some(here) = beneath::stat(parent, name)?
            && (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino)
        {
            return Ok(());
        }
        self.make_room(parent, name)?;
        match linkat(&target_parent, target_name, parent, name, AtFlags::empty()) {
            Err(Errno::ENOENT) => Err(missing()),
            Err(Errno::EMLINK) => Err(bad("too many hard links to one file".to_owned())),
            result => Ok(result.map_err(Trouble::from)?),
        }
    }

    /// What stood there before, in this layer, is replaced.
    fn make_room(&mut self, parent: &Rc<OwnedFd>, name: &OsStr) -> Result<(), Stop> {
        if beneath::stat(parent, name)?.is_some() {
            self.root.remove(parent, name)?;
        }
        Ok(())
    }

    /// Sets modes and times of directories: making things in them is over.
    fn finish(&self) -> Result<(), Fault> {
        for (path, (directory_mode, mtime)) in &self.directories {
            let set = || -> Result<(), Trouble> {
                let directory = match path.file_name() {
                    None => File::from(self.root.fd().try_clone()?),
                    Some(name) => {
                        let parent =
                            self.root.find(path.parent().unwrap_or_else(|| Path::new("")))?;
                        beneath::open_directory(&parent, name)?
                    }
                };
                fchmod(&directory, mode(*directory_mode))?;
                Ok(futimens(&directory, &time(*mtime), &time(*mtime))?)
            };
            match set() {
                // Replaced later in the same tar by something that is no directory.
                Ok(()) | Err(Trouble::Bad(_) | Trouble::Kernel(Errno::ENOENT)) => {}
                Err(Trouble::Kernel(errno)) => {
                    let entry = path.display().to_string();
                    return Err(Fault::Disk { entry, source: errno.into() });
                }
            }
        }
        Ok(())
    }
}

/// Why an entry could not be added.
enum Stop {
    Fault(Fault),
    Trouble(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

fn bad(reason: String) -> Stop {
    Stop::Trouble(Trouble::Bad(reason))
}

fn name_of(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.path).into_owned()
}

/// Copies `length` bytes of the entry's body, which the reader has checked to be there.
fn copy<R: Read>(tar: &mut Tar<R>, file: &mut File, length: u64) -> Result<(), Stop> {
    let mut buffer = [0; 64 << 10];
    let mut left = length;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let got = tar.read(&mut buffer[..want]).map_err(Stop::Fault)?;
        if got == 0 {
            return Err(bad("the body is shorter than its size".to_owned()));
        }
        file.write_all(&buffer[..got]).map_err(Trouble::from)?;
        left -= got as u64;
    }
    Ok(())
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn own(file: impl AsFd, entry: &Entry) -> Result<(), Trouble> {
    let (uid, gid) = owner(entry);
    Ok(fchown(file, uid, gid)?)
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

fn time((seconds, nanos): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanos))
}

/// File capabilities and users' attributes are kept. The rest speaks to the host's kernel
/// (trusted.*, among them overlayfs's own marks; security.selinux and its like) and stays out.
fn set_xattrs(file: &File, entry: &Entry) -> Result<(), Trouble> {
    for (name, value) in &entry.xattrs {
        let capability = name == b"security.capability";
        let of_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if !capability && !of_user {
            continue;
        }
        match file.set_xattr(OsStr::from_bytes(name), value).map_err(Trouble::from) {
            // Not every file system holds users' attributes; Docker does without, too.
            Err(Trouble::Kernel(Errno::EOPNOTSUPP)) if of_user => {}
            // The layer's fault, not the disk's: a name or value that no file can have.
            Err(Trouble::Kernel(Errno::EINVAL | Errno::ERANGE | Errno::E2BIG)) => {
                let name = String::from_utf8_lossy(name);
                return Err(Trouble::Bad(format!("an attribute {name} that Linux does not take")));
            }
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
