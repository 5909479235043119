//! Actual LRPs, as `cfdot` does.

use std::collections::BTreeMap;

use clap::Args;
use model::{DesiredLrp, ProcessGuid};

use super::{Freshness, parse_guid};
use crate::app;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::output::{Cell, Style, Table};
use crate::units;

/// Lists the instances that there are
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel actual-lrps -p hello")]
pub(crate) struct List {
    /// Only those of one process
    #[arg(short, long, value_name = "GUID", value_parser = parse_guid::<ProcessGuid>)]
    process_guid: Option<ProcessGuid>,
    #[command(flatten)]
    freshness: Freshness,
}

/// Stops one instance; while it is desired, a new one takes its place
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel retire-actual-lrp hello 2")]
pub(crate) struct Retire {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    guid: ProcessGuid,
    index: u32,
}

impl List {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let consistency = self.freshness.consistency();
        let lrps = caller.client.actual_lrps(self.process_guid.as_ref(), consistency).await?;
        // Routes and metric tags are the desired LRP's; only JSON shows them.
        let desired = match &self.process_guid {
            _ if !caller.screen.is_json() => Vec::new(),
            Some(guid) => caller.client.desired_lrp_if_any(guid).await?.into_iter().collect(),
            None => {
                let client = &mut caller.client;
                client
                    .read(async |admin, context| admin.desired_lrps(context, consistency).await)
                    .await?
            }
        };
        let desired: BTreeMap<&ProcessGuid, &DesiredLrp> =
            desired.iter().map(|lrp| (&lrp.process_guid, lrp.as_ref())).collect();
        caller.screen.list(
            &lrps,
            |lrp| api::json::actual_lrp(lrp, desired.get(&lrp.key.process_guid).copied()),
            |lrps| {
                let mut table = Table::new([
                    "process guid",
                    "index",
                    "state",
                    "presence",
                    "since",
                    "cell",
                    "instance guid",
                    "ports",
                    "crashes",
                ]);
                let now = units::now();
                for lrp in lrps {
                    let instance = lrp.instance();
                    let crashes = match lrp.crash_count {
                        0 => "".into(),
                        count => Cell::styled(Style::Bad, count.to_string()),
                    };
                    table.row([
                        lrp.key.process_guid.as_str().into(),
                        Cell::number(lrp.key.index),
                        Cell::styled(app::state_style(&lrp.state), lrp.state.name()),
                        lrp.presence.name().into(),
                        units::ago(lrp.since, now).into(),
                        instance.map_or("", |key| key.cell_id.as_str()).into(),
                        instance.map_or("", |key| key.instance_guid.as_str()).into(),
                        app::ports(&lrp.state).into(),
                        crashes,
                    ]);
                }
                table
            },
            "no instances",
        )
    }
}

impl Retire {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let (guid, index) = (&self.guid, self.index);
        caller
            .client
            .change(&format!("gavel actual-lrps -p {guid}"), async |admin, context| {
                admin.retire_actual_lrp(context, guid.clone(), index).await
            })
            .await?;
        caller.screen.done(format_args!("{guid}/{index} is retired"))
    }
}
