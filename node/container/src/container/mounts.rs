//! What a container sees of this machine besides its image: directories, and memory.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::limits::MOUNTS_MAX;

/// Something mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is seen.
    pub source: MountSource,
    /// Where, an absolute path in the container; made where it is missing.
    pub target: PathBuf,
    /// Whether writing to it fails.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory of this machine's, absolute, on a file system that has id-mapped mounts. Its
    /// files belong in the container to whom they belong here, so that many containers may share
    /// it: what uid 1000 of one has written, uid 1000 of another owns.
    Directory(PathBuf),
    /// Memory, counted as the container's own, gone with it.
    Tmpfs {
        /// The most that it holds, in bytes.
        bytes_max: u64,
    },
}

/// The rule that mounts break, if they do.
pub(super) fn fault(mounts: &[Mount]) -> Option<String> {
    if mounts.len() > MOUNTS_MAX {
        return Some(format!("{} mounts, {MOUNTS_MAX} at most", mounts.len()));
    }
    mounts.iter().find_map(|mount| {
        let target = mount.target.display();
        let mut parts = mount.target.components();
        if parts.next() != Some(Component::RootDir) {
            return Some(format!("mount at {target:?}: it is not an absolute path"));
        }
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Some(format!("mount at {target:?}: it goes upwards"));
        }
        // What the runtime mounts itself, and what hides there, is not to be covered.
        let forbidden = ["/proc", "/sys", "/dev"];
        let is_ours = forbidden.iter().any(|ours| mount.target.starts_with(ours));
        if is_ours || mount.target == Path::new("/") {
            return Some(format!("mount at {target:?}: nothing may be mounted there"));
        }
        match &mount.source {
            MountSource::Directory(source) if !source.is_absolute() => {
                Some(format!("mount of {}: it is not an absolute path", source.display()))
            }
            MountSource::Directory(_) | MountSource::Tmpfs { .. } => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_inside_and_covers_nothing_of_ours() {
        let fault = |target: &str| {
            let source = MountSource::Tmpfs { bytes_max: 1 };
            fault(&[Mount { source, target: target.into(), read_only: false }])
        };
        for good in ["/a", "/var/lib/x", "/procx", "/etc"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in ["", "a", "/", "//", "/a/../..", "/..", "/proc", "/proc/self", "/sys/fs", "/dev"]
        {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
