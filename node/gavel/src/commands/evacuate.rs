//! `evacuate`: empties a cell before its machine is taken away, or gives it work again.

use std::time::Duration;

use api::admin::{CellStatus, Consistency};
use clap::Args;
use model::{CellId, Intake};

use super::parse_guid;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::limits::{EVACUATION_TIMEOUT_DEFAULT, RETRY_WAIT_MAX};
use crate::output::Progress;
use crate::units;

/// Moves a cell's work away before maintenance, and waits until the cell is empty
///
/// The cell gets no new work until it is given back with --cancel. An instance that runs ends
/// only when its replacement runs elsewhere; tasks run to their end. What is left when the time
/// (--timeout) is up is ended. An interrupted wait does not end the evacuation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  gavel evacuate node-2\n  gavel evacuate node-2 \
                        --timeout 30m\n  gavel evacuate node-2 --cancel")]
pub(crate) struct Evacuate {
    #[arg(value_parser = parse_guid::<CellId>)]
    cell: CellId,
    /// Gives the cell work again, whether it is empty or not
    #[arg(long)]
    cancel: bool,
}

impl Evacuate {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let cell_id = &self.cell;
        if self.cancel {
            caller
                .client
                .change("gavel cells", async |admin, context| {
                    admin.open_cell(context, cell_id.clone()).await
                })
                .await?;
            return caller.screen.done(format_args!("{cell_id} is given work again"));
        }
        let timeout = caller.timeout.unwrap_or(EVACUATION_TIMEOUT_DEFAULT);
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        caller
            .client
            .change("gavel cells", async |admin, context| {
                admin.evacuate_cell(context, cell_id.clone(), timeout_ms).await
            })
            .await?;
        let mut progress = caller.screen.progress();
        let outcome = self.until_empty(&mut caller, timeout, &mut progress).await;
        drop(progress);
        outcome?;
        caller.screen.done(format_args!(
            "{cell_id} is empty; give it work again with: gavel evacuate {cell_id} --cancel"
        ))
    }

    /// A node that is lost meanwhile does not end the wait.
    async fn until_empty(
        &self,
        caller: &mut Caller,
        timeout: Duration,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut left = None;
        loop {
            match self.look(caller, timeout, &mut left, progress).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(failure) if failure.may_pass() => {
                    progress.say("waiting for a node to answer");
                    tokio::time::sleep(RETRY_WAIT_MAX).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Whether it is empty; otherwise returns when something has changed. `left` keeps what was
    /// there at the last look.
    async fn look(
        &self,
        caller: &mut Caller,
        timeout: Duration,
        left: &mut Option<String>,
        progress: &mut Progress,
    ) -> Result<bool, Failure> {
        let cell_id = &self.cell;
        // The index is asked for first, so that what changes after the look ends the wait.
        let index = caller.client.applied_index().await?;
        let cells = caller
            .client
            .read(async |admin, context| admin.cells(context, Consistency::Linearizable).await)
            .await?;
        let Some(status) = cells.into_iter().find(|status| status.cell.cell_id == *cell_id) else {
            return Err(Failure::Failed(format!("{cell_id} is not a cell any more")));
        };
        let is_empty = status.lrps == 0 && status.tasks == 0;
        match (status.cell.intake, left.take()) {
            (Intake::Open, _) => {
                Err(Failure::Failed(format!("{cell_id} was given work again by somebody else")))
            }
            (Intake::Closed, Some(ended)) => Err(Failure::Failed(format!(
                "{cell_id}: not empty after {}; ended there: {ended}\n\
                 the cell is empty now, and gets no work before: gavel evacuate {cell_id} --cancel",
                units::duration(timeout)
            ))),
            _ if is_empty => Ok(true),
            _ => {
                let there = describe(&status);
                progress.say(&format!("{cell_id}: {there} left"));
                *left = Some(there);
                caller.client.news(index).await?;
                Ok(false)
            }
        }
    }
}

/// `2 instances, 1 task`.
fn describe(status: &CellStatus) -> String {
    let counts = [(status.lrps, "instance"), (status.tasks, "task")];
    let there = counts.into_iter().filter(|(number, _)| *number > 0);
    let there = there.map(|(number, one)| format!("{number} {one}{}", plural(number)));
    there.collect::<Vec<_>>().join(", ")
}

fn plural(number: u32) -> &'static str {
    if number == 1 { "" } else { "s" }
}
