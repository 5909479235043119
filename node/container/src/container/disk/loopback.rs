//! Files as block devices (loop(4)).
//!
//! A device lets go of its file by itself, when nobody has it open or mounted any more
//! (`LO_FLAGS_AUTOCLEAR`): whoever is killed at whatever moment leaves none behind.

#![expect(unsafe_code, reason = "three ioctls that no crate here wraps")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;

use crate::limits::LOOP_TRIES_MAX;

// include/uapi/linux/loop.h
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// What the kernel keeps in memory of a file behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    /// Pages of the file, besides those of the files in it: what is short-lived never gets to
    /// the disk.
    Pages,
    /// Nothing, where the file's own file system can do that: what is in it is cached once.
    None,
}

/// A device with a file behind it, for as long as this is alive or it is mounted.
#[derive(Debug)]
pub(in super::super) struct Loop {
    pub path: PathBuf,
    _open: File,
}

impl Loop {
    /// The device of `file`: the one that it has, so that a file system in it is never mounted
    /// twice over, or a new one.
    pub(super) fn of(file: &Path, cache: Cache) -> io::Result<Self> {
        match Self::find(file)? {
            Some(device) => Ok(device),
            None => Self::attach(file, cache),
        }
    }

    fn find(file: &Path) -> io::Result<Option<Self>> {
        let file = fs::canonicalize(file)?;
        for device in fs::read_dir("/sys/block")? {
            let device = device?;
            // Only loop devices with a file have this.
            let Ok(behind) = fs::read_to_string(device.path().join("loop/backing_file")) else {
                continue;
            };
            if Path::new(behind.trim_end_matches('\n')) == file {
                let path = Path::new("/dev").join(device.file_name());
                let open = open(&path)?;
                // Held open it keeps its file, unless it let go of it just before.
                let behind = fs::read_to_string(device.path().join("loop/backing_file"));
                if behind.is_ok_and(|behind| Path::new(behind.trim_end_matches('\n')) == file) {
                    return Ok(Some(Self { path, _open: open }));
                }
            }
        }
        Ok(None)
    }

    /// A device of its own for a file that has none.
    pub(super) fn attach(file: &Path, cache: Cache) -> io::Result<Self> {
        let control = open(Path::new("/dev/loop-control"))?;
        let file = open(file)?;
        for _ in 0..LOOP_TRIES_MAX {
            // SAFETY: the ioctl takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            match configure(&device, file.as_raw_fd(), cache) {
                // Another program was faster.
                Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => {}
                configured => return configured.map(|()| Self { path, _open: device }),
            }
        }
        Err(Errno::EBUSY.into())
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

fn configure(device: &File, file: RawFd, cache: Cache) -> io::Result<()> {
    let fd = u32::try_from(file).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `Config` is plain numbers and arrays of them, for which zero is a value.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.fd = fd;
    config.info.flags = LO_FLAGS_AUTOCLEAR
        | match cache {
            Cache::Pages => 0,
            Cache::None => LO_FLAGS_DIRECT_IO,
        };
    // SAFETY: the ioctl reads one `struct loop_config`, which `config` is, and outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
