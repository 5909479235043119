//! The whole agreed state: tables of rows, and what is derived from them.
//!
//! The tables are persistent ordered maps, so a clone is cheap: the planner clones the state to
//! look ahead, and a snapshot is a clone. Only `apply` and `codec` write, through the methods
//! here, which keep the derived tables and the journal of touched rows in step.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::actual_lrp::{ActualLrp, Presence};
use crate::cell::Cell;
use crate::desired_lrp::DesiredLrp;
use crate::domain::Domain;
use crate::due::{self, Due};
use crate::feature_flag::FeatureFlag;
use crate::id::{ActualLrpId, CellId, DomainName, LockKey, ProcessGuid, TaskGuid};
use crate::lock::Lock;
use crate::mutant;
use crate::task::{Task, TaskState};
use crate::time::Millis;

/// A value; clones share structure. Two states are equal when their rows are.
#[derive(Clone, Debug, Default)]
pub struct State {
    cluster: Cluster,
    desired_lrps: OrdMap<ProcessGuid, Arc<DesiredLrp>>,
    actual_lrps: OrdMap<ActualLrpId, Arc<ActualLrp>>,
    tasks: OrdMap<TaskGuid, Arc<Task>>,
    cells: OrdMap<CellId, Arc<Cell>>,
    domains: OrdMap<DomainName, Arc<Domain>>,
    feature_flags: OrdMap<FeatureFlag, bool>,
    locks: OrdMap<LockKey, Arc<Lock>>,

    // Derived from the rows; never stored.
    loads: OrdMap<CellId, CellLoad>,
    unclaimed: OrdSet<(u32, Reverse<u32>, ProcessGuid)>,
    unplaced_tasks: OrdSet<TaskGuid>,
    callbacks: OrdSet<(Millis, TaskGuid)>,
    /// Desired indices without an ordinary row.
    gaps: OrdSet<(ProcessGuid, u32)>,
    due: OrdSet<(Millis, Due)>,

    journal: Vec<RowKey>,
}

/// The one row that is not in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// Zero until the cluster is initialised.
    pub(crate) salt: u32,
    /// The latest time that any command was applied at.
    pub(crate) now: Millis,
}

/// What a cell's records take of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CellLoad {
    pub memory_mb: u64,
    pub disk_mb: u64,
    pub containers: u32,
    /// Of the containers, those that are not yet known to run: claimed instances and tasks that
    /// have been placed and not started.
    pub starting: u32,
    /// Rows, of any presence, whose instance is on the cell.
    pub lrps: OrdSet<ActualLrpId>,
    /// Tasks placed on the cell or running there.
    pub tasks: OrdSet<TaskGuid>,
}

/// Names one row of one table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RowKey {
    Cluster,
    DesiredLrp(ProcessGuid),
    ActualLrp(ActualLrpId),
    Task(TaskGuid),
    Cell(CellId),
    Domain(DomainName),
    FeatureFlag(FeatureFlag),
    Lock(LockKey),
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.cluster == other.cluster
            && self.desired_lrps == other.desired_lrps
            && self.actual_lrps == other.actual_lrps
            && self.tasks == other.tasks
            && self.cells == other.cells
            && self.domains == other.domains
            && self.feature_flags == other.feature_flags
            && self.locks == other.locks
    }
}

impl Eq for State {}

/// The keys under which two tables differ.
fn differing<'a, K: Ord, V: PartialEq>(
    one: &'a OrdMap<K, V>,
    other: &'a OrdMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    one.diff(other).map(|item| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { old: (key, _), .. } => key,
    })
}

impl State {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether two states are one value: the same tables in memory, and so the same rows. States
    /// that are equal need not be.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.cluster == other.cluster
            && self.desired_lrps.ptr_eq(&other.desired_lrps)
            && self.actual_lrps.ptr_eq(&other.actual_lrps)
            && self.tasks.ptr_eq(&other.tasks)
            && self.cells.ptr_eq(&other.cells)
            && self.domains.ptr_eq(&other.domains)
            && self.feature_flags.ptr_eq(&other.feature_flags)
            && self.locks.ptr_eq(&other.locks)
    }

    /// The rows in which two states differ, in no order that means anything.
    ///
    /// Cheap for a state and what has become of it: what both share is not looked at.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = RowKey> + 'a {
        let cluster = (self.cluster != other.cluster).then_some(RowKey::Cluster);
        let desired = differing(&self.desired_lrps, &other.desired_lrps);
        let actual = differing(&self.actual_lrps, &other.actual_lrps);
        let flags = differing(&self.feature_flags, &other.feature_flags);
        let tables = desired.cloned().map(RowKey::DesiredLrp);
        let tables = tables.chain(actual.cloned().map(RowKey::ActualLrp));
        let tables = tables.chain(differing(&self.tasks, &other.tasks).cloned().map(RowKey::Task));
        let tables = tables.chain(differing(&self.cells, &other.cells).cloned().map(RowKey::Cell));
        let domains = differing(&self.domains, &other.domains).cloned().map(RowKey::Domain);
        cluster
            .into_iter()
            .chain(tables)
            .chain(domains)
            .chain(flags.copied().map(RowKey::FeatureFlag))
            .chain(differing(&self.locks, &other.locks).cloned().map(RowKey::Lock))
    }

    /// The latest time that any command was applied at.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.cluster.now
    }

    #[must_use]
    pub fn is_initialised(&self) -> bool {
        self.cluster.salt != 0
    }

    #[must_use]
    pub fn desired_lrp(&self, guid: &ProcessGuid) -> Option<&Arc<DesiredLrp>> {
        self.desired_lrps.get(guid)
    }

    pub fn desired_lrps(&self) -> impl Iterator<Item = &Arc<DesiredLrp>> {
        self.desired_lrps.values()
    }

    #[must_use]
    pub fn actual_lrp(&self, id: &ActualLrpId) -> Option<&Arc<ActualLrp>> {
        self.actual_lrps.get(id)
    }

    pub fn actual_lrps(&self) -> impl Iterator<Item = &Arc<ActualLrp>> {
        self.actual_lrps.values()
    }

    /// All rows of a process, by index, then presence.
    pub fn actual_lrps_of(&self, guid: &ProcessGuid) -> impl Iterator<Item = &Arc<ActualLrp>> {
        let first = ActualLrpId::ordinary(guid.clone(), 0);
        let guid = guid.clone();
        self.actual_lrps
            .range(first..)
            .take_while(move |(id, _)| id.process_guid == guid)
            .map(|(_, lrp)| lrp)
    }

    #[must_use]
    pub fn task(&self, guid: &TaskGuid) -> Option<&Arc<Task>> {
        self.tasks.get(guid)
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    #[must_use]
    pub fn cell(&self, id: &CellId) -> Option<&Arc<Cell>> {
        self.cells.get(id)
    }

    pub fn cells(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.cells.values()
    }

    #[must_use]
    pub fn domain(&self, name: &DomainName) -> Option<&Arc<Domain>> {
        self.domains.get(name)
    }

    pub fn domains(&self) -> impl Iterator<Item = &Arc<Domain>> {
        self.domains.values()
    }

    #[must_use]
    pub fn lock(&self, key: &LockKey) -> Option<&Arc<Lock>> {
        self.locks.get(key)
    }

    pub fn locks(&self) -> impl Iterator<Item = &Arc<Lock>> {
        self.locks.values()
    }

    #[must_use]
    pub fn is_enabled(&self, flag: FeatureFlag) -> bool {
        self.feature_flags.get(&flag).copied().unwrap_or(false)
    }

    /// Whether what has this root file system may run: Docker's images only where an operator has
    /// allowed them (docker.md section 10).
    #[must_use]
    pub fn allows(&self, rootfs: &str) -> bool {
        // What stages an image asks a registry about it, and is no more allowed.
        let is_docker = rootfs.starts_with("docker:") || rootfs.starts_with("staging:");
        !is_docker || self.is_enabled(FeatureFlag::DiegoDocker) || mutant!("flag-ignored")
    }

    /// The indices of a desired LRP that are to have a row: those desired, or none while it is not
    /// allowed to run.
    #[must_use]
    pub fn wanted(&self, lrp: &DesiredLrp) -> Range<u32> {
        if self.allows(&lrp.rootfs) { lrp.indices() } else { 0..0 }
    }

    /// What the records on a cell take of it.
    #[must_use]
    pub fn load(&self, cell: &CellId) -> Option<&CellLoad> {
        self.loads.get(cell)
    }

    /// Every cell that some record names, with what the records take of it.
    pub fn loads(&self) -> impl Iterator<Item = (&CellId, &CellLoad)> {
        self.loads.iter()
    }

    /// Instances that wait for a cell, in the auction's order: by index, then the largest
    /// memory, then the process.
    pub fn unclaimed(&self) -> impl DoubleEndedIterator<Item = (&ProcessGuid, u32)> {
        self.unclaimed.iter().map(|(index, _, guid)| (guid, *index))
    }

    /// Wanted indices that have no ordinary row, in order: instances that were retired, or whose
    /// cell said that they are gone.
    pub fn gaps(&self) -> impl Iterator<Item = &(ProcessGuid, u32)> {
        self.gaps.iter()
    }

    /// What becomes due first by time alone, and when.
    #[must_use]
    pub fn first_due(&self) -> Option<&(Millis, Due)> {
        self.due.get_min()
    }

    /// All that becomes due by time alone, the earliest first.
    pub fn all_due(&self) -> impl Iterator<Item = &(Millis, Due)> {
        self.due.iter()
    }

    /// Tasks that wait for a cell.
    pub fn unplaced_tasks(&self) -> impl Iterator<Item = &TaskGuid> {
        self.unplaced_tasks.iter()
    }

    /// Tasks that have ended and whose clients are to be told, those first that wait longest.
    pub fn callbacks(&self) -> impl Iterator<Item = &TaskGuid> {
        self.callbacks.iter().map(|(_, guid)| guid)
    }

    pub(crate) fn feature_flags(&self) -> impl Iterator<Item = (&FeatureFlag, &bool)> {
        self.feature_flags.iter()
    }

    pub(crate) fn cluster(&self) -> Cluster {
        self.cluster
    }

    /// The rows touched since this was last asked, each once, in key order.
    pub fn take_journal(&mut self) -> Vec<RowKey> {
        let mut touched = std::mem::take(&mut self.journal);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    pub(crate) fn set_cluster(&mut self, cluster: Cluster) {
        self.cluster = cluster;
        self.journal.push(RowKey::Cluster);
    }

    pub(crate) fn put_desired_lrp(&mut self, lrp: Arc<DesiredLrp>) {
        let guid = lrp.process_guid.clone();
        let end = self.wanted(&lrp).end;
        self.journal.push(RowKey::DesiredLrp(guid.clone()));
        let before = self.desired_lrps.insert(guid.clone(), lrp);
        let end_before = before.map_or(0, |lrp| self.wanted(&lrp).end);
        self.find_gaps(&guid, end_before..end);
        for index in end..end_before {
            self.gaps.remove(&(guid.clone(), index));
        }
    }

    fn find_gaps(&mut self, guid: &ProcessGuid, indices: Range<u32>) {
        for index in indices {
            let id = ActualLrpId::ordinary(guid.clone(), index);
            if !self.actual_lrps.contains_key(&id) {
                self.gaps.insert((guid.clone(), index));
            }
        }
    }

    pub(crate) fn remove_desired_lrp(&mut self, guid: &ProcessGuid) {
        self.journal.push(RowKey::DesiredLrp(guid.clone()));
        let before = self.desired_lrps.remove(guid);
        for index in before.map_or(0..0, |lrp| lrp.indices()) {
            self.gaps.remove(&(guid.clone(), index));
        }
    }

    pub(crate) fn put_actual_lrp(&mut self, lrp: Arc<ActualLrp>) {
        let id = lrp.id();
        self.journal.push(RowKey::ActualLrp(id.clone()));
        let before = self.actual_lrps.insert(id.clone(), Arc::clone(&lrp));
        if let Some(before) = before {
            if let (Some(was), Some(is)) = (before.instance(), lrp.instance())
                && was == is
                && (before.memory_mb, before.disk_mb) == (lrp.memory_mb, lrp.disk_mb)
            {
                return self.count_starting(&is.cell_id, before.is_running(), lrp.is_running());
            }
            self.forget_derived_of_lrp(&id, &before);
        } else if id.presence == Presence::Ordinary && !self.gaps.is_empty() {
            self.gaps.remove(&(id.process_guid.clone(), id.index));
        }
        if let Some(instance) = lrp.instance() {
            let load = self.loads.entry(instance.cell_id.clone()).or_default();
            load.memory_mb += u64::from(lrp.memory_mb);
            load.disk_mb += u64::from(lrp.disk_mb);
            load.containers += 1;
            load.starting += u32::from(!lrp.is_running());
            load.lrps.insert(id);
        } else if lrp.is_unclaimed() {
            self.unclaimed.insert(waiting(&lrp));
        } else if let Some(due) = due::of_actual_lrp(&lrp)
            && !mutant!("crashes-not-due")
        {
            self.due.insert(due);
        }
    }

    /// A placed row stays where it is, and at most begins or ceases to run.
    fn count_starting(&mut self, cell_id: &CellId, was_running: bool, is_running: bool) {
        if was_running != is_running {
            let load = self.loads.get_mut(cell_id).expect("a placed row has a load");
            load.starting = load.starting + u32::from(was_running) - u32::from(is_running);
        }
    }

    pub(crate) fn remove_actual_lrp(&mut self, id: &ActualLrpId) {
        self.journal.push(RowKey::ActualLrp(id.clone()));
        let Some(before) = self.actual_lrps.remove(id) else { return };
        self.forget_derived_of_lrp(id, &before);
        let desired = self.desired_lrps.get(&id.process_guid);
        let is_wanted = desired.is_some_and(|lrp| self.wanted(lrp).contains(&id.index));
        if id.presence == Presence::Ordinary && is_wanted {
            self.gaps.insert((id.process_guid.clone(), id.index));
        }
    }

    fn forget_derived_of_lrp(&mut self, id: &ActualLrpId, lrp: &ActualLrp) {
        if let Some(instance) = lrp.instance() {
            let load = self.loads.get_mut(&instance.cell_id).expect("a placed row has a load");
            load.memory_mb -= u64::from(lrp.memory_mb);
            load.disk_mb -= u64::from(lrp.disk_mb);
            load.containers -= 1;
            load.starting -= u32::from(!lrp.is_running());
            load.lrps.remove(id);
            self.drop_empty_load(&instance.cell_id);
        } else if lrp.is_unclaimed() {
            self.unclaimed.remove(&waiting(lrp));
        } else if let Some(due) = due::of_actual_lrp(lrp) {
            self.due.remove(&due);
        }
    }

    pub(crate) fn put_task(&mut self, task: Arc<Task>) {
        let guid = task.task_guid.clone();
        if !mutant!("journal-forgets-tasks") {
            self.journal.push(RowKey::Task(guid.clone()));
        }
        let before = self.tasks.insert(guid.clone(), Arc::clone(&task));
        if let Some(before) = before {
            self.forget_derived_of_task(&before);
        }
        if let Some(due) = due::of_task(&task) {
            self.due.insert(due);
        }
        if task.awaits_callback() {
            self.callbacks.insert((task.updated_at, guid.clone()));
        }
        let is_pending = matches!(task.state, TaskState::Pending { .. });
        if let Some(cell) = task.cell() {
            let load = self.loads.entry(cell.clone()).or_default();
            load.memory_mb += mebibytes(task.definition.memory_mb);
            load.disk_mb += mebibytes(task.definition.disk_mb);
            load.containers += 1;
            load.starting += u32::from(is_pending);
            load.tasks.insert(guid);
        } else if is_pending {
            self.unplaced_tasks.insert(guid);
        }
    }

    pub(crate) fn remove_task(&mut self, guid: &TaskGuid) {
        self.journal.push(RowKey::Task(guid.clone()));
        if let Some(before) = self.tasks.remove(guid) {
            self.forget_derived_of_task(&before);
        }
    }

    fn forget_derived_of_task(&mut self, task: &Task) {
        self.unplaced_tasks.remove(&task.task_guid);
        if task.awaits_callback() {
            self.callbacks.remove(&(task.updated_at, task.task_guid.clone()));
        }
        if let Some(due) = due::of_task(task) {
            self.due.remove(&due);
        }
        if let Some(cell) = task.cell() {
            let load = self.loads.get_mut(cell).expect("a placed task has a load");
            load.memory_mb -= mebibytes(task.definition.memory_mb);
            load.disk_mb -= mebibytes(task.definition.disk_mb);
            load.containers -= 1;
            load.starting -= u32::from(matches!(task.state, TaskState::Pending { .. }));
            load.tasks.remove(&task.task_guid);
            self.drop_empty_load(cell);
        }
    }

    fn drop_empty_load(&mut self, cell: &CellId) {
        if self.loads.get(cell).is_some_and(|load| load.containers == 0) {
            self.loads.remove(cell);
        }
    }

    pub(crate) fn put_cell(&mut self, cell: Arc<Cell>) {
        self.journal.push(RowKey::Cell(cell.cell_id.clone()));
        let before = self.cells.insert(cell.cell_id.clone(), Arc::clone(&cell));
        if let Some(due) = before.as_deref().and_then(due::of_cell) {
            self.due.remove(&due);
        }
        if let Some(due) = due::of_cell(&cell) {
            self.due.insert(due);
        }
    }

    pub(crate) fn put_domain(&mut self, domain: Arc<Domain>) {
        self.journal.push(RowKey::Domain(domain.name.clone()));
        let before = self.domains.insert(domain.name.clone(), Arc::clone(&domain));
        self.forget_derived_of_domain(before.as_deref());
        if let Some(due) = due::of_domain(&domain) {
            self.due.insert(due);
        }
    }

    pub(crate) fn remove_domain(&mut self, name: &DomainName) {
        self.journal.push(RowKey::Domain(name.clone()));
        let before = self.domains.remove(name);
        self.forget_derived_of_domain(before.as_deref());
    }

    fn forget_derived_of_domain(&mut self, domain: Option<&Domain>) {
        if let Some(due) = domain.and_then(due::of_domain) {
            self.due.remove(&due);
        }
    }

    pub(crate) fn put_lock(&mut self, lock: Arc<Lock>) {
        self.journal.push(RowKey::Lock(lock.key.clone()));
        self.due.insert(due::of_lock(&lock));
        if let Some(before) = self.locks.insert(lock.key.clone(), Arc::clone(&lock))
            && before.expires_at != lock.expires_at
        {
            self.due.remove(&due::of_lock(&before));
        }
    }

    pub(crate) fn remove_lock(&mut self, key: &LockKey) {
        self.journal.push(RowKey::Lock(key.clone()));
        if let Some(before) = self.locks.remove(key) {
            self.due.remove(&due::of_lock(&before));
        }
    }

    pub(crate) fn put_feature_flag(&mut self, flag: FeatureFlag, enabled: bool) {
        self.journal.push(RowKey::FeatureFlag(flag));
        let parked: Vec<_> = self.not_allowed().collect();
        self.feature_flags.insert(flag, enabled);
        for lrp in parked {
            self.find_gaps(&lrp.process_guid, self.wanted(&lrp));
        }
        let unwanted: Vec<_> = self.not_allowed().collect();
        for lrp in unwanted {
            for index in lrp.indices() {
                self.gaps.remove(&(lrp.process_guid.clone(), index));
            }
        }
    }

    /// Desired LRPs that may not run as things are.
    pub(crate) fn not_allowed(&self) -> impl Iterator<Item = Arc<DesiredLrp>> {
        self.desired_lrps.values().filter(|lrp| !self.allows(&lrp.rootfs)).cloned()
    }
}

/// An unclaimed row's place in the order of [`State::unclaimed`].
fn waiting(lrp: &ActualLrp) -> (u32, Reverse<u32>, ProcessGuid) {
    (lrp.key.index, Reverse(lrp.memory_mb), lrp.key.process_guid.clone())
}

/// What a definition's signed mebibytes take of a cell; validation refuses negative ones.
#[must_use]
pub(crate) fn mebibytes(signed: i32) -> u64 {
    u64::from(u32::try_from(signed).unwrap_or(0))
}
