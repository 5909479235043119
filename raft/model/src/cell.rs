//! A cell: a node in its role as the place where containers run.

use std::net::Ipv4Addr;
use std::sync::Arc;

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
    pub zone: Arc<str>,
    pub capacity: Capacity,
    /// The root file systems that it can run.
    pub rootfs_providers: Vec<RootfsProvider>,
    /// Tags that an LRP or task must carry to be placed here.
    pub placement_tags: Vec<String>,
    /// Tags that it may carry besides.
    pub optional_placement_tags: Vec<String>,
    /// The drivers whose volumes it can mount.
    pub volume_drivers: Vec<String>,
    pub health: CellHealth,
    pub intake: Intake,
    /// Where it answers Diego's clients, for instance `https://10.0.0.1:8889`; empty where it does
    /// not.
    pub rep_url: String,
}

/// Whether a cell is given work. An operator's wish, kept whatever becomes of the cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intake {
    #[default]
    Open,
    /// Nothing new comes, and what is there goes elsewhere, at the latest when the time is up.
    Evacuating { until: Millis },
    /// Nothing new comes, and nothing is there.
    Closed,
}

/// A kind of root file system that a cell can run, by the scheme of its URL. Diego:
/// `rep.RootFSProvider`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RootfsProvider {
    /// Any URL of the scheme, for instance `docker`.
    Arbitrary { scheme: String },
    /// The named stacks only, for instance `preloaded:cflinuxfs4`.
    FixedSet { scheme: String, stacks: Vec<String> },
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

impl RootfsProvider {
    #[must_use]
    pub fn arbitrary(scheme: &str) -> Self {
        Self::Arbitrary { scheme: scheme.to_owned() }
    }

    #[must_use]
    pub fn scheme(&self) -> &str {
        match self {
            Self::Arbitrary { scheme } | Self::FixedSet { scheme, .. } => scheme,
        }
    }

    /// Whether a root file system of this URL is one of its own. Diego: `RootFSProviders.Match`,
    /// which takes the opaque part of the URL, up to the query, as the stack's name.
    #[must_use]
    pub fn provides(&self, rootfs: &str) -> bool {
        let Some((scheme, rest)) = rootfs.split_once(':') else { return false };
        match self {
            Self::Arbitrary { scheme: provided } => provided == scheme,
            Self::FixedSet { scheme: provided, stacks } => {
                let stack = rest.split(['?', '#']).next().unwrap_or(rest);
                provided == scheme && stacks.iter().any(|known| known == stack)
            }
        }
    }
}

impl Cell {
    #[must_use]
    pub fn is_present(&self) -> bool {
        matches!(self.health, CellHealth::Present)
    }

    /// Whether something may be placed here.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.is_present() && self.intake == Intake::Open
    }
}
