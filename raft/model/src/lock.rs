//! A lock: a name that one owner holds while he keeps saying so. Diego: Locket's resources
//! (bbs-wire.md section 8).

use serde::{Deserialize, Serialize};

use crate::id::{CellId, LockKey};
use crate::state::State;
use crate::time::Millis;

/// Diego: `models.Resource` of Locket, with its time to live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub key: LockKey,
    /// Whoever knows it may renew and release.
    pub owner: String,
    /// For those who look; opaque.
    pub value: String,
    pub kind: LockKind,
    pub expires_at: Millis,
}

/// What it is for; to the cluster they are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockKind {
    /// One of several may do something.
    Lock,
    /// Somebody is there.
    Presence,
}

impl LockKey {
    /// Diego's components that this cluster is itself: who leads it.
    pub const OF_LEADER: [&str; 2] = ["bbs", "auctioneer"];

    /// Whether nobody from outside can hold it: a cell's presence is its own, and the leader leads.
    #[must_use]
    pub fn is_reserved(&self, state: &State) -> bool {
        let key = self.as_str();
        Self::OF_LEADER.contains(&key) || state.cell(&CellId::from(key)).is_some()
    }
}
