use std::sync::Arc;

use model::{
    ActualLrp, ActualLrpKey, ActualState, CellId, Event, InstanceKey, Millis, ModificationTag,
    NetInfo, Presence,
};

use super::event::{About, in_order, of_groups, of_instances};
use super::messages as bbs;
use super::{actual_lrp, groups};

fn row(presence: Presence, state: ActualState) -> Arc<ActualLrp> {
    Arc::new(ActualLrp {
        key: ActualLrpKey { process_guid: "app".into(), index: 0, domain: "d".into() },
        presence,
        state,
        crash_count: 0,
        crash_reason: String::new(),
        since: Millis(1),
        memory_mb: 0,
        disk_mb: 0,
        modification_tag: ModificationTag::default(),
        routable: true,
        availability_zone: "z1".into(),
    })
}

fn on(cell: &str) -> InstanceKey {
    InstanceKey { instance_guid: format!("on-{cell}").as_str().into(), cell_id: cell.into() }
}

fn running(cell: &str) -> ActualState {
    let net_info = NetInfo {
        address: [10, 0, 0, 1].into(),
        instance_address: [10, 0, 0, 2].into(),
        ports: vec![],
    };
    ActualState::Running { instance: on(cell), net_info }
}

fn claimed(cell: &str) -> ActualState {
    ActualState::Claimed { instance: on(cell) }
}

fn unclaimed() -> ActualState {
    ActualState::Unclaimed { placement_error: String::new() }
}

fn group(rows: &[&Arc<ActualLrp>]) -> bbs::ActualLrpGroup {
    let mut groups = groups(rows.iter().map(|row| actual_lrp(row, None)));
    assert_eq!(groups.len(), 1);
    groups.remove(0)
}

#[test]
fn a_suspect_stands_for_its_index_until_the_ordinary_one_runs() {
    let suspect = row(Presence::Suspect, running("a"));
    let waits = row(Presence::Ordinary, claimed("b"));
    let runs = row(Presence::Ordinary, running("b"));
    let copy = row(Presence::Evacuating, running("c"));
    let instance = |rows: &[&Arc<ActualLrp>]| {
        group(rows).instance.and_then(|lrp| lrp.actual_lrp_instance_key).unwrap().cell_id
    };
    assert_eq!(instance(&[&waits, &suspect]), "a");
    assert_eq!(instance(&[&suspect, &waits]), "a");
    assert_eq!(instance(&[&suspect, &runs]), "b");
    assert_eq!(instance(&[&runs, &suspect]), "b");
    let both = group(&[&copy, &waits]);
    assert_eq!(both.evacuating.unwrap().state, "RUNNING");
    assert_eq!(both.instance.unwrap().state, "CLAIMED");
}

fn names(event: &Event) -> Vec<&'static str> {
    of_instances(event, &|_| None).iter().map(|told| told.name).collect()
}

/// bbs-wire.md section 3, "Rules for instance events".
#[test]
fn an_instance_that_waits_again_is_another() {
    let changed = |before, after| Event::ActualLrpChanged {
        before: row(Presence::Ordinary, before),
        after: row(Presence::Ordinary, after),
    };
    let (created, removed) = ("actual_lrp_instance_created", "actual_lrp_instance_removed");
    let same = "actual_lrp_instance_changed";
    assert_eq!(names(&changed(running("a"), unclaimed())), [created, removed]);
    assert_eq!(names(&changed(claimed("a"), unclaimed())), [created, removed]);
    assert_eq!(names(&changed(ActualState::Crashed, unclaimed())), [created, removed]);
    assert_eq!(names(&changed(unclaimed(), unclaimed())), [same]);
    assert_eq!(names(&changed(unclaimed(), claimed("a"))), [same]);
    assert_eq!(names(&changed(claimed("a"), running("a"))), [same]);
    assert_eq!(names(&changed(running("a"), ActualState::Crashed)), [same]);
}

#[test]
fn who_watches_a_cell_is_told_of_that_one() {
    let of = |event: &Event| of_instances(event, &|_| None).remove(0).about;
    let created = of(&Event::ActualLrpCreated(row(Presence::Ordinary, unclaimed())));
    assert!(created.concerns("") && !created.concerns("a"));
    let changed = Event::ActualLrpChanged {
        before: row(Presence::Ordinary, claimed("a")),
        after: row(Presence::Ordinary, ActualState::Crashed),
    };
    assert!(of(&changed).concerns("a"), "it was there");
    assert!(!of(&changed).concerns("b"));
    let grouped = of_groups(&changed, &|_| None).remove(0).about;
    assert_eq!(grouped, About::Cells(vec![CellId::from("a")]));
    let desired = Event::DesiredLrpCreated(Arc::default());
    assert!(of(&desired).concerns("a"), "every stream has it");
}

/// A router learns of what replaces an instance before it loses that.
#[test]
fn crashes_come_first_and_then_what_runs() {
    let removed = Event::ActualLrpRemoved(row(Presence::Ordinary, claimed("b")));
    let promoted = Event::ActualLrpChanged {
        before: row(Presence::Suspect, running("a")),
        after: row(Presence::Ordinary, running("a")),
    };
    let events = [removed.clone(), promoted.clone()];
    assert_eq!(in_order(&events), [&promoted, &removed]);
    let crashed = Event::ActualLrpCrashed {
        key: row(Presence::Ordinary, unclaimed()).key.clone(),
        instance: on("a"),
        count: 1,
        reason: String::new(),
        since: Millis(1),
    };
    let waits = Event::ActualLrpChanged {
        before: row(Presence::Ordinary, running("a")),
        after: row(Presence::Ordinary, unclaimed()),
    };
    let events = [crashed.clone(), waits.clone()];
    assert_eq!(in_order(&events), [&crashed, &waits]);
}
