//! `delete`: an app ends, with all of its instances.

use clap::Args;
use model::ProcessGuid;

use super::parse_guid;
use crate::cli::Caller;
use crate::failure::Failure;

/// Deletes an app: its instances end, and nothing starts them again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel delete hello")]
pub(crate) struct Delete {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: ProcessGuid,
    /// As cf has it; gavel never asks
    #[arg(short, long, hide = true)]
    force: bool,
}

impl Delete {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let app = &self.app;
        caller
            .client
            .change(&format!("gavel app {app}"), async |admin, context| {
                admin.remove_desired_lrp(context, app.clone()).await
            })
            .await?;
        caller.screen.done(format_args!("{app} is deleted"))
    }
}
