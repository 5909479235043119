//! Convergence: what is due by time alone, and indices that have lost their row.
//!
//! Apply keeps rows and indices in step by itself, so in a quiet cluster this finds nothing, and
//! it is made to find nothing quickly: one pass over the desired and the actual LRPs side by side
//! (both tables are ordered by process), one over tasks, one over domains. Source: lifecycle.md
//! sections 1.8, 3.3 and 3.5.

use std::sync::Arc;

use model::limits::{RESTARTS_MAX, TASK_COMPLETED_MAX, TASK_PENDING_MAX, TASK_RESOLVING_MAX};
use model::restart::{self, Restart};
use model::{
    ActualLrp, ActualState, Command, DesiredLrp, Millis, Presence, State, Task, TaskState,
};

use crate::report::{Report, Wait};
use crate::turn::Due;

/// What convergence would do at `at`.
pub(crate) fn survey(
    state: &State,
    at: Millis,
    report: &mut Report,
    due: &mut Due,
) -> Vec<Command> {
    let mut survey = Survey { at, commands: Vec::new(), report, due };
    survey.domains(state);
    survey.lrps(state);
    for task in state.tasks() {
        survey.task(task);
    }
    survey.commands
}

struct Survey<'a> {
    at: Millis,
    commands: Vec<Command>,
    report: &'a mut Report,
    due: &'a mut Due,
}

impl Survey<'_> {
    fn domains(&mut self, state: &State) {
        for domain in state.domains() {
            match domain.expires_at {
                Some(expires_at) if expires_at <= self.at => {
                    self.commands.push(Command::ExpireDomain { domain: domain.name.clone() });
                }
                Some(expires_at) => self.due.at(expires_at),
                None => {}
            }
        }
    }

    fn lrps(&mut self, state: &State) {
        let mut rows = state.actual_lrps().peekable();
        for desired in state.desired_lrps() {
            let guid = &desired.process_guid;
            // Evacuating copies may outlive their desired LRP.
            while rows.next_if(|row| row.key.process_guid < *guid).is_some() {}
            let mut ordinary = 0;
            while let Some(row) = rows.next_if(|row| row.key.process_guid == *guid) {
                if row.presence == Presence::Ordinary {
                    ordinary += 1;
                    self.crashed(row);
                }
            }
            // Ordinary rows are all of desired indices and one each, so counting them is enough.
            if ordinary < desired.indices().len() {
                self.create_missing(state, desired);
            }
        }
    }

    fn create_missing(&mut self, state: &State, desired: &DesiredLrp) {
        let mut present = state
            .actual_lrps_of(&desired.process_guid)
            .filter(|row| row.presence == Presence::Ordinary)
            .map(|row| row.key.index)
            .peekable();
        for index in desired.indices() {
            if present.next_if_eq(&index).is_none() {
                let process_guid = desired.process_guid.clone();
                self.commands.push(Command::CreateLrp { process_guid, index });
            }
        }
    }

    fn crashed(&mut self, row: &ActualLrp) {
        if row.state != ActualState::Crashed {
            return;
        }
        let process_guid = &row.key.process_guid;
        let index = row.key.index;
        let why = || format!("crashed {} times: {}", row.crash_count, row.crash_reason);
        match restart::after_crash(row.crash_count, row.since) {
            Restart::At(moment) if moment > self.at => {
                self.due.at(moment);
                let help = "it restarts by itself; its logs say why it crashes".to_owned();
                let wait = Wait { why: why(), help, until: Some(moment) };
                self.report.lrp_waits(process_guid, index, Arc::new(wait));
            }
            Restart::Now | Restart::At(_) => {
                let process_guid = process_guid.clone();
                self.commands.push(Command::RestartLrp { process_guid, index });
            }
            Restart::Never => {
                let help = format!(
                    "after {RESTARTS_MAX} crashes in a row nothing restarts by itself: restart \
                     the app, or push a version that does not crash"
                );
                let wait = Wait { why: why(), help, until: None };
                self.report.lrp_waits(process_guid, index, Arc::new(wait));
            }
        }
    }

    fn task(&mut self, task: &Task) {
        let task_guid = || task.task_guid.clone();
        match &task.state {
            TaskState::Pending { .. } => {
                if self.is_over(task.created_at + TASK_PENDING_MAX) {
                    self.commands.push(Command::ExpirePendingTask { task_guid: task_guid() });
                    self.due.at(self.at + TASK_COMPLETED_MAX + Millis(1));
                }
            }
            TaskState::Running { .. } => {}
            TaskState::Completed { result } => {
                if self.is_over(result.first_completed_at + TASK_COMPLETED_MAX) {
                    self.commands.push(Command::ExpireCompletedTask { task_guid: task_guid() });
                }
            }
            TaskState::Resolving { result } => {
                if self.is_over(task.updated_at + TASK_RESOLVING_MAX) {
                    self.commands.push(Command::DemoteResolvingTask { task_guid: task_guid() });
                    if self.is_over(result.first_completed_at + TASK_COMPLETED_MAX) {
                        self.commands.push(Command::ExpireCompletedTask { task_guid: task_guid() });
                    }
                }
            }
        }
    }

    /// Whether a term that includes its last moment is over; if not, when it will be is noted.
    fn is_over(&mut self, last: Millis) -> bool {
        if self.at > last {
            return true;
        }
        self.due.at(last + Millis(1));
        false
    }
}
