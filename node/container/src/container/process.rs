//! Processes of a container: what is to be started, and what becomes of it.
//!
//! A container may have many at a time, each by a name of its caller's. Its shim remembers all of
//! them, also those that have ended, until it is told to forget; so a node that comes back knows
//! what was started and how it ended.

use std::fs::File;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::spec::ExitStatus;
use crate::limits::{PROCESS_NAME_BYTES_MAX, SHIM_MESSAGE_BYTES_MAX};

/// Something to be started in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Its name, new in this container: 1 to 256 bytes.
    pub name: String,
    /// What is executed.
    pub program: Program,
    /// Where its standard files lead.
    pub stdio: Stdio,
    /// Whether its end is the end of the container and of everything else in it.
    pub essential: bool,
}

/// What is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A program of the image.
    Image(Process),
    /// Code of ours, which needs no file of the image: unpacks the tar stream of standard input,
    /// as the user, below a directory that is made if missing.
    Unpack {
        /// As [`Process::user`].
        user: String,
        /// An absolute path, or one from the user's home.
        directory: String,
    },
    /// Code of ours: writes a regular file to standard output; of a directory, its first file by
    /// name.
    ReadFile {
        /// As [`Process::user`].
        user: String,
        /// An absolute path, or one from the user's home.
        path: String,
    },
}

/// Where a process's standard files lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Both outputs to the container's log, each line as of this source; nothing to read.
    Log {
        /// At most 255 bytes; Diego's are such as `APP/PROC/WEB`.
        source: String,
    },
    /// Nothing to read, and what is written is gone.
    Null,
    /// To whoever started it, by three pipes.
    Pipes,
    /// To whoever started it, by a terminal of the container's own (pty(7)).
    Terminal {
        /// Lines of the window.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
}

/// Our ends of a new process's standard files; all block.
#[derive(Debug)]
pub enum Ends {
    /// It has none that lead here.
    None,
    /// Three pipes.
    Pipes {
        /// Writes to its standard input.
        stdin: File,
        /// Reads its standard output.
        stdout: File,
        /// Reads its standard error.
        stderr: File,
    },
    /// A terminal's master side; closing it hangs the process up.
    Terminal(File),
}

impl Ends {
    /// Of the descriptors that came with the answer to a launch, in the order of the fields.
    pub(super) fn of(fds: Vec<OwnedFd>) -> Self {
        let mut files = fds.into_iter().map(File::from);
        match (files.next(), files.next(), files.next()) {
            (Some(stdin), Some(stdout), Some(stderr)) => Self::Pipes { stdin, stdout, stderr },
            (Some(terminal), None, None) => Self::Terminal(terminal),
            _ => Self::None,
        }
    }
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessState {
    /// It runs.
    Running {
        /// Its process id on the host.
        pid: u32,
        /// When it started, milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// It has ended.
    Exited(ProcessExit),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// What it answered.
    pub status: ExitStatus,
    /// Whether the kernel had by then killed any of the container's processes for want of memory.
    pub oom_killed: bool,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Launch {
    pub(super) fn validate(&self) -> Result<()> {
        let invalid = |reason: &str| {
            Err(Error::Invalid { what: "process".to_owned(), reason: reason.to_owned() })
        };
        if self.name.is_empty() || self.name.len() > PROCESS_NAME_BYTES_MAX {
            return invalid("its name is not of 1 to 256 bytes");
        }
        if let Stdio::Log { source } = &self.stdio
            && source.len() > usize::from(u8::MAX)
        {
            return invalid("its log source exceeds 255 bytes");
        }
        match &self.program {
            Program::Image(process) => process.validate(),
            Program::Unpack { user, directory: path } | Program::ReadFile { user, path } => {
                if [user, path].into_iter().any(|text| text.contains('\0')) {
                    return invalid("a user or path contains a zero byte");
                }
                Ok(())
            }
        }
    }
}

/// A process to be started in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program and its arguments; a program without a slash is looked up in `PATH`.
    pub args: Vec<String>,
    /// The environment; a later entry of a name overrides an earlier one.
    /// PATH, USER and HOME are filled in where missing, and nothing else is added.
    pub env: Vec<(String, String)>,
    /// `""` (root), `uid`, `name`, `uid:gid`, `name:group` and so on, looked up in the image's
    /// own `/etc/passwd` and `/etc/group`; numbers and root need no entry
    /// there.
    pub user: String,
    /// Where it starts; made (mode 0755, owned by the user) if missing.
    /// `None` is the user's home, or `/` where the home is missing.
    pub working_dir: Option<String>,
    /// Directories that it finds; made likewise where the image has none: an image's volumes.
    #[serde(default)]
    pub directories: Vec<String>,
    /// Open files at a time; `None` leaves the node's own limit.
    pub nofile: Option<u64>,
}

impl Process {
    pub(super) fn validate(&self) -> Result<()> {
        let invalid = |reason: &str| {
            Err(Error::Invalid { what: "process".to_owned(), reason: reason.to_owned() })
        };
        if self.args.first().is_none_or(String::is_empty) {
            return invalid("it names no program");
        }
        let texts = || {
            let env = self.env.iter().flat_map(|(name, value)| [name, value]);
            let directories = self.working_dir.iter().chain(&self.directories);
            self.args.iter().chain(env).chain([&self.user]).chain(directories)
        };
        if texts().any(|text| text.contains('\0')) {
            return invalid("an argument, variable, user or directory contains a zero byte");
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return invalid("a variable's name is empty or contains '='");
        }
        // JSON may need six bytes for one; what it really needs is checked when it is sent.
        if texts().map(String::len).sum::<usize>() > SHIM_MESSAGE_BYTES_MAX / 2 {
            return invalid("arguments and environment exceed 256 KiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_checked_before_it_is_sent() {
        let process = |args: &[&str], env: &[(&str, &str)]| Process {
            args: args.iter().map(|s| (*s).to_owned()).collect(),
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Process::default()
        };
        assert!(process(&["/app"], &[("A", "b=c")]).validate().is_ok());
        assert!(process(&[], &[]).validate().is_err());
        assert!(process(&[""], &[]).validate().is_err());
        assert!(process(&["a\0b"], &[]).validate().is_err());
        assert!(process(&["a"], &[("", "x")]).validate().is_err());
        assert!(process(&["a"], &[("A=", "x")]).validate().is_err());
        assert!(process(&["a", &"x".repeat(1 << 20)], &[]).validate().is_err());
    }
}
