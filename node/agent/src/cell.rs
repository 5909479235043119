//! Makes the containers here match the records that name them, and says what became of them.
//!
//! [`plan::cell::reconcile`] decides; this loop does it, each thing asked once: what has been
//! begun is remembered until it is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::{Cell, CellHealth, CellLoad, Command, TaskGuid, mutant};
use plan::cell::{CellAction, Container, Handle, Observed, Work, reconcile};
use replica::AsyncRuntime;
use replica::async_runtime::{Instant as _, Select3};

use crate::limits::{
    CELL_SWEEP, CREATES_MAX, HEARTBEAT, REPORT_PAUSE, REPORT_RETRY, REPORTS_MAX,
    REPORTS_UNPAUSED_MAX, ROUTE_DRAIN,
};
use crate::node::{Agent, InstantOf};
use crate::soft::Message;
use crate::world::{Containers, CreateFailure, Found, World};

/// Tells the leader that this cell is alive, until the replica stops.
pub(crate) async fn heartbeats<W: World>(agent: Agent<W>) {
    while agent.replica().status().stopped.is_none() {
        agent.ask_leader(Message::Sighting(agent.cell().cell_id.clone())).await;
        W::Runtime::sleep(HEARTBEAT).await;
    }
}

/// Runs until the replica stops.
pub(crate) async fn run<W: World>(agent: Agent<W>) {
    // What this node applied before it was started may be old: acting on it could start what
    // has since been given to another.
    while !mutant!("cell-trusts-old-state")
        && let Err(error) = agent.read().await
    {
        tracing::debug!(%error, "the cell waits for a leader");
        if agent.replica().status().stopped.is_some() {
            return;
        }
        W::Runtime::sleep(REPORT_RETRY).await;
    }
    let cell = CellLoop { agent, begun: Arc::default(), even_at: Arc::default() };
    let mut watcher = cell.agent.replica().watch();
    let (mut seen, mut is_due) = (0, true);
    let (mut looked_at, mut load) = (InstantOf::<W>::now(), None);
    loop {
        cell.register();
        if is_due {
            // Before the look: what comes after it is to be looked at again.
            (looked_at, load) = (InstantOf::<W>::now(), cell.load());
            cell.reconcile();
        }
        let rest = CELL_SWEEP.saturating_sub(InstantOf::<W>::now() - looked_at);
        let containers = cell.agent.world().containers();
        let sweep = W::Runtime::sleep(rest);
        match W::Runtime::select3(watcher.changed(), containers.changed(seen), sweep).await {
            // Most of what a cluster agrees on is other cells'.
            Select3::First(Some(_)) => is_due = cell.load() != load,
            Select3::First(None) => return,
            Select3::Second(version) => (seen, is_due) = (version, true),
            Select3::Third(()) => is_due = true,
        }
    }
}

struct CellLoop<W: World> {
    agent: Agent<W>,
    begun: Arc<Mutex<Begun>>,
    /// When all proposals of reports so far would have been answered with a pause after each.
    even_at: Arc<Mutex<Option<InstantOf<W>>>>,
}

impl<W: World> Clone for CellLoop<W> {
    fn clone(&self) -> Self {
        let (begun, even_at) = (Arc::clone(&self.begun), Arc::clone(&self.even_at));
        Self { agent: self.agent.clone(), begun, even_at }
    }
}

/// What has been begun and is not over.
#[derive(Debug, Default)]
struct Begun {
    making: BTreeSet<Handle>,
    ending: BTreeSet<Handle>,
    /// Those of which something has been said, or is to be, and not been answered.
    reporting: BTreeSet<Handle>,
    /// Of these, what waits for the reports before it to be answered.
    reports: VecDeque<(Handle, Command)>,
    is_reporting: bool,
    registering: bool,
    /// Containers that did not come about, until nobody asks for them any more.
    failed: BTreeMap<Handle, CreateFailure>,
    /// Tasks whose start was agreed at this very process's asking, and whose container has not
    /// been begun: only these may start.
    tasks_started: BTreeSet<TaskGuid>,
}

impl Begun {
    /// The reports that are sent next; none when there are none, and nobody sends any more.
    fn take_reports(&mut self) -> Option<Vec<(Handle, Command)>> {
        let count = self.reports.len().min(REPORTS_MAX);
        self.is_reporting = count > 0;
        self.is_reporting.then(|| self.reports.drain(..count).collect())
    }

    /// What is found here, with what this process is making or ending over it.
    fn over(&self, found: Vec<Found>) -> BTreeMap<Handle, Container> {
        let failed = |CreateFailure { reason, retryable }| Container::Failed { reason, retryable };
        let mut containers = BTreeMap::new();
        for Found { handle, container } in found {
            // Of a former life: nobody makes it ready any more, and nothing has run in it.
            let container = match container {
                Container::Preparing => failed(CreateFailure {
                    reason: "failed to create container: the node ended while making it".to_owned(),
                    retryable: true,
                }),
                there @ (Container::Starting
                | Container::Running { .. }
                | Container::Exited { .. }
                | Container::Failed { .. }
                | Container::Stopping) => there,
            };
            containers.insert(handle, container);
        }
        for (handle, failure) in &self.failed {
            containers.insert(handle.clone(), failed(failure.clone()));
        }
        for handle in &self.making {
            containers.insert(handle.clone(), Container::Preparing);
        }
        for handle in &self.ending {
            containers.insert(handle.clone(), Container::Stopping);
        }
        containers
    }
}

impl<W: World> CellLoop<W> {
    /// Offers this cell to the cluster when the record of it is missing or out of date.
    fn register(&self) {
        let state = self.agent.read_stale().state;
        let offered = self.agent.cell();
        let on_record = state.cell(&offered.cell_id);
        let is_current = on_record.is_some_and(|known| {
            // Whether it takes work is others' to say.
            let known = Cell::clone(known);
            Cell { health: CellHealth::Present, intake: offered.intake, ..known } == *offered
        });
        if is_current || std::mem::replace(&mut self.begun().registering, true) {
            return;
        }
        let this = self.clone();
        drop(W::Runtime::spawn(async move {
            let cell = Box::new(this.agent.cell().clone());
            if let Err(error) = this.agent.propose(Command::RegisterCell { cell }).await {
                tracing::warn!(%error, "the cell is not registered yet");
                W::Runtime::sleep(REPORT_RETRY).await;
            }
            this.begun().registering = false;
        }));
    }

    fn reconcile(&self) {
        let state = self.agent.read_stale().state;
        let observed = self.observe(&state);
        for action in reconcile(&state, &self.agent.cell().cell_id, &observed) {
            match action {
                CellAction::Create { handle, work } => self.create(handle, work),
                CellAction::Report(command) => self.report(command),
                CellAction::Stop { handle, is_routed } => {
                    self.end(handle, if is_routed { End::DrainAndStop } else { End::Stop });
                }
                CellAction::Destroy { handle } => self.end(handle, End::Destroy),
            }
        }
    }

    fn observe(&self, state: &model::State) -> Observed {
        let mut begun = self.begun();
        let me = &self.agent.cell().cell_id;
        begun
            .tasks_started
            .retain(|guid| state.task(guid).is_some_and(|task| task.cell() == Some(me)));
        let containers = begun.over(self.agent.world().containers().list());
        let asked = |handle: &Handle| match handle {
            Handle::Task(guid) => Some(guid.clone()),
            Handle::Lrp(_) => None,
        };
        Observed {
            containers,
            tasks_asked: begun.reporting.iter().filter_map(asked).collect(),
            tasks_started: begun.tasks_started.clone(),
        }
    }

    fn create(&self, handle: Handle, work: Work) {
        {
            let mut begun = self.begun();
            if begun.making.len() >= CREATES_MAX || !begun.making.insert(handle.clone()) {
                return;
            }
            if let Handle::Task(guid) = &handle {
                begun.tasks_started.remove(guid);
            }
        }
        tracing::info!(container = %handle, trace_id = work.trace_id(), "making");
        let this = self.clone();
        drop(W::Runtime::spawn(async move {
            let result = this.agent.world().containers().create(&handle, &work).await;
            {
                let mut begun = this.begun();
                begun.making.remove(&handle);
                if let Err(failure) = &result {
                    begun.failed.insert(handle.clone(), failure.clone());
                }
            }
            if let Err(failure) = result {
                let (reason, trace_id) = (failure.reason, work.trace_id());
                tracing::warn!(container = %handle, reason, trace_id, "not made");
            }
            this.reconcile();
        }));
    }

    /// Has a report agreed, with all others that come up while one is on its way.
    fn report(&self, command: Command) {
        let Some(handle) = subject(&command) else { return };
        {
            let mut begun = self.begun();
            if !begun.reporting.insert(handle.clone()) {
                return;
            }
            begun.reports.push_back((handle, command));
            if std::mem::replace(&mut begun.is_reporting, true) {
                return;
            }
        }
        let this = self.clone();
        drop(W::Runtime::spawn(async move {
            while let Some(reports) = this.next_reports() {
                this.send(reports).await;
                this.reconcile();
                let rest = this.rest();
                if !rest.is_zero() {
                    W::Runtime::sleep(rest).await;
                }
            }
        }));
    }

    /// What the records put on this cell.
    fn load(&self) -> Option<CellLoad> {
        self.agent.read_stale().state.load(&self.agent.cell().cell_id).cloned()
    }

    /// How long the next proposal is to wait, now that one has been answered.
    fn rest(&self) -> Duration {
        let now = InstantOf::<W>::now();
        let mut even_at = self.even_at.lock().expect("no holder of the lock panics");
        let even = even_at.map_or(now, |at| at.max(now)) + REPORT_PAUSE;
        *even_at = Some(even);
        (even - now).saturating_sub(REPORT_PAUSE * (REPORTS_UNPAUSED_MAX - 1))
    }

    fn next_reports(&self) -> Option<Vec<(Handle, Command)>> {
        self.begun().take_reports()
    }

    async fn send(&self, reports: Vec<(Handle, Command)>) {
        let commands = reports.iter().map(|(_, command)| command.clone()).collect();
        let results = match self.agent.propose_all(commands).await {
            Ok(results) => results,
            Err(error) => {
                tracing::warn!(reports = reports.len(), %error, "reports were not agreed");
                return self.report_later(reports.into_iter().map(|(handle, _)| handle).collect());
            }
        };
        let (mut heard, mut late) = (Vec::new(), Vec::new());
        for ((handle, command), result) in reports.into_iter().zip(results) {
            match result {
                Ok(changed) => {
                    if let (Command::StartTask { task_guid, .. }, true) = (command, changed) {
                        self.begun().tasks_started.insert(task_guid);
                    }
                    heard.push(handle);
                }
                Err(refusal) => {
                    tracing::info!(container = %handle, %refusal, "a report came too late");
                    late.push(handle);
                }
            }
        }
        // The next look must see what was agreed, or it would report it again.
        if !heard.is_empty()
            && let Err(error) = self.agent.read().await
        {
            tracing::debug!(%error, "acting on a state that may be old");
        }
        self.begun().reporting.retain(|handle| !heard.contains(handle));
        self.report_later(late);
    }

    /// What could not be said now may be said again after a while, if it is still so.
    fn report_later(&self, handles: Vec<Handle>) {
        if handles.is_empty() {
            return;
        }
        let this = self.clone();
        drop(W::Runtime::spawn(async move {
            W::Runtime::sleep(REPORT_RETRY).await;
            this.begun().reporting.retain(|handle| !handles.contains(handle));
            this.reconcile();
        }));
    }

    fn end(&self, handle: Handle, how: End) {
        {
            let mut begun = self.begun();
            // What is being made is ended once it is made.
            if begun.failed.remove(&handle).is_some()
                || begun.making.contains(&handle)
                || !begun.ending.insert(handle.clone())
            {
                return;
            }
        }
        tracing::info!(container = %handle, ?how, "ending");
        let this = self.clone();
        drop(W::Runtime::spawn(async move {
            let containers = this.agent.world().containers();
            if how == End::DrainAndStop && !mutant!("drain-skipped") {
                W::Runtime::sleep(ROUTE_DRAIN).await;
            }
            if how != End::Destroy {
                containers.stop(&handle).await;
            }
            if let Err(reason) = containers.destroy(&handle).await {
                tracing::error!(container = %handle, reason, "not destroyed; trying again");
                W::Runtime::sleep(REPORT_RETRY).await;
            }
            this.begun().ending.remove(&handle);
            this.reconcile();
        }));
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().expect("no holder of the lock panics")
    }
}

/// The container that a report speaks of.
#[expect(clippy::wildcard_enum_match_arm, reason = "of all commands only a cell's reports do")]
fn subject(report: &Command) -> Option<Handle> {
    match report {
        Command::StartLrp { instance, .. }
        | Command::CrashLrp { instance, .. }
        | Command::RemoveLrp { instance, .. } => Some(Handle::Lrp(instance.instance_guid.clone())),
        Command::StartTask { task_guid, .. }
        | Command::CompleteTask { task_guid, .. }
        | Command::RejectTaskOnCell { task_guid, .. } => Some(Handle::Task(task_guid.clone())),
        _ => {
            debug_assert!(false, "a cell reports on containers only: {report:?}");
            None
        }
    }
}

/// How a container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As [`End::Stop`], once routers have heard of it.
    DrainAndStop,
    /// With grace, then all of it is removed.
    Stop,
    Destroy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_former_life_left_half_made_has_failed() {
        let handle = Handle::Task("t".into());
        let found = || vec![Found { handle: handle.clone(), container: Container::Preparing }];
        let mut begun = Begun::default();
        let left = begun.over(found()).remove(&handle);
        assert!(matches!(left, Some(Container::Failed { retryable: true, .. })), "{left:?}");
        begun.making.insert(handle.clone());
        assert_eq!(begun.over(found()).remove(&handle), Some(Container::Preparing));
    }
}
