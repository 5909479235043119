//! What a definition has mounted into its container: volumes of this cell's drivers, dependencies
//! from the cell's cache, and files of its own (executor.md section 3).

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Component, Path, PathBuf};

use container::container::{Mount, MountSource};
use executor::{Dependency, DependencyLine, Services, bring_dependencies, cached_dependencies};
use model::action::MountedFile;
use model::dependency::{CachedDependency, ImageLayer};
use model::volume::VolumeMount;
use plan::cell::Work;
use serde::Deserialize;

/// Drivers that every cell offers: a directory of the node's own, kept until an operator removes
/// it, and memory of the container's.
pub(crate) const DRIVERS: [&str; 2] = ["local", "tmpfs"];
/// Where mounted files are found in a container. Diego: the same.
const FILES_TARGET: &str = "/etc/cf-service-bindings";

/// What is to be mounted, and what has to be kept for it.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub mounts: Vec<Mount>,
    /// Not to be dropped before the container is gone.
    pub dependencies: Vec<Dependency>,
    /// What the container's log is to say of it.
    pub lines: Vec<DependencyLine>,
}

/// Why something cannot be mounted, in Diego's words. A task may be started elsewhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("failed to download cached artifacts")]
    Dependencies,
    #[error("failed to mount volume, errors: {0}")]
    Volume(String),
    #[error("failed to create volume mounted files")]
    Files,
}

/// The parts of a definition that are mounted.
struct Wanted<'a> {
    volumes: &'a [VolumeMount],
    files: &'a [MountedFile],
    layers: &'a [ImageLayer],
    dependencies: &'a [CachedDependency],
    log_source: &'a str,
}

impl<'a> Wanted<'a> {
    fn of(work: &'a Work) -> Self {
        match work {
            Work::Lrp { desired, .. } => Self {
                volumes: &desired.volume_mounts,
                files: &desired.volume_mounted_files,
                layers: &desired.image_layers,
                dependencies: &desired.cached_dependencies,
                log_source: &desired.log_source,
            },
            Work::Task { task } => Self {
                volumes: &task.definition.volume_mounts,
                files: &task.definition.volume_mounted_files,
                layers: &task.definition.image_layers,
                dependencies: &task.definition.cached_dependencies,
                log_source: &task.definition.log_source,
            },
        }
    }
}

/// Where a cell keeps what it mounts.
#[derive(Clone, Debug)]
pub(super) struct Dirs {
    volumes: PathBuf,
    files: PathBuf,
}

impl Dirs {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { volumes: data_dir.join("volumes"), files: data_dir.join("files") }
    }

    /// Brings and makes all that a container's definition has mounted.
    pub(super) async fn prepare(
        &self,
        container: &str,
        work: &Work,
        services: &Services,
    ) -> Result<Mounts, Fault> {
        let wanted = Wanted::of(work);
        let mut made = Mounts::default();
        let dependencies = cached_dependencies(wanted.layers, wanted.dependencies);
        let lines = std::sync::Mutex::new(Vec::new());
        let log = |line| lines.lock().expect("no holder of the lock panics").push(line);
        let brought = bring_dependencies(services, &dependencies, wanted.log_source, &log);
        for mounted in brought.await.map_err(|_| Fault::Dependencies)? {
            let source = MountSource::Directory(mounted.dependency.directory());
            made.mounts.push(Mount { source, target: mounted.to, read_only: true });
            made.dependencies.push(mounted.dependency);
        }
        made.lines = lines.into_inner().expect("no holder of the lock panics");
        for volume in wanted.volumes {
            made.mounts.push(self.volume(volume).map_err(Fault::Volume)?);
        }
        if !wanted.files.is_empty() {
            let files = self.write_files(container, wanted.files).map_err(|error| {
                tracing::warn!(container, %error, "its files cannot be written");
                Fault::Files
            })?;
            let source = MountSource::Directory(files);
            made.mounts.push(Mount { source, target: FILES_TARGET.into(), read_only: true });
        }
        Ok(made)
    }

    /// Removes the files of a container that is gone.
    pub(super) fn remove_files(&self, container: &str) {
        let dir = self.files.join(container);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %error, "not removed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes the files of containers that `is_there` no more.
    pub(super) fn remove_strays(&self, is_there: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(&self.files).into_iter().flatten().flatten() {
            match entry.file_name().to_str() {
                Some(name) if is_there(name) => {}
                Some(name) => self.remove_files(name),
                None => {}
            }
        }
    }

    fn volume(&self, volume: &VolumeMount) -> Result<Mount, String> {
        let Some(shared) = &volume.shared else {
            return Err(format!("driver {} has no dedicated devices", volume.driver));
        };
        let (target, read_only) = (PathBuf::from(&volume.container_dir), volume.mode == "r");
        let config =
            if shared.mount_config.trim().is_empty() { "{}" } else { &shared.mount_config };
        let named = |error: serde_json::Error| {
            format!("volume {}: mount_config: {error}", shared.volume_id)
        };
        let source = match volume.driver.as_str() {
            "local" => {
                let config: LocalConfig = serde_json::from_str(config).map_err(named)?;
                MountSource::Directory(self.local(&shared.volume_id, &config)?)
            }
            "tmpfs" => {
                let config: TmpfsConfig = serde_json::from_str(config).map_err(named)?;
                MountSource::Tmpfs { bytes_max: u64::from(config.size_mb) << 20 }
            }
            other => return Err(format!("this cell has no volume driver {other}")),
        };
        Ok(Mount { source, target, read_only })
    }

    /// The directory of a local volume; made, as its configuration says, by who mounts it first.
    fn local(&self, volume_id: &str, config: &LocalConfig) -> Result<PathBuf, String> {
        let is_name = volume_id.starts_with(|c: char| c.is_ascii_alphanumeric())
            && volume_id.len() <= 128
            && volume_id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !is_name {
            return Err(format!(
                "volume id {volume_id:?} is not of 1 to 128 letters, digits, '.', '_' and '-'"
            ));
        }
        let dir = self.volumes.join("local").join(volume_id);
        let make = || -> io::Result<()> {
            DirBuilder::new().mode(0o700).recursive(true).create(self.volumes.join("local"))?;
            match fs::create_dir(&dir) {
                Ok(()) => {
                    fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
                    chown(&dir, Some(config.uid), Some(config.gid))
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
            }
        };
        make().map_err(|error| format!("create {}: {error}", dir.display()))?;
        Ok(dir)
    }

    fn write_files(&self, container: &str, files: &[MountedFile]) -> io::Result<PathBuf> {
        let dir = self.files.join(container);
        self.remove_files(container);
        let directories = |mode| {
            let mut builder = DirBuilder::new();
            builder.mode(mode).recursive(true);
            builder
        };
        directories(0o700).create(&self.files)?;
        directories(0o755).create(&dir)?;
        for MountedFile { path, content } in files {
            let path = Path::new(path);
            // Below its directory, whatever it says.
            let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
            if !is_inside || path.as_os_str().is_empty() {
                let reason = format!("path {:?} leads out of {FILES_TARGET}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            let file = dir.join(path);
            directories(0o755).create(file.parent().unwrap_or(&dir))?;
            fs::write(&file, content)?;
            fs::set_permissions(&file, Permissions::from_mode(0o644))?;
        }
        Ok(dir)
    }
}

/// A local volume's `mount_config`: to whom its directory belongs when it is made.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LocalConfig {
    uid: u32,
    gid: u32,
}

/// A tmpfs volume's `mount_config`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TmpfsConfig {
    size_mb: u32,
}

impl Default for TmpfsConfig {
    /// As Docker's `/dev/shm`.
    fn default() -> Self {
        Self { size_mb: 64 }
    }
}

#[cfg(test)]
mod tests {
    use model::volume::SharedDevice;

    use super::*;

    fn volume(driver: &str, volume_id: &str, mount_config: &str) -> VolumeMount {
        let shared =
            SharedDevice { volume_id: volume_id.to_owned(), mount_config: mount_config.to_owned() };
        VolumeMount {
            driver: driver.to_owned(),
            container_dir: "/data".to_owned(),
            mode: "rw".to_owned(),
            shared: Some(shared),
            dedicated: None,
        }
    }

    #[test]
    fn a_local_volume_is_one_directory_for_all_who_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path());
        let first = dirs.volume(&volume("local", "v-1", r#"{"uid": 1000, "gid": 7}"#)).unwrap();
        let MountSource::Directory(path) = &first.source else { panic!("{first:?}") };
        fs::write(path.join("kept"), "x").unwrap();
        assert_eq!(dirs.volume(&volume("local", "v-1", "")).unwrap().source, first.source);
        assert!(path.starts_with(dir.path()) && path.join("kept").exists());
    }

    #[test]
    fn what_a_driver_cannot_mount_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path());
        let refused = |volume: VolumeMount| dirs.volume(&volume).unwrap_err();
        for bad in ["", "..", "../x", "a/b", "/etc", ".hidden"] {
            assert!(refused(volume("local", bad, "")).contains("volume id"), "{bad}");
        }
        assert_eq!(refused(volume("nfs", "v", "")), "this cell has no volume driver nfs");
        let unknown = refused(volume("tmpfs", "v", r#"{"size": 1}"#));
        assert!(unknown.starts_with("volume v: mount_config: unknown field"), "{unknown}");
        let none = VolumeMount { shared: None, ..volume("local", "v", "") };
        assert_eq!(refused(none), "driver local has no dedicated devices");
        let tmpfs = dirs.volume(&volume("tmpfs", "v", r#"{"size_mb": 2}"#)).unwrap();
        assert_eq!(tmpfs.source, MountSource::Tmpfs { bytes_max: 2 << 20 });
    }

    #[test]
    fn files_stay_in_their_directory_and_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path());
        let file = |path: &str| MountedFile { path: path.to_owned(), content: "c".to_owned() };
        let made = dirs.write_files("one", &[file("a"), file("db/user")]).unwrap();
        assert_eq!(fs::read_to_string(made.join("db/user")).unwrap(), "c");
        for bad in ["", "/etc/passwd", "../a", "a/../../b"] {
            assert!(dirs.write_files("two", &[file(bad)]).is_err(), "{bad}");
        }
        dirs.remove_strays(|name| name == "one");
        assert!(made.exists());
        assert!(!made.with_file_name("two").exists());
        dirs.remove_files("one");
        assert!(!made.exists());
    }
}
