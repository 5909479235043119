//! The mounts that a container was asked to have, in two halves: what they show is opened while
//! the host's files can be seen, and attached once they cannot. A symlink in the image then leads
//! back into the image.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::lchown;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::super::mounts::{Mount, MountSource};
use super::protocol::Setup;
use super::syscalls::{Protection, attach_mount, clone_mount, protect};
use super::{Context as _, Result};

/// A mount that is attached nowhere yet; none for one that shows nothing of the host's.
pub(super) struct Opened<'a>(&'a Mount, Option<OwnedFd>);

/// Opens what the container's mounts show.
pub(super) fn open<'a>(
    setup: &'a Setup,
    user_ns: Option<BorrowedFd<'_>>,
) -> Result<Vec<Opened<'a>>> {
    let open = |wanted: &'a Mount| match &wanted.source {
        MountSource::Tmpfs { .. } => Ok(Opened(wanted, None)),
        MountSource::Directory(source) => {
            let what = || format!("open {} for {}", source.display(), wanted.target.display());
            let mount = clone_mount(source).with_context(what)?;
            let protection = Protection { read_only: wanted.read_only };
            protect(&mount, user_ns, protection).with_context(what)?;
            Ok(Opened(wanted, Some(mount)))
        }
    };
    setup.mounts.iter().map(open).collect()
}

/// Attaches them below the container's root, which is the caller's.
pub(super) fn attach(setup: &Setup, mounts: &[Opened<'_>]) -> Result<()> {
    for Opened(wanted, opened) in mounts {
        let what = || format!("mount at {}", wanted.target.display());
        make_directory(&wanted.target, setup.id_base).with_context(what)?;
        match (opened, &wanted.source) {
            (Some(mount), _) => attach_mount(mount, &wanted.target).with_context(what)?,
            (None, MountSource::Tmpfs { bytes_max }) => {
                let root = setup.id_base;
                let options = format!("mode=1777,size={bytes_max},uid={root},gid={root}");
                let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                flags.set(MsFlags::MS_RDONLY, wanted.read_only);
                mount(Some("tmpfs"), &wanted.target, Some("tmpfs"), flags, Some(options.as_str()))
                    .with_context(what)?;
            }
            (None, MountSource::Directory(_)) => {}
        }
    }
    Ok(())
}

/// Makes what is missing of a directory's path, as the container's root's.
fn make_directory(path: &Path, root: u32) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
    for part in missing.into_iter().rev() {
        fs::create_dir(part)?;
        lchown(part, Some(root), Some(root))?;
    }
    Ok(())
}
