//! ext4 file systems in sparse files, made by `mkfs.ext4` of e2fsprogs.
//!
//! A container's own volume is a copy of a template of its size, of which only the few blocks
//! that say something are copied; the program is run for the first of its size only.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Serialize};

use crate::limits::VOLUME_TEMPLATES_MAX;

const BLOCK_BYTES: u64 = 4096;
const INODE_BYTES: u64 = 256;
/// Inodes that a new file system uses: ten are reserved, and there is `lost+found` (the kernel's
/// `ext4/inodes.rst`); and overlayfs's directories.
const INODES_OF_ITS_OWN: u64 = 16;

/// What can be written to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Size {
    bytes: u64,
    inodes: u64,
}

impl Size {
    /// Rounded up to a mebibyte, so that sizes, and with them templates, are few; with an inode
    /// for each block at the most.
    pub(super) fn of(bytes: u64, inodes: u64) -> Self {
        let bytes = bytes.max(1).next_multiple_of(1 << 20);
        Self { bytes, inodes: inodes.min(bytes / BLOCK_BYTES) }
    }
}

/// Makes a file system with project quotas in a new file of `bytes`.
pub(super) fn make_pool(path: &Path, bytes: u64) -> io::Result<()> {
    let kind = ["-O", "quota,project", "-E", "quotatype=prjquota,nodiscard"];
    make(path, |next| mkfs(next, bytes / BLOCK_BYTES, &kind))
}

/// Puts a volume of `size` at `path`, which is new; its template is kept in `templates`.
pub(super) fn make_volume(templates: &Path, path: &Path, size: Size) -> io::Result<()> {
    let name = format!("{}-{}.ext4", size.bytes, size.inodes);
    let template = templates.join(name);
    let template = match File::open(&template) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(templates)?;
            drop_oldest(templates)?;
            make(&template, |next| make_template(next, size))?;
            File::open(&template)?
        }
        opened => opened?,
    };
    copy_sparse(&template, path)
}

/// What `body` makes has its name when it is whole: nobody finds half of it.
fn make(path: &Path, body: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let next = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let made = body(&next).and_then(|()| fs::rename(&next, path));
    if made.is_err() {
        let _ = fs::remove_file(&next);
    }
    made
}

/// Makes room for one more template.
fn drop_oldest(templates: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(templates)? {
        let entry = entry?;
        // Another may have been as fast to remove it.
        let Ok(made) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
        files.push((made, entry.path()));
    }
    files.sort_unstable();
    let excess = (files.len() + 1).saturating_sub(VOLUME_TEMPLATES_MAX);
    for (_, path) in files.into_iter().take(excess) {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn make_template(path: &Path, size: Size) -> io::Result<()> {
    let inodes = (size.inodes + INODES_OF_ITS_OWN).to_string();
    let inode_bytes = INODE_BYTES.to_string();
    // No journal: nothing of a container outlives a crash of the machine.
    let kind = ["-O", "^has_journal,^resize_inode", "-N", &inodes, "-I", &inode_bytes];
    let wanted = size.bytes / BLOCK_BYTES;
    let mut blocks = wanted + (size.inodes * INODE_BYTES).div_ceil(BLOCK_BYTES);
    // What the file system needs for itself grows in steps of a group.
    for _ in 0..8 {
        mkfs(path, blocks, &kind)?;
        let free = free_blocks(path)?;
        if free >= wanted {
            return Ok(());
        }
        blocks += wanted - free;
    }
    Err(io::Error::other("its file system has never enough free blocks"))
}

fn mkfs(path: &Path, blocks: u64, kind: &[&str]) -> io::Result<()> {
    // The program would write zeros to the end of a file that is too short, block by block.
    File::create(path)?.set_len(blocks * BLOCK_BYTES)?;
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-b", &BLOCK_BYTES.to_string()])
        .args(kind)
        .arg(path)
        .arg(blocks.to_string())
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("mkfs.ext4 of e2fsprogs: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("mkfs.ext4: {}", said.trim().replace('\n', "; "))))
}

/// By the superblock (the kernel's `ext4/super.rst`).
fn free_blocks(path: &Path) -> io::Result<u64> {
    let mut low = [0; 4];
    let mut high = [0; 4];
    let file = File::open(path)?;
    file.read_exact_at(&mut low, 1024 + 0x0C)?;
    file.read_exact_at(&mut high, 1024 + 0x158)?;
    Ok(u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes(high)) << 32)
}

/// Copies what is not a hole (lseek(2), SEEK_DATA).
fn copy_sparse(from: &File, to: &Path) -> io::Result<()> {
    let to = File::create_new(to)?;
    to.set_len(from.metadata()?.len())?;
    let offset = |offset: u64| libc::off_t::try_from(offset).map_err(io::Error::other);
    let mut end = 0;
    loop {
        let start = match lseek(from.as_fd(), offset(end)?, Whence::SeekData) {
            Ok(start) => start,
            // No more data.
            Err(Errno::ENXIO) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let stop = lseek(from.as_fd(), start, Whence::SeekHole)?;
        let (start, length) = (u64::try_from(start), usize::try_from(stop - start));
        let start = start.map_err(io::Error::other)?;
        let mut bytes = vec![0; length.map_err(io::Error::other)?];
        from.read_exact_at(&mut bytes, start)?;
        to.write_all_at(&bytes, start)?;
        end = start + bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_volume_has_room_for_what_was_asked_for_and_is_cheap() {
        let dir = tempfile::tempdir().unwrap();
        for (bytes, inodes) in [(1, 1), (10 << 20, 200_000), (1 << 30, 200_000)] {
            let size = Size::of(bytes, inodes);
            assert!(size.bytes >= bytes && size.bytes < bytes + (1 << 20));
            let path = dir.path().join(bytes.to_string());
            make_volume(&dir.path().join("templates"), &path, size).unwrap();
            let free = free_blocks(&path).unwrap() * BLOCK_BYTES;
            assert!(free >= size.bytes, "{free} free of {}", size.bytes);
            assert!(free < size.bytes + size.bytes / 50 + (1 << 20), "{free} of {}", size.bytes);
            let on_disk = fs::metadata(&path).unwrap().blocks() * 512;
            assert!(on_disk < 1 << 20, "{on_disk} bytes are written");
        }
    }

    #[test]
    fn the_second_of_a_size_runs_no_program_and_templates_are_few() {
        let dir = tempfile::tempdir().unwrap();
        let templates = dir.path().join("templates");
        fs::create_dir(&templates).unwrap();
        for number in 0..VOLUME_TEMPLATES_MAX {
            fs::write(templates.join(number.to_string()), "").unwrap();
        }
        let size = Size::of(1 << 20, 100);
        make_volume(&templates, &dir.path().join("first"), size).unwrap();
        assert_eq!(fs::read_dir(&templates).unwrap().count(), VOLUME_TEMPLATES_MAX);
        // It is the file that is copied, whatever is in it.
        let template = templates.join("1048576-100.ext4");
        fs::write(&template, "as it is").unwrap();
        make_volume(&templates, &dir.path().join("second"), size).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("second")).unwrap(), "as it is");
    }

    #[test]
    fn holes_stay_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 1 << 29).unwrap();
        copy_sparse(&File::open(&from).unwrap(), &to).unwrap();
        let copy = File::open(&to).unwrap();
        let mut bytes = [0; 6];
        copy.read_exact_at(&mut bytes, 1 << 29).unwrap();
        assert_eq!(&bytes, b"middle");
        assert_eq!(copy.metadata().unwrap().len(), 1 << 30);
        assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20);
    }
}
