//! The few system calls that no crate here wraps, and the descriptors they return.

#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

// include/uapi/linux/mount.h
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = 0o2_000_000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
// include/uapi/linux/sched.h
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct mount_attr` of the same header.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A copy of the mount that `path` lies on, rooted at `path` and attached nowhere (open_tree(2)).
pub(super) fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    // SAFETY: `path` is a zero-terminated string that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    owned(fd)
}

/// Forks into new namespaces and a cgroup of version 2, whose directory it is (clone3(2), Linux
/// 5.7). Returns 0 in the child.
///
/// # Safety
///
/// As of fork(2): the caller has one thread, or the child does no more than async-signal-safe
/// things.
pub(super) unsafe fn clone_into(
    cgroup: impl AsFd,
    namespaces: nix::sched::CloneFlags,
) -> io::Result<libc::pid_t> {
    let number = |value: libc::c_int| u64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    // SAFETY: it has integers only, for which zero is what is not asked for.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = number(namespaces.bits())? | CLONE_INTO_CGROUP;
    arguments.exit_signal = number(libc::SIGCHLD)?;
    arguments.cgroup = number(cgroup.as_fd().as_raw_fd())?;
    let size = size_of::<libc::clone_args>();
    // SAFETY: the structure outlives the call and has this size; there is no stack in it, so the
    // child goes on with its copy of ours.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    match libc::pid_t::try_from(pid) {
        Ok(pid) if pid >= 0 => Ok(pid),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// What a mount keeps from those who see it, besides devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protection {
    /// It cannot be written to.
    pub read_only: bool,
}

/// Protects a detached mount, and shows its files with the ids of `user_ns`, if there is one
/// (mount_setattr(2)).
pub(super) fn protect(
    mount: &OwnedFd,
    user_ns: Option<BorrowedFd<'_>>,
    protection: Protection,
) -> io::Result<()> {
    let (mapped, userns_fd) = match user_ns {
        Some(user_ns) => {
            let fd = u64::try_from(user_ns.as_raw_fd());
            (MOUNT_ATTR_IDMAP, fd.map_err(|_| io::ErrorKind::InvalidInput)?)
        }
        None => (0, 0),
    };
    let Protection { read_only } = protection;
    let attr = MountAttr {
        attr_set: mapped | MOUNT_ATTR_NODEV | if read_only { MOUNT_ATTR_RDONLY } else { 0 },
        attr_clr: 0,
        propagation: 0,
        userns_fd,
    };
    // SAFETY: the empty path is zero-terminated; `attr` is a `struct mount_attr` of the size
    // given, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Attaches a detached mount at `path` (move_mount(2)).
pub(super) fn attach_mount(mount: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: both paths are zero-terminated and outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that becomes readable when the process ends (pidfd_open(2)).
pub(in super::super) fn pidfd(pid: nix::unistd::Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Closes every descriptor from `first` on, whoever thinks to own it (close_range(2)).
///
/// # Safety
/// The caller must not use, nor drop, a value that owns one of them.
pub(super) unsafe fn close_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the call takes numbers; what it means for owners is our caller's promise.
    let result = unsafe { libc::close_range(first, libc::c_uint::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The descriptor of a number that this process was started with.
///
/// # Safety
/// Nothing else may own that descriptor.
pub(super) unsafe fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: our caller promises that it is open and not owned.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes descriptor `target` another name of `fd`, whatever it was before (dup2(2)).
/// Only for 0, 1 and 2, which no value here owns.
pub(super) fn replace_standard(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    assert!((0..=2).contains(&target), "descriptor {target} may have an owner");
    // SAFETY: the call takes two numbers, and the replaced one is owned by nobody.
    let result = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), target) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every signal its default action and unblocks all: what exec keeps of us is nothing.
pub(super) fn reset_signals() -> io::Result<()> {
    // The kernel's `struct sigaction`: SIG_DFL, no flags, no restorer, an empty mask.
    let default = [0_usize; 4];
    for signal in 1..=libc::SIGRTMAX() {
        // Not glibc's signal(3), which keeps two for itself that a parent may have ignored.
        // SAFETY: SIG_DFL installs no code of ours; `default` is as large as the kernel's
        // structure with its 8 byte mask, and outlives the call. SIGKILL and SIGSTOP fail, as
        // they may.
        let _ = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<usize>(),
                size_of::<u64>(),
            )
        };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Replaces the process by `program` (execve(2)); returns only on failure.
pub(super) fn exec(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execve(program, args, env) {
        Ok(never) => match never {},
        Err(e) => e.into(),
    }
}
