//! A cell: a node in its role as the place where containers run.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::id::CellId;
use crate::time::Millis;

/// Diego: `models.CellPresence`, but kept in the agreed state: heartbeats are soft and live in
/// the leader's memory, only their absence is recorded here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub cell_id: CellId,
    /// The Raft id of the node, by which the others reach it.
    pub node_id: u64,
    /// Where its containers' host ports are reached.
    pub address: Ipv4Addr,
    pub zone: String,
    pub capacity: Capacity,
    /// Schemes of root file systems that it can run, for instance `docker`.
    pub rootfs_providers: Vec<String>,
    /// Tags that an LRP or task must carry to be placed here.
    pub placement_tags: Vec<String>,
    /// Tags that it may carry besides.
    pub optional_placement_tags: Vec<String>,
    pub health: CellHealth,
}

/// Totals. What is taken is in [`crate::state::CellLoad`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Mebibytes.
    pub memory_mb: u32,
    /// Mebibytes.
    pub disk_mb: u32,
    pub containers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CellHealth {
    Present,
    /// Not heard of for the presence TTL.
    Missing {
        since: Millis,
    },
}

impl Cell {
    #[must_use]
    pub fn is_present(&self) -> bool {
        matches!(self.health, CellHealth::Present)
    }
}
