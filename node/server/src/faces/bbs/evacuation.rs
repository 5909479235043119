//! What a cell of Diego's asks, container by container, when it is emptied (lifecycle.md section
//! 4.2).
//!
//! Where the whole cell is evacuated (`gavel evacuate`), everything has been moved when that was
//! agreed; else each instance is moved when it is asked for. The answer that counts is whether its
//! container is still needed.

use api::bbs::error::{Malformed, not_found};
use api::bbs::messages as bbs;
use model::{ActualLrpId, Command, Presence, Refusal};

use super::Call;
use super::actual_lrps::{net_info, placement, reason, row_of};

/// Who asked is to keep the container, as nothing is known of what becomes of its instance.
pub(super) fn failed_and_kept(error: bbs::Error) -> bbs::EvacuationResponse {
    bbs::EvacuationResponse { error: Some(error), keep_container: true }
}

type Evacuated = Result<bbs::EvacuationResponse, bbs::Error>;

fn keep(keep_container: bool) -> bbs::EvacuationResponse {
    bbs::EvacuationResponse { error: None, keep_container }
}

/// Not what it was claimed for: another one will be.
pub(super) async fn claimed(
    call: Call,
    request: bbs::EvacuateClaimedActualLrpRequest,
) -> Evacuated {
    let (key, instance) = placement(request.actual_lrp_key, request.actual_lrp_instance_key)?;
    let state = call.read().await?;
    let command = match row_of(&state, &key, &instance).map(|row| row.presence) {
        Some(Presence::Ordinary) => Command::EvacuateLrp { key, instance, runs: false },
        Some(Presence::Evacuating | Presence::Suspect) | None => {
            Command::RemoveLrp { key, instance }
        }
    };
    match end(&call, command).await {
        Err(error) if error == not_found() => {
            Ok(bbs::EvacuationResponse { error: Some(error), keep_container: false })
        }
        ended => ended,
    }
}

pub(super) async fn crashed(
    call: Call,
    request: bbs::EvacuateCrashedActualLrpRequest,
) -> Evacuated {
    let ((key, instance), reason) = Malformed::both(
        placement(request.actual_lrp_key, request.actual_lrp_instance_key),
        reason(request.error_message),
    )?;
    let state = call.read().await?;
    let row = row_of(&state, &key, &instance).ok_or_else(not_found)?;
    let command = match row.presence {
        Presence::Ordinary | Presence::Suspect => Command::CrashLrp { key, instance, reason },
        Presence::Evacuating => Command::RemoveLrp { key, instance },
    };
    end(&call, command).await
}

pub(super) async fn stopped(
    call: Call,
    request: bbs::EvacuateStoppedActualLrpRequest,
) -> Evacuated {
    let (key, instance) = placement(request.actual_lrp_key, request.actual_lrp_instance_key)?;
    end(&call, Command::RemoveLrp { key, instance }).await
}

/// Its container is kept until its replacement runs, or is given up.
pub(super) async fn running(
    call: Call,
    request: bbs::EvacuateRunningActualLrpRequest,
) -> Evacuated {
    let ((key, instance), _) = Malformed::both(
        placement(request.actual_lrp_key, request.actual_lrp_instance_key),
        net_info(request.actual_lrp_net_info),
    )?;
    let state = call.read().await?;
    match row_of(&state, &key, &instance).map(|row| row.presence) {
        None => return Ok(keep(false)),
        // Its replacement is on its way, or nobody knows.
        Some(Presence::Evacuating | Presence::Suspect) => return Ok(keep(true)),
        Some(Presence::Ordinary) => {}
    }
    let command = Command::EvacuateLrp { key: key.clone(), instance: instance.clone(), runs: true };
    match call.decide(command).await? {
        // Where it must not run twice and the others do not run yet, it waits for its turn.
        Ok(_) | Err(Refusal::NotDue) => {}
        Err(Refusal::ActualLrpNotFound { .. }) => return Ok(keep(false)),
        Err(refusal) => return Err(refusal.into()),
    }
    let state = call.read().await?;
    Ok(keep(row_of(&state, &key, &instance).is_some()))
}

pub(super) async fn remove(
    call: Call,
    request: bbs::RemoveEvacuatingActualLrpRequest,
) -> Result<bbs::RemoveEvacuatingActualLrpResponse, bbs::Error> {
    let (key, instance) = placement(request.actual_lrp_key, request.actual_lrp_instance_key)?;
    let state = call.read().await?;
    let (process_guid, index) = (key.process_guid.clone(), key.index);
    let id = ActualLrpId { process_guid, index, presence: Presence::Evacuating };
    let copy = state.actual_lrp(&id).ok_or_else(not_found)?;
    if copy.instance() != Some(&instance) {
        let state = format!("EVACUATING, not {}", instance.instance_guid);
        let ActualLrpId { process_guid, index, .. } = id;
        return Err(Refusal::ActualLrpCannotBeRemoved { process_guid, index, state }.into());
    }
    call.change(Command::RemoveLrp { key, instance }).await?;
    Ok(bbs::RemoveEvacuatingActualLrpResponse { error: None })
}

async fn end(call: &Call, command: Command) -> Evacuated {
    call.change(command).await?;
    Ok(keep(false))
}
