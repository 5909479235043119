//! Every bound of the crate, with the reason for its value.

use std::time::Duration;

use crate::wire::NodeId;

/// Between two heartbeats of a leader, in milliseconds. openraft also gives an idle append this
/// long to be answered, so it must cover a round trip and a disk sync with room to spare.
pub const HEARTBEAT_MS: u64 = 200;

/// The shortest time without a leader before a member asks for votes, in milliseconds: several
/// heartbeats, so that one lost message or one slow sync does not cost an election.
pub const ELECTION_MIN_MS: u64 = 1_000;

/// The longest such time, in milliseconds. openraft adds it once more as the leader's lease, so
/// a dead leader is replaced within 2 to 4 seconds.
pub const ELECTION_MAX_MS: u64 = 2_000;

/// How long a non-empty append may stay unanswered. Longer than a heartbeat: the answer waits
/// for the follower's sync, and resending a batch to a slow disk only makes it slower.
pub const APPEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Entries in one append sent to a follower.
pub const APPEND_ENTRIES_MAX: u64 = 512;

/// Bytes of entries in one append, beyond the first entry: keeps one message well under a
/// transport's frame limit and one slow follower from holding much memory.
pub const APPEND_BYTES_MAX: usize = 1 << 20;

/// Entries merged into one write of the log.
pub const LOG_WRITE_ENTRIES_MAX: u64 = 4_096;

/// Recent entries kept in memory, so that replication and applying do not read the disk.
pub const LOG_CACHE_ENTRIES_MAX: usize = 8_192;

/// Bytes of the entries kept in memory.
pub const LOG_CACHE_BYTES_MAX: usize = 32 << 20;

/// Entries read at once to apply them.
pub const APPLY_READ_BYTES_MAX: usize = 4 << 20;

/// Entries applied before their rows are written and their answers sent.
pub const APPLY_CHUNK_ENTRIES_MAX: usize = 1_024;

/// Bytes of entries applied before their rows are written.
pub const APPLY_CHUNK_BYTES_MAX: usize = 4 << 20;

/// Bytes of rows read at once when a state is loaded.
pub const STATE_PAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of one proposal: a batch of commands is one log entry, and an entry travels whole.
pub const PROPOSAL_BYTES_MAX: usize = 8 << 20;

/// Entries between two snapshots. A snapshot costs a cheap clone, so the figure is about how much
/// log stays on disk and how often it is purged.
pub const SNAPSHOT_ENTRIES: u64 = 20_000;

/// Entries kept behind a snapshot, so that a follower that was away briefly catches up by log.
pub const SNAPSHOT_ENTRIES_KEPT: u64 = 10_000;

/// How far behind a follower is sent a snapshot instead of entries. More than
/// [`SNAPSHOT_ENTRIES`], or a snapshot could not help it.
pub const SNAPSHOT_LAG_ENTRIES: u64 = 40_000;

/// Entries purged at once at the least: each purge leaves one range tombstone and one sync.
pub const PURGE_ENTRIES_MIN: u64 = 1_024;

/// Bytes of rows in one chunk of a snapshot on the wire.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 512 << 10;

/// How long one chunk of a snapshot may stay unanswered.
pub const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last chunk may stay unanswered: its receiver syncs and installs.
pub const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one ask of the leader (a forwarded proposal, a read index) may stay unanswered.
pub const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a proposal looks for a leader and waits for its answer.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a linearizable read looks for a leader and waits for its index to be applied.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a change of leader that was asked for may take.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node that is asked who it is may take to answer.
pub const INTRODUCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two rounds of a newcomer's questions, at first: a new cluster's nodes start together.
/// It doubles from round to round.
pub const INTRODUCE_PAUSE_MIN: Duration = Duration::from_millis(50);

/// And at the most: a machine may wait for days to be let in.
pub const INTRODUCE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The highest number that an operator may give a member of a new cluster. Higher ones are given
/// by the cluster to those who join, none of them twice.
pub const GIVEN_ID_MAX: NodeId = 9_999;

/// Between two tries to reach a leader, unless news of one comes earlier.
pub const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// Requests waiting for openraft's core: beyond it callers wait.
pub const CORE_QUEUE: u64 = 16_384;

/// Client writes that openraft merges into one append.
pub const WRITES_MERGED_MAX: u64 = 4_096;

/// Commands waiting for the state machine.
pub const STATE_QUEUE: u64 = 1_024;

/// How long openraft waits before it calls an unreachable member again: quick at first, for a
/// member that restarts, then no more than twice a second.
pub const UNREACHABLE_BACKOFF: &str = "50ms 100ms 200ms ...500ms";

/// Events kept for those who watch. Who falls further behind reads the state again.
pub const EVENTS_KEPT_MAX: usize = 16_384;

/// Entries whose states replicas of one process share: as many as the slowest may be behind.
pub const MEMO_ENTRIES_MAX: usize = 4_096;
