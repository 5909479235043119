//! `app`: one app, its instances, what they use, and why some do not run.

use clap::Args;
use model::ProcessGuid;

use super::{Freshness, parse_guid};
use crate::cli::Caller;
use crate::failure::Failure;

/// Shows an app: its instances, what they use, where they answer, and why some do not run
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel app hello")]
pub(crate) struct App {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: ProcessGuid,
    #[command(flatten)]
    freshness: Freshness,
}

impl App {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let consistency = self.freshness.consistency();
        let mut app = crate::app::App::look(&mut caller.client, &self.app, consistency).await?;
        app.measure(&mut caller.client).await?;
        app.show(caller.screen)
    }
}
