use std::collections::BTreeSet;
use std::sync::Arc;

use model::dependency::{DigestAlgorithm, ImageLayer, LayerMediaType, LayerType};
use model::metric_tag::{DynamicValue, MetricTagValue};
use model::{
    ActualLrp, ActualLrpKey, ActualState, CellId, DesiredLrp, Event, InstanceKey, Millis,
    ModificationTag, NetInfo, Presence, Task, TaskDefinition, TaskState,
};
use prost::Message;

use super::event::{About, Form, Told, in_order, of_groups, of_instances, of_tasks};
use super::messages as bbs;
use super::{
    Malformed, actual_lrp, desired_lrp, desired_lrp_from, groups, task, task_from, update_from,
};

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
    of_instances(event, &|_| None, Form::Current).iter().map(|told| told.name).collect()
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
    let of = |event: &Event| of_instances(event, &|_| None, Form::Current).remove(0).about;
    let created = of(&Event::ActualLrpCreated(row(Presence::Ordinary, unclaimed())));
    assert_eq!(created, About::Cells(BTreeSet::new()));
    let changed = Event::ActualLrpChanged {
        before: row(Presence::Ordinary, claimed("a")),
        after: row(Presence::Ordinary, ActualState::Crashed),
    };
    assert_eq!(of(&changed), About::Cells([CellId::from("a")].into()), "it was there");
    let grouped = of_groups(&changed, &|_| None, Form::Current).remove(0).about;
    assert_eq!(grouped, About::Cells([CellId::from("a")].into()));
    let desired = Event::DesiredLrpCreated(Arc::default());
    assert_eq!(of(&desired), About::Everyone);
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

/// Without the words that all of them have.
fn said<T: std::fmt::Debug>(result: Result<T, Malformed>) -> String {
    let Malformed(text) = result.expect_err("it is refused");
    text.replace("Invalid field: ", "!")
}

/// Nothing that a client would have to find out in a second try.
#[test]
fn all_that_is_wrong_with_a_request_is_said_at_once() {
    let empty = || Some(bbs::Action::default());
    let within = |actions| bbs::Action {
        serial_action: Some(bbs::SerialAction { actions, log_source: String::new() }),
        ..Default::default()
    };
    let routes = [("tcp".to_owned(), vec![0xff])].into();
    let lrp = bbs::DesiredLrp {
        root_fs: "docker:///%".to_owned(),
        memory_mb: -1,
        action: empty(),
        monitor: Some(within(vec![bbs::Action::default(), bbs::Action::default()])),
        ports: vec![8080, 65_536],
        routes: Some(bbs::ProtoRoutes { routes }),
        update_strategy: 7,
        sidecars: vec![bbs::Sidecar { action: empty(), disk_mb: 0, memory_mb: 0 }],
        ..Default::default()
    };
    assert_eq!(
        said(desired_lrp_from(lrp, "")),
        "!domain, !rootfs, !memory_mb, !metric_tags, !domain, !process_guid, \
         !action, !inner-action, !monitor, !inner-action, !inner-action, \
         !sidecars, !action, !inner-action, !update_strategy, !ports, !routes"
    );

    let nothing = bbs::DesireTaskRequest::default();
    assert_eq!(said(task_from(nothing, "")), "!task_guid, !domain, !task_definition");
    let action = empty();
    let definition = bbs::TaskDefinition { disk_mb: -1, action, ..Default::default() };
    let of_bad = bbs::DesireTaskRequest { task_definition: Some(definition), ..Default::default() };
    let expected = "!task_guid, !domain, !rootfs, !action, !inner-action, !disk_mb";
    assert_eq!(said(task_from(of_bad, "")), expected);

    let update = bbs::DesiredLrpUpdate { instances: Some(-1), ..Default::default() };
    let request = |guid: &str, update| bbs::UpdateDesiredLrpRequest {
        process_guid: guid.to_owned(),
        update: Some(update),
    };
    assert_eq!(said(update_from(request("", update.clone()), "")), "!process_guid, !instances");
    let routes = Some(bbs::ProtoRoutes { routes: [("tcp".to_owned(), vec![0xff])].into() });
    let of_bytes = bbs::DesiredLrpUpdate { routes, ..update };
    assert_eq!(said(update_from(request("app", of_bytes), "")), "!instances, !routes");
    let nothing = bbs::UpdateDesiredLrpRequest::default();
    assert_eq!(said(update_from(nothing, "")), "!process_guid");
}

/// bbs/db/sqldb: routes are read into a map that is always there.
#[test]
fn an_lrp_without_routes_has_a_map_of_none() {
    let none = || Some(bbs::ProtoRoutes::default());
    assert_eq!(desired_lrp(&DesiredLrp::default()).routes, none());
    assert_eq!(super::scheduling_info(&DesiredLrp::default()).routes, none());
    assert_eq!(super::routing_info(&DesiredLrp::default()).routes, none());
}

const SOURCE: &str = "source_id";

/// Diego: `PopulateMetricsGuid`, which lists of desired LRPs call, and nothing else.
#[test]
fn the_source_of_metrics_is_mirrored_in_lists_of_lrps_only() {
    let guid = || "guid".to_owned();
    let lrp = DesiredLrp { metrics_guid: guid(), ..Default::default() };
    assert_eq!(desired_lrp(&lrp).metric_tags[SOURCE].r#static, "guid");
    let told = of_instances(&Event::DesiredLrpCreated(lrp.into()), &|_| None, Form::Current);
    assert!(lrp_of(&told[0]).metric_tags.is_empty(), "as it was desired");

    let tag = MetricTagValue { fixed: guid(), dynamic: DynamicValue::Invalid };
    let lrp = DesiredLrp { metric_tags: [(SOURCE.to_owned(), tag)].into(), ..Default::default() };
    #[expect(deprecated, reason = "old clients read it")]
    let shown = desired_lrp(&lrp).metrics_guid;
    assert_eq!(shown, "guid");

    let definition = TaskDefinition { metrics_guid: guid(), ..Default::default() };
    let shown = task(&some_task(definition)).task_definition.unwrap();
    assert_eq!(shown.metrics_guid, "guid");
    assert!(shown.metric_tags.is_empty(), "as it was desired");
}

/// bbs-wire.md section 2: the streams of revision 0 tell recipes in an older form.
#[test]
fn old_streams_know_no_image_layers() {
    let layers = || {
        vec![ImageLayer {
            name: "layer".to_owned(),
            url: "http://a/b".to_owned(),
            destination_path: "/b".to_owned(),
            layer_type: LayerType::Shared,
            media_type: LayerMediaType::Tgz,
            digest_algorithm: DigestAlgorithm::Invalid,
            digest_value: String::new(),
        }]
    };
    let lrp = Arc::new(DesiredLrp { image_layers: layers(), ..Default::default() });
    let forms = [Form::Current, Form::WithoutLayers];
    let counts = forms.map(|form| {
        let event = Event::DesiredLrpCreated(lrp.clone());
        let of_both = [of_instances(&event, &|_| None, form), of_groups(&event, &|_| None, form)];
        let [one, other] = of_both.map(|told| lrp_of(&told[0]));
        assert_eq!(one, other);
        (one.image_layers.len(), one.cached_dependencies.len())
    });
    assert_eq!(counts, [(1, 0), (0, 1)]);
    let counts = forms.map(|form| {
        let definition = TaskDefinition { image_layers: layers(), ..Default::default() };
        let told = of_tasks(&Event::TaskCreated(some_task(definition).into()), form).unwrap();
        let told = bbs::TaskCreatedEvent::decode(&*told.message).unwrap();
        let definition = told.task.and_then(|task| task.task_definition).unwrap();
        (definition.image_layers.len(), definition.cached_dependencies.len())
    });
    assert_eq!(counts, [(1, 0), (0, 1)]);
}

fn lrp_of(told: &Told) -> bbs::DesiredLrp {
    bbs::DesiredLrpCreatedEvent::decode(&*told.message).unwrap().desired_lrp.unwrap()
}

fn some_task(definition: TaskDefinition) -> Task {
    Task {
        task_guid: "task".into(),
        domain: "d".into(),
        definition,
        state: TaskState::Pending { placed_on: None },
        created_at: Millis(1),
        updated_at: Millis(1),
        rejection_count: 0,
        rejection_reason: String::new(),
    }
}
