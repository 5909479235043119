//! The auction: a cell for each instance and task that waits, or the reason why there is none.
//!
//! Placing is claiming: who wins is written at once, and the cell sees its work in its own
//! replicated state. Nothing is remembered between auctions. Rules and order are Diego's
//! (auction.md); what differs is that ties go to the lower cell id instead of to chance, and that
//! losers are told what was short when all winners had been placed.

mod crowd;
mod fit;
mod score;
mod table;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::limits::TASK_REJECTIONS_MAX;
use model::{ActualLrp, ActualLrpId, ActualState, Command, Millis, ProcessGuid, State, Task};

use crowd::{Bid, Crowd};
use fit::Terms;
use score::Need;
use table::{ShelfIndex, Slot, Table, Zone};

use crate::limits::{TASK_REJECTED_REST, TURN_REASON_BYTES_MAX};
use crate::report::{Report, Wait};
use crate::settings::Settings;
use crate::turn::Due;

/// What an auction has decided.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) commands: Vec<Command>,
    /// There was more to decide than commands allowed.
    pub(crate) is_cut: bool,
}

/// Places what waits, with at most `commands_max` commands.
pub(crate) fn run(
    state: &State,
    at: Millis,
    settings: &Settings,
    commands_max: usize,
    report: &mut Report,
    due: &mut Due,
) -> Placed {
    let tasks = waiting_tasks(state, at, report, due);
    let Some((_, last_index)) = state.unclaimed().next_back() else {
        if tasks.is_empty() {
            return Placed::default();
        }
        let mut auction = Auction::new(state, at, settings, commands_max, true);
        auction.place_tasks(tasks);
        auction.explain(report, due);
        return auction.placed;
    };
    let mut auction = Auction::new(state, at, settings, commands_max, !tasks.is_empty());
    // The first instance of everything goes before the tasks, and they before the rest. Diego
    // finds the place by the first index above 0: where there is none, the tasks go first.
    let is_first = |(_, index): &(&ProcessGuid, u32)| last_index > 0 && *index == 0;
    auction.place_lrps(state.unclaimed().take_while(is_first));
    auction.place_tasks(tasks);
    auction.place_lrps(state.unclaimed().skip_while(is_first));
    auction.explain(report, due);
    auction.placed
}

/// Tasks that wait for a cell, the largest first, then the oldest. One that has been rejected
/// rests before it is tried again, so that its few rejections are not used up in one second.
fn waiting_tasks<'a>(
    state: &'a State,
    at: Millis,
    report: &mut Report,
    due: &mut Due,
) -> Vec<&'a Task> {
    let mut tasks = Vec::new();
    for task in state.unplaced_tasks().filter_map(|guid| state.task(guid)) {
        let rested = task.updated_at + TASK_REJECTED_REST;
        if task.rejection_count > 0 && at < rested {
            due.at(rested);
            let wait = resting(task.rejection_reason.clone(), task.rejection_count, rested);
            report.task_waits(&task.task_guid, Arc::new(wait));
        } else {
            tasks.push(task.as_ref());
        }
    }
    tasks.sort_by_key(|task| (Reverse(task.definition.memory_mb), task.created_at));
    tasks
}

fn resting(why: String, rejections: u32, until: Millis) -> Wait {
    let times = if rejections == 1 { "once".to_owned() } else { format!("{rejections} times") };
    let help = format!(
        "rejected {times}; it is tried again by itself, and fails when rejected {} times",
        TASK_REJECTIONS_MAX + 1
    );
    Wait { why, help, until: Some(until) }
}

struct Auction<'a> {
    state: &'a State,
    at: Millis,
    commands_max: usize,
    /// Most containers that may be starting; `None` is unlimited.
    starting_max: Option<u64>,
    table: Table<'a>,
    classes: Vec<Class<'a>>,
    class_of: BTreeMap<Terms<'a>, usize>,
    processes: Vec<Process>,
    process_of: BTreeMap<&'a ProcessGuid, usize>,
    lost_lrps: Vec<Item<'a>>,
    lost_tasks: Vec<&'a Task>,
    /// What may not start yet because too much is starting.
    held_back_lrps: Vec<&'a ActualLrp>,
    held_back_tasks: Vec<&'a Task>,
    placed: Placed,
    /// Bytes of the reasons in the commands so far.
    reason_bytes: usize,
}

/// Everything that asks for the same kind of cell.
struct Class<'a> {
    terms: Terms<'a>,
    eligible: Vec<(Zone, Vec<ShelfIndex>)>,
    /// Sizes that fit no eligible cell any more.
    hopeless: BTreeSet<Need>,
    /// What losers are told, by size.
    waits: BTreeMap<Need, Arc<Wait>>,
}

/// A process that has instances waiting.
struct Process {
    class: usize,
    /// Where its other instances are; counted once one of those that wait has a chance.
    crowd: Option<Crowd>,
}

/// An instance that waits.
struct Item<'a> {
    row: &'a ActualLrp,
    process: usize,
    class: usize,
}

impl<'a> Auction<'a> {
    fn new(
        state: &'a State,
        at: Millis,
        settings: &Settings,
        commands_max: usize,
        has_tasks: bool,
    ) -> Self {
        let starting_max = u64::from(settings.starting_container_count_maximum);
        Self {
            state,
            at,
            commands_max,
            starting_max: (starting_max > 0).then_some(starting_max),
            table: Table::new(state, settings, has_tasks),
            classes: Vec::new(),
            class_of: BTreeMap::new(),
            processes: Vec::new(),
            process_of: BTreeMap::new(),
            lost_lrps: Vec::new(),
            lost_tasks: Vec::new(),
            held_back_lrps: Vec::new(),
            held_back_tasks: Vec::new(),
            placed: Placed::default(),
            reason_bytes: 0,
        }
    }

    /// An unclaimed instance, with its class.
    fn item(&mut self, process_guid: &'a ProcessGuid, index: u32) -> Option<Item<'a>> {
        let state = self.state;
        let id = ActualLrpId::ordinary(process_guid.clone(), index);
        let row = state.actual_lrp(&id)?;
        let process = match self.process_of.get(process_guid) {
            Some(process) => *process,
            None => {
                let class = self.class(Terms::of_lrp(state.desired_lrp(process_guid)?));
                self.processes.push(Process { class, crowd: None });
                self.process_of.insert(process_guid, self.processes.len() - 1);
                self.processes.len() - 1
            }
        };
        Some(Item { row, process, class: self.processes[process].class })
    }

    fn class(&mut self, terms: Terms<'a>) -> usize {
        if let Some(class) = self.class_of.get(&terms) {
            return *class;
        }
        let eligible = terms.eligible(&self.table);
        let (hopeless, waits) = (BTreeSet::new(), BTreeMap::new());
        self.classes.push(Class { terms: terms.clone(), eligible, hopeless, waits });
        self.class_of.insert(terms, self.classes.len() - 1);
        self.classes.len() - 1
    }

    fn has_room(&self) -> bool {
        self.placed.commands.len() < self.commands_max
    }

    fn may_start(&self) -> bool {
        self.starting_max.is_none_or(|max| self.table.starting() < max)
    }

    fn place_lrps(&mut self, waiting: impl Iterator<Item = (&'a ProcessGuid, u32)>) {
        for (process_guid, index) in waiting {
            if !self.has_room() {
                self.placed.is_cut = true;
                return;
            }
            let Some(item) = self.item(process_guid, index) else { continue };
            let need = need_of_lrp(item.row);
            if !self.may_start() {
                self.held_back_lrps.push(item.row);
                continue;
            }
            if self.classes[item.class].hopeless.contains(&need) {
                self.lost_lrps.push(item);
                continue;
            }
            let crowd = self.processes[item.process]
                .crowd
                .get_or_insert_with(|| Crowd::of(&self.table, self.state, process_guid));
            let class = &mut self.classes[item.class];
            let Some(Bid { slot, .. }) = crowd.best(&self.table, &class.eligible, need) else {
                class.hopeless.insert(need);
                self.lost_lrps.push(item);
                continue;
            };
            crowd.join(&self.table, slot);
            self.table.take(slot, need, false);
            self.placed.commands.push(Command::PlaceLrp {
                process_guid: process_guid.clone(),
                index,
                cell_id: self.table.row(slot).cell.cell_id.clone(),
            });
        }
    }

    fn place_tasks(&mut self, tasks: Vec<&'a Task>) {
        for task in tasks {
            if !self.has_room() {
                self.placed.is_cut = true;
                return;
            }
            if !self.may_start() {
                self.held_back_tasks.push(task);
                continue;
            }
            let need = need_of_task(task);
            let class = self.class(Terms::of_task(task));
            let class = &mut self.classes[class];
            if class.hopeless.contains(&need) {
                self.lost_tasks.push(task);
                continue;
            }
            let Some(Bid { slot, .. }) = best_for_task(&self.table, &class.eligible, need) else {
                class.hopeless.insert(need);
                self.lost_tasks.push(task);
                continue;
            };
            self.table.take(slot, need, true);
            self.placed.commands.push(Command::PlaceTask {
                task_guid: task.task_guid.clone(),
                cell_id: self.table.row(slot).cell.cell_id.clone(),
            });
        }
    }

    /// Tells the losers why. The room only shrinks during an auction, so who lost has lost for
    /// good, and the account at its end is what the next auction would find again.
    fn explain(&mut self, report: &mut Report, due: &mut Due) {
        for Item { row, class, .. } in std::mem::take(&mut self.lost_lrps) {
            let wait = self.wait(class, need_of_lrp(row));
            report.lrp_waits(&row.key.process_guid, row.key.index, Arc::clone(&wait));
            self.fail_lrp(row, &wait.why);
        }
        for task in std::mem::take(&mut self.lost_tasks) {
            let class = self.class(Terms::of_task(task));
            let wait = self.wait(class, need_of_task(task));
            report.task_waits(&task.task_guid, Arc::clone(&wait));
            let (task_guid, reason) = (task.task_guid.clone(), wait.why.clone());
            self.decide(&wait.why, Command::RejectTask { task_guid, reason });
            due.at(self.at + TASK_REJECTED_REST);
        }
        self.explain_held_back(report);
    }

    /// Who may not start yet is placed once others run. Diego rejects such tasks, and so fails
    /// them for nothing but being many; here they wait.
    fn explain_held_back(&mut self, report: &mut Report) {
        let Some(max) = self.starting_max else { return };
        let wait = Arc::new(Wait {
            why: "waiting to start instance: reached in-flight start limit".to_owned(),
            help: format!("at most {max} containers start at once; it is placed when others run"),
            until: None,
        });
        for row in std::mem::take(&mut self.held_back_lrps) {
            report.lrp_waits(&row.key.process_guid, row.key.index, Arc::clone(&wait));
            self.fail_lrp(row, &wait.why);
        }
        for task in std::mem::take(&mut self.held_back_tasks) {
            report.task_waits(&task.task_guid, Arc::clone(&wait));
        }
    }

    fn fail_lrp(&mut self, row: &ActualLrp, why: &str) {
        let ActualState::Unclaimed { placement_error } = &row.state else { return };
        if placement_error != why {
            let process_guid = row.key.process_guid.clone();
            let (index, placement_error) = (row.key.index, why.to_owned());
            self.decide(why, Command::FailLrp { process_guid, index, placement_error });
        }
    }

    /// Tells a loser why, if there is room for it.
    fn decide(&mut self, reason: &str, command: Command) {
        self.reason_bytes += reason.len();
        if self.has_room() && self.reason_bytes <= TURN_REASON_BYTES_MAX {
            self.placed.commands.push(command);
        } else {
            self.placed.is_cut = true;
        }
    }

    fn wait(&mut self, class: usize, need: Need) -> Arc<Wait> {
        let class = &mut self.classes[class];
        let wait = class.waits.entry(need).or_insert_with(|| {
            Arc::new(if class.eligible.is_empty() {
                class.terms.mismatch(self.state, &self.table)
            } else {
                fit::shortage(&self.table, &slots(&self.table, &class.eligible), need)
            })
        });
        Arc::clone(wait)
    }
}

/// The best place for a task: by score alone, whatever the zone.
fn best_for_task(
    table: &Table<'_>,
    eligible: &[(Zone, Vec<ShelfIndex>)],
    need: Need,
) -> Option<Bid> {
    let shelves = eligible.iter().flat_map(|(_, shelves)| shelves);
    let best_of_shelf = |shelf: &ShelfIndex| {
        let shelf = &table.shelves()[*shelf];
        let of_need = score::of_need(need, &shelf.cell.capacity);
        shelf
            .by_tasks
            .iter()
            .find(|(_, slot)| table.fits(*slot, need))
            .map(|(score, slot)| Bid { score: score + of_need, slot: *slot })
    };
    shelves.filter_map(best_of_shelf).min()
}

fn slots(table: &Table<'_>, eligible: &[(Zone, Vec<ShelfIndex>)]) -> Vec<Slot> {
    eligible
        .iter()
        .flat_map(|(_, shelves)| shelves)
        .flat_map(|shelf| table.shelves()[*shelf].by_load.iter().map(|(_, slot)| *slot))
        .collect()
}

fn need_of_lrp(row: &ActualLrp) -> Need {
    Need { memory_mb: u64::from(row.memory_mb), disk_mb: u64::from(row.disk_mb) }
}

fn need_of_task(task: &Task) -> Need {
    let mebibytes = |signed: i32| u64::try_from(signed).unwrap_or(0);
    Need {
        memory_mb: mebibytes(task.definition.memory_mb),
        disk_mb: mebibytes(task.definition.disk_mb),
    }
}
