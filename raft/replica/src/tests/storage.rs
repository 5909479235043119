//! The log and state stores against openraft's suite, and the memory disk against its own.

use std::sync::Arc;

use super::Runtime;
use crate::memory::MemoryDisk;
use crate::testing;

#[tokio::test]
async fn the_stores_keep_openrafts_rules() {
    testing::storage_suite::<Runtime, _, _>(|| ((), Arc::new(MemoryDisk::new()))).await;
}

#[test]
fn the_memory_disk_keeps_its_promises() {
    testing::disk_suite(&MemoryDisk::new());
}
