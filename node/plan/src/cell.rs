//! The cell's reconciliation: its containers against the records that name them.
//!
//! Stateless: it looks at what is, and says all that is to be done about it. What the agent has
//! already begun it does not begin again; what it repeats does no harm, as reports are fenced by
//! instance guid and cell and apply answers a repeated one with no change. Source: lifecycle.md
//! sections 1.5 and 3.4.
//!
//! The state must be as new as the newest container: a container whose record has not been
//! applied *yet* looks like one whose record is *gone*. An agent that starts waits until it has
//! applied everything that was agreed before it started.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::{
    ActualLrp, ActualLrpKey, ActualState, CellId, Command, DesiredLrp, InstanceGuid, InstanceKey,
    NetInfo, Presence, State, Task, TaskGuid, TaskState, mutant,
};
use serde::{Deserialize, Serialize};

/// What a container is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Lrp { key: ActualLrpKey, instance: InstanceKey, desired: Arc<DesiredLrp> },
    Task { task: Arc<Task> },
}

impl Work {
    /// Of the request that asked for it, for logs; empty where that had none.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        match self {
            Self::Lrp { desired, .. } => &desired.trace_id,
            Self::Task { task } => &task.definition.trace_id,
        }
    }
}

/// Names a container. Instances and tasks have names of their own kind, as a client may give a
/// task any guid, and so that of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Handle {
    Lrp(InstanceGuid),
    Task(TaskGuid),
}

/// How far a container is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Container {
    /// The image is fetched or the container is made; also while it only waits its turn.
    Preparing,
    /// It is made, and something of the user's may run in it: its setup, or an app that is not
    /// healthy yet.
    Starting,
    /// It is healthy.
    Running {
        net_info: NetInfo,
        /// Whether its readiness checks pass.
        routable: bool,
    },
    /// Its process has ended.
    Exited {
        failed: bool,
        /// How it ended, in Diego's words, for instance `APP: Exited with status 1`.
        reason: String,
        /// The content of a task's result file.
        result: String,
    },
    /// It could not be made; nothing of the user's ran.
    Failed {
        /// What went wrong, in Diego's words.
        reason: String,
        /// A task may be tried again elsewhere. Instances are restarted in any case.
        retryable: bool,
    },
    /// It is being stopped; it will be [`Container::Exited`].
    Stopping,
}

/// What the agent knows of its own cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Everything that is there or being made, from the moment a [`CellAction::Create`] is taken
    /// until a [`CellAction::Destroy`] is done.
    pub containers: BTreeMap<Handle, Container>,
    /// Tasks whose start this process has proposed and not yet seen answered.
    pub tasks_asked: BTreeSet<TaskGuid>,
    /// Tasks whose start this process has proposed and seen accepted *with a change*, and whose
    /// container it has not begun. A guid goes out when its [`CellAction::Create`] is taken, or
    /// when the state no longer has the task on this cell: that is what makes a task start at
    /// most once.
    pub tasks_started: BTreeSet<TaskGuid>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CellAction {
    /// Make the container and run it.
    Create { handle: Handle, work: Work },
    /// Propose this.
    Report(Command),
    /// End the container gracefully; it stays until it is destroyed.
    Stop {
        handle: Handle,
        /// Whether routers may have sent it requests until now: it is to go on for as long as one
        /// that is behind may still do so.
        is_routed: bool,
    },
    /// Remove what is left; where the container is still being made, give up making it.
    Destroy { handle: Handle },
}

/// What the cell `me` should do so that its containers are what the records say. What ends comes
/// before what begins, then by handle. The same arguments give the same actions.
#[must_use]
pub fn reconcile(state: &State, me: &CellId, observed: &Observed) -> Vec<CellAction> {
    let records = Records::on(state, me);
    let mut actions: Vec<CellAction> = observed
        .containers
        .iter()
        .filter(|(handle, _)| !records.name(handle) && !mutant!("orphans-stay"))
        .filter_map(|(handle, container)| end(handle, container))
        .collect();
    for (guid, (row, instance)) in &records.lrps {
        let container = observed.containers.get(&Handle::Lrp((*guid).clone()));
        actions.extend(lrp(state, row, instance, container));
    }
    for task in records.tasks.values() {
        actions.extend(self::task(me, task, observed));
    }
    actions
}

/// What the state has on one cell.
struct Records<'a> {
    lrps: BTreeMap<&'a InstanceGuid, (&'a ActualLrp, &'a InstanceKey)>,
    /// Also those that have not started: they have no container yet.
    tasks: BTreeMap<&'a TaskGuid, &'a Arc<Task>>,
}

impl<'a> Records<'a> {
    fn on(state: &'a State, me: &CellId) -> Self {
        let mut records = Self { lrps: BTreeMap::new(), tasks: BTreeMap::new() };
        let Some(load) = state.load(me) else { return records };
        for row in load.lrps.iter().filter_map(|id| state.actual_lrp(id)) {
            if let Some(instance) = row.instance() {
                records.lrps.insert(&instance.instance_guid, (row, instance));
            }
        }
        for task in load.tasks.iter().filter_map(|guid| state.task(guid)) {
            records.tasks.insert(&task.task_guid, task);
        }
        records
    }

    /// Whether the container has a reason to be.
    fn name(&self, handle: &Handle) -> bool {
        match handle {
            Handle::Lrp(guid) => self.lrps.contains_key(guid),
            Handle::Task(guid) => self
                .tasks
                .get(guid)
                .is_some_and(|task| matches!(task.state, TaskState::Running { .. })),
        }
    }
}

/// A container that no record names goes, gracefully if something runs in it.
fn end(handle: &Handle, container: &Container) -> Option<CellAction> {
    let handle = handle.clone();
    match container {
        Container::Starting => Some(CellAction::Stop { handle, is_routed: false }),
        // Also one that is not ready: a moment ago it may have been.
        Container::Running { net_info, .. } => {
            let is_routed = matches!(handle, Handle::Lrp(_)) && !net_info.ports.is_empty();
            Some(CellAction::Stop { handle, is_routed })
        }
        Container::Stopping => None,
        Container::Preparing | Container::Exited { .. } | Container::Failed { .. } => {
            Some(CellAction::Destroy { handle })
        }
    }
}

fn lrp(
    state: &State,
    row: &ActualLrp,
    instance: &InstanceKey,
    container: Option<&Container>,
) -> Option<CellAction> {
    let key = || row.key.clone();
    let instance = || instance.clone();
    let remove =
        || Some(CellAction::Report(Command::RemoveLrp { key: key(), instance: instance() }));
    let crash = |reason: String| match row.presence {
        // An evacuating copy has its replacement; there is nothing to restart.
        Presence::Evacuating => remove(),
        Presence::Ordinary | Presence::Suspect => {
            Some(CellAction::Report(Command::CrashLrp { key: key(), instance: instance(), reason }))
        }
    };
    match container {
        None if row.is_running() => remove(),
        None => match state.desired_lrp(&row.key.process_guid) {
            Some(desired) => {
                let handle = Handle::Lrp(instance().instance_guid);
                let desired = Arc::clone(desired);
                let work = Work::Lrp { key: key(), instance: instance(), desired };
                Some(CellAction::Create { handle, work })
            }
            None => remove(),
        },
        Some(Container::Preparing | Container::Starting | Container::Stopping) => None,
        Some(Container::Running { net_info, routable }) => {
            let routable = *routable;
            let is_known = row.routable == routable
                && match &row.state {
                    ActualState::Running { net_info: known, .. } => known == net_info,
                    ActualState::Claimed { .. }
                    | ActualState::Unclaimed { .. }
                    | ActualState::Crashed => false,
                };
            // The start of a copy means nothing: the ordinary row is another instance's.
            let is_to_be_told = row.presence == Presence::Ordinary && !is_known;
            let net_info = net_info.clone();
            is_to_be_told.then(|| {
                let (key, instance) = (key(), instance());
                CellAction::Report(Command::StartLrp { key, instance, net_info, routable })
            })
        }
        Some(Container::Exited { .. }) if mutant!("crash-unreported") => None,
        Some(Container::Exited { reason, .. }) => crash(reason.clone()),
        Some(Container::Failed { reason, .. }) => crash(reason.clone()),
    }
}

fn task(me: &CellId, task: &Arc<Task>, observed: &Observed) -> Option<CellAction> {
    let task_guid = task.task_guid.clone();
    let cell_id = me.clone();
    let is_asked = observed.tasks_asked.contains(&task_guid);
    let is_started = observed.tasks_started.contains(&task_guid);
    let handle = Handle::Task(task_guid.clone());
    let container = observed.containers.get(&handle);
    let complete = |failed: bool, failure_reason: String, result: String| {
        let (task_guid, cell_id) = (task_guid.clone(), cell_id.clone());
        let end = Command::CompleteTask { task_guid, cell_id, failed, failure_reason, result };
        Some(CellAction::Report(end))
    };
    match (&task.state, container) {
        // What is left of an attempt before has to go first; see `end`.
        (TaskState::Pending { .. }, Some(_)) => None,
        (TaskState::Pending { .. }, None) if mutant!("task-runs-unasked") => {
            Some(CellAction::Create { handle, work: Work::Task { task: Arc::clone(task) } })
        }
        (TaskState::Pending { .. }, None) if is_asked || is_started => None,
        (TaskState::Pending { .. }, None) => {
            Some(CellAction::Report(Command::StartTask { task_guid, cell_id }))
        }
        (TaskState::Running { .. }, None) if is_started || mutant!("task-runs-again") => {
            Some(CellAction::Create { handle, work: Work::Task { task: Arc::clone(task) } })
        }
        // Applied here before the answer has come.
        (TaskState::Running { .. }, None) if is_asked => None,
        (TaskState::Running { .. }, None) => {
            let reason = "task container does not exist".to_owned();
            complete(true, reason.clone(), reason)
        }
        (TaskState::Running { .. }, Some(container)) => match container {
            Container::Preparing
            | Container::Starting
            | Container::Running { .. }
            | Container::Stopping => None,
            Container::Exited { failed: false, result, .. } => {
                complete(false, String::new(), result.clone())
            }
            Container::Exited { failed: true, reason, result } => {
                complete(true, reason.clone(), result.clone())
            }
            Container::Failed { reason, retryable: true } => {
                let reason = reason.clone();
                Some(CellAction::Report(Command::RejectTaskOnCell { task_guid, cell_id, reason }))
            }
            Container::Failed { reason, retryable: false } => {
                complete(true, reason.clone(), String::new())
            }
        },
        (TaskState::Completed { .. } | TaskState::Resolving { .. }, _) => None,
    }
}

const LRP_PREFIX: &str = "lrp-";
const TASK_PREFIX: &str = "task-";

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lrp(guid) => write!(f, "{LRP_PREFIX}{guid}"),
            Self::Task(guid) => write!(f, "{TASK_PREFIX}{guid}"),
        }
    }
}

/// The text is not a [`Handle`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no container: expected lrp- or task- and a guid")]
pub struct NotAHandle(String);

impl FromStr for Handle {
    type Err = NotAHandle;

    /// Reads what [`Handle`]'s `Display` wrote.
    fn from_str(text: &str) -> Result<Self, NotAHandle> {
        if let Some(guid) = text.strip_prefix(LRP_PREFIX) {
            Ok(Self::Lrp(guid.into()))
        } else if let Some(guid) = text.strip_prefix(TASK_PREFIX) {
            Ok(Self::Task(guid.into()))
        } else {
            Err(NotAHandle(text.to_owned()))
        }
    }
}
