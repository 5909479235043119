//! Ping, domains and cells.

use api::bbs::cell_presence;
use api::bbs::messages as bbs;
use model::{Command, Millis};

use super::Call;

pub(super) async fn ping(_: Call) -> Result<bbs::PingResponse, bbs::Error> {
    Ok(bbs::PingResponse { available: true })
}

/// Those that are fresh.
pub(super) async fn domains(call: Call) -> Result<bbs::DomainsResponse, bbs::Error> {
    let state = call.read().await?;
    let now = state.now();
    let fresh = state.domains().filter(|domain| domain.expires_at.is_none_or(|at| at > now));
    let domains = fresh.map(|domain| domain.name.to_string()).collect();
    Ok(bbs::DomainsResponse { error: None, domains })
}

/// For `ttl` seconds; 0 is for ever.
pub(super) async fn upsert_domain(
    call: Call,
    bbs::UpsertDomainRequest { domain, ttl }: bbs::UpsertDomainRequest,
) -> Result<bbs::UpsertDomainResponse, bbs::Error> {
    let ttl = (ttl > 0).then(|| Millis::from_secs(ttl.into()));
    call.change(Command::UpsertDomain { domain: domain.into(), ttl }).await?;
    Ok(bbs::UpsertDomainResponse { error: None })
}

/// Those that are present.
pub(super) async fn list(call: Call) -> Result<bbs::CellsResponse, bbs::Error> {
    let state = call.read().await?;
    let present = state.cells().filter(|cell| cell.is_present());
    let cells = present.map(|cell| cell_presence(cell)).collect();
    Ok(bbs::CellsResponse { error: None, cells })
}
