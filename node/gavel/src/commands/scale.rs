//! `scale`, `start` and `stop`: how many instances there are to be.

use std::time::Duration;

use clap::Args;
use model::{DesiredLrp, DesiredLrpUpdate, ProcessGuid};

use super::parse_guid;
use crate::app::Note;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::limits::START_TIMEOUT_DEFAULT;
use crate::rollout;
use crate::units::parse_duration;

/// Changes how many instances an app has
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel scale hello -i 5")]
pub(crate) struct Scale {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: ProcessGuid,
    /// How many instances
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    instances: i32,
}

/// Starts a stopped app with as many instances as it had
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel start hello")]
pub(crate) struct Start {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: ProcessGuid,
    /// How long to wait until all instances run
    #[arg(
        short = 't',
        long,
        value_name = "TIME",
        value_parser = parse_duration,
        default_value = START_TIMEOUT_DEFAULT
    )]
    start_timeout: Duration,
}

/// Stops all instances of an app, and keeps the app
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel stop hello")]
pub(crate) struct Stop {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: ProcessGuid,
}

impl Scale {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let (app, instances) = (&self.app, self.instances);
        let lrp = caller.client.desired_lrp(app, api::admin::Consistency::Linearizable).await?;
        // What `start` restores; 0 is a stop, and stopping keeps the number.
        let note = Note::of(&lrp).filter(|_| instances > 0).map(|note| Note { instances, ..note });
        let update = DesiredLrpUpdate {
            instances: Some(instances),
            annotation: note.as_ref().map(Note::to_annotation),
            ..DesiredLrpUpdate::default()
        };
        change(&mut caller, app, update).await?;
        caller
            .screen
            .done(format_args!("{app} is scaled to {instances}; see it with: gavel app {app}"))
    }
}

impl Start {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let app = &self.app;
        let lrp = caller.client.desired_lrp(app, api::admin::Consistency::Linearizable).await?;
        if lrp.instances == 0 {
            let update = DesiredLrpUpdate {
                instances: Some(remembered(&lrp)),
                ..DesiredLrpUpdate::default()
            };
            change(&mut caller, app, update).await?;
        }
        rollout::until_running(&mut caller, app, self.start_timeout).await?.show(caller.screen)
    }
}

impl Stop {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let app = &self.app;
        let update = DesiredLrpUpdate { instances: Some(0), ..DesiredLrpUpdate::default() };
        change(&mut caller, app, update).await?;
        caller.screen.done(format_args!("{app} is stopped"))
    }
}

fn remembered(lrp: &DesiredLrp) -> i32 {
    Note::of(lrp).map_or(1, |note| note.instances.max(1))
}

async fn change(
    caller: &mut Caller,
    app: &ProcessGuid,
    update: DesiredLrpUpdate,
) -> Result<(), Failure> {
    caller
        .client
        .change(&format!("gavel app {app}"), async |admin, context| {
            admin.update_desired_lrp(context, app.clone(), Box::new(update.clone())).await
        })
        .await
}
