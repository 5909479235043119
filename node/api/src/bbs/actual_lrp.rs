//! Actual LRPs.

use model::{
    ActualLrp, ActualLrpKey, ActualState, DesiredLrp, InstanceKey, ModificationTag, NetInfo,
    Presence, metric_tag,
};
use serde::Deserialize;

use super::messages::{self as bbs, actual_lrp, actual_lrp_net_info::PreferredAddress};

/// An instance. Its internal routes and metric tags are those of the desired LRP, where there is
/// one, and it has started.
#[must_use]
pub fn actual_lrp(lrp: &ActualLrp, desired: Option<&DesiredLrp>) -> bbs::ActualLrp {
    let desired = desired.filter(|_| lrp.is_running());
    bbs::ActualLrp {
        actual_lrp_key: Some(lrp_key(&lrp.key)),
        actual_lrp_instance_key: Some(lrp.instance().map(instance_key).unwrap_or_default()),
        actual_lrp_net_info: Some(net_info(&lrp.state)),
        crash_count: crash_count(lrp.crash_count),
        crash_reason: lrp.crash_reason.clone(),
        state: lrp.state.name().to_owned(),
        placement_error: placement_error(&lrp.state).to_owned(),
        since: lrp.since.as_nanos(),
        modification_tag: Some(modification_tag(&lrp.modification_tag)),
        presence: presence(lrp.presence).into(),
        actual_lrp_internal_routes: desired.map(internal_routes).unwrap_or_default(),
        metric_tags: desired
            .map(|desired| metric_tag::resolve(&desired.metric_tags, lrp))
            .unwrap_or_default(),
        routable: Some(lrp.routable),
        availability_zone: lrp.availability_zone.to_string(),
    }
}

/// What a changed event says of an instance, before and after.
pub(super) fn info(lrp: &ActualLrp) -> bbs::ActualLrpInfo {
    bbs::ActualLrpInfo {
        actual_lrp_net_info: Some(net_info(&lrp.state)),
        crash_count: crash_count(lrp.crash_count),
        crash_reason: lrp.crash_reason.clone(),
        state: lrp.state.name().to_owned(),
        placement_error: placement_error(&lrp.state).to_owned(),
        since: lrp.since.as_nanos(),
        modification_tag: Some(modification_tag(&lrp.modification_tag)),
        presence: presence(lrp.presence).into(),
        routable: Some(lrp.routable),
        availability_zone: lrp.availability_zone.to_string(),
    }
}

/// The old form, in which an evacuating copy has a place of its own.
pub(super) fn group(lrp: bbs::ActualLrp) -> bbs::ActualLrpGroup {
    if lrp.presence == i32::from(actual_lrp::Presence::Evacuating) {
        bbs::ActualLrpGroup { instance: None, evacuating: Some(lrp) }
    } else {
        bbs::ActualLrpGroup { instance: Some(lrp), evacuating: None }
    }
}

/// The rows of all indices in the old form. A suspect row stands for its index until the ordinary
/// one runs (lifecycle.md section 3.5).
#[must_use]
pub fn groups(lrps: impl IntoIterator<Item = bbs::ActualLrp>) -> Vec<bbs::ActualLrpGroup> {
    let mut groups = std::collections::BTreeMap::<_, bbs::ActualLrpGroup>::new();
    for lrp in lrps {
        let key = lrp.actual_lrp_key.clone().unwrap_or_default();
        let group = groups.entry((key.process_guid, key.index)).or_default();
        if lrp.presence == i32::from(actual_lrp::Presence::Evacuating) {
            group.evacuating = Some(lrp);
        } else if group.instance.as_ref().is_none_or(|other| rank(other) < rank(&lrp)) {
            group.instance = Some(lrp);
        }
    }
    groups.into_values().collect()
}

fn rank(lrp: &bbs::ActualLrp) -> u8 {
    match (lrp.presence == i32::from(actual_lrp::Presence::Ordinary), lrp.state.as_str()) {
        (true, "RUNNING") => 2,
        (false, _) => 1,
        (true, _) => 0,
    }
}

/// Which index of which process.
pub(super) fn lrp_key(key: &ActualLrpKey) -> bbs::ActualLrpKey {
    bbs::ActualLrpKey {
        process_guid: key.process_guid.to_string(),
        index: i32::try_from(key.index).unwrap_or(i32::MAX),
        domain: key.domain.to_string(),
    }
}

/// Which container on which cell.
pub(super) fn instance_key(instance: &InstanceKey) -> bbs::ActualLrpInstanceKey {
    bbs::ActualLrpInstanceKey {
        instance_guid: instance.instance_guid.to_string(),
        cell_id: instance.cell_id.to_string(),
    }
}

pub(super) fn modification_tag(tag: &ModificationTag) -> bbs::ModificationTag {
    bbs::ModificationTag { epoch: tag.epoch.to_string(), index: tag.index }
}

pub(super) fn crash_count(count: u32) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

fn presence(presence: Presence) -> actual_lrp::Presence {
    match presence {
        Presence::Ordinary => actual_lrp::Presence::Ordinary,
        Presence::Evacuating => actual_lrp::Presence::Evacuating,
        Presence::Suspect => actual_lrp::Presence::Suspect,
    }
}

fn placement_error(state: &ActualState) -> &str {
    match state {
        ActualState::Unclaimed { placement_error } => placement_error,
        ActualState::Claimed { .. } | ActualState::Running { .. } | ActualState::Crashed => "",
    }
}

/// Clients reach an instance by its cell's ports (Diego: a cell that advertises no preference for
/// instances' own addresses).
fn net_info(state: &ActualState) -> bbs::ActualLrpNetInfo {
    let ActualState::Running { net_info: NetInfo { address, instance_address, ports }, .. } = state
    else {
        return bbs::ActualLrpNetInfo::default();
    };
    let port = |port: &model::PortMapping| bbs::PortMapping {
        container_port: port.container_port.into(),
        host_port: port.host_port.into(),
        container_tls_proxy_port: 0,
        host_tls_proxy_port: 0,
    };
    bbs::ActualLrpNetInfo {
        address: address.to_string(),
        ports: ports.iter().map(port).collect(),
        instance_address: instance_address.to_string(),
        preferred_address: PreferredAddress::Host.into(),
        instance_ipv6_address: String::new(),
    }
}

/// The routes of `internal-router`; none where they are not what Diego's clients write.
fn internal_routes(desired: &DesiredLrp) -> Vec<bbs::ActualLrpInternalRoute> {
    #[derive(Deserialize)]
    struct Route {
        hostname: String,
    }
    let Some(text) = desired.routes.get("internal-router") else { return Vec::new() };
    let routes: Vec<Route> = serde_json::from_str(text).unwrap_or_default();
    routes.into_iter().map(|Route { hostname }| bbs::ActualLrpInternalRoute { hostname }).collect()
}
