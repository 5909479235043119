//! `cells`: where containers run, and what is left of each.

use clap::Args;
use model::Intake;

use super::Freshness;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::output::{self, Style, Table};
use crate::units;

/// Lists the cells, with what is taken of each
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel cells")]
pub(crate) struct Cells {
    #[command(flatten)]
    freshness: Freshness,
}

impl Cells {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let consistency = self.freshness.consistency();
        let cells = caller
            .client
            .read(async |admin, context| admin.cells(context, consistency).await)
            .await?;
        caller.screen.list(
            &cells,
            api::json::cell,
            |cells| {
                let mut table = Table::new([
                    "cell",
                    "state",
                    "zone",
                    "address",
                    "memory",
                    "disk",
                    "lrps",
                    "tasks",
                    "containers",
                ]);
                for status in cells {
                    let cell = &status.cell;
                    let capacity = &cell.capacity;
                    let of = |used: u64, total: u32| {
                        let used = if used == 0 { "0M".to_owned() } else { units::mebibytes(used) };
                        format!("{used} of {}", units::mebibytes(u64::from(total)))
                    };
                    let state = match (cell.is_present(), cell.intake) {
                        (false, _) => output::Cell::styled(Style::Bad, "missing"),
                        (true, Intake::Open) => output::Cell::styled(Style::Good, "present"),
                        (true, Intake::Evacuating { .. }) => {
                            output::Cell::styled(Style::Wait, "evacuating")
                        }
                        (true, Intake::Closed) => output::Cell::styled(Style::Wait, "closed"),
                    };
                    table.row([
                        cell.cell_id.as_str().into(),
                        state,
                        (&*cell.zone).into(),
                        cell.address.to_string().into(),
                        of(status.memory_mb_used, capacity.memory_mb).into(),
                        of(status.disk_mb_used, capacity.disk_mb).into(),
                        output::Cell::number(status.lrps),
                        output::Cell::number(status.tasks),
                        format!("{} of {}", status.lrps + status.tasks, capacity.containers).into(),
                    ]);
                }
                table
            },
            "no cell has registered",
        )
    }
}
