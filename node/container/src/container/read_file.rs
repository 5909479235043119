//! Taking a file out of a container that has exited.
//!
//! Its mounts are gone with its processes; what they saw of the layers and changed in them is seen
//! again by an overlay of the same directories, read-only, in a mount namespace of the reading
//! thread's own. What lay on a tmpfs (`/dev/shm`) is gone.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::disk::{Writable, in_mounts_of_its_own, mount_writable};
use super::error::{Context as _, Error, Result};
use super::runtime::{Runtime, blocking};
use super::spec::{ContainerId, ContainerState};
use super::state::SHIFTED;

const NONE: Option<&str> = None;

impl Runtime {
    /// The content of a regular file of a container that has exited, as the container last saw it.
    ///
    /// Symlinks lead to where they led in the container, and never out of it.
    ///
    /// # Errors
    ///
    /// It runs; the path leads to nothing, or to something else than a file; the file is longer
    /// than `bytes_max`.
    pub async fn read_file(
        &self,
        id: &ContainerId,
        path: &str,
        bytes_max: usize,
    ) -> Result<Vec<u8>> {
        let container = self.0.find(id)?;
        // Held so that nothing is taken away meanwhile.
        let _present = container.present.lock().await;
        match *container.state.borrow() {
            Some(ContainerState::Exited(_)) => {}
            Some(ContainerState::Created | ContainerState::Running { .. }) | None => {
                let id = id.clone();
                return Err(Error::WrongState { id, state: "not over", wanted: "exited" });
            }
        }
        let (dir, layers) = (container.files.dir.clone(), container.record.spec.layers.clone());
        let writable = self.0.disk.writable(&container.record, &container.files);
        let owned_path = PathBuf::from(path);
        let context = || format!("read {path} of container {id}");
        let read = move || read(&dir, &writable, &layers, &owned_path, bytes_max);
        let read = blocking(move || in_mounts_of_its_own(read)).await;
        read.flatten().context(context)
    }
}

fn read(
    dir: &Path,
    writable: &Writable,
    layers: &[PathBuf],
    path: &Path,
    bytes_max: usize,
) -> std::io::Result<Vec<u8>> {
    // Of this thread alone: it does not share it (unshare(2), CLONE_FS).
    std::env::set_current_dir(dir)?;
    mount_writable(writable, Path::new("writable"))?;
    mount_overlay(layers)?;
    let root =
        File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open("rootfs")?;
    // Not to wait at a fifo, and not to follow what procfs could have for links.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = loop {
        match openat2(root.as_fd(), path, how) {
            // Something on the whole machine was renamed or mounted during a `..` (openat2(2)).
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => break File::from(opened?),
        }
    };
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut content)?;
    if content.len() > bytes_max {
        return Err(std::io::Error::other(format!("it is longer than {bytes_max} bytes")));
    }
    Ok(content)
}

/// As the container's own, but for the upper directory, which is one more layer.
fn mount_overlay(layers: &[PathBuf]) -> std::io::Result<()> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("layers"), "layers", Some("tmpfs"), quiet, Some("size=64k,mode=700"))?;
    // Short relative names: the kernel takes one page of options.
    let mut lower = vec!["writable/upper".to_owned()];
    let mut metacopy = "";
    if Path::new(SHIFTED).exists() {
        lower.push(SHIFTED.to_owned());
        metacopy = ",metacopy=on";
    }
    for (number, layer) in layers.iter().enumerate().rev() {
        let point = format!("layers/{number}");
        fs::create_dir(&point)?;
        mount(Some(layer.as_path()), point.as_str(), NONE, MsFlags::MS_BIND, NONE)?;
        lower.push(point);
    }
    let options = format!("lowerdir={}{metacopy}", lower.join(":"));
    let flags = quiet | MsFlags::MS_RDONLY;
    mount(Some("overlay"), "rootfs", Some("overlay"), flags, Some(options.as_str()))?;
    umount2("layers", MntFlags::MNT_DETACH)?;
    Ok(())
}
