//! Instances: lists, and what cells report.

use std::net::Ipv4Addr;

use api::bbs::error::{Malformed, not_found};
use api::bbs::messages as bbs;
use api::bbs::{actual_lrp, groups as grouped};
use model::{
    ActualLrp, ActualLrpId, ActualLrpKey, CellId, Command, InstanceKey, NetInfo, PortMapping,
    Presence, ProcessGuid, Refusal, State,
};

use super::Call;

type Changed = Result<bbs::ActualLrpLifecycleResponse, bbs::Error>;

const CHANGED: bbs::ActualLrpLifecycleResponse = bbs::ActualLrpLifecycleResponse { error: None };

pub(super) async fn list(
    call: Call,
    request: bbs::ActualLrPsRequest,
) -> Result<bbs::ActualLrPsResponse, bbs::Error> {
    let state = call.read().await?;
    let of_index = |lrp: &ActualLrp| {
        request.index.is_none_or(|index| u32::try_from(index).is_ok_and(|it| it == lrp.key.index))
    };
    let actual_lrps = select(&state, &request.process_guid, &request.domain, &request.cell_id)
        .filter(|lrp| of_index(lrp))
        .map(|lrp| as_message(&state, lrp))
        .collect();
    Ok(bbs::ActualLrPsResponse { error: None, actual_lrps })
}

pub(super) async fn list_by_process_guids(
    call: Call,
    request: bbs::ActualLrPsByProcessGuidsRequest,
) -> Result<bbs::ActualLrPsByProcessGuidsResponse, bbs::Error> {
    if request.process_guids.is_empty() {
        return Err(Malformed("process_guids must not be empty".to_owned()).into());
    }
    let state = call.read().await?;
    let guids: std::collections::BTreeSet<_> = request.process_guids.into_iter().collect();
    let lrps = guids.iter().flat_map(|guid| select(&state, guid, "", ""));
    let actual_lrps = lrps.map(|lrp| as_message(&state, lrp)).collect();
    Ok(bbs::ActualLrPsByProcessGuidsResponse { error: None, actual_lrps })
}

pub(super) async fn groups(
    call: Call,
    request: bbs::ActualLrpGroupsRequest,
) -> Result<bbs::ActualLrpGroupsResponse, bbs::Error> {
    let state = call.read().await?;
    let lrps = select(&state, "", &request.domain, &request.cell_id);
    let actual_lrp_groups = grouped(lrps.map(|lrp| as_message(&state, lrp)));
    Ok(bbs::ActualLrpGroupsResponse { error: None, actual_lrp_groups })
}

pub(super) async fn groups_by_process_guid(
    call: Call,
    request: bbs::ActualLrpGroupsByProcessGuidRequest,
) -> Result<bbs::ActualLrpGroupsResponse, bbs::Error> {
    let guid = process_guid(request.process_guid)?;
    let state = call.read().await?;
    let lrps = state.actual_lrps_of(&guid);
    let actual_lrp_groups = grouped(lrps.map(|lrp| as_message(&state, lrp)));
    Ok(bbs::ActualLrpGroupsResponse { error: None, actual_lrp_groups })
}

pub(super) async fn group(
    call: Call,
    request: bbs::ActualLrpGroupByProcessGuidAndIndexRequest,
) -> Result<bbs::ActualLrpGroupResponse, bbs::Error> {
    let (guid, index) = Malformed::both(process_guid(request.process_guid), index(request.index))?;
    let state = call.read().await?;
    let lrps = state.actual_lrps_of(&guid).filter(|lrp| lrp.key.index == index);
    let group = grouped(lrps.map(|lrp| as_message(&state, lrp))).pop();
    let actual_lrp_group = Some(group.ok_or_else(not_found)?);
    Ok(bbs::ActualLrpGroupResponse { error: None, actual_lrp_group })
}

/// The leader places, so a claim repeats what is on record, or is refused.
pub(super) async fn claim(call: Call, request: bbs::ClaimActualLrpRequest) -> Changed {
    let (process_guid, instance) = Malformed::both(
        process_guid(request.process_guid),
        instance(request.actual_lrp_instance_key),
    )?;
    // Diego does not look at it, and finds no row.
    let index = index(request.index).map_err(|_| not_found())?;
    let state = call.read().await?;
    let row = |presence| {
        let id = ActualLrpId { process_guid: process_guid.clone(), index, presence };
        state.actual_lrp(&id)
    };
    let is_his = |row: &std::sync::Arc<ActualLrp>| row.instance() == Some(&instance);
    if row(Presence::Suspect).is_some_and(is_his) {
        return Ok(CHANGED);
    }
    let ordinary = row(Presence::Ordinary).ok_or_else(not_found)?;
    if is_his(ordinary) {
        return Ok(CHANGED);
    }
    let state = ordinary.state.name().to_owned();
    Err(Refusal::ActualLrpCannotBeClaimed { process_guid, index, state }.into())
}

/// Its internal routes and metric tags are the desired LRP's; what a cell says of them is not kept.
pub(super) async fn start(call: Call, request: bbs::StartActualLrpRequest) -> Changed {
    let ((key, instance), net_info) = Malformed::both(
        placement(request.actual_lrp_key, request.actual_lrp_instance_key),
        net_info(request.actual_lrp_net_info),
    )?;
    let routable = request.routable.unwrap_or(true);
    call.change(Command::StartLrp { key, instance, net_info, routable }).await?;
    Ok(CHANGED)
}

pub(super) async fn crash(call: Call, request: bbs::CrashActualLrpRequest) -> Changed {
    let (key, instance) = placement(request.actual_lrp_key, request.actual_lrp_instance_key)?;
    call.change(Command::CrashLrp { key, instance, reason: request.error_message }).await?;
    Ok(CHANGED)
}

/// A row that is not there has not failed.
pub(super) async fn fail(call: Call, request: bbs::FailActualLrpRequest) -> Changed {
    let (key, placement_error) =
        Malformed::both(key(request.actual_lrp_key), reason(request.error_message))?;
    let ActualLrpKey { process_guid, index, .. } = key;
    let id = ActualLrpId::ordinary(process_guid.clone(), index);
    if call.read().await?.actual_lrp(&id).is_none() {
        return Ok(CHANGED);
    }
    call.change(Command::FailLrp { process_guid, index, placement_error }).await?;
    Ok(CHANGED)
}

/// Only the ordinary row; where the placement is named, only that one.
pub(super) async fn remove(call: Call, request: bbs::RemoveActualLrpRequest) -> Changed {
    let (process_guid, index) =
        Malformed::both(process_guid(request.process_guid), index(request.index))?;
    let Some(instance_key) = request.actual_lrp_instance_key else {
        call.change(Command::RetireLrp { process_guid, index }).await?;
        return Ok(CHANGED);
    };
    // An empty one is no row's.
    let instance = instance(Some(instance_key)).map_err(|_| not_found())?;
    let state = call.read().await?;
    let id = ActualLrpId::ordinary(process_guid, index);
    let row = state.actual_lrp(&id).filter(|row| row.instance() == Some(&instance));
    let key = row.ok_or_else(not_found)?.key.clone();
    call.change(Command::RemoveLrp { key, instance }).await?;
    Ok(CHANGED)
}

pub(super) async fn retire(call: Call, request: bbs::RetireActualLrpRequest) -> Changed {
    let ActualLrpKey { process_guid, index, .. } = key(request.actual_lrp_key)?;
    call.change(Command::RetireLrp { process_guid, index }).await?;
    Ok(CHANGED)
}

fn as_message(state: &State, lrp: &ActualLrp) -> bbs::ActualLrp {
    actual_lrp(lrp, state.desired_lrp(&lrp.key.process_guid).map(|desired| &**desired))
}

/// Rows of any presence; what is empty narrows nothing.
fn select<'a>(
    state: &'a State,
    process_guid: &str,
    domain: &'a str,
    cell_id: &'a str,
) -> impl Iterator<Item = &'a ActualLrp> {
    let (of_process, of_cell, all) = if !process_guid.is_empty() {
        (Some(ProcessGuid::from(process_guid)), None, None)
    } else if !cell_id.is_empty() {
        (None, state.load(&CellId::from(cell_id)), None)
    } else {
        (None, None, Some(state.actual_lrps()))
    };
    let of_process: Vec<_> =
        of_process.iter().flat_map(|guid| state.actual_lrps_of(guid)).collect();
    let of_cell = of_cell.into_iter().flat_map(|load| &load.lrps);
    of_process
        .into_iter()
        .chain(of_cell.filter_map(|id| state.actual_lrp(id)))
        .chain(all.into_iter().flatten())
        .map(|lrp| &**lrp)
        .filter(move |lrp| domain.is_empty() || lrp.key.domain.as_str() == domain)
        .filter(move |lrp| {
            let on = lrp.instance().map(|instance| instance.cell_id.as_str());
            cell_id.is_empty() || on == Some(cell_id)
        })
}

pub(super) fn process_guid(guid: String) -> Result<ProcessGuid, Malformed> {
    text("process_guid", guid).map(ProcessGuid::from)
}

fn index(index: i32) -> Result<u32, Malformed> {
    u32::try_from(index).map_err(|_| Malformed::field("index"))
}

pub(super) fn key(key: Option<bbs::ActualLrpKey>) -> Result<ActualLrpKey, Malformed> {
    let key = key.ok_or_else(|| Malformed::field("actual_lrp_key"))?;
    let named = Malformed::both(process_guid(key.process_guid), index(key.index));
    let ((process_guid, index), domain) = Malformed::both(named, text("domain", key.domain))?;
    Ok(ActualLrpKey { process_guid, index, domain: domain.into() })
}

fn instance(key: Option<bbs::ActualLrpInstanceKey>) -> Result<InstanceKey, Malformed> {
    let key = key.ok_or_else(|| Malformed::field("actual_lrp_instance_key"))?;
    let (cell_id, instance_guid) =
        Malformed::both(text("cell_id", key.cell_id), text("instance_guid", key.instance_guid))?;
    Ok(InstanceKey { instance_guid: instance_guid.into(), cell_id: cell_id.into() })
}

/// Which instance a cell speaks of.
pub(super) fn placement(
    of: Option<bbs::ActualLrpKey>,
    on: Option<bbs::ActualLrpInstanceKey>,
) -> Result<(ActualLrpKey, InstanceKey), Malformed> {
    Malformed::both(key(of), instance(on))
}

pub(super) fn reason(message: String) -> Result<String, Malformed> {
    text("error_message", message)
}

fn text(field: &str, text: String) -> Result<String, Malformed> {
    if text.is_empty() { Err(Malformed::field(field)) } else { Ok(text) }
}

/// Gavel's instances have addresses of version 4.
pub(super) fn net_info(info: Option<bbs::ActualLrpNetInfo>) -> Result<NetInfo, Malformed> {
    let info = info.ok_or_else(|| Malformed::field("actual_lrp_net_info"))?;
    let field = Malformed::field;
    let address: Ipv4Addr = info.address.parse().map_err(|_| field("address"))?;
    let instance_address = match info.instance_address.as_str() {
        "" => address,
        text => text.parse().map_err(|_| field("instance_address"))?,
    };
    let port = |port: bbs::PortMapping| {
        Some(PortMapping {
            container_port: port.container_port.try_into().ok()?,
            host_port: port.host_port.try_into().ok()?,
        })
    };
    let ports: Option<Vec<_>> = info.ports.into_iter().map(port).collect();
    Ok(NetInfo { address, instance_address, ports: ports.ok_or_else(|| field("ports"))? })
}

/// The row of an index that has this placement, whatever its presence.
pub(super) fn row_of<'a>(
    state: &'a State,
    key: &ActualLrpKey,
    instance: &InstanceKey,
) -> Option<&'a ActualLrp> {
    let mut rows = state.actual_lrps_of(&key.process_guid);
    let row = rows.find(|row| row.key.index == key.index && row.instance() == Some(instance));
    row.map(|row| &**row)
}
