//! A place where hostile layers are unpacked for real and can harm nobody: one thread with its
//! own mounts, whose whole file system is a small tmpfs with [`ROOT`], a neighbour and /proc.
//! An escape is seen wherever it goes, since everything that there is can be listed.

use std::any::Any;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Where to unpack: the only directory that may change.
pub(super) const ROOT: &str = "/root";

const OUTSIDE: &str = "/outside";
const CANARY: &str = "/outside/canary";

type Job = Box<dyn FnOnce(&Cage) + Send>;
type Done = Result<(), Box<dyn Any + Send>>;

/// The words to the caged thread and from it; one execution at a time.
static CAGED: LazyLock<Mutex<(SyncSender<Job>, Receiver<Done>)>> = LazyLock::new(|| {
    let (jobs, caged_jobs) = sync_channel::<Job>(0);
    let (caged_done, done) = sync_channel(1);
    std::thread::Builder::new()
        .name("cage".to_owned())
        .spawn(move || {
            let cage = Cage::new().expect("a cage needs root's rights, as containers do");
            for job in caged_jobs {
                cage.clear();
                let result = catch_unwind(AssertUnwindSafe(|| job(&cage)));
                if caged_done.send(result).is_err() {
                    return;
                }
            }
        })
        .expect("a thread can be started");
    Mutex::new((jobs, done))
});

/// Does something in the cage, with an empty [`ROOT`].
pub(super) fn in_cage(job: impl FnOnce(&Cage) + Send + 'static) {
    let caged = CAGED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (jobs, done) = &*caged;
    jobs.send(Box::new(job)).expect("the cage stands");
    if let Err(panic) = done.recv().expect("the cage stands") {
        resume_unwind(panic);
    }
}

pub(super) struct Cage(());

/// What is in [`ROOT`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    entries: Vec<String>,
    /// Of all files together, each counted once.
    pub(super) bytes: u64,
}

impl Cage {
    fn new() -> std::io::Result<Self> {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("cage"), "/tmp", Some("tmpfs"), MsFlags::empty(), Some("size=256m,mode=755"))?;
        fs::create_dir("/tmp/proc")?;
        mount(Some("/proc"), "/tmp/proc", none, MsFlags::MS_BIND, none)?;
        nix::unistd::chroot("/tmp")?;
        std::env::set_current_dir("/")?;
        fs::create_dir(OUTSIDE)?;
        fs::write(CANARY, "alive")?;
        fs::create_dir(ROOT)?;
        Ok(Self(()))
    }

    /// Empties [`ROOT`].
    pub(super) fn clear(&self) {
        fs::remove_dir_all(ROOT).expect("a layer can be removed");
        fs::create_dir(ROOT).expect("there is room");
    }

    /// Panics if anything outside of [`ROOT`] has changed, or what is in it may not be.
    pub(super) fn check(&self, bytes_max: u64) -> Listing {
        assert_eq!(names("/"), ["outside", "proc", "root"]);
        assert_eq!(names(OUTSIDE), ["canary"]);
        let canary = fs::symlink_metadata(CANARY).expect("the canary is there");
        assert_eq!((canary.mode(), canary.nlink()), (0o100_644, 1));
        assert_eq!((canary.uid(), canary.gid()), (0, 0));
        assert_eq!(fs::read(CANARY).expect("it is readable"), b"alive");
        let outside = fs::symlink_metadata(OUTSIDE).expect("it is there");
        assert_eq!((outside.mode(), outside.uid(), outside.gid()), (0o40_755, 0, 0));
        let mut listing = Listing { entries: Vec::new(), bytes: 0 };
        let mut inodes = std::collections::BTreeSet::new();
        list(Path::new(ROOT), &mut listing, &mut inodes);
        assert!(listing.bytes <= bytes_max, "{} bytes", listing.bytes);
        listing
    }
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("it is readable").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn list(at: &Path, listing: &mut Listing, inodes: &mut std::collections::BTreeSet<u64>) {
    let meta = fs::symlink_metadata(at).expect("it is there");
    let kind = meta.file_type();
    assert!(!kind.is_fifo() && !kind.is_socket() && !kind.is_block_device(), "{at:?}: {kind:?}");
    assert!(!kind.is_char_device() || meta.rdev() == 0, "{at:?}: device {}", meta.rdev());
    let mut held = String::new();
    if kind.is_symlink() {
        held = format!("-> {:?}", fs::read_link(at).expect("it is a link"));
    } else if kind.is_file() {
        if inodes.insert(meta.ino()) {
            listing.bytes += meta.size();
        }
        // A sparse file's holes are not worth reading.
        if meta.size() <= 64 << 10 {
            let bytes = fs::read(at).expect("it is readable");
            held = crate::image::Digest::of(&bytes).hex();
        }
    }
    // A link's own attributes cannot be asked for by path.
    let attributes: Vec<_> = match kind.is_symlink() {
        true => Vec::new(),
        false => xattr::list(at).expect("attributes are listed").collect(),
    };
    for attribute in &attributes {
        let name = attribute.as_bytes();
        let of_overlay = name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.");
        assert!(!of_overlay || name == b"trusted.overlay.opaque", "{at:?}: {attribute:?}");
    }
    // The root's own time and those of implied directories are now.
    let mtime = if kind.is_dir() { 0 } else { meta.mtime() };
    let mtime = if kind.is_char_device() { 0 } else { mtime };
    listing.entries.push(format!(
        "{at:?} {:o} {}:{} {} {mtime} {held} {attributes:?}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        if kind.is_dir() { 0 } else { meta.size() },
    ));
    if kind.is_dir() {
        let entries = fs::read_dir(at).expect("it is a directory");
        let mut paths: Vec<_> = entries.map(|e| e.expect("it is readable").path()).collect();
        paths.sort();
        paths.iter().for_each(|path| list(path, listing, inodes));
    }
}
