//! Opening a directory: options, the version of the layout, and errors a person can act on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DB, DBRecoveryMode, ErrorKind, LogLevel, Options,
    WriteOptions,
};

use crate::limits;

/// The log: index (8 bytes, big endian) -> entry.
pub(crate) const LOG: &str = "log";
/// Single values: number of the value (1 byte) -> value; and the version of the layout.
pub(crate) const META: &str = "meta";
/// The rows of the state: generation (8 bytes, big endian), key -> row.
pub(crate) const STATE: &str = "state";

/// Under which key of [`META`] the version of the layout stands. Longer than one byte, so never
/// that of a single value.
const FORMAT_KEY: &[u8] = b"format";

/// What to do about a damaged directory. To go back to an older copy of it is no way out: a member
/// must not forget what it has promised since.
pub(crate) const WAY_OUT: &str = "check the disk, then move the directory away and let the \
    cluster replace this member: gavel cluster replace NAME";

/// Why a directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the data directory {} is in use by another process: stop that one, or give this node a \
         directory of its own",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "the data directory {} has layout version {found}, and this program knows up to \
         {}: start the program that wrote it, or a newer one",
        path.display(), limits::FORMAT_VERSION
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It is damaged.
    #[error(
        "the data directory {} is damaged: {reason}; {WAY_OUT}",
        path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What RocksDB found.
        reason: String,
    },
    /// Anything else: permissions, a full disk.
    #[error("the data directory {} cannot be opened: {reason}", path.display())]
    Failed {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Opens or makes the database in `path`.
pub(crate) fn open(path: &Path) -> Result<DB, OpenError> {
    let failed =
        |error: io::Error| OpenError::Failed { path: path.to_owned(), reason: error.to_string() };
    fs::create_dir_all(path).map_err(failed)?;
    let families = [
        ColumnFamilyDescriptor::new(LOG, family(limits::LOG_BUFFER_BYTES)),
        ColumnFamilyDescriptor::new(META, family(limits::STATE_BUFFER_BYTES)),
        ColumnFamilyDescriptor::new(STATE, family(limits::STATE_BUFFER_BYTES)),
    ];
    let db = DB::open_cf_descriptors(&database(), path, families)
        .map_err(|error| explain(path, &error))?;
    check_version(&db, path)?;
    // The names of new files are durable only once their directory is: RocksDB syncs its own
    // directory, and this syncs the entry of that directory in its parent.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    }
    Ok(db)
}

fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A record cut off at the very end of the write-ahead log is a write that was never synced.
    // Anything else that does not match its checksum was acknowledged perhaps: do not start.
    // (RocksDB's default would silently drop it and all that follows.)
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A write-ahead log that is missing as a whole is noticed too.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_max_total_wal_size(limits::WAL_BYTES_MAX);
    options.set_max_open_files(limits::OPEN_FILES_MAX);
    options.set_max_background_jobs(limits::BACKGROUND_JOBS);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(limits::INFO_LOG_BYTES);
    options.set_keep_log_file_num(limits::INFO_LOGS_KEPT);
    options.set_stats_dump_period_sec(0);
    options
}

fn family(buffer_bytes: usize) -> Options {
    let mut blocks = BlockBasedOptions::default();
    // Memory serves: what is read from here is read once, at a start or for a follower behind.
    blocks.disable_cache();
    let mut options = Options::default();
    options.set_write_buffer_size(buffer_bytes);
    options.set_block_based_table_factory(&blocks);
    options
}

fn check_version(db: &DB, path: &Path) -> Result<(), OpenError> {
    let meta = db.cf_handle(META).expect("every column family is opened by name");
    let stored = db.get_cf(&meta, FORMAT_KEY).map_err(|error| explain(path, &error))?;
    let Some(stored) = stored else {
        let mut durably = WriteOptions::default();
        durably.set_sync(true);
        let version = limits::FORMAT_VERSION.to_le_bytes();
        return db
            .put_cf_opt(&meta, FORMAT_KEY, version, &durably)
            .map_err(|error| explain(path, &error));
    };
    let Ok(found) = <[u8; 4]>::try_from(&*stored).map(u32::from_le_bytes) else {
        let reason = format!("its layout version is {} bytes long", stored.len());
        return Err(OpenError::Damaged { path: path.to_owned(), reason });
    };
    if found > limits::FORMAT_VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    Ok(())
}

fn explain(path: &Path, error: &rocksdb::Error) -> OpenError {
    let path = path.to_owned();
    let reason = error.to_string();
    // RocksDB tells a lock held by another from other troubles in its message only.
    if reason.contains("lock file") || reason.contains("lock hold by current process") {
        return OpenError::InUse { path };
    }
    if error.kind() == ErrorKind::Corruption {
        let reason = from_diary(&path).unwrap_or(reason);
        return OpenError::Damaged { path, reason };
    }
    OpenError::Failed { path, reason }
}

/// What RocksDB's diary says of the damage: of a write-ahead log the error itself does not tell
/// which file it is.
fn from_diary(path: &Path) -> Option<String> {
    let diary = fs::read_to_string(path.join("LOG")).ok()?;
    let directory = path.to_string_lossy();
    let words = diary.lines().rev().filter_map(|line| Some(line.split_once("] [")?.1));
    let words = words.filter_map(|line| Some(line.split_once("] ")?.1));
    let named = |words: &&str| words.contains("Corruption") && words.starts_with(&*directory);
    words.into_iter().find(named).map(str::to_owned)
}
