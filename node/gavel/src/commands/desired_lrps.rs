//! Desired LRPs, as `cfdot` does.

use clap::Args;
use model::ProcessGuid;

use super::{Freshness, bad_definition, definition, parse_guid};
use crate::cli::Caller;
use crate::failure::Failure;
use crate::output::{Cell, Table};
use crate::units;

/// Lists what is desired
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel desired-lrps --json | jq .process_guid")]
pub(crate) struct List {
    #[command(flatten)]
    freshness: Freshness,
}

/// Shows one desired LRP
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel desired-lrp hello")]
pub(crate) struct Show {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    guid: ProcessGuid,
    #[command(flatten)]
    freshness: Freshness,
}

/// Desires an LRP
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gavel create-desired-lrp '{\"process_guid\":\"hello\",\"domain\":\"mine\",\"instances\":1,
    \"rootfs\":\"docker:///library/busybox\",
    \"action\":{\"run\":{\"path\":\"/bin/sleep\",\"args\":[\"1000\"],\"user\":\"root\"}}}'")]
pub(crate) struct Create {
    /// The definition, @FILE, or @- for standard input
    #[arg(value_name = "JSON|@FILE")]
    definition: String,
}

/// Changes the instances, routes or annotation of a desired LRP
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel update-desired-lrp hello '{\"instances\":3}'")]
pub(crate) struct Update {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    guid: ProcessGuid,
    /// What changes, @FILE, or @- for standard input
    #[arg(value_name = "JSON|@FILE")]
    update: String,
}

/// Stops desiring an LRP; its instances end
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel delete-desired-lrp hello")]
pub(crate) struct Delete {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    guid: ProcessGuid,
}

impl List {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let consistency = self.freshness.consistency();
        let lrps = caller
            .client
            .read(async |admin, context| admin.desired_lrps(context, consistency).await)
            .await?;
        caller.screen.list(
            &lrps,
            |lrp| api::json::desired_lrp(lrp),
            |lrps| {
                let heading = ["process guid", "domain", "instances", "memory", "disk", "rootfs"];
                let mut table = Table::new(heading);
                for lrp in lrps {
                    table.row([
                        lrp.process_guid.as_str().into(),
                        lrp.domain.as_str().into(),
                        Cell::number(lrp.instances),
                        units::defined_mebibytes(lrp.memory_mb).into(),
                        units::defined_mebibytes(lrp.disk_mb).into(),
                        lrp.rootfs.as_str().into(),
                    ]);
                }
                table
            },
            "nothing is desired",
        )
    }
}

impl Show {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let lrp = caller.client.desired_lrp(&self.guid, self.freshness.consistency()).await?;
        caller.screen.document(&api::json::desired_lrp(&lrp))
    }
}

impl Create {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let lrp = api::json::parse_desired_lrp(&definition(&self.definition)?)
            .map_err(|error| bad_definition("desired LRP", &self.definition, &error))?;
        let guid = &lrp.process_guid;
        caller
            .client
            .change(&format!("gavel desired-lrp {guid}"), async |admin, context| {
                admin.desire_lrp(context, Box::new(lrp.clone())).await
            })
            .await?;
        caller.screen.done(format_args!("{guid} is desired"))
    }
}

impl Update {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let update = api::json::parse_desired_lrp_update(&definition(&self.update)?)
            .map_err(|error| bad_definition("update", &self.update, &error))?;
        let guid = &self.guid;
        caller
            .client
            .change(&format!("gavel desired-lrp {guid}"), async |admin, context| {
                admin.update_desired_lrp(context, guid.clone(), Box::new(update.clone())).await
            })
            .await?;
        caller.screen.done(format_args!("{guid} is updated"))
    }
}

impl Delete {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let guid = &self.guid;
        caller
            .client
            .change(&format!("gavel desired-lrp {guid}"), async |admin, context| {
                admin.remove_desired_lrp(context, guid.clone()).await
            })
            .await?;
        caller.screen.done(format_args!("{guid} is no longer desired"))
    }
}
