//! The disk's promises, and what it says of directories it cannot use.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::fs;
use std::path::{Path, PathBuf};

use openraft_rt_tokio::TokioRuntime;
use replica::disk::{Batch, Change, Disk, LogRecord};
use replica::testing::{answer, disk_suite, storage_suite};
use rocks::{OpenError, RocksDisk};
use tempfile::TempDir;

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn put(index: u64) -> Batch {
    Batch::of(Change::PutLog { index, bytes: format!("entry {index}").repeat(20).into_bytes() })
}

fn records(disk: &RocksDisk) -> Vec<LogRecord> {
    answer(|done| disk.read_log(0..u64::MAX, usize::MAX, done))
}

/// Copies a directory as it is, without its lock: what another machine would find on the disk.
fn copied(from: &Path) -> TempDir {
    let to = temporary();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

/// The newest file with this ending.
fn newest(directory: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|is| is == ending)).max().unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn it_keeps_a_disks_promises() {
    let directory = temporary();
    disk_suite(&RocksDisk::open(directory.path()).unwrap());
}

#[tokio::test]
async fn the_stores_on_it_keep_openrafts_rules() {
    storage_suite::<TokioRuntime, _, _>(|| {
        let directory = temporary();
        let disk = RocksDisk::open(directory.path()).unwrap();
        (directory, std::sync::Arc::new(disk))
    })
    .await;
}

#[test]
fn what_was_synced_is_there_after_opening_again() {
    let directory = temporary();
    {
        let disk = RocksDisk::open(directory.path()).unwrap();
        for index in 0..100 {
            disk.write(put(index)).unwrap();
        }
        answer(|done| disk.sync(done));
    }
    let disk = RocksDisk::open(directory.path()).unwrap();
    assert_eq!(records(&disk).len(), 100);
}

#[test]
fn a_crash_leaves_a_prefix_that_holds_all_that_was_synced() {
    let directory = temporary();
    let disk = RocksDisk::open(directory.path()).unwrap();
    for index in 0..10 {
        disk.write(put(index)).unwrap();
    }
    answer(|done| disk.sync(done));
    let synced = fs::metadata(newest(directory.path(), "log")).unwrap().len();
    for index in 10..15 {
        disk.write(put(index)).unwrap();
    }
    let written = fs::metadata(newest(directory.path(), "log")).unwrap().len();
    assert!(written > synced);
    // Power may fail with any part of the unsynced tail on the disk.
    let mut kept = Vec::new();
    for length in (synced..=written).step_by(37) {
        let crashed = copied(directory.path());
        let wal = fs::File::options().write(true).open(newest(crashed.path(), "log")).unwrap();
        wal.set_len(length).unwrap();
        let left = records(&RocksDisk::open(crashed.path()).unwrap());
        let indexes: Vec<u64> = left.iter().map(|record| record.index).collect();
        let count = u64::try_from(left.len()).unwrap();
        assert!((10..=15).contains(&count), "{indexes:?}");
        assert_eq!(indexes, (0..count).collect::<Vec<u64>>());
        kept.push(count);
    }
    assert!(kept.first() == Some(&10) && kept.last() > Some(&12), "{kept:?}");
}

#[test]
fn a_flipped_bit_in_the_write_ahead_log_is_named() {
    let directory = temporary();
    let disk = RocksDisk::open(directory.path()).unwrap();
    for index in 0..50 {
        disk.write(put(index)).unwrap();
    }
    answer(|done| disk.sync(done));
    let length = usize::try_from(fs::metadata(newest(directory.path(), "log")).unwrap().len());
    for part in 1..=4 {
        let damaged = copied(directory.path());
        flip(&newest(damaged.path(), "log"), length.unwrap() * part / 4 - 40);
        let error = RocksDisk::open(damaged.path()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        let message = error.to_string();
        let file = newest(damaged.path(), "log");
        assert!(message.contains(&format!("{}: dropping", file.display())), "{message}");
        assert!(message.contains("gavel cluster replace"), "{message}");
    }
}

#[test]
fn a_flipped_bit_in_the_list_of_files_is_named() {
    let directory = temporary();
    {
        let disk = RocksDisk::open(directory.path()).unwrap();
        disk.write(put(0)).unwrap();
        answer(|done| disk.sync(done));
    }
    let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_manifest = |path: &PathBuf| path.to_str().unwrap().contains("MANIFEST-");
    let manifest = files.filter(is_manifest).max().unwrap();
    let length = usize::try_from(fs::metadata(&manifest).unwrap().len()).unwrap();
    flip(&manifest, length / 2);
    let error = RocksDisk::open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(manifest.to_str().unwrap()), "{error}");
}

#[test]
fn a_table_that_is_gone_is_named() {
    let directory = temporary();
    {
        let disk = RocksDisk::open(directory.path()).unwrap();
        disk.write(put(0)).unwrap();
        answer(|done| disk.sync(done));
    }
    // The second opening turns the write-ahead log of the first into a table.
    drop(RocksDisk::open(directory.path()).unwrap());
    fs::remove_file(newest(directory.path(), "sst")).unwrap();
    let error = RocksDisk::open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_flipped_bit_in_a_table_is_never_believed() {
    let directory = temporary();
    {
        let disk = RocksDisk::open(directory.path()).unwrap();
        for index in 0..50 {
            disk.write(put(index)).unwrap();
        }
        answer(|done| disk.sync(done));
    }
    // The second opening turns the write-ahead log of the first into a table.
    drop(RocksDisk::open(directory.path()).unwrap());
    let tables = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let table = tables
        .filter(|path| path.extension().is_some_and(|is| is == "sst"))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    flip(&table, 100);
    let read = match RocksDisk::open(directory.path()) {
        Err(error) => Err(error.to_string()),
        Ok(disk) => {
            let (sender, receiver) = std::sync::mpsc::channel();
            disk.read_log(0..50, usize::MAX, Box::new(move |read| sender.send(read).unwrap()));
            receiver.recv().unwrap().map_err(|error| error.to_string())
        }
    };
    let error = read.unwrap_err();
    assert!(error.contains("Corruption"), "{error}");
    assert!(error.contains(table.to_str().unwrap()), "{error}");
    assert!(error.contains("gavel cluster replace"), "{error}");
}

#[test]
fn a_directory_in_use_is_refused_with_a_way_out() {
    let directory = temporary();
    let _held = RocksDisk::open(directory.path()).unwrap();
    let error = RocksDisk::open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "the data directory {} is in use by another process: stop that one, or give this \
             node a directory of its own",
            directory.path().display()
        )
    );
}

#[test]
fn a_newer_layout_is_refused() {
    let directory = temporary();
    drop(RocksDisk::open(directory.path()).unwrap());
    {
        let families = ["log", "meta", "state"];
        let db =
            rocksdb::DB::open_cf(&rocksdb::Options::default(), directory.path(), families).unwrap();
        let meta = db.cf_handle("meta").unwrap();
        db.put_cf(meta, b"format", 7u32.to_le_bytes()).unwrap();
    }
    let error = RocksDisk::open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 7, .. }), "{error}");
    assert!(error.to_string().contains("layout version 7"), "{error}");
}

#[test]
fn a_path_that_is_no_directory_is_named() {
    let directory = temporary();
    let file = directory.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = RocksDisk::open(&file).unwrap_err();
    assert!(matches!(error, OpenError::Failed { .. }), "{error}");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn purging_in_step_with_appending_keeps_the_log_short() {
    let directory = temporary();
    let disk = RocksDisk::open(directory.path()).unwrap();
    for round in 0..200u64 {
        let entries = (round * 100..round * 100 + 100)
            .map(|index| Change::PutLog { index, bytes: vec![7; 1_000] });
        disk.write(Batch(entries.collect())).unwrap();
        if round > 0 {
            disk.write(Batch::of(Change::PurgeLog { index: round * 100 - 1 })).unwrap();
        }
    }
    let left: Vec<u64> = records(&disk).iter().map(|record| record.index).collect();
    assert_eq!(left, (19_900..20_000).collect::<Vec<u64>>());
    assert_eq!(disk.last_log().unwrap().unwrap().index, 19_999);
}
