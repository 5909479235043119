//! `cluster join|leave|promote|demote|replace`: who takes part.

use std::time::{Duration, Instant};

use api::admin::{Member, MemberChange, Role};
use clap::Args;

use super::cluster::{find, look};
use crate::cli::{Caller, parse_endpoint};
use crate::failure::Failure;
use crate::limits::{REPLACE_TIMEOUT_DEFAULT, RETRY_WAIT_MAX};
use crate::output::Progress;
use crate::units;

/// Lets a new node in that runs and waits for it
///
/// It follows, and is a cell like any other; it votes when it is promoted. Its file names members
/// of the cluster whom it can ask, and its data directory is empty.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  gavel cluster join 10.0.0.4:7440\n  gavel cluster join \
                        10.0.0.4:7440 --voter")]
pub(crate) struct Join {
    /// HOST:PORT by which the others reach it
    #[arg(value_parser = parse_endpoint)]
    address: String,
    /// Lets it vote as well
    #[arg(long)]
    voter: bool,
}

/// Takes a member off the record for good, when its cell is evacuated and its node stopped
///
/// Its number is never given again. Its machine can come back as a new member, with an empty data
/// directory: gavel cluster join.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel evacuate node-3 && ssh node-3 systemctl stop gavel && \
                        gavel cluster leave node-3")]
pub(crate) struct Leave {
    /// The member's name or number
    node: String,
}

/// Lets a member vote
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel cluster promote node-4")]
pub(crate) struct Promote {
    /// The member's name or number
    node: String,
}

/// Lets a member follow only, and not vote
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel cluster demote node-1")]
pub(crate) struct Demote {
    /// The member's name or number
    node: String,
}

/// Makes a node whose disk is lost a new member in the place of the old one
///
/// The old member leaves for good. Its node, started again with an empty raft directory at the
/// same address, is let in under a new number, and votes if the old one did.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  gavel cluster replace node-3\n  gavel cluster replace node-3 \
                        --timeout 30m"
)]
pub(crate) struct Replace {
    /// The member's name or number
    node: String,
}

impl Join {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let id = change(&mut caller, MemberChange::Join(self.address.clone())).await?;
        if !self.voter {
            return caller.screen.done(format_args!("{} is member {id}", self.address));
        }
        Patience::of(caller.client.timeout()).caught_up(&mut caller, id).await?;
        change(&mut caller, MemberChange::Promote(id)).await?;
        caller.screen.done(format_args!("{} is member {id} and votes", self.address))
    }
}

impl Leave {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let status = look(&mut caller).await?;
        let Member { node_id, name, .. } = find(&status, &self.node)?.clone();
        change(&mut caller, MemberChange::Leave(node_id)).await?;
        caller.screen.done(format_args!("{name} is no member any more"))
    }
}

impl Promote {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let status = look(&mut caller).await?;
        let Member { node_id, name, .. } = find(&status, &self.node)?.clone();
        change(&mut caller, MemberChange::Promote(node_id)).await?;
        caller.screen.done(format_args!("{name} votes"))
    }
}

impl Demote {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let status = look(&mut caller).await?;
        let Member { node_id, name, .. } = find(&status, &self.node)?.clone();
        change(&mut caller, MemberChange::Demote(node_id)).await?;
        caller.screen.done(format_args!("{name} follows, and does not vote"))
    }
}

impl Replace {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let status = look(&mut caller).await?;
        let old = find(&status, &self.node)?.clone();
        let patience = Patience::of(caller.timeout.unwrap_or(REPLACE_TIMEOUT_DEFAULT));
        let mut progress = caller.screen.progress();
        progress.say(&format!("{} leaves", old.name));
        change(&mut caller, MemberChange::Leave(old.node_id)).await?;
        let new = patience.let_in(&mut caller, &old, &mut progress).await?;
        progress.say(&format!("{} catches up as member {new}", old.name));
        patience.caught_up(&mut caller, new).await?;
        let is_voter = old.role != Role::Learner;
        if is_voter {
            change(&mut caller, MemberChange::Promote(new)).await?;
        }
        drop(progress);
        let votes = if is_voter { " and votes" } else { "" };
        caller.screen.done(format_args!("{} is member {new}{votes}", old.name))
    }
}

/// How long somebody waits.
struct Patience {
    until: Instant,
    timeout: Duration,
}

impl Patience {
    fn of(timeout: Duration) -> Self {
        Self { until: Instant::now() + timeout, timeout }
    }

    /// Waits for the node at the old member's address, and lets it in.
    async fn let_in(
        &self,
        caller: &mut Caller,
        old: &Member,
        progress: &mut Progress,
    ) -> Result<u64, Failure> {
        let Member { name, address, .. } = old;
        loop {
            match change(caller, MemberChange::Join(address.clone())).await {
                Ok(id) => return Ok(id),
                Err(failure) if failure.may_pass() && Instant::now() < self.until => {
                    progress.say(&format!("waiting for {name} to be started at {address}"));
                    tokio::time::sleep(RETRY_WAIT_MAX).await;
                }
                Err(failure) => {
                    let waited = units::duration(self.timeout);
                    return Err(Failure::Failed(format!(
                        "{name} has left and is not let in again after {waited}: {failure}\n\
                         start it with an empty raft directory, and let it in with: gavel cluster \
                         join {address}"
                    )));
                }
            }
        }
    }

    /// Waits until the new member has applied what the leader had by now.
    async fn caught_up(&self, caller: &mut Caller, id: u64) -> Result<(), Failure> {
        let goal = look(caller).await?.applied_index;
        loop {
            let status = look(caller).await?;
            let member = status.members.iter().find(|member| member.node_id == id);
            if member.is_some_and(|member| member.applied_index >= Some(goal)) {
                return Ok(());
            }
            if Instant::now() >= self.until {
                return Err(Failure::Failed(format!(
                    "member {id} is let in, and has not caught up; see with: gavel cluster status"
                )));
            }
            tokio::time::sleep(RETRY_WAIT_MAX).await;
        }
    }
}

async fn change(caller: &mut Caller, change: MemberChange) -> Result<u64, Failure> {
    caller
        .client
        .change("gavel cluster status", async |admin, context| {
            admin.change_members(context, change.clone()).await
        })
        .await
}
