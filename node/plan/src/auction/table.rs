//! The cells that take work, during one auction, with running totals of what is taken.
//!
//! Cells that only differ in what is taken of them stand on one shelf, ordered by load: on a shelf
//! the emptier cell is the better one for every container, so that looking for a place takes the
//! first few cells of each shelf and not all cells.

use std::collections::{BTreeMap, BTreeSet};

use model::{Capacity, Cell, CellId, RootfsProvider, State};

use super::score::{self, Need, Taken};
use crate::settings::Settings;

/// A cell's place in the table. Ordered as the cells' ids, which makes it the tie-break.
pub(super) type Slot = usize;
/// A shelf's place in the table.
pub(super) type ShelfIndex = usize;
/// A zone's place in the order of the zones' names.
pub(super) type Zone = usize;

pub(super) struct Table<'a> {
    rows: Vec<Row<'a>>,
    /// Slots by a hash of their cells' ids, in order: large processes ask for thousands of them.
    slots: Vec<(u64, Slot)>,
    shelves: Vec<Shelf<'a>>,
    zones: usize,
    /// Containers that are starting, on all cells.
    starting: u64,
    starting_weight: u32,
    /// Whether tasks are to be placed: only then is the order for them kept.
    has_tasks: bool,
}

pub(super) struct Row<'a> {
    pub(super) cell: &'a Cell,
    pub(super) taken: Taken,
    shelf: ShelfIndex,
    /// The score's part for the cells before it in its zone.
    first_fit: u64,
}

/// Cells of one zone, capacity, and set of providers and tags.
pub(super) struct Shelf<'a> {
    /// The first of them, which speaks for all.
    pub(super) cell: &'a Cell,
    pub(super) zone: Zone,
    /// All of them, by the load's part of an LRP's score.
    pub(super) by_load: BTreeSet<(u64, Slot)>,
    /// All of them, by the load's and the tasks' parts of a task's score; none while no task waits.
    pub(super) by_tasks: BTreeSet<(u64, Slot)>,
}

/// What makes cells alike.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind<'a> {
    zone: &'a str,
    capacity: (u32, u32, u32),
    rootfs_providers: &'a [RootfsProvider],
    volume_drivers: &'a [String],
    placement_tags: &'a [String],
    optional_placement_tags: &'a [String],
}

impl<'a> Table<'a> {
    pub(super) fn new(state: &'a State, settings: &Settings, has_tasks: bool) -> Self {
        let cells: Vec<&Cell> = state
            .cells()
            .map(AsRef::as_ref)
            .filter(|cell| cell.takes_work() || model::mutant!("auction-ignores-intake"))
            .collect();
        let zone_names: BTreeSet<&str> = cells.iter().map(|cell| &*cell.zone).collect();
        let zone_of: BTreeMap<&str, Zone> =
            zone_names.iter().enumerate().map(|(zone, name)| (*name, zone)).collect();
        let mut table = Self {
            rows: Vec::with_capacity(cells.len()),
            slots: cells.iter().zip(0..).map(|(cell, slot)| (hash(&cell.cell_id), slot)).collect(),
            shelves: Vec::new(),
            zones: zone_of.len(),
            starting: 0,
            starting_weight: settings.starting_container_weight,
            has_tasks,
        };
        table.slots.sort_unstable();
        let mut cells_of_zone = vec![0; zone_of.len()];
        let mut kinds: BTreeMap<Kind<'a>, ShelfIndex> = BTreeMap::new();
        for cell in cells {
            let zone = zone_of[&*cell.zone];
            let shelf = *kinds.entry(Kind::of(cell)).or_insert_with(|| {
                table.shelves.push(Shelf::new(cell, zone));
                table.shelves.len() - 1
            });
            let first_fit = score::weighed(cells_of_zone[zone], settings.bin_pack_first_fit_weight);
            cells_of_zone[zone] += 1;
            let taken = taken(state, cell);
            table.starting += taken.starting;
            table.rows.push(Row { cell, taken, shelf, first_fit });
        }
        for slot in 0..table.rows.len() {
            table.put_on_shelf(slot);
        }
        table
    }

    /// Containers that are starting, on all cells.
    pub(super) fn starting(&self) -> u64 {
        self.starting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn zones(&self) -> usize {
        self.zones
    }

    pub(super) fn shelves(&self) -> &[Shelf<'a>] {
        &self.shelves
    }

    pub(super) fn row(&self, slot: Slot) -> &Row<'a> {
        &self.rows[slot]
    }

    pub(super) fn zone_of(&self, slot: Slot) -> Zone {
        self.shelves[self.rows[slot].shelf].zone
    }

    /// Where a cell is in the table, if it is present.
    pub(super) fn slot(&self, cell_id: &CellId) -> Option<Slot> {
        let hash = hash(cell_id);
        let first = self.slots.partition_point(|(other, _)| *other < hash);
        let alike = self.slots[first..].iter().take_while(|(other, _)| *other == hash);
        alike.map(|(_, slot)| *slot).find(|slot| self.rows[*slot].cell.cell_id == *cell_id)
    }

    /// Whether one more container of this size fits.
    pub(super) fn fits(&self, slot: Slot, need: Need) -> bool {
        let Row { cell, taken, .. } = &self.rows[slot];
        taken.containers < u64::from(cell.capacity.containers)
            && taken.memory_mb + need.memory_mb <= u64::from(cell.capacity.memory_mb)
            && taken.disk_mb + need.disk_mb <= u64::from(cell.capacity.disk_mb)
    }

    /// Takes room for a container that has just been placed, and is starting.
    pub(super) fn take(&mut self, slot: Slot, need: Need, is_task: bool) {
        self.take_from_shelf(slot);
        self.starting += 1;
        let taken = &mut self.rows[slot].taken;
        taken.memory_mb += need.memory_mb;
        taken.disk_mb += need.disk_mb;
        taken.containers += 1;
        taken.starting += 1;
        taken.tasks += u64::from(is_task);
        self.put_on_shelf(slot);
    }

    fn put_on_shelf(&mut self, slot: Slot) {
        let (load, tasks) = self.rows[slot].scores(self.starting_weight);
        let shelf = &mut self.shelves[self.rows[slot].shelf];
        shelf.by_load.insert((load, slot));
        if self.has_tasks {
            shelf.by_tasks.insert((tasks, slot));
        }
    }

    fn take_from_shelf(&mut self, slot: Slot) {
        let (load, tasks) = self.rows[slot].scores(self.starting_weight);
        let shelf = &mut self.shelves[self.rows[slot].shelf];
        shelf.by_load.remove(&(load, slot));
        if self.has_tasks {
            shelf.by_tasks.remove(&(tasks, slot));
        }
    }
}

impl Row<'_> {
    /// The load's part of the score of an LRP, and of a task.
    fn scores(&self, starting_weight: u32) -> (u64, u64) {
        let load = score::of_load(&self.taken, &self.cell.capacity, starting_weight);
        (load + self.first_fit, load + score::of_same(self.taken.tasks))
    }
}

impl<'a> Shelf<'a> {
    fn new(cell: &'a Cell, zone: Zone) -> Self {
        Self { cell, zone, by_load: BTreeSet::new(), by_tasks: BTreeSet::new() }
    }
}

impl<'a> Kind<'a> {
    fn of(cell: &'a Cell) -> Self {
        let Capacity { memory_mb, disk_mb, containers } = cell.capacity;
        Self {
            zone: &cell.zone,
            capacity: (memory_mb, disk_mb, containers),
            rootfs_providers: &cell.rootfs_providers,
            volume_drivers: &cell.volume_drivers,
            placement_tags: &cell.placement_tags,
            optional_placement_tags: &cell.optional_placement_tags,
        }
    }
}

/// FNV-1a of 64 bits.
fn hash(cell_id: &CellId) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    cell_id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What the records take of a cell.
fn taken(state: &State, cell: &Cell) -> Taken {
    let Some(load) = state.load(&cell.cell_id) else { return Taken::default() };
    Taken {
        memory_mb: load.memory_mb,
        disk_mb: load.disk_mb,
        containers: u64::from(load.containers),
        starting: u64::from(load.starting),
        tasks: load.tasks.len() as u64,
    }
}
