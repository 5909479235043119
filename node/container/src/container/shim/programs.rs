//! Programs of ours that run in the container as one of its processes, for images that have none
//! of their own: what they read and write is a stranger's, and so is the file system around
//! them, but so are they: as the user, in the container's namespaces and under its filters.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

use super::super::process::Program;

/// Runs one to its end; its exit code. What went wrong is on standard error, in one line.
pub(super) fn run(program: &Program) -> i32 {
    let done = match program {
        Program::Unpack { directory, .. } => unpack(Path::new(directory)),
        Program::ReadFile { path, .. } => read_file(Path::new(path)),
        Program::Image(_) => Err(io::Error::other("the image's programs are executed")),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            let _ = io::stderr().write_all(format!("{error}\n").as_bytes());
            1
        }
    }
}

fn context(what: String) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::other(format!("{what}: {}", chain(&error)))
}

/// An error and what is behind it: the tar crate names the entry and keeps the reason within.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

fn unpack(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory).map_err(context(format!("create {}", directory.display())))?;
    let mut archive = tar::Archive::new(io::stdin().lock());
    archive.set_preserve_permissions(true);
    // As tar itself does for anyone but root.
    archive.set_preserve_ownerships(false);
    archive.set_overwrite(true);
    archive.unpack(directory).map_err(context(format!("unpack into {}", directory.display())))
}

fn read_file(path: &Path) -> io::Result<()> {
    let named = context(format!("read {}", path.display()));
    let path = if path.is_dir() { first_file(path)? } else { path.to_owned() };
    // Not to wait at a fifo.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let copied = file.and_then(|mut file: File| {
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut output = io::stdout().lock();
        io::copy(&mut file, &mut output)?;
        output.flush()
    });
    copied.map_err(named)
}

fn first_file(directory: &Path) -> io::Result<PathBuf> {
    let named = || context(format!("read {}", directory.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(named())? {
        let path = entry.map_err(named())?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.into_iter().min().ok_or_else(|| named()(io::Error::other("no file is in it")))
}
