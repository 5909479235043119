//! Tasks, as `cfdot` does.

use std::sync::Arc;

use api::admin::{Consistency, Waiting};
use clap::Args;
use model::refusal::TaskStateName;
use model::{Refusal, Task, TaskGuid, TaskState};

use super::{Freshness, bad_definition, definition, parse_guid};
use crate::cli::Caller;
use crate::failure::Failure;
use crate::output::{Cell, Style, Table};
use crate::units;

/// Lists the tasks
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel tasks --json | jq 'select(.failed)'")]
pub(crate) struct List {
    #[command(flatten)]
    freshness: Freshness,
}

/// Shows one task, and why it waits if it does
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel task migrate-1")]
pub(crate) struct Show {
    #[arg(value_parser = parse_guid::<TaskGuid>)]
    guid: TaskGuid,
    #[command(flatten)]
    freshness: Freshness,
}

/// Desires a task, which runs once, to its end
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gavel create-task '{\"task_guid\":\"migrate-1\",\"domain\":\"mine\",\"task_definition\":{
    \"rootfs\":\"docker:///library/busybox\",\"memory_mb\":64,
    \"action\":{\"run\":{\"path\":\"/bin/echo\",\"args\":[\"hi\"],\"user\":\"root\"}}}}'")]
pub(crate) struct Create {
    /// The task, @FILE, or @- for standard input
    #[arg(value_name = "JSON|@FILE")]
    definition: String,
}

/// Ends a task that has not ended
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel cancel-task migrate-1")]
pub(crate) struct Cancel {
    #[arg(value_parser = parse_guid::<TaskGuid>)]
    guid: TaskGuid,
}

/// Resolves a task that has ended, and forgets it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel delete-task migrate-1")]
pub(crate) struct Delete {
    #[arg(value_parser = parse_guid::<TaskGuid>)]
    guid: TaskGuid,
}

impl List {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let consistency = self.freshness.consistency();
        let tasks = caller
            .client
            .read(async |admin, context| admin.tasks(context, consistency).await)
            .await?;
        caller.screen.list(&tasks, |task| api::json::task(task), table, "no tasks")
    }
}

fn table(tasks: &[Arc<Task>]) -> Table {
    let mut table =
        Table::new(["task guid", "domain", "state", "updated", "cell", "rejections", "outcome"]);
    let now = units::now();
    for task in tasks {
        let rejections = match task.rejection_count {
            0 => "".into(),
            count => Cell::number(count),
        };
        table.row([
            task.task_guid.as_str().into(),
            task.domain.as_str().into(),
            task.state.name().into(),
            units::ago(task.updated_at, now).into(),
            task.cell().map_or("", model::CellId::as_str).into(),
            rejections,
            outcome(task),
        ]);
    }
    table
}

fn outcome(task: &Task) -> Cell {
    match task.result() {
        None => Cell::from(task.rejection_reason.as_str()),
        Some(end) if end.failed => {
            Cell::styled(Style::Bad, format!("failed: {}", end.failure_reason))
        }
        Some(_) => Cell::styled(Style::Good, "succeeded"),
    }
}

impl Show {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let consistency = self.freshness.consistency();
        let guid = &self.guid;
        let task = caller
            .client
            .read(async |admin, context| admin.task(context, guid.clone(), consistency).await)
            .await?;
        let mut value = api::json::task(&task);
        if matches!(task.state, TaskState::Pending { placed_on: None })
            && consistency == Consistency::Linearizable
        {
            let waiting = caller
                .client
                .read(async |admin, context| admin.waiting_task(context, guid.clone()).await)
                .await?;
            if let Some(Waiting { reason, remedy }) = waiting {
                value["waiting_reason"] = reason.into();
                value["waiting_remedy"] = remedy.into();
            }
        }
        caller.screen.document(&value)
    }
}

impl Create {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let task = api::json::parse_task(&definition(&self.definition)?)
            .map_err(|error| bad_definition("task", &self.definition, &error))?;
        let guid = &task.task_guid;
        caller
            .client
            .change(&format!("gavel task {guid}"), async |admin, context| {
                let definition = Box::new(task.task_definition.clone());
                admin.desire_task(context, guid.clone(), task.domain.clone(), definition).await
            })
            .await?;
        caller.screen.done(format_args!("task {guid} is desired; see it with: gavel task {guid}"))
    }
}

impl Cancel {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let guid = &self.guid;
        caller
            .client
            .change(&format!("gavel task {guid}"), async |admin, context| {
                admin.cancel_task(context, guid.clone()).await
            })
            .await?;
        caller.screen.done(format_args!("task {guid} is cancelled"))
    }
}

impl Delete {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let guid = &self.guid;
        let look = format!("gavel task {guid}");
        let resolving = caller
            .client
            .change(&look, async |admin, context| admin.resolving_task(context, guid.clone()).await)
            .await;
        match resolving {
            Ok(()) => {}
            // An earlier delete was lost between its two steps; this one finishes it.
            Err(Failure::Refused(api::Error::Refused(Refusal::InvalidTaskTransition {
                from: TaskStateName::Resolving,
                ..
            }))) => {}
            Err(failure) => return Err(failure),
        }
        caller
            .client
            .change(&look, async |admin, context| admin.delete_task(context, guid.clone()).await)
            .await?;
        caller.screen.done(format_args!("task {guid} is deleted"))
    }
}
