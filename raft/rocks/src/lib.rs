//! The Disk trait on RocksDB, with one flush thread that coalesces syncs.
