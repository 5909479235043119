//! Identities. Every id is its own type, so that a task's guid never stands where a cell's
//! belongs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::actual_lrp::Presence;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl Default for $name {
            /// Empty, which no validation lets pass.
            fn default() -> Self {
                Self::from("")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }
    };
}

text_id! {
    /// Names a desired LRP. Chosen by the client; matches `^[a-zA-Z0-9_-]+$`.
    ProcessGuid
}
text_id! {
    /// Names one placement of one LRP instance, and its container. Minted by apply from the log
    /// index; 28 characters, as Diego's.
    InstanceGuid
}
text_id! {
    /// Names a task, and its container. Chosen by the client; matches `^[a-zA-Z0-9_-]+$`.
    TaskGuid
}
text_id! {
    /// Names a cell: a node in its role as the place where containers run.
    CellId
}
text_id! {
    /// Names a domain: a client's claim that it has said everything it wants.
    DomainName
}

text_id! {
    /// Names a lock of Locket's. Chosen by its owners.
    LockKey
}

text_id! {
    /// Distinct for each creation of a record in a cluster's life. Minted by apply.
    Epoch
}

/// The identity of an actual LRP's row. Diego keeps at most one row for each of these.
///
/// Ordered by process, then index, then presence, so that all rows of a process are neighbours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActualLrpId {
    pub process_guid: ProcessGuid,
    pub index: u32,
    pub presence: Presence,
}

impl ActualLrpId {
    /// The ordinary row of `index`: the one that counts towards the desired instances.
    #[must_use]
    pub fn ordinary(process_guid: ProcessGuid, index: u32) -> Self {
        Self { process_guid, index, presence: Presence::Ordinary }
    }
}

impl InstanceGuid {
    /// Mints an id from the place of a command in the log, so that no randomness is needed
    /// while applying. `salt` keeps two clusters on one machine from using one name.
    ///
    /// Distinct places give distinct ids: the text spells the place, 48 bits of index and 16 of
    /// position, in the 28 characters that Diego's instance guids have.
    #[must_use]
    pub fn mint(salt: u32, log_index: u64, position: u32) -> Self {
        assert!(log_index < 1 << 48, "a log of 2^48 entries");
        assert!(position < 1 << 16, "proposals are bounded far below 2^16 commands");
        let index = |shift: u32| (log_index >> shift) & 0xffff;
        Self::from(format!(
            "{salt:08x}-{:04x}-{:04x}-{:04x}-{position:04x}",
            index(32),
            index(16),
            index(0)
        ))
    }
}
