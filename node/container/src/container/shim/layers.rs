//! The image's layers and the container's own on top of them, stacked by overlayfs at `rootfs`.
//!
//! A layer's files are owned by the image's ids.
//! Where their file system can (Linux 5.12, and most file systems), a mount shows them with the
//! container's ids at no cost.
//! Where it cannot, each file gets a copy that has an owner and no content: overlayfs makes it
//! when a file is given another owner (`metacopy`), and finds the content in the layer below.
//! That costs an inode and some ten microseconds a file, for each container.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
use nix::unistd::{Gid, Uid, fchownat};

use super::super::disk::{heed_limits, mount_writable};
use super::super::state::SHIFTED;
use super::protocol::Setup;
use super::syscalls::{Protection, attach_mount, clone_mount, protect};
use super::{Context as _, Result};

/// Nobody, for what has no id in the container (the kernel's `overflowuid`).
const NOBODY: u32 = 65_534;

/// Called in the container's directory, as the host's root in a mount namespace of its own.
pub(super) fn stack(setup: &Setup, user_ns: Option<BorrowedFd<'_>>) -> Result<()> {
    // Short relative names: the kernel takes one page of options, for 127 layers.
    mount(NONE, "layers", Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=700"))
        .context("mount the directory of layers")?;
    let mut lower = Vec::with_capacity(setup.layers.len() + 1);
    let mapped = attach_layers(setup, user_ns, &mut lower)?;
    // overlayfs names the highest layer first.
    lower.reverse();
    // volatile: nothing of the container outlives a crash of the machine, so nothing in it
    // need be synced for one.
    let mut options = "volatile".to_owned();
    if !mapped {
        options.push_str(",metacopy=on");
        shift(setup, &lower.join(":"))?;
        lower.insert(0, SHIFTED.to_owned());
    }
    mount_writable(&setup.writable, Path::new("writable")).context("mount the writable layer")?;
    make_upper("writable")?;
    chown("writable/upper", Some(setup.id_base), Some(setup.id_base))
        .context("change owner of writable/upper")?;
    heed_limits().context("give up exceeding disk limits")?;
    mount_overlay(&lower.join(":"), "writable", &options)?;
    umount2("layers", MntFlags::MNT_DETACH).context("detach the directory of layers")
}

const NONE: Option<&str> = None;

/// Attaches the layers, lowest first; whether their files have the container's ids.
fn attach_layers(
    setup: &Setup,
    user_ns: Option<BorrowedFd<'_>>,
    points: &mut Vec<String>,
) -> Result<bool> {
    let copies = setup
        .layers
        .iter()
        .map(|layer| clone_mount(layer).with_context(|| format!("open layer {}", layer.display())));
    let copies: Vec<OwnedFd> = copies.collect::<Result<_>>()?;
    let mut mapped = true;
    for (copy, layer) in copies.iter().zip(&setup.layers) {
        match protect(copy, user_ns, Protection { read_only: true }) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                mapped = false;
            }
            done => done.with_context(|| format!("map user ids of layer {}", layer.display()))?,
        }
    }
    for (number, (copy, layer)) in copies.iter().zip(&setup.layers).enumerate() {
        let point = format!("layers/{number}");
        fs::create_dir(&point).with_context(|| format!("create {point}"))?;
        if mapped {
            attach_mount(copy, Path::new(&point)).with_context(|| format!("attach {point}"))?;
        } else {
            // Some of the copies may be mapped, and then cannot be unmapped.
            mount(Some(layer.as_path()), point.as_str(), NONE, MsFlags::MS_BIND, NONE)
                .with_context(|| format!("mount layer {}", layer.display()))?;
        }
        points.push(point);
    }
    Ok(mapped)
}

/// Where overlayfs writes to, and where it prepares that.
fn make_upper(within: &str) -> Result<()> {
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        let path = format!("{within}/{name}");
        // The umask is zero here.
        DirBuilder::new().mode(mode).create(&path).with_context(|| format!("create {path}"))?;
    }
    Ok(())
}

fn mount_overlay(lower: &str, within: &str, options: &str) -> Result<()> {
    let options =
        format!("lowerdir={lower},upperdir={within}/upper,workdir={within}/work,{options}");
    mount(Some("overlay"), "rootfs", Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()))
        .context("mount the layers (overlayfs)")
}

/// Makes the copies without content.
fn shift(setup: &Setup, lower: &str) -> Result<()> {
    DirBuilder::new().mode(0o700).create("shifted").context("create shifted")?;
    make_upper("shifted")?;
    mount_overlay(lower, "shifted", "volatile,metacopy=on")?;
    let root = open_dir(None, Path::new("rootfs")).context("open the image's root")?;
    own(setup, &root, ".")
        .and_then(|_directory| own_all(setup, root))
        .context("give the image's files the container's ids")?;
    umount2("rootfs", MntFlags::empty()).context("unmount the image's layers")
}

/// Nobody else is in there, so nothing changes under our eyes.
fn own_all(setup: &Setup, mut dir: Dir) -> nix::Result<()> {
    let names: Vec<_> = dir.iter().collect::<nix::Result<_>>()?;
    for name in names.iter().map(nix::dir::Entry::file_name) {
        if name == c"." || name == c".." {
            continue;
        }
        if own(setup, &dir, name)? == SFlag::S_IFDIR {
            own_all(setup, open_dir(Some(dir.as_fd()), name)?)?;
        }
    }
    Ok(())
}

/// Gives one entry the container's ids.
fn own<P: ?Sized + nix::NixPath>(setup: &Setup, dir: &Dir, name: &P) -> nix::Result<SFlag> {
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let shifted = |id: u32| setup.id_base + if id < setup.id_count { id } else { NOBODY };
    let (uid, gid) = (Uid::from_raw(shifted(stat.st_uid)), Gid::from_raw(shifted(stat.st_gid)));
    fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let mode = Mode::from_bits_truncate(stat.st_mode);
    // Another owner's setuid bits are taken away (chown(2)).
    if kind == SFlag::S_IFREG && mode.intersects(Mode::S_ISUID | Mode::S_ISGID) {
        fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(kind)
}

fn open_dir<P: ?Sized + nix::NixPath>(at: Option<BorrowedFd<'_>>, name: &P) -> nix::Result<Dir> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match at {
        Some(at) => Dir::openat(at, name, flags, Mode::empty()),
        None => Dir::open(name, flags, Mode::empty()),
    }
}
