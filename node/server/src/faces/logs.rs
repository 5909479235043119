//! What containers say: any node is asked, the cell that holds the container answers.

use api::Error;
use api::admin::{LogChunk, LogCursor, LogLine, LogSource};
use api::limits::{LOG_LINES_MAX, WAIT_MAX};
use model::{ActualLrpId, CellId, Refusal};
use plan::cell::Handle;

use crate::faces::admin::wait_applied;
use crate::limits::LOG_POLL;
use crate::world::NodeAgent;

/// The output of whatever container the source has now.
pub(super) async fn of_source(
    agent: &NodeAgent,
    source: LogSource,
    from: Option<LogCursor>,
    follow: bool,
) -> Result<LogChunk, Error> {
    let Some((cell_id, handle)) = find(agent, &source)? else {
        // Nothing runs yet, or no more.
        if follow {
            let applied = agent.read_stale().applied.unwrap_or(0);
            wait_applied(agent, applied, WAIT_MAX).await;
        }
        let next = from.unwrap_or_else(|| LogCursor { container: String::new(), position: 0 });
        return Ok(LogChunk { lines: Vec::new(), next });
    };
    let container = crate::containers::id_text(&handle);
    let position = match from {
        Some(cursor) if cursor.container == container => cursor.position,
        Some(_) | None => 0,
    };
    if cell_id == agent.cell().cell_id {
        return of_container(agent, &cell_id, &container, position, follow).await;
    }
    let state = agent.read_stale().state;
    let cell = state
        .cell(&cell_id)
        .ok_or_else(|| Error::Refused(Refusal::CellNotFound(cell_id.clone())))?;
    let status = agent.replica().status();
    let address = status
        .members
        .iter()
        .find(|member| member.id == cell.node_id)
        .map(|member| member.node.address.clone())
        .ok_or_else(|| Error::Unavailable(format!("cell {cell_id} is no member any more")))?;
    let unreachable =
        |error: String| Error::Unavailable(format!("cell {cell_id} at {address}: {error}"));
    let client =
        api::wire::connect(&address).await.map_err(|error| unreachable(error.to_string()))?;
    let mut context = tarpc::context::current();
    context.deadline = std::time::Instant::now() + 2 * WAIT_MAX;
    client
        .cell_logs(context, cell_id.clone(), container, position, follow)
        .await
        .map_err(|error| unreachable(error.to_string()))?
}

/// The output of a container here.
pub(super) async fn of_container(
    agent: &NodeAgent,
    on: &CellId,
    container: &str,
    position: u64,
    follow: bool,
) -> Result<LogChunk, Error> {
    if *on != agent.cell().cell_id {
        return Err(Error::Invalid(format!("this is cell {}, not {on}", agent.cell().cell_id)));
    }
    let containers = &agent.world().containers;
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    loop {
        let (lines, next) = containers
            .logs(container, position, LOG_LINES_MAX)
            .await
            .map_err(|error| Error::NotFound(error.to_string()))?;
        let lines: Vec<LogLine> = lines;
        if !lines.is_empty() || !follow || tokio::time::Instant::now() >= deadline {
            let next = LogCursor { container: container.to_owned(), position: next };
            return Ok(LogChunk { lines, next });
        }
        tokio::time::sleep(LOG_POLL).await;
    }
}

/// Which container, and on which cell.
fn find(agent: &NodeAgent, source: &LogSource) -> Result<Option<(CellId, Handle)>, Error> {
    let state = agent.read_stale().state;
    match source {
        LogSource::Lrp { process_guid, index } => {
            let id = ActualLrpId::ordinary(process_guid.clone(), *index);
            let lrp = state.actual_lrp(&id).ok_or_else(|| {
                let process_guid = process_guid.clone();
                Error::Refused(Refusal::ActualLrpNotFound { process_guid, index: *index })
            })?;
            Ok(lrp.instance().map(|instance| {
                (instance.cell_id.clone(), Handle::Lrp(instance.instance_guid.clone()))
            }))
        }
        LogSource::Task { task_guid } => {
            let task = state
                .task(task_guid)
                .ok_or_else(|| Error::Refused(Refusal::TaskNotFound(task_guid.clone())))?;
            Ok(task.cell().map(|cell_id| (cell_id.clone(), Handle::Task(task_guid.clone()))))
        }
    }
}
