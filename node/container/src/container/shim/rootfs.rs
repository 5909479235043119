//! The container's root file system, as seen from its init while that is still the host's root
//! in a mount namespace of its own.
//!
//! The mount namespace belongs to the host's user namespace, so that nothing in the container,
//! whatever capability it gets hold of in its own, can change a mount of it.
//! Everything below the new root is mounted after `pivot_root`: a symlink in the image then
//! leads back into the image, never to the host.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{OpenOptionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::pivot_root;

use super::protocol::Setup;
use super::{Context as _, Result, layers, mounts};

/// What Docker hides (moby `oci/defaults.go`).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What Docker protects (the same file).
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Device nodes: name, major, minor (the kernel's `devices.txt`).
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Privileged containers have it in garden.
const FUSE: (&str, u64, u64) = ("fuse", 10, 229);

const NONE: Option<&str> = None;

/// Makes the layers the root of the calling process, whose mount namespace is new.
/// The process must already be in the container's other namespaces, except its user namespace.
pub(super) fn enter(setup: &Setup, user_ns: Option<BorrowedFd<'_>>) -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("cut mount propagation")?;
    std::env::set_current_dir(&setup.dir).context("enter the container's directory")?;
    layers::stack(setup, user_ns)?;
    let mounts = mounts::open(setup, user_ns)?;
    std::env::set_current_dir("rootfs").context("enter the root file system")?;
    // The same directory twice: the old root is put on top of the new one, and taken off
    // (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("detach the host's root")?;
    std::env::set_current_dir("/").context("enter the new root")?;

    // Before there is a /proc, whose links lead out, or whose files a mount could stand in for:
    // where the image's links lead them there, ours comes on top.
    mounts::attach(setup, &mounts)?;
    mount_proc_and_sys()?;
    mount_dev(setup)?;
    // Docker's default too: ports below 1024 mean nothing in a namespace of one's own.
    write_if_there("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    // The host takes no IPv6 from us. First for a link that comes, then for one that is there.
    write_if_there("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    write_if_there("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1")?;
    if setup.privileged {
        return Ok(());
    }
    MASKED.iter().try_for_each(|path| mask(path))?;
    mask_thermal_throttle()?;
    READ_ONLY.iter().try_for_each(|path| make_read_only(path))
}

fn mount_proc_and_sys() -> Result<()> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_point("/proc")?;
    mount(Some("proc"), "/proc", Some("proc"), quiet, NONE).context("mount /proc")?;
    mount_point("/sys")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), quiet | MsFlags::MS_RDONLY, NONE)
        .context("mount /sys")
}

fn mount_dev(setup: &Setup) -> Result<()> {
    let (root, tty) = (setup.id_base, setup.id_base + 5);
    mount_point("/dev")?;
    let options = format!("mode=755,size=64k,uid={root},gid={root}");
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), MsFlags::MS_NOSUID, Some(options.as_str()))
        .context("mount /dev")?;
    let fuse = setup.privileged.then_some(FUSE);
    for (name, major, minor) in DEVICES.into_iter().chain(fuse) {
        let path = PathBuf::from("/dev").join(name);
        // The umask is zero here.
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
            .with_context(|| format!("create {}", path.display()))?;
        own(&path, root)?;
    }
    for (target, name) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ] {
        symlink(target, name).with_context(|| format!("create {name}"))?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    for (name, kind, flags, options) in [
        ("/dev/pts", "devpts", quiet, format!("newinstance,ptmxmode=0666,mode=0620,gid={tty}")),
        (
            "/dev/shm",
            "tmpfs",
            quiet | MsFlags::MS_NODEV,
            format!("mode=1777,size=64m,uid={root},gid={root}"),
        ),
        ("/dev/mqueue", "mqueue", quiet | MsFlags::MS_NODEV, String::new()),
    ] {
        fs::create_dir(name).with_context(|| format!("create {name}"))?;
        own(Path::new(name), root)?;
        mount(Some(kind), name, Some(kind), flags, Some(options.as_str()))
            .with_context(|| format!("mount {name}"))?;
    }
    Ok(())
}

fn own(path: &Path, root: u32) -> Result<()> {
    chown(path, Some(root), Some(root))
        .with_context(|| format!("change owner of {}", path.display()))
}

/// A directory of the root itself to mount on; anything else of that name is refused, as a
/// symlink could lead the masks below it elsewhere (runc's CVE-2023-27561).
fn mount_point(path: &str) -> Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(path).with_context(|| format!("look at {path}"))?;
            if meta.is_dir() {
                return Ok(());
            }
            Err(Errno::ENOTDIR).with_context(|| format!("mount on the image's {path}"))
        }
        done => done.with_context(|| format!("create {path}")),
    }
}

/// Hides a file behind `/dev/null`, a directory behind an empty one.
fn mask(path: &str) -> Result<()> {
    let what = || format!("mask {path}");
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(what),
        Ok(meta) if meta.is_dir() => {
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=4k,mode=755"))
                .with_context(what)
        }
        Ok(_) => mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE).with_context(what),
    }
}

/// Of each processor (the list of moby, which names the advisory GHSA-6fw5-f8r9-fgfm).
fn mask_thermal_throttle() -> Result<()> {
    (0..)
        .map(|number| format!("/sys/devices/system/cpu/cpu{number}"))
        .take_while(|processor| Path::new(processor).exists())
        .try_for_each(|processor| mask(&format!("{processor}/thermal_throttle")))
}

fn make_read_only(path: &str) -> Result<()> {
    let what = || format!("make {path} read-only");
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    match mount(Some(path), path, NONE, bind, NONE) {
        Err(Errno::ENOENT) => return Ok(()),
        done => done.with_context(what)?,
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | quiet;
    mount(NONE, path, NONE, flags, NONE).with_context(what)
}

fn write_if_there(path: &str, text: &str) -> Result<()> {
    match fs::write(path, text) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("write {path}")),
    }
}

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, in place of the image's.
/// Called as the container's root, to whom they then belong.
pub(super) fn write_etc(setup: &Setup) -> Result<()> {
    match fs::create_dir("/etc") {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).context("create /etc")?,
        Ok(()) | Err(_) => {}
    }
    let Setup { hostname, address, .. } = setup;
    replace("/etc/hostname", &format!("{hostname}\n"))?;
    replace(
        "/etc/hosts",
        &format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{address}\t{hostname}\n"),
    )?;
    let mut resolv = String::new();
    for nameserver in &setup.nameservers {
        resolv.push_str(&format!("nameserver {nameserver}\n"));
    }
    replace("/etc/resolv.conf", &resolv)
}

fn replace(path: &str, text: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("replace the image's {path}"))?;
        }
        Ok(()) | Err(_) => {}
    }
    let file: io::Result<File> = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .with_context(|| format!("write {path}"))
}
