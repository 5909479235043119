//! What time alone makes due, and when: a pure function of each row.
//!
//! The state keeps these moments in order ([`crate::State::first_due`]), so that whoever waits for
//! the next one need not look at every row. Source: lifecycle.md sections 1.8, 3.3 and 6.

use crate::actual_lrp::{ActualLrp, ActualState};
use crate::cell::{Cell, Intake};
use crate::command::Command;
use crate::domain::Domain;
use crate::id::{CellId, DomainName, LockKey, ProcessGuid, TaskGuid};
use crate::limits::{TASK_COMPLETED_MAX, TASK_PENDING_MAX, TASK_RESOLVING_MAX};
use crate::lock::Lock;
use crate::restart::{self, Restart};
use crate::task::{Task, TaskState};
use crate::time::Millis;

/// One thing that becomes due, named by its row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    ExpireDomain(DomainName),
    /// The ordinary row of this index has waited out its back-off.
    RestartLrp(ProcessGuid, u32),
    DemoteResolvingTask(TaskGuid),
    ExpirePendingTask(TaskGuid),
    ExpireCompletedTask(TaskGuid),
    CloseCell(CellId),
    ExpireLock(LockKey),
}

impl Due {
    /// What is to be done about it. Accepted from its moment on, and refused before.
    #[must_use]
    pub fn command(&self) -> Command {
        match self {
            Self::ExpireDomain(domain) => Command::ExpireDomain { domain: domain.clone() },
            Self::RestartLrp(process_guid, index) => {
                Command::RestartLrp { process_guid: process_guid.clone(), index: *index }
            }
            Self::DemoteResolvingTask(task_guid) => {
                Command::DemoteResolvingTask { task_guid: task_guid.clone() }
            }
            Self::ExpirePendingTask(task_guid) => {
                Command::ExpirePendingTask { task_guid: task_guid.clone() }
            }
            Self::ExpireCompletedTask(task_guid) => {
                Command::ExpireCompletedTask { task_guid: task_guid.clone() }
            }
            Self::CloseCell(cell_id) => Command::CloseCell { cell_id: cell_id.clone() },
            Self::ExpireLock(key) => Command::ExpireLock { key: key.clone() },
        }
    }
}

/// When a crashed instance may be placed again.
#[must_use]
pub fn of_actual_lrp(row: &ActualLrp) -> Option<(Millis, Due)> {
    if row.state != ActualState::Crashed {
        return None;
    }
    let moment = match restart::after_crash(row.crash_count, row.since) {
        Restart::Now => row.since,
        Restart::At(moment) => moment,
        Restart::Never => return None,
    };
    Some((moment, Due::RestartLrp(row.key.process_guid.clone(), row.key.index)))
}

/// When a task has been in its state for too long. The terms include their last moment.
#[must_use]
pub fn of_task(task: &Task) -> Option<(Millis, Due)> {
    let guid = || task.task_guid.clone();
    let (last, due) = match &task.state {
        TaskState::Pending { .. } => {
            (task.created_at + TASK_PENDING_MAX, Due::ExpirePendingTask(guid()))
        }
        TaskState::Running { .. } => return None,
        TaskState::Completed { result } => {
            (result.first_completed_at + TASK_COMPLETED_MAX, Due::ExpireCompletedTask(guid()))
        }
        TaskState::Resolving { .. } => {
            (task.updated_at + TASK_RESOLVING_MAX, Due::DemoteResolvingTask(guid()))
        }
    };
    Some((last + Millis(1), due))
}

/// When the time of an evacuation is up.
#[must_use]
pub fn of_cell(cell: &Cell) -> Option<(Millis, Due)> {
    match cell.intake {
        Intake::Evacuating { until } => Some((until, Due::CloseCell(cell.cell_id.clone()))),
        Intake::Open | Intake::Closed => None,
    }
}

/// When a domain stops being fresh.
#[must_use]
pub fn of_domain(domain: &Domain) -> Option<(Millis, Due)> {
    domain.expires_at.map(|moment| (moment, Due::ExpireDomain(domain.name.clone())))
}

/// When a lock is nobody's any more.
#[must_use]
pub fn of_lock(lock: &Lock) -> (Millis, Due) {
    (lock.expires_at, Due::ExpireLock(lock.key.clone()))
}
