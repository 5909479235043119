//! `apps`: every app, a line each.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use model::{ActualLrp, ProcessGuid};

use super::Freshness;
use crate::app::{App, DOMAIN};
use crate::cli::Caller;
use crate::failure::Failure;
use crate::limits::ROUTES_SHOWN_MAX;
use crate::output::{Cell, Style, Table};
use crate::units;

/// Lists the apps
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel apps --json | jq -r '.routes[]'")]
pub(crate) struct Apps {
    #[command(flatten)]
    freshness: Freshness,
}

impl Apps {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let consistency = self.freshness.consistency();
        let desired = caller
            .client
            .read(async |admin, context| admin.desired_lrps(context, consistency).await)
            .await?;
        let mut instances: BTreeMap<ProcessGuid, Vec<Arc<ActualLrp>>> = BTreeMap::new();
        for lrp in caller.client.actual_lrps(None, consistency).await? {
            instances.entry(lrp.key.process_guid.clone()).or_default().push(lrp);
        }
        let routing = caller.client.routing().await?;
        let apps: Vec<App> = desired
            .into_iter()
            .filter(|lrp| lrp.domain.as_str() == DOMAIN)
            .map(|lrp| {
                let instances = instances.remove(&lrp.process_guid).unwrap_or_default();
                App::new(lrp, instances, routing.clone())
            })
            .collect();
        caller.screen.list(
            &apps,
            App::summary,
            table,
            "no apps yet; run one with: gavel push APP -o IMAGE",
        )
    }
}

fn table(apps: &[App]) -> Table {
    let mut table = Table::new(["name", "instances", "memory", "image", "routes"]);
    for app in apps {
        let (running, requested) = (app.running(), app.desired.indices().len());
        let style = match (running, requested) {
            (_, 0) => Style::Dim,
            _ if running >= requested => Style::Good,
            (0, _) => Style::Bad,
            _ => Style::Wait,
        };
        table.row([
            app.desired.process_guid.as_str().into(),
            Cell::styled(style, format!("{running}/{requested}")),
            units::defined_mebibytes(app.desired.memory_mb).into(),
            app.image().into(),
            routes(&app.routes()).into(),
        ]);
    }
    table
}

fn routes(routes: &[String]) -> String {
    let shown = routes.len().min(ROUTES_SHOWN_MAX);
    let mut text = routes[..shown].join(", ");
    if shown < routes.len() {
        text.push_str(&format!(" and {} more", routes.len() - shown));
    }
    text
}
