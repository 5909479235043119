//! Where a container is: which cell has it, and by which node that is reached.

use api::Error;
use api::admin::LogSource;
use model::{ActualLrpId, CellId, Refusal, State};
use plan::cell::Handle;

use crate::world::NodeAgent;

/// The container that an instance or a task has now, and its cell; nothing where it has none.
pub(super) fn find(state: &State, source: &LogSource) -> Result<Option<(CellId, Handle)>, Error> {
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

/// `HOST:PORT` of a cell's node.
pub(super) fn address(agent: &NodeAgent, state: &State, cell_id: &CellId) -> Result<String, Error> {
    let cell = state
        .cell(cell_id)
        .ok_or_else(|| Error::Refused(Refusal::CellNotFound(cell_id.clone())))?;
    let status = agent.replica().status();
    let member = status.members.iter().find(|member| member.id == cell.node_id);
    member
        .map(|member| member.node.address.clone())
        .ok_or_else(|| Error::Unavailable(format!("cell {cell_id} is no member any more")))
}
