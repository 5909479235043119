//! Raft's nouns in plain values of our own: what stands on disk and travels between nodes.
//!
//! openraft is pre-release and its types move; these are ours, so that an upgrade of openraft is
//! not an upgrade of the disk. Encoded with postcard, whose layout follows the order of fields
//! and variants: append variants only, and never reorder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::frame;

/// Identifies a member for the life of the cluster. Never reused: a removed member that comes
/// back with an empty disk needs a new id (Raft would take it for the old one that forgot its
/// votes).
pub type NodeId = u64;

/// Tells a disk from every other, also from itself before it was emptied: see [`crate::identity`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct DiskId(pub u64);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What the others know of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The name people use, unique in the cluster.
    pub name: String,
    /// Where its peers reach it, in the transport's own form.
    pub address: String,
    /// The disk that holds its votes and its log.
    pub disk: DiskId,
}

/// What a disk knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) disk: DiskId,
    /// The name of the node that first used it.
    pub(crate) name: String,
    /// The member that it is, once it is one.
    pub(crate) member: Option<NodeId>,
}

/// The identity of an entry: the term of the leader that proposed it, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId {
    /// The term.
    pub term: u64,
    /// The place in the log, from 0.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// A vote: for whom in which term, and whether a quorum agreed, which makes it the leader's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The member voted for.
    pub node: NodeId,
    /// Whether the member won.
    pub committed: bool,
}

/// Who takes part: voters (two overlapping sets while they change) and everyone's address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// One set of voters, or two during a joint change (Raft thesis, section 4.3).
    pub voters: Vec<BTreeSet<NodeId>>,
    /// All members; those in no set of voters are learners.
    pub nodes: BTreeMap<NodeId, Node>,
}

/// A membership and the entry that brought it, if any did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveMembership {
    /// The entry.
    pub log_id: Option<LogId>,
    /// The membership.
    pub membership: Membership,
}

/// Bytes that are encoded once and shared from there on, such as those of a proposal.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob(pub Arc<[u8]>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Nothing: a leader's first entry of its term.
    Blank,
    /// Commands for the model: the bytes of a [`model::Proposal`].
    Proposal(Blob),
    /// A new membership.
    Membership(Membership),
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its identity.
    pub log_id: LogId,
    /// What it says.
    pub body: Body,
}

/// What the rows on disk amount to: written in one batch with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) log_id: Option<LogId>,
    /// Which generation of rows is the current one.
    pub(crate) generation: u64,
}

/// The version of every persisted record of this module.
const VERSION: u8 = 3;

/// `value` framed for the disk, as the value of `key`.
pub(crate) fn to_disk(key: &[u8], value: &impl Serialize) -> Vec<u8> {
    frame::seal(key, VERSION, &encode(value))
}

/// The value that [`to_disk`] framed.
pub(crate) fn from_disk<T: DeserializeOwned>(
    what: &str,
    key: &[u8],
    framed: &[u8],
) -> io::Result<T> {
    let body = frame::open(what, key, VERSION, framed)?;
    decode(body).map_err(|error| frame::damaged(format!("{what} cannot be read: {error}")))
}

/// The bytes of a plain value.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain values always encode into memory")
}

/// The value of bytes, all of which it must use.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}
