//! Versioned bytes of proposals and rows.
//!
//! Each starts with a version byte, then postcard. A row's key is its table's tag, then its
//! parts in an order that sorts as the table does. `tests/golden` keeps old versions readable.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::Proposal;
use crate::feature_flag::FeatureFlag;
use crate::state::{Cluster, RowKey, State};

/// The version that this program writes and reads. Versions 1 to 3 were those of development
/// before 0.1: no release wrote them, and none reads them.
pub const VERSION: u8 = 4;

/// Bytes that this program cannot have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{what} has no bytes")]
    Empty { what: &'static str },
    #[error(
        "{what} has format version {version}, and this program reads {VERSION}: run the program \
         that wrote it, or start the node with an empty data directory"
    )]
    UnknownVersion { what: &'static str, version: u8 },
    #[error("{what} does not decode: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("row with key {key:02x?} is of no known table")]
    UnknownTable { key: Vec<u8> },
    #[error("row with key {key:02x?} holds the record of another key")]
    Misplaced { key: Vec<u8> },
}

const TABLE_CLUSTER: u8 = 1;
const TABLE_DESIRED_LRPS: u8 = 2;
const TABLE_ACTUAL_LRPS: u8 = 3;
const TABLE_TASKS: u8 = 4;
const TABLE_CELLS: u8 = 5;
const TABLE_DOMAINS: u8 = 6;
const TABLE_FEATURE_FLAGS: u8 = 7;
const TABLE_LOCKS: u8 = 8;

#[must_use]
pub fn encode_proposal(proposal: &Proposal) -> Vec<u8> {
    encode(proposal)
}

/// # Errors
///
/// [`Error`] when the bytes are not a proposal of a known version.
pub fn decode_proposal(bytes: &[u8]) -> Result<Proposal, Error> {
    decode("proposal", bytes)
}

/// The key of a row on disk. Keys sort by table, then as the table does.
#[must_use]
pub fn row_key(row: &RowKey) -> Vec<u8> {
    let mut key = Vec::with_capacity(48);
    match row {
        RowKey::Cluster => key.push(TABLE_CLUSTER),
        RowKey::DesiredLrp(guid) => {
            key.push(TABLE_DESIRED_LRPS);
            key.extend(guid.as_str().as_bytes());
        }
        RowKey::ActualLrp(id) => {
            key.push(TABLE_ACTUAL_LRPS);
            key.extend(id.process_guid.as_str().as_bytes());
            key.push(0);
            key.extend(id.index.to_be_bytes());
            key.push(id.presence as u8);
        }
        RowKey::Task(guid) => {
            key.push(TABLE_TASKS);
            key.extend(guid.as_str().as_bytes());
        }
        RowKey::Cell(id) => {
            key.push(TABLE_CELLS);
            key.extend(id.as_str().as_bytes());
        }
        RowKey::Domain(name) => {
            key.push(TABLE_DOMAINS);
            key.extend(name.as_str().as_bytes());
        }
        RowKey::FeatureFlag(flag) => {
            key.push(TABLE_FEATURE_FLAGS);
            key.push(*flag as u8);
        }
        RowKey::Lock(lock) => {
            key.push(TABLE_LOCKS);
            key.extend(lock.as_str().as_bytes());
        }
    }
    key
}

/// The bytes of a row as the state has it; `None` when it has none, and the row is to go.
#[must_use]
pub fn row_value(state: &State, row: &RowKey) -> Option<Vec<u8>> {
    match row {
        RowKey::Cluster => Some(encode(&state.cluster())),
        RowKey::DesiredLrp(guid) => state.desired_lrp(guid).map(encode),
        RowKey::ActualLrp(id) => state.actual_lrp(id).map(encode),
        RowKey::Task(guid) => state.task(guid).map(encode),
        RowKey::Cell(id) => state.cell(id).map(encode),
        RowKey::Domain(name) => state.domain(name).map(encode),
        RowKey::FeatureFlag(flag) => Some(encode(&(*flag, state.is_enabled(*flag)))),
        RowKey::Lock(key) => state.lock(key).map(encode),
    }
}

/// Puts a stored row into the state.
///
/// # Errors
///
/// [`Error`] when the row is not one that [`row_key`] and [`row_value`] made.
pub fn load_row(state: &mut State, key: &[u8], value: &[u8]) -> Result<(), Error> {
    let (table, _) = key.split_first().ok_or(Error::Empty { what: "row key" })?;
    let row = match *table {
        TABLE_CLUSTER => {
            state.set_cluster(decode::<Cluster>("cluster row", value)?);
            RowKey::Cluster
        }
        TABLE_DESIRED_LRPS => {
            let lrp: Arc<crate::DesiredLrp> = decode("desired LRP", value)?;
            let row = RowKey::DesiredLrp(lrp.process_guid.clone());
            state.put_desired_lrp(lrp);
            row
        }
        TABLE_ACTUAL_LRPS => {
            let lrp: Arc<crate::ActualLrp> = decode("actual LRP", value)?;
            let row = RowKey::ActualLrp(lrp.id());
            state.put_actual_lrp(lrp);
            row
        }
        TABLE_TASKS => {
            let task: Arc<crate::Task> = decode("task", value)?;
            let row = RowKey::Task(task.task_guid.clone());
            state.put_task(task);
            row
        }
        TABLE_CELLS => {
            let cell: Arc<crate::Cell> = decode("cell", value)?;
            let row = RowKey::Cell(cell.cell_id.clone());
            state.put_cell(cell);
            row
        }
        TABLE_DOMAINS => {
            let domain: Arc<crate::Domain> = decode("domain", value)?;
            let row = RowKey::Domain(domain.name.clone());
            state.put_domain(domain);
            row
        }
        TABLE_FEATURE_FLAGS => {
            let (flag, enabled): (FeatureFlag, bool) = decode("feature flag", value)?;
            state.put_feature_flag(flag, enabled);
            RowKey::FeatureFlag(flag)
        }
        TABLE_LOCKS => {
            let lock: Arc<crate::Lock> = decode("lock", value)?;
            let row = RowKey::Lock(lock.key.clone());
            state.put_lock(lock);
            row
        }
        _ => return Err(Error::UnknownTable { key: key.to_vec() }),
    };
    if row_key(&row) == key { Ok(()) } else { Err(Error::Misplaced { key: key.to_vec() }) }
}

/// All rows, in the order of their keys.
pub fn rows(state: &State) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let keys = std::iter::once(RowKey::Cluster)
        .chain(state.desired_lrps().map(|lrp| RowKey::DesiredLrp(lrp.process_guid.clone())))
        .chain(state.actual_lrps().map(|lrp| RowKey::ActualLrp(lrp.id())))
        .chain(state.tasks().map(|task| RowKey::Task(task.task_guid.clone())))
        .chain(state.cells().map(|cell| RowKey::Cell(cell.cell_id.clone())))
        .chain(state.domains().map(|domain| RowKey::Domain(domain.name.clone())))
        .chain(state.feature_flags().map(|(flag, _)| RowKey::FeatureFlag(*flag)))
        .chain(state.locks().map(|lock| RowKey::Lock(lock.key.clone())));
    keys.filter_map(|row| row_value(state, &row).map(|value| (row_key(&row), value)))
}

/// A number that two states share if their rows are equal, and hardly ever otherwise: FNV-1a of
/// 64 bits over all rows in order. Guards against divergence, not against forgery.
#[must_use]
pub fn digest(state: &State) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut digest = OFFSET;
    for (key, value) in rows(state) {
        let lengths = [(key.len() as u64).to_be_bytes(), (value.len() as u64).to_be_bytes()];
        for byte in lengths.iter().flatten().chain(&key).chain(&value) {
            digest = (digest ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
    digest
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("our own values serialise into memory")
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let (version, body) = bytes.split_first().ok_or(Error::Empty { what })?;
    if *version != VERSION {
        return Err(Error::UnknownVersion { what, version: *version });
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => {
            Err(Error::Malformed { what, reason: format!("{} bytes too many", rest.len()) })
        }
        Err(error) => Err(Error::Malformed { what, reason: error.to_string() }),
    }
}
