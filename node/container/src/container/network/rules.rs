//! The node's tables in the kernel: what single containers have there comes and goes, and all of it
//! is made anew when somebody deletes it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::super::error::{Context as _, Result};
use super::super::runtime::{AbortOnDrop, blocking};
use super::Attachment;
use super::netfilter::{Batch, Deletions, Kernel};
use super::table::Tables;
use crate::limits::TABLES_RETRY_PAUSE;

/// The tables, as long as this is there; the kernel's go on without it.
#[derive(Debug)]
pub(in super::super) struct Rules {
    shared: Arc<Shared>,
    /// What makes them anew.
    _keeper: AbortOnDrop,
}

#[derive(Debug)]
struct Shared {
    tables: Tables,
    kernel: Kernel,
    /// Held while the kernel's tables change, so that each change sees the one before.
    attached: Mutex<Attached>,
}

/// What the tables have of containers, by address; `None` once they are to go.
type Attached = Option<BTreeMap<Ipv4Addr, Attachment>>;

impl Rules {
    /// Nothing happens before [`Rules::replace`].
    pub(super) fn open(tables: Tables, attached: Vec<Attachment>) -> Result<Self> {
        let context = || "open a netlink socket".to_owned();
        // Before there are tables: none is deleted unheard.
        let deletions = Deletions::listen().context(context)?;
        let kernel = Kernel::open().context(context)?;
        let attached = attached.into_iter().map(|one| (one.address, one)).collect();
        let shared = Arc::new(Shared { tables, kernel, attached: Mutex::new(Some(attached)) });
        let keeper = tokio::spawn(keep(deletions, Arc::clone(&shared)));
        Ok(Self { shared, _keeper: AbortOnDrop(keeper.abort_handle()) })
    }

    /// The group that the links of the node's containers are in.
    pub(super) fn group(&self) -> u32 {
        self.shared.tables.group()
    }

    /// The tables as they must be, in place of former ones.
    pub(super) async fn replace(&self) -> Result<()> {
        replace(&self.shared, &self.shared.attached.lock().await).await
    }

    /// Lets the container's rules count and its ports be reached, all at once.
    pub(in super::super) async fn attach(&self, attachment: &Attachment) -> Result<()> {
        let mut attached = self.shared.attached.lock().await;
        if let Some(attached) = &mut *attached {
            attached.insert(attachment.address, attachment.clone());
        }
        let attachment = attachment.clone();
        commit(&self.shared, &attached, move |tables| tables.attach(&attachment)).await
    }

    /// Takes the same back; done if it is not there.
    /// What the container has begun to say and hear goes on.
    pub(in super::super) async fn detach(&self, attachment: &Attachment) -> Result<()> {
        let mut attached = self.shared.attached.lock().await;
        if let Some(attached) = &mut *attached {
            attached.remove(&attachment.address);
        }
        let attachment = attachment.clone();
        commit(&self.shared, &attached, move |tables| tables.detach(&attachment)).await
    }

    /// Everything away, for good.
    pub(super) async fn remove(&self) -> Result<()> {
        let mut attached = self.shared.attached.lock().await;
        *attached = None;
        commit(&self.shared, &attached, |tables| Some(tables.remove())).await
    }
}

/// Makes the tables anew when somebody deletes them, which a firewall does that starts anew:
/// without them containers are held by nothing.
async fn keep(deletions: Deletions, shared: Arc<Shared>) {
    loop {
        if let Err(error) = deletions.next().await {
            tracing::error!(%error, "changes of nftables are not heard");
            return;
        }
        while let Err(error) = replace_missing(&shared).await {
            tracing::error!(%error, "the network's tables are not made anew");
            tokio::time::sleep(TABLES_RETRY_PAUSE).await;
        }
    }
}

async fn replace_missing(shared: &Arc<Shared>) -> Result<()> {
    let attached = shared.attached.lock().await;
    let asked = Arc::clone(shared);
    let are_there = blocking(move || {
        // What cannot be told is made anew.
        asked.tables.all().all(|table| asked.kernel.has(table).unwrap_or(false))
    });
    if attached.is_none() || are_there.await {
        return Ok(());
    }
    tracing::warn!("somebody deleted the network's tables: they are made anew");
    replace(shared, &attached).await
}

async fn replace(shared: &Arc<Shared>, attached: &MutexGuard<'_, Attached>) -> Result<()> {
    let all = Option::clone(attached).unwrap_or_default();
    commit(shared, attached, move |tables| Some(tables.replace(all.values()))).await
}

/// Makes a transaction and lets it happen, off the threads that others wait for.
async fn commit(
    shared: &Arc<Shared>,
    _held: &MutexGuard<'_, Attached>,
    batch: impl FnOnce(&Tables) -> Option<Batch> + Send + 'static,
) -> Result<()> {
    let shared = Arc::clone(shared);
    let done =
        blocking(move || batch(&shared.tables).map_or(Ok(()), |batch| shared.kernel.commit(batch)));
    done.await.context(|| "change nftables".to_owned())
}
