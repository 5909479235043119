//! Which cells may take a container at all, and why none could.
//!
//! The texts are Diego's, word for word: clients show them (auction.md sections 4 and 6).

use std::collections::{BTreeMap, BTreeSet};

use model::limits::truncate_reason;
use model::volume::VolumeMount;
use model::{Cell, DesiredLrp, RootfsProvider, State, Task};

use super::score::Need;
use super::table::{ShelfIndex, Slot, Table, Zone};
use crate::limits::NAMES_LISTED_MAX;
use crate::report::Wait;

/// What a container asks of a cell besides room: a root file system, volume drivers, and tags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Terms<'a> {
    /// The URL as far as it matters: all of a stack's, the scheme of an image's.
    rootfs: &'a str,
    drivers: BTreeSet<&'a str>,
    tags: &'a [String],
}

impl<'a> Terms<'a> {
    pub(super) fn of_lrp(desired: &'a DesiredLrp) -> Self {
        Self::new(&desired.rootfs, drivers(&desired.volume_mounts), &desired.placement_tags)
    }

    pub(super) fn of_task(task: &'a Task) -> Self {
        let definition = &task.definition;
        let drivers = drivers(&definition.volume_mounts);
        Self::new(&definition.rootfs, drivers, &definition.placement_tags)
    }

    fn new(rootfs: &'a str, drivers: BTreeSet<&'a str>, tags: &'a [String]) -> Self {
        // No image is in a fixed set: to tell one from another would make a class of each.
        let rootfs = if rootfs.starts_with("docker:") { "docker:" } else { rootfs };
        Self { rootfs, drivers, tags }
    }

    fn has_rootfs(&self, cell: &Cell) -> bool {
        cell.rootfs_providers.iter().any(|provider| provider.provides(self.rootfs))
    }

    fn has_drivers(&self, cell: &Cell) -> bool {
        self.drivers.iter().all(|driver| cell.volume_drivers.iter().any(|has| has == driver))
    }

    /// All that the cell requires is there, and nothing that the cell does not know.
    fn has_tags(&self, cell: &Cell) -> bool {
        let known =
            |tag| cell.placement_tags.contains(tag) || cell.optional_placement_tags.contains(tag);
        cell.placement_tags.iter().all(|tag| self.tags.contains(tag)) && self.tags.iter().all(known)
    }

    /// The shelves whose cells qualify, by zone; zones without any are left out.
    pub(super) fn eligible(&self, table: &Table<'_>) -> Vec<(Zone, Vec<ShelfIndex>)> {
        let mut zones: BTreeMap<Zone, Vec<ShelfIndex>> = BTreeMap::new();
        for (index, shelf) in table.shelves().iter().enumerate() {
            let cell = shelf.cell;
            if self.has_rootfs(cell) && self.has_drivers(cell) && self.has_tags(cell) {
                zones.entry(shelf.zone).or_default().push(index);
            }
        }
        zones.into_iter().collect()
    }

    /// Why no cell qualifies: the furthest that any cell got.
    pub(super) fn mismatch(&self, state: &State, table: &Table<'_>) -> Wait {
        if table.is_empty() {
            return wait("unable to communicate to compatible cells".to_owned(), absent(state));
        }
        let cells = || table.shelves().iter().map(|shelf| shelf.cell);
        let mut with_rootfs = cells().filter(|cell| self.has_rootfs(cell)).peekable();
        if with_rootfs.peek().is_none() {
            let offered: BTreeSet<String> =
                cells().flat_map(|cell| &cell.rootfs_providers).map(told_provider).collect();
            return wait(
                "found no compatible cell for required rootfs".to_owned(),
                format!(
                    "the root file system is {:?}, and the present cells offer: {}",
                    self.rootfs,
                    listed(offered.into_iter())
                ),
            );
        }
        if !with_rootfs.any(|cell| self.has_drivers(cell)) {
            let offered: BTreeSet<&String> =
                cells().flat_map(|cell| &cell.volume_drivers).collect();
            return wait(
                "found no compatible cell with required volume drivers".to_owned(),
                format!(
                    "it mounts volumes by: {}; the present cells have drivers: {}",
                    listed(self.drivers.iter().map(|driver| (*driver).to_owned())),
                    listed(offered.into_iter().cloned())
                ),
            );
        }
        let tags: BTreeSet<String> =
            table.shelves().iter().map(|shelf| told_tags(shelf.cell)).collect();
        wait(self.tag_mismatch(), format!("the present cells have: {}", listed(tags.into_iter())))
    }

    fn tag_mismatch(&self) -> String {
        let quoted = |tag: &String| format!("\"{tag}\"");
        let why = match self.tags {
            [] => "found no compatible cell with no placement tags".to_owned(),
            [one] => format!("found no compatible cell with placement tag {}", quoted(one)),
            [several @ .., last] => {
                let several: Vec<String> = several.iter().map(quoted).collect();
                format!(
                    "found no compatible cell with placement tags {} and {}",
                    several.join(", "),
                    quoted(last)
                )
            }
        };
        truncate_reason(&why)
    }
}

fn drivers(mounts: &[VolumeMount]) -> BTreeSet<&str> {
    mounts.iter().map(|mount| mount.driver.as_str()).collect()
}

/// Why none of the cells that qualify has room: what is short on every one of them.
pub(super) fn shortage(table: &Table<'_>, slots: &[Slot], need: Need) -> Wait {
    let mut short = [("containers", true), ("disk", true), ("memory", true)];
    let (mut most_memory, mut most_disk) = (0, 0);
    for slot in slots {
        let row = table.row(*slot);
        let capacity = &row.cell.capacity;
        let memory = u64::from(capacity.memory_mb).saturating_sub(row.taken.memory_mb);
        let disk = u64::from(capacity.disk_mb).saturating_sub(row.taken.disk_mb);
        short[0].1 &= row.taken.containers >= u64::from(capacity.containers);
        short[1].1 &= disk < need.disk_mb;
        short[2].1 &= memory < need.memory_mb;
        most_memory = memory.max(most_memory);
        most_disk = disk.max(most_disk);
    }
    let names: Vec<&str> = short.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    let why = if names.is_empty() {
        "insufficient resources".to_owned()
    } else {
        format!("insufficient resources: {}", names.join(", "))
    };
    let help = format!(
        "it asks for {} MiB of memory and {} MiB of disk; of {} suitable cells none has both and \
         a container free, the most on one being {most_memory} MiB of memory and {most_disk} MiB \
         of disk: add a cell, or ask for less",
        need.memory_mb,
        need.disk_mb,
        slots.len()
    );
    wait(why, help)
}

fn wait(why: String, help: String) -> Wait {
    Wait { why, help, until: None }
}

fn absent(state: &State) -> String {
    let names = |is_wanted: fn(&Cell) -> bool| {
        let wanted = state.cells().filter(|cell| is_wanted(cell));
        wanted.map(|cell| cell.cell_id.to_string()).collect::<Vec<String>>()
    };
    let (missing, evacuated) = (names(|cell| !cell.is_present()), names(Cell::is_present));
    match (missing.is_empty(), evacuated.is_empty()) {
        (true, true) => "no cell has registered yet: start one".to_owned(),
        (false, true) => {
            format!("all cells are missing, start one of: {}", listed(missing.into_iter()))
        }
        (_, false) => {
            format!(
                "all present cells are evacuated, open one of: {}",
                listed(evacuated.into_iter())
            )
        }
    }
}

fn told_provider(provider: &RootfsProvider) -> String {
    match provider {
        RootfsProvider::Arbitrary { scheme } => format!("{scheme}:..."),
        RootfsProvider::FixedSet { scheme, stacks } => format!("{scheme}:{}", stacks.join("|")),
    }
}

fn told_tags(cell: &Cell) -> String {
    let required = &cell.placement_tags;
    let optional = &cell.optional_placement_tags;
    match (required.is_empty(), optional.is_empty()) {
        (true, true) => "no tags".to_owned(),
        (false, true) => format!("required tags {required:?}"),
        (true, false) => format!("optional tags {optional:?}"),
        (false, false) => format!("required tags {required:?} and optional tags {optional:?}"),
    }
}

/// The first few, and how many more there are.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_LISTED_MAX);
    let named: Vec<String> = names.take(NAMES_LISTED_MAX).collect();
    let named = if named.is_empty() { "nothing".to_owned() } else { named.join(", ") };
    if more == 0 { named } else { format!("{named} and {more} more") }
}
