//! What nodes tell each other beside the log: nothing here needs agreement, and all of it may
//! be lost.

use model::{CellId, ProcessGuid, TaskGuid};
use plan::report::Wait;
use serde::{Deserialize, Serialize};

use crate::members::{MemberChange, MemberChangeError};

/// A message, most often to the leader. Append-only: it is part of the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The cell is alive.
    Sighting(CellId),
    /// Why do instances of this process wait?
    WaitingLrps(ProcessGuid),
    /// Why does this task wait?
    WaitingTask(TaskGuid),
    /// How far have you applied?
    Applied,
    /// Hand leadership to this voter. The answer only says that it was heard: whether the other
    /// takes it shows in who leads.
    TransferLeadership(u64),
    /// Change the members.
    ChangeMembers(MemberChange),
}

/// An answer. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Heard,
    WaitingLrps(Vec<(u32, Wait)>),
    WaitingTask(Option<Wait>),
    /// The message could not be read.
    Malformed,
    Applied(Progress),
    /// The member concerned, or why nothing was changed.
    MembersChanged(Result<u64, MemberChangeError>),
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The index of the last entry applied; 0 before the first.
    pub applied_index: u64,
    /// See [`crate::Agent::overlooked`].
    pub overlooked: u64,
}

impl Message {
    /// From bytes of a peer; none if they say nothing known.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("our own values serialise into memory")
    }
}

impl Answer {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("our own values serialise into memory")
    }

    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        postcard::from_bytes(bytes).unwrap_or(Self::Malformed)
    }
}
