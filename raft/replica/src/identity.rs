//! Whose disk it is: the identity that it was given when it was first used, and the member that it
//! has become.
//!
//! Raft counts on a member to remember its votes and its log. A disk that was emptied or exchanged
//! remembers nothing and, under its old member's number, could vote twice or undo what was agreed.
//! So it is disks that are members: each is given an identity at random, the members know each
//! other's, and every message says for which disk it is ([`crate::peers::Envelope`]). An emptied
//! disk is a new one, which nobody knows.

use std::io;

use model::mutant;
use openraft::AsyncRuntime;
use rand::Rng;

use crate::disk::{Batch, Disk, Meta};
use crate::frame::damaged;
use crate::log::{put_meta, read_meta, synced};
use crate::replica::StartError;
use crate::wire::{self, DiskId, Identity, NodeId};

/// Reads who a disk is. One that holds nothing is given an identity first, and has synced it when
/// this returns.
pub(crate) async fn open<RT, D>(disk: &D, name: &str) -> Result<Identity, StartError>
where
    RT: AsyncRuntime,
    D: Disk,
{
    let Some(identity) = read_meta::<Identity>(disk, Meta::Identity)? else {
        if is_used(disk)? {
            let what = "the disk holds a vote, a log or rows, and does not say whose they are";
            return Err(damaged(what.to_owned()).into());
        }
        let identity = Identity { disk: mint::<RT>(name), name: name.to_owned(), member: None };
        keep::<RT, D>(disk, &identity).await?;
        return Ok(identity);
    };
    if identity.name != name {
        return Err(StartError::OfAnother { theirs: identity.name, mine: name.to_owned() });
    }
    Ok(identity)
}

/// Writes down that a disk has become a member, durably. It becomes one once.
pub(crate) async fn become_member<RT, D>(
    disk: &D,
    identity: &Identity,
    member: NodeId,
) -> Result<(), StartError>
where
    RT: AsyncRuntime,
    D: Disk,
{
    match identity.member {
        Some(before) if before == member => Ok(()),
        // As the member of before it has promised nothing: it holds neither a vote nor a log.
        Some(_) | None => {
            let identity = Identity { member: Some(member), ..identity.clone() };
            Ok(keep::<RT, D>(disk, &identity).await?)
        }
    }
}

async fn keep<RT: AsyncRuntime, D: Disk>(disk: &D, identity: &Identity) -> io::Result<()> {
    disk.write(Batch::of(put_meta(Meta::Identity, identity)))?;
    synced::<RT, D>(disk).await
}

/// Whether a disk holds anything that Raft promised.
pub(crate) fn is_used(disk: &impl Disk) -> io::Result<bool> {
    let vote: Option<wire::Vote> = read_meta(disk, Meta::Vote)?;
    let applied: Option<wire::Applied> = read_meta(disk, Meta::Applied)?;
    let purged: Option<wire::LogId> = read_meta(disk, Meta::Purged)?;
    let has_log = disk.last_log()?.is_some();
    Ok(vote.is_some() || applied.is_some() || purged.is_some() || has_log)
}

fn mint<RT: AsyncRuntime>(name: &str) -> DiskId {
    if mutant!("disks-by-name") {
        return DiskId(crc32fast::hash(name.as_bytes()).into());
    }
    let mut rng = RT::thread_rng();
    // Zero is nobody's.
    DiskId(rng.next_u64().max(1))
}
