//! Cells, as Diego's clients see them.

use model::{Cell, RootfsProvider};

use serde_json::{Value, json};

use super::messages as bbs;

/// The presence of a cell whose own face is at `url`.
#[must_use]
pub fn cell_presence(cell: &Cell) -> bbs::CellPresence {
    let whole = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    bbs::CellPresence {
        cell_id: cell.cell_id.to_string(),
        rep_address: cell.rep_url.clone(),
        zone: cell.zone.to_string(),
        capacity: Some(bbs::CellCapacity {
            memory_mb: whole(cell.capacity.memory_mb),
            disk_mb: whole(cell.capacity.disk_mb),
            containers: whole(cell.capacity.containers),
        }),
        rootfs_providers: cell.rootfs_providers.iter().map(provider).collect(),
        placement_tags: cell.placement_tags.clone(),
        optional_placement_tags: cell.optional_placement_tags.clone(),
        rep_url: cell.rep_url.clone(),
        annotations: std::collections::BTreeMap::new(),
    }
}

/// An arbitrary provider has no properties, a fixed set's are its stacks.
fn provider(provider: &RootfsProvider) -> bbs::Provider {
    match provider {
        RootfsProvider::Arbitrary { scheme } => {
            bbs::Provider { name: scheme.clone(), properties: Vec::new() }
        }
        RootfsProvider::FixedSet { scheme, stacks } => {
            bbs::Provider { name: scheme.clone(), properties: stacks.clone() }
        }
    }
}

/// The same in JSON (bbs-wire.md section 5), where Locket keeps it.
#[must_use]
pub fn cell_presence_json(cell: &Cell) -> Value {
    let providers = cell.rootfs_providers.iter().map(|it| match it {
        RootfsProvider::Arbitrary { scheme } => json!({"name": scheme}),
        RootfsProvider::FixedSet { scheme, stacks } => {
            json!({"name": scheme, "properties": stacks})
        }
    });
    let mut value = json!({
        "cell_id": cell.cell_id,
        "rep_address": cell.rep_url,
        "zone": cell.zone,
        "capacity": cell.capacity,
        "rootfs_provider_list": providers.collect::<Vec<_>>(),
        "rep_url": cell.rep_url,
        "annotations": {},
    });
    let tags = [
        ("placement_tags", &cell.placement_tags),
        ("optional_placement_tags", &cell.optional_placement_tags),
    ];
    for (name, tags) in tags.into_iter().filter(|(_, tags)| !tags.is_empty()) {
        value[name] = json!(tags);
    }
    value
}
