//! Diego's Locket over gRPC (bbs-wire.md section 8): locks of outsiders in the agreed state, and
//! beside them what this cluster is itself, its cells' presences and who leads.

use api::bbs::cell_presence_json;
use model::lock::LockKind;
use model::{Cell, Command, Lock, LockKey, Millis, Refusal, State};
use tonic::{Request, Response, Status};

use crate::world::NodeAgent;
use messages::locket_server::{Locket, LocketServer};
use messages::{Resource, TypeCode};

#[expect(clippy::derive_partial_eq_without_eq, unreachable_pub, reason = "generated")]
mod messages {
    tonic::include_proto!("models");
}

/// Where gRPC has the service.
pub(crate) const PATH: &str = "/models.Locket/{*call}";

#[derive(Clone, Debug)]
pub(crate) struct LocketFace {
    agent: NodeAgent,
}

type Answer<T> = Result<Response<T>, Status>;

impl LocketFace {
    pub(crate) fn service(agent: NodeAgent) -> LocketServer<Self> {
        LocketServer::new(Self { agent })
    }

    async fn read(&self) -> Result<State, Status> {
        let reading = self.agent.read().await;
        reading.map(|reading| reading.state).map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn change(&self, command: Command) -> Result<(), Status> {
        match self.agent.propose(command).await {
            Ok(_changed) => Ok(()),
            Err(agent::RequestError::Refused(Refusal::LockHeld(_))) => {
                Err(Status::already_exists("lock-collision"))
            }
            Err(agent::RequestError::Refused(refusal)) => {
                Err(Status::invalid_argument(refusal.to_string()))
            }
            Err(agent::RequestError::NotAgreed(error)) => {
                Err(Status::unavailable(error.to_string()))
            }
        }
    }

    /// What Diego's components would hold: the leader is both.
    fn own_locks(&self) -> Vec<Resource> {
        let status = self.agent.replica().status();
        let leader = status.leader.and_then(|id| status.members.iter().find(|it| it.id == id));
        let Some(leader) = leader else { return Vec::new() };
        let held = |key: &str| {
            resource(key, &leader.node.name, leader.node.address.clone(), TypeCode::Lock)
        };
        LockKey::OF_LEADER.map(held).to_vec()
    }
}

#[tonic::async_trait]
impl Locket for LocketFace {
    async fn lock(
        &self,
        request: Request<messages::LockRequest>,
    ) -> Answer<messages::LockResponse> {
        let messages::LockRequest { resource, ttl_in_seconds } = request.into_inner();
        let asked = resource.unwrap_or_default();
        #[expect(deprecated, reason = "old clients name the type")]
        let kind = kind_of(asked.type_code(), &asked.r#type)?;
        let seconds = u64::try_from(ttl_in_seconds).unwrap_or(0);
        self.change(Command::ClaimLock {
            key: asked.key.into(),
            owner: asked.owner,
            value: asked.value,
            kind,
            ttl: Millis(seconds.saturating_mul(1000)),
        })
        .await?;
        Ok(Response::new(messages::LockResponse {}))
    }

    async fn fetch(
        &self,
        request: Request<messages::FetchRequest>,
    ) -> Answer<messages::FetchResponse> {
        let key = request.into_inner().key;
        let state = self.read().await?;
        let of_leader = || self.own_locks().into_iter().find(|resource| resource.key == key);
        let of_cell = || state.cell(&key.as_str().into()).filter(|cell| cell.is_present());
        let of_lock = || state.lock(&key.as_str().into()).filter(|lock| is_held(lock, &state));
        let found = of_leader()
            .or_else(|| of_cell().map(|cell| presence(cell)))
            .or_else(|| of_lock().map(|lock| held(lock)));
        let resource = Some(found.ok_or_else(|| Status::not_found("resource-not-found"))?);
        Ok(Response::new(messages::FetchResponse { resource }))
    }

    async fn release(
        &self,
        request: Request<messages::ReleaseRequest>,
    ) -> Answer<messages::ReleaseResponse> {
        let asked = request.into_inner().resource.unwrap_or_default();
        let (key, owner) = (LockKey::from(asked.key), asked.owner);
        if key.is_reserved(&self.agent.read_stale().state) {
            return Err(Status::already_exists("lock-collision"));
        }
        self.change(Command::ReleaseLock { key, owner }).await?;
        Ok(Response::new(messages::ReleaseResponse {}))
    }

    async fn fetch_all(
        &self,
        request: Request<messages::FetchAllRequest>,
    ) -> Answer<messages::FetchAllResponse> {
        let request = request.into_inner();
        #[expect(deprecated, reason = "old clients name the type")]
        let kind = kind_of(request.type_code(), &request.r#type)?;
        let state = self.read().await?;
        let mut resources = match kind {
            LockKind::Lock => self.own_locks(),
            LockKind::Presence => {
                state.cells().filter(|cell| cell.is_present()).map(|cell| presence(cell)).collect()
            }
        };
        let of_kind = state.locks().filter(|lock| lock.kind == kind && is_held(lock, &state));
        resources.extend(of_kind.map(|lock| held(lock)));
        Ok(Response::new(messages::FetchAllResponse { resources }))
    }
}

/// One whose time is up is nobody's, also while the leader has not looked yet.
fn is_held(lock: &Lock, state: &State) -> bool {
    lock.expires_at > state.now()
}

fn kind_of(code: TypeCode, name: &str) -> Result<LockKind, Status> {
    match (code, name) {
        (TypeCode::Lock, _) | (TypeCode::Unknown, "lock") => Ok(LockKind::Lock),
        (TypeCode::Presence, _) | (TypeCode::Unknown, "presence") => Ok(LockKind::Presence),
        (TypeCode::Unknown, _) => Err(Status::not_found("invalid-type")),
    }
}

fn held(lock: &Lock) -> Resource {
    let code = match lock.kind {
        LockKind::Lock => TypeCode::Lock,
        LockKind::Presence => TypeCode::Presence,
    };
    resource(lock.key.as_str(), &lock.owner, lock.value.clone(), code)
}

fn presence(cell: &Cell) -> Resource {
    let cell_id = cell.cell_id.as_str();
    resource(cell_id, cell_id, cell_presence_json(cell).to_string(), TypeCode::Presence)
}

fn resource(key: &str, owner: &str, value: String, code: TypeCode) -> Resource {
    let name = match code {
        TypeCode::Lock => "lock",
        TypeCode::Presence => "presence",
        TypeCode::Unknown => "",
    };
    #[expect(deprecated, reason = "old clients read the type's name")]
    Resource {
        key: key.to_owned(),
        owner: owner.to_owned(),
        value,
        r#type: name.to_owned(),
        type_code: code.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_by_code_or_by_word() {
        assert_eq!(kind_of(TypeCode::Lock, "presence").unwrap(), LockKind::Lock);
        assert_eq!(kind_of(TypeCode::Presence, "").unwrap(), LockKind::Presence);
        assert_eq!(kind_of(TypeCode::Unknown, "lock").unwrap(), LockKind::Lock);
        assert_eq!(kind_of(TypeCode::Unknown, "presence").unwrap(), LockKind::Presence);
        let unknown = kind_of(TypeCode::Unknown, "").unwrap_err();
        assert_eq!((unknown.code(), unknown.message()), (tonic::Code::NotFound, "invalid-type"));
    }
}
