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
use model::{ActualLrp, ActualState, Command, Millis, State, Task};

use crowd::{Bid, Crowd};
use fit::Terms;
use score::Need;
use table::{ShelfIndex, Slot, Table, Zone};

use crate::limits::TASK_REJECTED_REST;
use crate::report::{Report, Wait};
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
    commands_max: usize,
    report: &mut Report,
    due: &mut Due,
) -> Placed {
    let tasks = waiting_tasks(state, at, report, due);
    if tasks.is_empty() && state.unclaimed().next().is_none() {
        return Placed::default();
    }
    let mut auction = Auction::new(state, at, commands_max);
    let mut firsts = auction.waiting_lrps();
    firsts.sort_by_key(|lrp| (lrp.row.key.index, Reverse(lrp.row.memory_mb)));
    // The first instance of everything goes before the tasks, and they before the rest. Diego
    // finds the place by the first index above 0: where there is none, the tasks go first.
    let cut = firsts.iter().position(|lrp| lrp.row.key.index > 0).unwrap_or(0);
    let rest = firsts.split_off(cut);
    auction.place_lrps(firsts);
    auction.place_tasks(tasks);
    auction.place_lrps(rest);
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
    let help = format!(
        "rejected {rejections} times; it is tried again by itself, and fails when rejected {} times",
        TASK_REJECTIONS_MAX + 1
    );
    Wait { why, help, until: Some(until) }
}

struct Auction<'a> {
    state: &'a State,
    at: Millis,
    commands_max: usize,
    table: Table<'a>,
    classes: Vec<Class<'a>>,
    class_of: BTreeMap<Terms<'a>, usize>,
    crowds: Vec<Crowd>,
    lost_lrps: Vec<Item<'a>>,
    lost_tasks: Vec<&'a Task>,
    /// What no command was left for.
    unreached_lrps: Vec<Item<'a>>,
    unreached_tasks: Vec<&'a Task>,
    placed: Placed,
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

/// An instance that waits.
struct Item<'a> {
    row: &'a ActualLrp,
    crowd: usize,
}

impl<'a> Auction<'a> {
    fn new(state: &'a State, at: Millis, commands_max: usize) -> Self {
        Self {
            state,
            at,
            commands_max,
            table: Table::new(state),
            classes: Vec::new(),
            class_of: BTreeMap::new(),
            crowds: Vec::new(),
            lost_lrps: Vec::new(),
            lost_tasks: Vec::new(),
            unreached_lrps: Vec::new(),
            unreached_tasks: Vec::new(),
            placed: Placed::default(),
        }
    }

    /// All unclaimed instances, by process and index. Each process is looked at once, which also
    /// counts where its other instances are.
    fn waiting_lrps(&mut self) -> Vec<Item<'a>> {
        let state = self.state;
        let mut items: Vec<Item<'a>> = Vec::new();
        let mut known = None;
        for id in state.unclaimed() {
            if known == Some(&id.process_guid) {
                continue;
            }
            known = Some(&id.process_guid);
            let Some(desired) = state.desired_lrp(&id.process_guid) else { continue };
            let class = self.class(Terms::new(&desired.rootfs, &desired.placement_tags));
            let crowd = self.crowds.len();
            let mut members = Crowd::new(&self.table, class);
            for row in state.actual_lrps_of(&id.process_guid) {
                members.count(&self.table, row);
                if row.is_unclaimed() {
                    items.push(Item { row, crowd });
                }
            }
            self.crowds.push(members);
        }
        items
    }

    fn class(&mut self, terms: Terms<'a>) -> usize {
        if let Some(class) = self.class_of.get(&terms) {
            return *class;
        }
        let eligible = terms.eligible(&self.table);
        let (hopeless, waits) = (BTreeSet::new(), BTreeMap::new());
        self.classes.push(Class { terms, eligible, hopeless, waits });
        self.class_of.insert(terms, self.classes.len() - 1);
        self.classes.len() - 1
    }

    fn has_room(&self) -> bool {
        self.placed.commands.len() < self.commands_max
    }

    fn place_lrps(&mut self, items: Vec<Item<'a>>) {
        for item in items {
            if !self.has_room() {
                self.unreached_lrps.push(item);
                continue;
            }
            let need = need_of_lrp(item.row);
            let crowd = &mut self.crowds[item.crowd];
            let class = &mut self.classes[crowd.class];
            if class.hopeless.contains(&need) {
                self.lost_lrps.push(item);
                continue;
            }
            let Some(Bid { slot, .. }) = crowd.best(&self.table, &class.eligible, need) else {
                class.hopeless.insert(need);
                self.lost_lrps.push(item);
                continue;
            };
            crowd.join(&self.table, slot);
            self.table.take(slot, need, false);
            self.placed.commands.push(Command::PlaceLrp {
                process_guid: item.row.key.process_guid.clone(),
                index: item.row.key.index,
                cell_id: self.table.row(slot).cell.cell_id.clone(),
            });
        }
    }

    fn place_tasks(&mut self, tasks: Vec<&'a Task>) {
        for task in tasks {
            if !self.has_room() {
                self.unreached_tasks.push(task);
                continue;
            }
            let need = need_of_task(task);
            let class = self.class(terms_of_task(task));
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
        for Item { row, crowd } in std::mem::take(&mut self.lost_lrps) {
            let wait = self.wait(self.crowds[crowd].class, need_of_lrp(row));
            report.lrp_waits(&row.key.process_guid, row.key.index, Arc::clone(&wait));
            let ActualState::Unclaimed { placement_error } = &row.state else { continue };
            if *placement_error != wait.why {
                self.decide(Command::FailLrp {
                    process_guid: row.key.process_guid.clone(),
                    index: row.key.index,
                    placement_error: wait.why.clone(),
                });
            }
        }
        for task in std::mem::take(&mut self.lost_tasks) {
            let class = self.class(terms_of_task(task));
            let wait = self.wait(class, need_of_task(task));
            report.task_waits(&task.task_guid, Arc::clone(&wait));
            let (task_guid, reason) = (task.task_guid.clone(), wait.why.clone());
            self.decide(Command::RejectTask { task_guid, reason });
            due.at(self.at + TASK_REJECTED_REST);
        }
        let next_turn = Arc::new(Wait {
            why: "waiting for the next turn".to_owned(),
            help: format!("a turn decides at most {} commands", self.commands_max),
            until: Some(self.at),
        });
        for Item { row, .. } in &self.unreached_lrps {
            report.lrp_waits(&row.key.process_guid, row.key.index, Arc::clone(&next_turn));
        }
        for task in &self.unreached_tasks {
            report.task_waits(&task.task_guid, Arc::clone(&next_turn));
        }
        self.placed.is_cut |= !self.unreached_lrps.is_empty() || !self.unreached_tasks.is_empty();
    }

    fn decide(&mut self, command: Command) {
        if self.has_room() {
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

fn terms_of_task(task: &Task) -> Terms<'_> {
    Terms::new(&task.definition.rootfs, &task.definition.placement_tags)
}
