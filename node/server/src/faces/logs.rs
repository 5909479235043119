//! What containers say: any node is asked, the cell that holds the container answers.

use api::Error;
use api::admin::{LogChunk, LogCursor, LogLine, LogSource};
use api::limits::{LOG_LINES_MAX, WAIT_MAX};
use model::CellId;

use crate::faces::admin::wait_applied;
use crate::faces::whereabouts;
use crate::limits::LOG_POLL;
use crate::world::NodeAgent;

/// The output of whatever container the source has now.
pub(super) async fn of_source(
    agent: &NodeAgent,
    source: LogSource,
    from: Option<LogCursor>,
    follow: bool,
) -> Result<LogChunk, Error> {
    let state = agent.read_stale().state;
    let Some((cell_id, handle)) = whereabouts::find(&state, &source)? else {
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
    let address = whereabouts::address(agent, &state, &cell_id)?;
    let unreachable =
        |error: String| Error::Unavailable(format!("cell {cell_id} at {address}: {error}"));
    let client = agent
        .world()
        .security
        .dialer()
        .admin(&address)
        .await
        .map_err(|error| unreachable(error.to_string()))?;
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
