//! `cluster`: the members, who leads, and how far each has got. Who takes part is changed in
//! [`members`].

use std::time::Instant;

use api::admin::{ClusterStatus, Member, Role};
use clap::{Args, Subcommand};

use super::certs::Certs;
use super::members;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::limits::LOOK_AGAIN;
use crate::output::{Cell, Style, Table};
use crate::units;

/// The cluster's members, and who leads them
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  gavel cluster status")]
pub(crate) enum Cluster {
    Status(Status),
    Join(members::Join),
    Leave(members::Leave),
    Promote(members::Promote),
    Demote(members::Demote),
    Replace(members::Replace),
    TransferLeadership(TransferLeadership),
    Certs(Certs),
}

/// Shows the members, who leads, and how far each has applied the log
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel cluster status --json | jq .leader")]
pub(crate) struct Status {}

/// Lets another member lead, for instance before maintenance
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel cluster transfer-leadership node-2")]
pub(crate) struct TransferLeadership {
    /// The member's name or number
    node: String,
}

impl Cluster {
    pub(crate) async fn run(self, caller: Caller) -> Result<(), Failure> {
        match self {
            Self::Status(status) => status.run(caller).await,
            Self::Join(join) => join.run(caller).await,
            Self::Leave(leave) => leave.run(caller).await,
            Self::Promote(promote) => promote.run(caller).await,
            Self::Demote(demote) => demote.run(caller).await,
            Self::Replace(replace) => replace.run(caller).await,
            Self::TransferLeadership(transfer) => transfer.run(caller).await,
            Self::Certs(certs) => certs.run(caller.screen),
        }
    }
}

pub(super) async fn look(caller: &mut Caller) -> Result<ClusterStatus, Failure> {
    caller.client.read(async |admin, context| admin.cluster_status(context).await).await
}

/// The member of a name or number.
pub(super) fn find<'a>(status: &'a ClusterStatus, node: &str) -> Result<&'a Member, Failure> {
    let is_meant = |member: &&Member| member.name == node || member.node_id.to_string() == node;
    status.members.iter().find(is_meant).ok_or_else(|| {
        let names: Vec<_> = status.members.iter().map(|one| one.name.as_str()).collect();
        let names = names.join(", ");
        Failure::Failed(format!("{node} is no member of the cluster; there are: {names}"))
    })
}

fn name(status: &ClusterStatus, node_id: u64) -> String {
    let member = status.members.iter().find(|member| member.node_id == node_id);
    member.map_or_else(|| node_id.to_string(), |member| member.name.clone())
}

impl Status {
    async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let status = look(&mut caller).await?;
        let screen = caller.screen;
        if screen.is_json() {
            return screen.line(api::json::cluster_status(&status));
        }
        let leader = match status.leader {
            Some(leader) => screen.styled(Style::Good, &name(&status, leader)),
            None => screen.styled(Style::Bad, "nobody; an election is due"),
        };
        screen.line(format_args!("leader    {leader}"))?;
        screen.line(format_args!("term      {}", status.term))?;
        let answered = name(&status, status.node_id);
        let (applied, last) = (status.applied_index, status.last_log_index);
        screen.line(format_args!("answered  {answered}, applied {applied} of {last} entries"))?;
        let api::admin::LayerOrigins { registries, cells, sent } = status.layers;
        if registries + cells + sent > 0 {
            screen.line(format_args!(
                "layers    {registries} from registries, {cells} from other cells, {sent} to them"
            ))?;
        }
        let overlooked: u64 = status.members.iter().filter_map(|member| member.overlooked).sum();
        if overlooked > 0 {
            let what =
                "found only by looking at everything: a mistake of Gavel's, please report it";
            let count = screen.styled(Style::Bad, &overlooked.to_string());
            screen.line(format_args!("overlooked {count}, {what}"))?;
        }
        screen.line("")?;
        let mut table = Table::new(["node", "name", "address", "role", "applied"]);
        for member in &status.members {
            let role = match member.role {
                Role::Leader => Cell::styled(Style::Good, "leader"),
                Role::Voter => "voter".into(),
                Role::Learner => Cell::styled(Style::Dim, "learner"),
            };
            table.row([
                Cell::number(member.node_id),
                member.name.as_str().into(),
                member.address.as_str().into(),
                role,
                member
                    .applied_index
                    .map_or_else(|| Cell::styled(Style::Bad, "no answer"), Cell::number),
            ]);
        }
        screen.table(&table)
    }
}

impl TransferLeadership {
    async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let status = look(&mut caller).await?;
        let member = find(&status, &self.node)?;
        let node_id = member.node_id;
        if status.leader == Some(node_id) {
            return caller.screen.done(format_args!("{} leads already", member.name));
        }
        caller
            .client
            .change("gavel cluster status", async |admin, context| {
                admin.transfer_leadership(context, node_id).await
            })
            .await?;
        self.wait(&mut caller, node_id).await?;
        caller.screen.done(format_args!("{} leads", member.name))
    }

    /// The call hands over; whether the other takes it is seen only afterwards.
    async fn wait(&self, caller: &mut Caller, node_id: u64) -> Result<(), Failure> {
        let waited = caller.client.timeout();
        let give_up = Instant::now() + waited;
        loop {
            let status = look(caller).await?;
            if status.leader == Some(node_id) {
                return Ok(());
            }
            if Instant::now() >= give_up {
                let waited = units::duration(waited);
                let node = &self.node;
                return Err(Failure::Failed(format!(
                    "{node} was asked to lead and does not after {waited}; \
                     see with: gavel cluster status"
                )));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
