//! Feature flags: what an operator allows the whole cluster.

use clap::Args;
use model::FeatureFlag;
use serde_json::json;

use super::Freshness;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::output::{Cell, Style, Table};

/// Turns a feature flag on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel enable-feature-flag diego_docker")]
pub(crate) struct Enable {
    #[arg(value_parser = parse_flag)]
    flag: FeatureFlag,
}

/// Turns a feature flag off; without diego_docker all Docker apps end, and come back with it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel disable-feature-flag diego_docker")]
pub(crate) struct Disable {
    #[arg(value_parser = parse_flag)]
    flag: FeatureFlag,
}

/// Lists the feature flags
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel feature-flags")]
pub(crate) struct List {
    #[command(flatten)]
    freshness: Freshness,
}

impl Enable {
    pub(crate) async fn run(self, caller: Caller) -> Result<(), Failure> {
        set(caller, self.flag, true).await
    }
}

impl Disable {
    pub(crate) async fn run(self, caller: Caller) -> Result<(), Failure> {
        set(caller, self.flag, false).await
    }
}

async fn set(mut caller: Caller, flag: FeatureFlag, enabled: bool) -> Result<(), Failure> {
    caller
        .client
        .change("gavel feature-flags", async |admin, context| {
            admin.set_feature_flag(context, flag, enabled).await
        })
        .await?;
    caller.screen.done(format_args!("{} is {}", flag.name(), word(enabled)))
}

impl List {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let flags = caller.client.feature_flags(self.freshness.consistency()).await?;
        caller.screen.list(
            &flags,
            |(flag, enabled)| json!({ "name": flag.name(), "enabled": enabled }),
            |flags| {
                let mut table = Table::new(["flag", "state"]);
                for (flag, enabled) in flags {
                    let style = if *enabled { Style::Good } else { Style::Dim };
                    table.row([flag.name().into(), Cell::styled(style, word(*enabled))]);
                }
                table
            },
            "no feature flags",
        )
    }
}

fn word(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

fn parse_flag(text: &str) -> Result<FeatureFlag, String> {
    FeatureFlag::ALL.into_iter().find(|flag| flag.name() == text).ok_or_else(|| {
        let known = FeatureFlag::ALL.map(FeatureFlag::name).join(", ");
        format!("there is no such flag; there are: {known}")
    })
}
