//! What has changed, as Diego's streams tell it (bbs-wire.md section 3).

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each stream tells some events, and `of_everything_else` names the rest"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{ActualLrp, ActualState, CellId, DesiredLrp, Event, ProcessGuid, Task};
use prost::Message;

use super::actual_lrp::{actual_lrp, crash_count, group, info, instance_key, lrp_key};
use super::desired_lrp::desired_lrp_in_event as desired_lrp;
use super::downgrade;
use super::messages as bbs;
use super::task::task;

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub name: &'static str,
    /// The message, in protobuf.
    pub message: Vec<u8>,
    pub about: About,
}

/// Which cells an event concerns; who watches one cell is told of that one only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// Every stream has it.
    Everyone,
    /// An instance's cell, or its cells before and after; none while it has none.
    Cells(BTreeSet<CellId>),
}

/// How much of a recipe the readers of a stream know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it.
    Current,
    /// No image layers; they are told of what these were before ([`downgrade`]).
    WithoutLayers,
}

/// The desired LRP of an instance, where there is one.
pub type Desired<'a> = &'a dyn Fn(&ProcessGuid) -> Option<Arc<DesiredLrp>>;

/// What a stream of desired LRPs and instances tells of an event.
#[must_use]
pub fn of_instances(event: &Event, desired: Desired<'_>, form: Form) -> Vec<Told> {
    match event {
        Event::ActualLrpCreated(lrp) => vec![created(lrp, desired)],
        Event::ActualLrpRemoved(lrp) => vec![removed(lrp, desired)],
        // Its identity is another then: the key of the placement is gone.
        Event::ActualLrpChanged { before, after } if is_unclaimed_anew(before, after) => {
            vec![created(after, desired), removed(before, desired)]
        }
        Event::ActualLrpChanged { before, after } => {
            let instance = after.instance().or_else(|| before.instance());
            let message = bbs::ActualLrpInstanceChangedEvent {
                actual_lrp_key: Some(lrp_key(&after.key)),
                actual_lrp_instance_key: Some(instance.map(instance_key).unwrap_or_default()),
                before: Some(info(before)),
                after: Some(info(after)),
                trace_id: trace_id(after, desired),
            };
            let cells = instance.map(|instance| instance.cell_id.clone()).into_iter().collect();
            vec![told("actual_lrp_instance_changed", &message, About::Cells(cells))]
        }
        _ => of_everything_else(event, form),
    }
}

/// What the old stream tells, in which instances come in groups.
#[must_use]
pub fn of_groups(event: &Event, desired: Desired<'_>, form: Form) -> Vec<Told> {
    let as_group =
        |lrp: &Arc<ActualLrp>| Some(group(actual_lrp(lrp, desired_of(lrp, desired).as_deref())));
    match event {
        Event::ActualLrpCreated(lrp) => {
            let message = bbs::ActualLrpCreatedEvent { actual_lrp_group: as_group(lrp) };
            vec![told("actual_lrp_created", &message, on(&[lrp]))]
        }
        Event::ActualLrpRemoved(lrp) => {
            let message = bbs::ActualLrpRemovedEvent { actual_lrp_group: as_group(lrp) };
            vec![told("actual_lrp_removed", &message, on(&[lrp]))]
        }
        Event::ActualLrpChanged { before, after } => {
            let message =
                bbs::ActualLrpChangedEvent { before: as_group(before), after: as_group(after) };
            vec![told("actual_lrp_changed", &message, on(&[before, after]))]
        }
        _ => of_everything_else(event, form),
    }
}

/// What a stream of tasks tells.
#[must_use]
pub fn of_tasks(event: &Event, form: Form) -> Option<Told> {
    let as_task = |it: &Arc<Task>| {
        Some(match form {
            Form::Current => task(it),
            Form::WithoutLayers => downgrade::task(task(it)),
        })
    };
    match event {
        Event::TaskCreated(it) => {
            let message = bbs::TaskCreatedEvent { task: as_task(it) };
            Some(told("task_created", &message, About::Everyone))
        }
        Event::TaskChanged { before, after } => {
            let (before, after) = (as_task(before), as_task(after));
            // That it was placed is nothing that Diego's clients see.
            let shown =
                |it: &Option<bbs::Task>| it.clone().map(|it| bbs::Task { updated_at: 0, ..it });
            if shown(&before) == shown(&after) {
                return None;
            }
            let message = bbs::TaskChangedEvent { before, after };
            Some(told("task_changed", &message, About::Everyone))
        }
        Event::TaskRemoved(it) => {
            let message = bbs::TaskRemovedEvent { task: as_task(it) };
            Some(told("task_removed", &message, About::Everyone))
        }
        _ => None,
    }
}

/// What both streams of LRPs tell alike.
fn of_everything_else(event: &Event, form: Form) -> Vec<Told> {
    let as_lrp = |lrp: &Arc<DesiredLrp>| {
        Some(match form {
            Form::Current => desired_lrp(lrp),
            Form::WithoutLayers => downgrade::desired_lrp(desired_lrp(lrp)),
        })
    };
    match event {
        Event::DesiredLrpCreated(lrp) => {
            let (desired_lrp, trace_id) = (as_lrp(lrp), lrp.trace_id.clone());
            let message = bbs::DesiredLrpCreatedEvent { desired_lrp, trace_id };
            vec![told("desired_lrp_created", &message, About::Everyone)]
        }
        Event::DesiredLrpChanged { before, after } => {
            let trace_id = after.trace_id.clone();
            let (before, after) = (as_lrp(before), as_lrp(after));
            let message = bbs::DesiredLrpChangedEvent { before, after, trace_id };
            vec![told("desired_lrp_changed", &message, About::Everyone)]
        }
        Event::DesiredLrpRemoved(lrp) => {
            let (desired_lrp, trace_id) = (as_lrp(lrp), lrp.trace_id.clone());
            let message = bbs::DesiredLrpRemovedEvent { desired_lrp, trace_id };
            vec![told("desired_lrp_removed", &message, About::Everyone)]
        }
        Event::ActualLrpCrashed { key, instance, count, reason, since } => {
            let message = bbs::ActualLrpCrashedEvent {
                actual_lrp_key: Some(lrp_key(key)),
                actual_lrp_instance_key: Some(instance_key(instance)),
                crash_count: crash_count(*count),
                crash_reason: reason.clone(),
                since: since.as_nanos(),
            };
            let about = About::Cells([instance.cell_id.clone()].into());
            vec![told("actual_lrp_crashed", &message, about)]
        }
        Event::ActualLrpCreated(_)
        | Event::ActualLrpChanged { .. }
        | Event::ActualLrpRemoved(_)
        | Event::TaskCreated(_)
        | Event::TaskChanged { .. }
        | Event::TaskRemoved(_)
        | Event::CellChanged(_)
        | Event::DomainChanged(_)
        | Event::LockChanged(_)
        | Event::FeatureFlagChanged { .. }
        | Event::ClusterInitialised => Vec::new(),
    }
}

/// Puts the events of one operation into the order in which watchers may hear them: crashes, then
/// what runs, then the rest, so that a router learns of a replacement before it loses the old one.
#[must_use]
pub fn in_order(events: &[Event]) -> Vec<&Event> {
    let rank = |event: &Event| match event {
        Event::ActualLrpCrashed { .. } => 0,
        Event::ActualLrpCreated(lrp) | Event::ActualLrpChanged { after: lrp, .. }
            if lrp.is_running() =>
        {
            1
        }
        _ => 2,
    };
    let mut sorted: Vec<&Event> = events.iter().collect();
    // Runs of one index: what concerns different ones has no order, and an entry of the log has
    // many operations.
    for run in
        sorted.chunk_by_mut(|one, next| index_of(one).is_some() && index_of(one) == index_of(next))
    {
        let changes_twice = run.iter().filter(|event| rank(event) == 1).count() > 1;
        if !changes_twice {
            run.sort_by_key(|event| rank(event));
        }
    }
    sorted
}

fn index_of(event: &Event) -> Option<(&ProcessGuid, u32)> {
    match event {
        Event::ActualLrpCreated(lrp)
        | Event::ActualLrpRemoved(lrp)
        | Event::ActualLrpChanged { after: lrp, .. } => {
            Some((&lrp.key.process_guid, lrp.key.index))
        }
        Event::ActualLrpCrashed { key, .. } => Some((&key.process_guid, key.index)),
        _ => None,
    }
}

fn is_unclaimed_anew(before: &ActualLrp, after: &ActualLrp) -> bool {
    after.is_unclaimed() && !matches!(before.state, ActualState::Unclaimed { .. })
}

fn created(lrp: &ActualLrp, desired: Desired<'_>) -> Told {
    let actual_lrp = Some(actual_lrp(lrp, desired_of(lrp, desired).as_deref()));
    let trace_id = trace_id(lrp, desired);
    let message = bbs::ActualLrpInstanceCreatedEvent { actual_lrp, trace_id };
    told("actual_lrp_instance_created", &message, on(&[lrp]))
}

fn removed(lrp: &ActualLrp, desired: Desired<'_>) -> Told {
    let actual_lrp = Some(actual_lrp(lrp, desired_of(lrp, desired).as_deref()));
    let trace_id = trace_id(lrp, desired);
    let message = bbs::ActualLrpInstanceRemovedEvent { actual_lrp, trace_id };
    told("actual_lrp_instance_removed", &message, on(&[lrp]))
}

fn desired_of(lrp: &ActualLrp, desired: Desired<'_>) -> Option<Arc<DesiredLrp>> {
    desired(&lrp.key.process_guid)
}

fn trace_id(lrp: &ActualLrp, desired: Desired<'_>) -> String {
    desired_of(lrp, desired).map(|desired| desired.trace_id.clone()).unwrap_or_default()
}

fn on(lrps: &[&ActualLrp]) -> About {
    let cells = lrps.iter().filter_map(|lrp| lrp.instance());
    About::Cells(cells.map(|instance| instance.cell_id.clone()).collect())
}

fn told(name: &'static str, message: &impl Message, about: About) -> Told {
    Told { name, message: message.encode_to_vec(), about }
}
