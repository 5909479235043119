//! The data directory of a cluster on one machine: one `gavel dev` at a time, and what an earlier
//! one made there.
//!
//! ```text
//! gavel-data/
//!   lock            held while `gavel dev` runs
//!   cfdot.env       variables for `cfdot`
//!   diego/          an authority, and certificates of the nodes and of clients of Diego's
//!   seal.key        with which the nodes keep passwords of registries
//!   node-1.toml     as the node is started; written anew each time
//!   node-1.log      of this run, and node-1.log.1 of the run before
//!   node-1/         the node's own: Raft, images, containers
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use server::Config;

use super::layout::{self, DIEGO_DIR};
use crate::authority::{Authority, Certified, Role};
use crate::failure::Failure;
use crate::limits::{LOG_TAIL_BYTES, LOG_TAIL_LINES};

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    _lock: File,
}

/// What a cluster that was made here looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) nodes: u16,
    pub(crate) port: u16,
}

/// How Diego's own command line, `cfdot`, reaches the cluster.
pub(crate) struct Cfdot {
    /// Of the variables, for a shell.
    pub(crate) file: PathBuf,
    dir: PathBuf,
    port: u16,
}

impl Cfdot {
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// As `cfdot --help` names them.
    pub(crate) fn variables(&self) -> [(&'static str, String); 5] {
        let file = |name: &str| self.dir.join(name).display().to_string();
        [
            ("BBS_URL", self.url()),
            ("LOCKET_API_LOCATION", format!("127.0.0.1:{}", self.port)),
            ("CA_CERT_FILE", file("ca.crt")),
            ("CLIENT_CERT_FILE", file("client.crt")),
            ("CLIENT_KEY_FILE", file("client.key")),
        ]
    }
}

impl Home {
    /// Makes the directory if need be, and takes it.
    ///
    /// # Errors
    ///
    /// Somebody else has it, or it cannot be made.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| told(path, &error);
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::Failed(format!(
                "{} is in use by another gavel dev; stop that one, or give this one a --data-dir \
                 and a --port of its own",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster that was made here, if one was.
    ///
    /// # Errors
    ///
    /// There is something, and it cannot be read.
    pub(crate) fn made(&self) -> Result<Option<Made>, Failure> {
        let file = self.config_file(&layout::name(0));
        if !file.exists() {
            return Ok(None);
        }
        let unreadable = |reason: String| {
            let path = self.path.display();
            Failure::Failed(format!("{reason}; gavel dev --fresh forgets what is in {path}"))
        };
        let config = Config::load(&file).map_err(|error| unreadable(error.to_string()))?;
        let port = config.listen.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        match (u16::try_from(config.members.len()), port) {
            (Ok(nodes), Some(port)) => Ok(Some(Made { nodes, port })),
            _ => Err(unreadable(format!("{}: listen has no port", file.display()))),
        }
    }

    /// Forgets the cluster: what nodes have made here goes, and nothing else.
    ///
    /// # Errors
    ///
    /// Names what does not go.
    pub(crate) fn forget(&self) -> Result<(), Failure> {
        let entries = fs::read_dir(&self.path).map_err(|error| told(&self.path, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| told(&self.path, &error))?;
            let path = entry.path();
            if !entry.file_name().to_str().is_some_and(is_of_a_node) {
                continue;
            }
            let is_dir = entry.file_type().map_err(|error| told(&path, &error))?.is_dir();
            let gone = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.map_err(|error| told(&path, &error))?;
        }
        Ok(())
    }

    /// Writes a node's configuration, and returns the file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn write(&self, config: &Config) -> Result<PathBuf, Failure> {
        let file = self.config_file(&config.name);
        let text = toml::to_string(config)
            .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
        fs::write(&file, text).map_err(|error| told(&file, &error))?;
        Ok(file)
    }

    /// The file of the nodes' key for passwords, made if need be.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn seal_key(&self) -> Result<PathBuf, Failure> {
        let path = self.path.join("seal.key");
        let new = self.path.join("seal.key.new");
        let make = || -> io::Result<()> {
            if path.exists() {
                return Ok(());
            }
            let mut file =
                File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(server::secrets::Secrets::new_key_file().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        make().map_err(|error| told(&path, &error))?;
        Ok(path)
    }

    /// Certificates for Diego's clients, made when there are none or they end within a week; and a
    /// file of variables, by which `cfdot` finds the cluster.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub(crate) fn certify_diego(&self, port: u16) -> Result<Cfdot, Failure> {
        const DAYS: u32 = 365;
        const RENEWED_BEFORE: Duration = Duration::from_hours(24 * (365 - 7));
        let dir = self.path.join(DIEGO_DIR);
        let authority = Authority::open(&dir)?;
        let certified = [
            ("localhost", ["localhost", "127.0.0.1"].map(str::to_owned).to_vec(), Role::Diego),
            ("client", Vec::new(), Role::Client),
        ];
        for (name, hosts, role) in certified {
            let made = fs::metadata(dir.join(format!("{name}.crt"))).and_then(|it| it.modified());
            let is_young = |made: SystemTime| made.elapsed().is_ok_and(|age| age < RENEWED_BEFORE);
            if !made.is_ok_and(is_young) {
                authority.certify(Certified { name, hosts, role, days: DAYS })?;
            }
        }
        let cfdot = Cfdot { file: self.path.join("cfdot.env"), dir, port };
        let lines = cfdot.variables().map(|(name, value)| format!("export {name}='{value}'\n"));
        fs::write(&cfdot.file, lines.concat()).map_err(|error| told(&cfdot.file, &error))?;
        Ok(cfdot)
    }

    fn config_file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.toml"))
    }

    /// A node's empty log; that of the run before is kept beside it.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub(crate) fn new_log(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(format!("{name}.log"));
        match fs::rename(&path, path.with_extension("log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(told(&path, &error));
            }
            Ok(()) | Err(_) => {}
        }
        File::create(&path).map_err(|error| told(&path, &error))?;
        Ok(path)
    }
}

/// `node-1`, `node-1.toml`, `node-1.log`, `node-1.log.1`.
fn is_of_a_node(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("node-") else { return false };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    digits > 0 && matches!(&rest[digits..], "" | ".toml" | ".log" | ".log.1")
}

fn told(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

/// The last lines of a log, each on a line of its own after the other.
pub(super) fn tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
        }
        Err(error) => format!("{}: {error}", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Shares, configs};
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let home = Home::open(&path).unwrap();
        let refused = Home::open(&path).unwrap_err().to_string();
        assert!(refused.contains("is in use by another gavel dev"), "{refused}");
        drop(home);
        Home::open(&path).unwrap();
    }

    #[test]
    fn what_was_made_is_found_again_and_forgotten_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.made().unwrap(), None);
        let (host_ports, router_port) = ((1, 9), 8080);
        let shares = Shares {
            nodes: 3,
            port: 7540,
            router_port,
            bbs_port: 8889,
            host_ports,
            memory_mb: 1,
            disk_mb: 1,
        };
        for config in configs(&shares, home.path()).unwrap() {
            home.write(&config).unwrap();
            fs::create_dir_all(config.data_dir.join("raft")).unwrap();
            home.new_log(&config.name).unwrap();
        }
        assert_eq!(home.made().unwrap(), Some(Made { nodes: 3, port: 7540 }));
        let theirs = ["node-x", "node-1.toml.bak", "notes"];
        for name in theirs {
            fs::write(home.path().join(name), "theirs").unwrap();
        }
        home.forget().unwrap();
        assert_eq!(home.made().unwrap(), None);
        let mut left: Vec<_> = fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort_unstable();
        assert_eq!(left, ["lock", "node-1.toml.bak", "node-x", "notes"]);
    }

    #[test]
    fn a_file_that_is_no_configuration_is_named_with_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        fs::write(home.config_file("node-1"), "rubbish").unwrap();
        let told = home.made().unwrap_err().to_string();
        assert!(told.contains("node-1.toml"), "{told}");
        assert!(told.contains("--fresh"), "{told}");
    }

    #[test]
    fn the_log_before_is_kept_and_the_last_lines_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let log = home.new_log("node-1").unwrap();
        let lines: Vec<_> = (0..1000).map(|at| format!("{at:0>50}")).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(tail(&log), lines[990..].join("\n"));
        home.new_log("node-1").unwrap();
        assert_eq!(tail(&log), "");
        assert_eq!(tail(&log.with_extension("log.1")), lines[990..].join("\n"));
    }
}
