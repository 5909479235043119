//! Project quotas: a directory tree counted, and bounded, as one.
//!
//! A tree belongs to a project once its root has the project's number and passes it on
//! (`FS_XFLAG_PROJINHERIT`); ext4 with `prjquota` and xfs with `pquota` then count its blocks and
//! inodes and refuse what exceeds the project's limits.
//!
//! Sources: quotactl(2), `ioctl_xfs_fsgetxattr(2)`, the kernel's `fs/quota/dquot.c`.

#![expect(unsafe_code, reason = "quotactl_fd(2) and two ioctls that no crate here wraps")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

/// `struct fsxattr` of include/uapi/linux/fs.h.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// What is made in this directory belongs to its project.
const INHERIT: u32 = 0x200;

nix::ioctl_read!(get_attributes, b'X', 31, Attributes);
nix::ioctl_write_ptr!(set_attributes, b'X', 32, Attributes);

// include/uapi/linux/quota.h
const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const QIF_BLIMITS: u32 = 1;
const QIF_ILIMITS: u32 = 4;

/// The kernel counts limits in blocks of this many bytes, and use in bytes.
const BLOCK_BYTES: u64 = 1024;

/// What a project may use; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Quota {
    pub bytes: Option<u64>,
    pub inodes: Option<u64>,
}

/// Makes an empty directory the root of a project's tree.
pub(super) fn assign(dir: &Path, project: u32) -> io::Result<()> {
    let dir = File::open(dir)?;
    let mut attributes = Attributes::default();
    // SAFETY: the ioctl writes one `struct fsxattr`, which `attributes` is.
    unsafe { get_attributes(dir.as_raw_fd(), &raw mut attributes) }?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: the ioctl reads one `struct fsxattr`, which `attributes` is.
    unsafe { set_attributes(dir.as_raw_fd(), &raw const attributes) }?;
    Ok(())
}

/// Bounds a project of the file system that `on` is of.
pub(super) fn limit(on: &Path, project: u32, quota: Quota) -> io::Result<()> {
    // Zero is "no limit", so the least limit is one.
    let number = |limit: Option<u64>| limit.map_or(0, |limit| limit.max(1));
    // SAFETY: `dqblk` is plain numbers, for which zero is a value.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    block.dqb_bhardlimit = number(quota.bytes.map(|bytes| bytes / BLOCK_BYTES));
    block.dqb_ihardlimit = number(quota.inodes);
    block.dqb_valid = QIF_BLIMITS | QIF_ILIMITS;
    control(on, Q_SETQUOTA, project, &mut block)
}

/// What a project uses.
pub(super) fn usage(on: &Path, project: u32) -> io::Result<super::Usage> {
    // SAFETY: as in `limit`.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    match control(on, Q_GETQUOTA, project, &mut block) {
        Ok(()) => Ok(super::Usage { bytes: block.dqb_curspace, inodes: block.dqb_curinodes }),
        // Nothing was ever counted.
        Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(super::Usage::default()),
        Err(e) => Err(e),
    }
}

fn control(on: &Path, command: u32, project: u32, block: &mut libc::dqblk) -> io::Result<()> {
    let on = File::open(on)?;
    // QCMD of include/uapi/linux/quota.h
    let command = (command << 8) | PRJQUOTA;
    // SAFETY: both commands read or write one `struct if_dqblk`, which `block` is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            on.as_raw_fd(),
            command,
            project,
            std::ptr::from_mut(block),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel lets whoever has this exceed limits; who is to be bounded must not have it.
/// Of overlayfs's files it asks the process that mounted it, not the one that writes.
pub(in super::super) fn heed_limits() -> io::Result<()> {
    caps::drop(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).map_err(io::Error::other)
}

/// Whether limits of projects hold in `dir`, by trying one; the error is why not.
/// `project` must not be in use.
pub(super) fn probe(dir: &Path, project: u32) -> Result<(), String> {
    let tree = dir.join("quota-probe");
    let tried = (|| {
        let step = |what: &str, done: io::Result<()>| done.map_err(|e| format!("{what}: {e}"));
        step("make a directory", fs::create_dir_all(&tree))?;
        step("give a directory a project", assign(&tree, project))?;
        let quota = Quota { bytes: Some(64 * BLOCK_BYTES), inodes: None };
        step("limit a project", limit(&tree, project, quota))?;
        // A thread of its own: what it drops ends with it.
        let file = tree.join("file");
        let write = std::thread::spawn(move || {
            heed_limits()?;
            File::create(file)?.write_all(&vec![0; 1 << 20])
        });
        match write.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Err(e) if is_full(&e) => Ok(()),
            Err(e) => Err(format!("write: {e}")),
            Ok(()) => Err("limits are kept there, but not enforced".to_owned()),
        }
    })();
    let removed = fs::remove_dir_all(&tree);
    let unlimited = limit(dir, project, Quota::default());
    tried?;
    removed.and(unlimited).map_err(|e| format!("clean up after the attempt: {e}"))
}

/// ext4 says EDQUOT; xfs says ENOSPC, as the tree looks like a small file system.
fn is_full(error: &io::Error) -> bool {
    [Errno::EDQUOT, Errno::ENOSPC].map(|errno| Some(errno as i32)).contains(&error.raw_os_error())
}
