//! The instances of one process during one auction: where they are, and where the next one goes.

use model::{ProcessGuid, State};

use super::score::{self, Need};
use super::table::{ShelfIndex, Slot, Table, Zone};

/// One process that has instances waiting.
pub(super) struct Crowd {
    /// Cells that hold instances, and how many, by slot.
    held: Vec<(Slot, u64)>,
    /// By zone.
    zones: Vec<ZoneCrowd>,
}

#[derive(Clone, Copy, Default)]
struct ZoneCrowd {
    instances: u64,
    /// No cell of the zone with room holds fewer instances; `u64::MAX` once none has room. Room
    /// only shrinks and crowds only grow while an auction lasts, so this never goes back.
    held_min: u64,
}

/// A place found, and its score.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bid {
    pub(super) score: u64,
    pub(super) slot: Slot,
}

impl Crowd {
    /// Where the instances of a process are that were placed before this auction.
    pub(super) fn of(table: &Table<'_>, state: &State, process_guid: &ProcessGuid) -> Self {
        let mut crowd = Self::new(table);
        for row in state.actual_lrps_of(process_guid) {
            if let Some(slot) = row.instance().and_then(|on| table.slot(&on.cell_id)) {
                crowd.join(table, slot);
            }
        }
        crowd
    }

    fn new(table: &Table<'_>) -> Self {
        Self { held: Vec::new(), zones: vec![ZoneCrowd::default(); table.zones()] }
    }

    /// Counts an instance that this auction has placed.
    pub(super) fn join(&mut self, table: &Table<'_>, slot: Slot) {
        self.zones[table.zone_of(slot)].instances += 1;
        match self.held.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => self.held[at].1 += 1,
            Err(at) => self.held.insert(at, (slot, 1)),
        }
    }

    fn held(&self, slot: Slot) -> u64 {
        match self.held.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => self.held[at].1,
            Err(_) => 0,
        }
    }

    /// The best place for the next instance (auction.md section 5): the zones that hold the
    /// fewest compete by score, and only if none of them has room do those that hold more.
    ///
    /// All instances of a process ask for the same `need`: memory and disk are for its life.
    pub(super) fn best(
        &mut self,
        table: &Table<'_>,
        eligible: &[(Zone, Vec<ShelfIndex>)],
        need: Need,
    ) -> Option<Bid> {
        let mut order: Vec<&(Zone, Vec<ShelfIndex>)> = eligible.iter().collect();
        order.sort_by_key(|(zone, _)| self.zones[*zone].instances);
        let mut rest = order.as_slice();
        while let Some(((zone, _), _)) = rest.split_first() {
            let fewest = self.zones[*zone].instances;
            let tied = rest.partition_point(|(zone, _)| self.zones[*zone].instances == fewest);
            let (group, others) = rest.split_at(tied);
            let mut best = None;
            for (zone, shelves) in group {
                best = self.best_in_zone(table, *zone, shelves, need, best);
            }
            if best.is_some() {
                return best;
            }
            rest = others;
        }
        None
    }

    /// The better of `best` and what the zone has to offer.
    fn best_in_zone(
        &mut self,
        table: &Table<'_>,
        zone: Zone,
        shelves: &[ShelfIndex],
        need: Need,
        mut best: Option<Bid>,
    ) -> Option<Bid> {
        let held_min = self.zones[zone].held_min;
        if held_min == u64::MAX {
            return best;
        }
        let mut fewest_held = u64::MAX;
        let mut has_seen_all = true;
        for shelf in shelves {
            let shelf = &table.shelves()[*shelf];
            let of_need = score::of_need(need, &shelf.cell.capacity);
            for (of_load, slot) in &shelf.by_load {
                // The shelf is in order, so all that follow are worse than this at its best.
                let score = of_load + of_need + score::of_same(held_min);
                if best.is_some_and(|best| best < Bid { score, slot: *slot }) {
                    has_seen_all = false;
                    break;
                }
                if !table.fits(*slot, need) {
                    continue;
                }
                let held = self.held(*slot);
                fewest_held = held.min(fewest_held);
                let score = of_load + of_need + score::of_same(held);
                let bid = Bid { score, slot: *slot };
                best = Some(best.map_or(bid, |best| best.min(bid)));
            }
        }
        if has_seen_all {
            self.zones[zone].held_min = fewest_held;
        }
        best
    }
}
