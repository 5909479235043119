//! What is desired: desire, update, remove, and the forms in which it is listed.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::bbs::error::{Malformed, not_found};
use api::bbs::messages as bbs;
use api::bbs::{desired_lrp, desired_lrp_from, downgrade, routing_info, update_from};
use model::{Command, DesiredLrp, ProcessGuid, State};

use super::Call;
use crate::faces::seal;
use crate::secrets::Owner;

type Changed = Result<bbs::DesiredLrpLifecycleResponse, bbs::Error>;

pub(super) async fn desire(call: Call, request: bbs::DesireLrpRequest) -> Changed {
    let asked = request.desired_lrp.ok_or_else(|| Malformed::field("desired_lrp"))?;
    let mut lrp = desired_lrp_from(asked, &call.trace_id)?;
    let owner = Owner::Lrp(&lrp.process_guid);
    seal(&call.face.agent, owner, &lrp.image_username, &mut lrp.image_password)
        .map_err(Malformed)?;
    let guid = lrp.process_guid.clone();
    call.change(Command::DesireLrp { desired_lrp: Box::new(lrp) }).await?;
    tracing::info!(process_guid = %guid, trace_id = call.trace_id, "an LRP is desired");
    Ok(bbs::DesiredLrpLifecycleResponse { error: None })
}

pub(super) async fn update(call: Call, request: bbs::UpdateDesiredLrpRequest) -> Changed {
    let update = request.update.ok_or_else(|| Malformed::field("update"));
    let (process_guid, asked) = Malformed::both(guid(request.process_guid), update)?;
    let mut update = update_from(asked, &call.trace_id)?;
    if let (Some(username), Some(password)) = (&update.image_username, &mut update.image_password) {
        seal(&call.face.agent, Owner::Lrp(&process_guid), username, password).map_err(Malformed)?;
    }
    let guid = process_guid.clone();
    call.change(Command::UpdateDesiredLrp { process_guid, update: Box::new(update) }).await?;
    tracing::info!(process_guid = %guid, trace_id = call.trace_id, "an LRP is updated");
    Ok(bbs::DesiredLrpLifecycleResponse { error: None })
}

pub(super) async fn remove(call: Call, request: bbs::RemoveDesiredLrpRequest) -> Changed {
    let process_guid = guid(request.process_guid)?;
    let guid = process_guid.clone();
    call.change(Command::RemoveDesiredLrp { process_guid }).await?;
    tracing::info!(process_guid = %guid, trace_id = call.trace_id, "an LRP is not desired any more");
    Ok(bbs::DesiredLrpLifecycleResponse { error: None })
}

pub(super) async fn list(
    call: Call,
    request: bbs::DesiredLrPsRequest,
) -> Result<bbs::DesiredLrPsResponse, bbs::Error> {
    let state = call.read().await?;
    let desired_lrps = Filter::of(request).select(&state).map(|lrp| desired_lrp(lrp)).collect();
    Ok(bbs::DesiredLrPsResponse { error: None, desired_lrps })
}

/// For clients that know no image layers.
pub(super) async fn list_r2(
    call: Call,
    request: bbs::DesiredLrPsRequest,
) -> Result<bbs::DesiredLrPsResponse, bbs::Error> {
    let mut answer = list(call, request).await?;
    answer.desired_lrps = answer.desired_lrps.into_iter().map(downgrade::desired_lrp).collect();
    Ok(answer)
}

pub(super) async fn get(
    call: Call,
    request: bbs::DesiredLrpByProcessGuidRequest,
) -> Result<bbs::DesiredLrpResponse, bbs::Error> {
    let lrp = find(&call, request).await?;
    Ok(bbs::DesiredLrpResponse { error: None, desired_lrp: Some(desired_lrp(&lrp)) })
}

/// For clients that know no image layers.
pub(super) async fn get_r2(
    call: Call,
    request: bbs::DesiredLrpByProcessGuidRequest,
) -> Result<bbs::DesiredLrpResponse, bbs::Error> {
    let mut answer = get(call, request).await?;
    answer.desired_lrp = answer.desired_lrp.map(downgrade::desired_lrp);
    Ok(answer)
}

pub(super) async fn scheduling_infos(
    call: Call,
    request: bbs::DesiredLrPsRequest,
) -> Result<bbs::DesiredLrpSchedulingInfosResponse, bbs::Error> {
    let state = call.read().await?;
    let filter = Filter::of(request);
    let infos = filter.select(&state).map(|lrp| api::bbs::scheduling_info(lrp));
    let desired_lrp_scheduling_infos = infos.collect();
    Ok(bbs::DesiredLrpSchedulingInfosResponse { error: None, desired_lrp_scheduling_infos })
}

pub(super) async fn scheduling_info(
    call: Call,
    request: bbs::DesiredLrpByProcessGuidRequest,
) -> Result<bbs::DesiredLrpSchedulingInfoByProcessGuidResponse, bbs::Error> {
    let info = api::bbs::scheduling_info(&*find(&call, request).await?);
    Ok(bbs::DesiredLrpSchedulingInfoByProcessGuidResponse {
        error: None,
        desired_lrp_scheduling_info: Some(info),
    })
}

/// By process guids only.
pub(super) async fn routing_infos(
    call: Call,
    request: bbs::DesiredLrPsRequest,
) -> Result<bbs::DesiredLrPsResponse, bbs::Error> {
    let state = call.read().await?;
    let process_guids = request.process_guids;
    let filter = Filter::of(bbs::DesiredLrPsRequest { process_guids, ..Default::default() });
    let desired_lrps = filter.select(&state).map(|lrp| routing_info(lrp)).collect();
    Ok(bbs::DesiredLrPsResponse { error: None, desired_lrps })
}

async fn find(
    call: &Call,
    request: bbs::DesiredLrpByProcessGuidRequest,
) -> Result<Arc<DesiredLrp>, bbs::Error> {
    let guid = guid(request.process_guid)?;
    call.read().await?.desired_lrp(&guid).cloned().ok_or_else(not_found)
}

fn guid(guid: String) -> Result<ProcessGuid, Malformed> {
    if guid.is_empty() { Err(Malformed::field("process_guid")) } else { Ok(guid.into()) }
}

/// What a list is narrowed to; what is empty narrows nothing.
struct Filter {
    domain: String,
    process_guids: BTreeSet<ProcessGuid>,
    /// What a process guid may begin with.
    app_guids: Vec<String>,
}

impl Filter {
    fn of(request: bbs::DesiredLrPsRequest) -> Self {
        Self {
            domain: request.domain,
            process_guids: request.process_guids.into_iter().map(ProcessGuid::from).collect(),
            app_guids: request.app_guids,
        }
    }

    fn select<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a Arc<DesiredLrp>> {
        let named = self.process_guids.iter().filter_map(|guid| state.desired_lrp(guid));
        // Few that are named cost no look at all of them.
        let all = self.process_guids.is_empty().then(|| state.desired_lrps());
        named.chain(all.into_iter().flatten()).filter(|lrp| {
            let guid = lrp.process_guid.as_str();
            let is_of = |app: &String| guid.starts_with(app.as_str());
            (self.domain.is_empty() || lrp.domain.as_str() == self.domain)
                && (self.app_guids.is_empty() || self.app_guids.iter().any(is_of))
        })
    }
}
