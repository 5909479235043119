//! What a container may write to disk: how much is found out to be enforceable when a runtime
//! opens, where each container's writable layer is, and what it uses (docs/adr/0006).
//!
//! In order of preference: *project quotas* of the file system that the runtime's directory is
//! on; a *pool*, one sparse file with a file system of ours that has them; *volumes*, a sparse
//! file for each container, which needs nothing of the kernel but loop devices.
//! A process that exceeds its limit is told so (EDQUOT or ENOSPC), and is not killed.

mod image;
mod loopback;
mod project;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use image::Size;
use loopback::{Cache, Loop};
use project::Quota;

use super::error::{Context as _, Error, Result};
use super::limits::{DiskLimit, DiskScope};
use super::spec::{ContainerId, ContainerSpec};
use super::state::{Files, Record};

pub(super) use project::heed_limits;

const NONE: Option<&str> = None;

/// Which way of bounding what containers write a runtime is to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskEnforcement {
    /// The first of the following three that works here; if none does, containers with a limit
    /// are refused.
    #[default]
    Detect,
    /// Quotas of the file system that the runtime's directory is on: ext4 mounted with
    /// `prjquota`, or xfs with `pquota`.
    ProjectQuotas,
    /// The same on a file system of ours in one sparse file; needs loop devices, `mkfs.ext4` and
    /// a kernel with ext4's quotas (CONFIG_QFMT_V2).
    Pool,
    /// A sparse file with a file system for each container that has a limit; needs loop devices
    /// and `mkfs.ext4`.
    Volumes,
    /// None: a container's limit is not enforced. For an operator who knows why.
    None,
}

/// What a container uses of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

/// Where a container's writable layer is, and what bounds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    /// In the container's directory; nothing does.
    #[default]
    Plain,
    /// In the container's directory; the project that has its first host id as number.
    Project(Quota),
    /// In the pool; the same.
    Pool(Quota),
    /// In a file of its own.
    Volume(Size),
}

/// What the writable layer is mounted from, as the shim is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Writable {
    /// A directory.
    Directory(PathBuf),
    /// A file with a file system in it.
    Image(PathBuf),
    /// The device of such a file, which whoever says so holds open.
    Device(PathBuf),
}

/// A writable layer that waits to be mounted for the first time, as long as this lives.
#[derive(Debug)]
pub(super) struct Prepared {
    pub writable: Writable,
    _device: Option<Loop>,
}

/// A runtime's way of bounding what its containers write.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Projects,
    Pool,
    Volumes,
    /// Limits are ignored.
    Ignored,
    /// Limits are refused, for this reason.
    Refused(String),
}

impl DiskEnforcement {
    fn name(self) -> &'static str {
        match self {
            Self::Detect => "whatever there is",
            Self::ProjectQuotas => "project quotas",
            Self::Pool => "a pool",
            Self::Volumes => "volumes",
            Self::None => "nothing",
        }
    }
}

/// The first way that works.
fn detect(dir: &Path, project: u32) -> Way {
    let ways = [DiskEnforcement::ProjectQuotas, DiskEnforcement::Pool, DiskEnforcement::Volumes];
    let mut reasons = Vec::new();
    for wanted in ways {
        match attempt(dir, wanted, project) {
            Ok(way) => return way,
            Err(reason) => reasons.push(format!("{}: {reason}", wanted.name())),
        }
    }
    Way::Refused(reasons.join("; "))
}

/// One way; the error is why it does not work here.
fn attempt(dir: &Path, wanted: DiskEnforcement, project: u32) -> std::result::Result<Way, String> {
    match wanted {
        DiskEnforcement::ProjectQuotas => project::probe(dir, project).map(|()| Way::Projects),
        DiskEnforcement::Pool => open_pool(dir, project).map(|()| Way::Pool),
        DiskEnforcement::Volumes => probe_volumes(dir).map(|()| Way::Volumes),
        DiskEnforcement::Detect => Ok(detect(dir, project)),
        DiskEnforcement::None => Ok(Way::Ignored),
    }
}

impl Disk {
    /// Finds out what works for a runtime in `dir`; `project` is a number that no container has.
    ///
    /// Blocks for some milliseconds, and the first time that a pool is made for a second.
    pub(super) fn open(dir: &Path, wanted: DiskEnforcement, project: u32) -> Result<Self> {
        let way = attempt(dir, wanted, project).map_err(|reason| Error::Invalid {
            what: format!("disk limits by {}", wanted.name()),
            reason,
        })?;
        match &way {
            Way::Projects | Way::Pool | Way::Volumes => {
                tracing::info!(dir = %dir.display(), ?way, "disk limits are enforced");
            }
            Way::Ignored => tracing::warn!("disk limits are not enforced, as configured"),
            Way::Refused(reason) => tracing::warn!(
                %reason,
                "disk limits cannot be enforced: containers that have one are refused"
            ),
        }
        Ok(Self { dir: dir.to_owned(), way })
    }

    /// Where a new container's writable layer goes.
    ///
    /// # Errors
    ///
    /// Its image alone exceeds its limit, or it has a limit that cannot be enforced here.
    pub(super) fn place(&self, spec: &ContainerSpec) -> Result<Place> {
        let bytes = spec.limits.disk.map(|limit| writable_bytes(spec, limit)).transpose()?;
        let inodes = spec.limits.inodes;
        let quota = Quota { bytes, inodes };
        Ok(match (&self.way, bytes) {
            (Way::Projects, _) => Place::Project(quota),
            (Way::Pool, _) => Place::Pool(quota),
            (Way::Volumes, Some(bytes)) => {
                Place::Volume(Size::of(bytes, inodes.unwrap_or(u64::MAX)))
            }
            (Way::Volumes | Way::Ignored, _) | (Way::Refused(_), None) => Place::Plain,
            (Way::Refused(reason), Some(_)) => {
                return Err(Error::Invalid {
                    what: format!("disk limit of container {}", spec.id),
                    reason: format!("it cannot be enforced here: {reason}"),
                });
            }
        })
    }

    /// Makes what [`Self::writable`] tells of. Blocks.
    pub(super) fn make(&self, record: &Record, files: &Files) -> Result<Prepared> {
        let id = &record.spec.id;
        let context = || format!("make the writable layer of container {id}");
        fs::create_dir(files.writable()).context(context)?;
        let within = |dir: &Path, quota: Quota| {
            project::assign(dir, record.id_base)?;
            project::limit(dir, record.id_base, quota)
        };
        let mut device = None;
        match record.place {
            Place::Plain => Ok(()),
            Place::Project(quota) => within(&files.writable(), quota),
            Place::Pool(quota) => {
                let dir = self.in_pool(id);
                fs::create_dir(&dir).and_then(|()| within(&dir, quota))
            }
            Place::Volume(size) => {
                image::make_volume(&self.dir.join("volumes"), &files.volume(), size)
                    // Here, and not where it is mounted: it takes as long as a process does to
                    // start.
                    .and_then(|()| Loop::attach(&files.volume(), VOLUME.cache))
                    .map(|attached| device = Some(attached))
            }
        }
        .context(context)?;
        let writable = match &device {
            Some(device) => Writable::Device(device.path.clone()),
            None => self.writable(record, files),
        };
        Ok(Prepared { writable, _device: device })
    }

    /// Takes away what [`Self::make`] made and is not in the container's directory, and the
    /// limits; done if nothing is there. Nothing of the container may run any more. Blocks.
    pub(super) fn remove(&self, record: &Record, files: &Files) -> Result<()> {
        let id = &record.spec.id;
        let within = |dir: &Path, on: &Path| {
            gone(fs::remove_dir_all(dir))?;
            gone(project::limit(on, record.id_base, Quota::default()))
        };
        match record.place {
            Place::Plain | Place::Volume(_) => Ok(()),
            Place::Project(_) => within(&files.writable(), &files.dir),
            Place::Pool(_) => within(&self.in_pool(id), &self.pool()),
        }
        .context(|| format!("remove the writable layer of container {id}"))
    }

    /// What a container's writable layer is mounted from.
    pub(super) fn writable(&self, record: &Record, files: &Files) -> Writable {
        match record.place {
            Place::Plain | Place::Project(_) => Writable::Directory(files.writable()),
            Place::Pool(_) => Writable::Directory(self.in_pool(&record.spec.id)),
            Place::Volume(_) => Writable::Image(files.volume()),
        }
    }

    /// What a container uses; `None` where nothing counts it.
    /// `process` is the directory in `/proc` of its init, which is asked where only the mount
    /// itself knows, and only as long as it lives.
    pub(super) fn usage(
        &self,
        record: &Record,
        files: &Files,
        process: Option<&File>,
    ) -> Option<Usage> {
        match record.place {
            Place::Plain => None,
            Place::Project(_) => project::usage(&files.dir, record.id_base).ok(),
            Place::Pool(_) => project::usage(&self.pool(), record.id_base).ok(),
            Place::Volume(_) => volume_usage(process?).ok(),
        }
    }

    /// Removes from the pool what is of no container, as `is_known` says.
    pub(super) fn remove_strays(&self, is_known: impl Fn(&ContainerId) -> bool) -> Result<()> {
        let Way::Pool = self.way else { return Ok(()) };
        let pool = self.pool();
        let context = || format!("list {}", pool.display());
        for entry in fs::read_dir(&pool).context(context)? {
            let entry = entry.context(context)?;
            let id = entry.file_name().into_string().ok().and_then(|id| ContainerId::new(id).ok());
            // `lost+found`, and what else is not ours by its name, stays.
            if id.is_some_and(|id| !is_known(&id)) {
                let path = entry.path();
                fs::remove_dir_all(&path).context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The last act of an orderly shutdown, without containers.
    pub(super) fn close(&self) {
        if let Way::Pool = self.way {
            // Busy only if somebody looks around in it, and then found mounted at the next start.
            let _ = umount2(&self.pool(), MntFlags::empty());
        }
    }

    fn pool(&self) -> PathBuf {
        pool(&self.dir)
    }

    fn in_pool(&self, id: &ContainerId) -> PathBuf {
        self.pool().join(id.as_str())
    }
}

/// Mounts a container's writable layer, with overlayfs's `upper` and `work` in it, at `point`.
/// The calling process's mount namespace is its own, so that the mount goes with it.
pub(super) fn mount_writable(writable: &Writable, point: &Path) -> io::Result<()> {
    match writable {
        Writable::Directory(dir) => mount(Some(dir), point, NONE, MsFlags::MS_BIND, NONE)?,
        Writable::Image(file) => mount_image(file, point, VOLUME)?,
        Writable::Device(device) => mount_device(device, point, VOLUME)?,
    }
    Ok(())
}

/// How a file system in a file is mounted.
#[derive(Clone, Copy)]
struct Kind {
    cache: Cache,
    options: &'static str,
}

/// Its inode table is made of holes, which need not be overwritten with zeros.
const VOLUME: Kind = Kind { cache: Cache::Pages, options: "errors=remount-ro,noinit_itable" };
/// What a container has written is given back to the machine when the container goes.
const POOL: Kind = Kind { cache: Cache::None, options: "errors=remount-ro,prjquota,discard" };

/// Mounts the ext4 file system in a file.
fn mount_image(file: &Path, point: &Path, kind: Kind) -> io::Result<()> {
    let device = Loop::of(file, kind.cache)?;
    mount_device(&device.path, point, kind)
}

fn mount_device(device: &Path, point: &Path, kind: Kind) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    mount(Some(device), point, Some("ext4"), flags, Some(kind.options))?;
    Ok(())
}

/// Of a container's limit, what is left for it to write.
fn writable_bytes(spec: &ContainerSpec, limit: DiskLimit) -> Result<u64> {
    let taken = match limit.scope {
        DiskScope::Exclusive => 0,
        DiskScope::Total => spec.image_bytes,
    };
    match limit.bytes.checked_sub(taken) {
        Some(left) if left > 0 => Ok(left),
        Some(_) | None => Err(Error::Invalid {
            what: format!("disk limit of container {}", spec.id),
            reason: format!(
                "the image's layers take {taken} bytes, and the limit for both is {}",
                limit.bytes
            ),
        }),
    }
}

fn volume_usage(process: &File) -> io::Result<Usage> {
    let root = openat(process, "root", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    // Overlayfs answers for the file system of its upper directory.
    let stat = fstatfs(&root)?;
    let block = u64::try_from(stat.block_size()).unwrap_or(0);
    Ok(Usage {
        bytes: stat.blocks().saturating_sub(stat.blocks_free()).saturating_mul(block),
        inodes: stat.files().saturating_sub(stat.files_free()),
    })
}

fn pool(dir: &Path) -> PathBuf {
    dir.join("pool")
}

/// Mounts the pool, if it is not; the error is why there can be none.
fn open_pool(dir: &Path, project: u32) -> std::result::Result<(), String> {
    let (file, point) = (dir.join("pool.ext4"), pool(dir));
    let words = |e: io::Error| e.to_string();
    fs::create_dir_all(&point).map_err(words)?;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).map_err(words);
    if device(&point)? == device(dir)? {
        if !file.exists() {
            // In small first: to fail on a large one, at each start, takes long.
            try_image(
                dir,
                |file| image::make_pool(file, 16 << 20),
                POOL,
                move |point| project::probe(point, project),
            )?;
            let stat = statvfs(dir).map_err(|e| e.to_string())?;
            let bytes = stat.blocks_available().saturating_mul(stat.fragment_size());
            image::make_pool(&file, bytes).map_err(words)?;
        }
        mount_image(&file, &point, POOL).map_err(|e| format!("mount {}: {e}", file.display()))?;
    }
    project::probe(&point, project)
}

/// Tries a volume; the error is why there can be none.
fn probe_volumes(dir: &Path) -> std::result::Result<(), String> {
    let templates = dir.join("probe-templates");
    let make = |file: &Path| image::make_volume(&templates, file, Size::of(1 << 20, 16));
    let tried = try_image(dir, make, VOLUME, |point| {
        match fs::write(point.join("file"), vec![0; 3 << 20]) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull => Ok(()),
            Err(e) => Err(format!("write: {e}")),
            Ok(()) => Err("a volume takes more than its size".to_owned()),
        }
    });
    gone(fs::remove_dir_all(&templates)).map_err(|e| e.to_string())?;
    tried
}

/// Makes a file system in a file, mounts it where nobody sees it, and has `body` try it.
fn try_image(
    dir: &Path,
    make: impl FnOnce(&Path) -> io::Result<()>,
    kind: Kind,
    body: impl FnOnce(&Path) -> std::result::Result<(), String> + Send + 'static,
) -> std::result::Result<(), String> {
    let (file, point) = (dir.join("probe.ext4"), dir.join("probe"));
    let words = |e: io::Error| e.to_string();
    gone(fs::remove_file(&file)).map_err(words)?;
    fs::create_dir_all(&point).map_err(words)?;
    make(&file).map_err(words)?;
    let (image, at) = (file.clone(), point.clone());
    let tried = in_mounts_of_its_own(move || {
        mount_image(&image, &at, kind).map_err(|e| format!("mount a file: {e}"))?;
        body(&at)
    });
    gone(fs::remove_file(&file)).and_then(|()| fs::remove_dir(&point)).map_err(words)?;
    tried.map_err(words)?
}

/// Runs `body` on a thread with a mount namespace of its own, whose mounts end with it.
pub(super) fn in_mounts_of_its_own<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        Ok(body())
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What is not there need not be taken away.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::container::Limits;

    fn spec(disk: Option<DiskLimit>, image_bytes: u64) -> ContainerSpec {
        ContainerSpec {
            id: ContainerId::new("c1").unwrap(),
            layers: vec!["/layer".into()],
            image_bytes,
            mounts: vec![],
            hostname: "c1".to_owned(),
            privileged: false,
            limits: Limits { disk, inodes: Some(100), ..Limits::default() },
            ports: Vec::new(),
            egress: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    fn place(
        way: Way,
        disk: Option<DiskLimit>,
        image_bytes: u64,
    ) -> std::result::Result<Place, String> {
        let disks = Disk { dir: "/runtime".into(), way };
        disks.place(&spec(disk, image_bytes)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_scope_says_what_is_left_to_write() {
        let limit = |scope| Some(DiskLimit { bytes: 1000, scope });
        let quota = |bytes| Place::Project(Quota { bytes: Some(bytes), inodes: Some(100) });
        assert_eq!(place(Way::Projects, limit(DiskScope::Exclusive), 600), Ok(quota(1000)));
        assert_eq!(place(Way::Projects, limit(DiskScope::Total), 600), Ok(quota(400)));
        for image_bytes in [1000, 1001, u64::MAX] {
            let refused = place(Way::Projects, limit(DiskScope::Total), image_bytes).unwrap_err();
            let wanted = format!("the image's layers take {image_bytes} bytes");
            assert!(refused.contains(&wanted), "{refused}");
        }
    }

    #[test]
    fn who_has_no_limit_is_placed_wherever_the_machine_is_poor() {
        assert_eq!(place(Way::Refused("none".to_owned()), None, 1), Ok(Place::Plain));
        assert_eq!(place(Way::Ignored, None, 1), Ok(Place::Plain));
        assert_eq!(place(Way::Volumes, None, 1), Ok(Place::Plain));
        let counted = Place::Pool(Quota { bytes: None, inodes: Some(100) });
        assert_eq!(place(Way::Pool, None, 1), Ok(counted));
    }

    #[test]
    fn a_limit_that_cannot_hold_is_refused_with_the_reason() {
        let limit = Some(DiskLimit { bytes: 1000, scope: DiskScope::Exclusive });
        assert_eq!(
            place(Way::Refused("volumes: no loop devices".to_owned()), limit, 0),
            Err(
                "invalid disk limit of container c1: it cannot be enforced here: volumes: no loop \
                 devices"
                    .to_owned()
            )
        );
        assert_eq!(place(Way::Ignored, limit, 0), Ok(Place::Plain));
    }
}
