//! Diego's BBS API (bbs-wire.md sections 1 to 3): protobuf over HTTP on any node, whoever leads.
//!
//! - this file says which path is which call, and how a call is read and answered;
//! - [`desired_lrps`], [`actual_lrps`], [`tasks`], [`cells`] are the calls, one family a file;
//! - [`evacuation`] is what a cell of Diego's asks when it is emptied;
//! - [`events`] are the streams, and [`hub`] is what they are fed from;
//! - [`listener`] accepts connections.

mod actual_lrps;
mod cells;
mod desired_lrps;
mod evacuation;
mod events;
mod hub;
pub(crate) mod listener;
mod tasks;
mod trace;

use agent::RequestError;
use api::bbs::error;
use api::bbs::messages as bbs;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use model::{Command, Refusal};
use prost::Message;

use crate::limits::DIEGO_REQUEST_BYTES_MAX;
use crate::world::NodeAgent;
use hub::{Hub, Of, Stream};

const PROTOBUF: &str = "application/x-protobuf";

/// What the calls are made of.
#[derive(Clone, Debug)]
pub(crate) struct BbsFace {
    agent: NodeAgent,
    hub: Hub,
}

/// One request of a client's.
#[derive(Clone, Debug)]
struct Call {
    face: BbsFace,
    /// Of the client's request; empty where it has none.
    trace_id: String,
}

impl BbsFace {
    /// Begins to follow what changes.
    pub(crate) fn new(agent: NodeAgent) -> Self {
        let hub = Hub::follow(agent.clone());
        Self { agent, hub }
    }

    /// Every route of bbs-wire.md section 2, in its order.
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/v1/ping", unread(cells::ping))
            .route("/v1/domains/list", unread(cells::domains))
            .route("/v1/domains/upsert", on(cells::upsert_domain))
            .route("/v1/actual_lrps/list", on(actual_lrps::list))
            .route("/v1/actual_lrps/list_by_process_guids", on(actual_lrps::list_by_process_guids))
            .route("/v1/actual_lrp_groups/list", on(actual_lrps::groups))
            .route(
                "/v1/actual_lrp_groups/list_by_process_guid",
                on(actual_lrps::groups_by_process_guid),
            )
            .route("/v1/actual_lrp_groups/get_by_process_guid_and_index", on(actual_lrps::group))
            .route("/v1/actual_lrps/claim", on(actual_lrps::claim))
            .route("/v1/actual_lrps/start.r1", on(actual_lrps::start))
            .route("/v1/actual_lrps/start", on(actual_lrps::start))
            .route("/v1/actual_lrps/crash", on(actual_lrps::crash))
            .route("/v1/actual_lrps/fail", on(actual_lrps::fail))
            .route("/v1/actual_lrps/remove", on(actual_lrps::remove))
            .route("/v1/actual_lrps/retire", on(actual_lrps::retire))
            .route("/v1/actual_lrps/remove_evacuating", on(evacuation::remove))
            .route(
                "/v1/actual_lrps/evacuate_claimed",
                or(evacuation::claimed, evacuation::failed_and_kept),
            )
            .route("/v1/actual_lrps/evacuate_crashed", on(evacuation::crashed))
            .route("/v1/actual_lrps/evacuate_stopped", on(evacuation::stopped))
            .route(
                "/v1/actual_lrps/evacuate_running.r1",
                or(evacuation::running, evacuation::failed_and_kept),
            )
            .route(
                "/v1/actual_lrps/evacuate_running",
                or(evacuation::running, evacuation::failed_and_kept),
            )
            .route("/v1/desired_lrp_scheduling_infos/list", on(desired_lrps::scheduling_infos))
            .route(
                "/v1/desired_lrp_scheduling_infos/get_by_process_guid",
                on(desired_lrps::scheduling_info),
            )
            .route("/v1/desired_lrp_routing_infos/list", on(desired_lrps::routing_infos))
            .route("/v1/desired_lrps/list.r3", on(desired_lrps::list))
            .route("/v1/desired_lrps/get_by_process_guid.r3", on(desired_lrps::get))
            .route("/v1/desired_lrps/list.r2", on(desired_lrps::list_r2))
            .route("/v1/desired_lrps/get_by_process_guid.r2", on(desired_lrps::get_r2))
            .route("/v1/desired_lrp/desire.r2", on(desired_lrps::desire))
            .route("/v1/desired_lrp/update", on(desired_lrps::update))
            .route("/v1/desired_lrp/remove", on(desired_lrps::remove))
            .route("/v1/tasks/list.r3", on(tasks::list))
            .route("/v1/tasks/get_by_task_guid.r3", on(tasks::get))
            .route("/v1/tasks/list.r2", on(tasks::list_r2))
            .route("/v1/tasks/get_by_task_guid.r2", on(tasks::get_r2))
            .route("/v1/tasks/desire.r2", on(tasks::desire))
            .route("/v1/tasks/start", on(tasks::start))
            .route("/v1/tasks/cancel", on(tasks::cancel))
            .route("/v1/tasks/fail", on(tasks::fail))
            .route("/v1/tasks/reject", on(tasks::reject))
            .route("/v1/tasks/complete", on(tasks::complete))
            .route("/v1/tasks/resolving", on(tasks::resolving))
            .route("/v1/tasks/delete", on(tasks::delete))
            .route("/v1/events/lrp_instances.r1", post(events::of_cell(Stream::new(Of::Instances))))
            .route("/v1/events/lrp_instances", post(events::of_cell(Stream::old(Of::Instances))))
            .route("/v1/events/tasks.r1", post(events::all(Stream::new(Of::Tasks))))
            .route("/v1/events/tasks", post(events::all(Stream::old(Of::Tasks))))
            .route("/v1/events.r1", get(events::of_cell(Stream::new(Of::Groups))))
            .route("/v1/events", get(events::of_cell(Stream::old(Of::Groups))))
            .route("/v1/cells/list.r1", unread(cells::list))
            .layer(DefaultBodyLimit::max(DIEGO_REQUEST_BYTES_MAX))
            .with_state(self)
    }
}

impl Call {
    /// Has a command agreed. Whether it changed anything.
    async fn change(&self, command: Command) -> Result<bool, bbs::Error> {
        Ok(self.decide(command).await??)
    }

    /// As [`Self::change`], for those to whom a refusal is an answer.
    async fn decide(&self, command: Command) -> Result<Result<bool, Refusal>, bbs::Error> {
        match self.face.agent.propose(command).await {
            Ok(changed) => Ok(Ok(changed)),
            Err(RequestError::Refused(refusal)) => Ok(Err(refusal)),
            Err(RequestError::NotAgreed(error)) => Err(error::unavailable(&error.to_string())),
        }
    }

    /// The state after every change that anybody was told of.
    async fn read(&self) -> Result<model::State, bbs::Error> {
        let reading = self.face.agent.read().await;
        reading.map(|reading| reading.state).map_err(|error| error::unavailable(&error.to_string()))
    }
}

/// An answer, which says in itself what went wrong: HTTP's status is 200 either way.
trait Answer: Message + Default {
    fn failed(error: bbs::Error) -> Self;
}

macro_rules! answers {
    ($($answer:ident),* $(,)?) => {
        $(impl Answer for bbs::$answer {
            #[allow(clippy::needless_update, reason = "some have nothing but the error")]
            fn failed(error: bbs::Error) -> Self {
                Self { error: Some(error), ..Self::default() }
            }
        })*
    };
}

answers!(
    ActualLrpGroupResponse,
    ActualLrpGroupsResponse,
    ActualLrpLifecycleResponse,
    ActualLrPsByProcessGuidsResponse,
    ActualLrPsResponse,
    CellsResponse,
    DesiredLrpLifecycleResponse,
    DesiredLrpResponse,
    DesiredLrpSchedulingInfoByProcessGuidResponse,
    DesiredLrpSchedulingInfosResponse,
    DesiredLrPsResponse,
    DomainsResponse,
    EvacuationResponse,
    RemoveEvacuatingActualLrpResponse,
    StartTaskResponse,
    TaskLifecycleResponse,
    TaskResponse,
    TasksResponse,
    UpsertDomainResponse,
);

impl Answer for bbs::PingResponse {
    /// It has no place for an error, and none can happen.
    fn failed(_: bbs::Error) -> Self {
        Self { available: false }
    }
}

/// The route of a call that takes no message: what comes nevertheless is not looked at.
fn unread<Response, Handler, Answering>(handler: Handler) -> MethodRouter<BbsFace>
where
    Response: Answer + 'static,
    Handler: Fn(Call) -> Answering + Clone + Send + Sync + 'static,
    Answering: Future<Output = Result<Response, bbs::Error>> + Send,
{
    post(
        async move |State(face): State<BbsFace>,
                    headers: HeaderMap,
                    _: Result<Bytes, BytesRejection>| {
            let call = Call { face, trace_id: trace::id_of(&headers) };
            let answer = handler(call).await.unwrap_or_else(Response::failed);
            ([(header::CONTENT_TYPE, PROTOBUF)], answer.encode_to_vec()).into_response()
        },
    )
}

/// The route of a call that takes one message and answers one.
fn on<Request, Response, Handler, Answering>(handler: Handler) -> MethodRouter<BbsFace>
where
    Request: Message + Default,
    Response: Answer + 'static,
    Handler: Fn(Call, Request) -> Answering + Clone + Send + Sync + 'static,
    Answering: Future<Output = Result<Response, bbs::Error>> + Send,
{
    or(handler, Response::failed)
}

/// As [`on`], where what went wrong has an answer of its own.
fn or<Request, Response, Handler, Answering>(
    handler: Handler,
    failed: fn(bbs::Error) -> Response,
) -> MethodRouter<BbsFace>
where
    Request: Message + Default,
    Response: Message + 'static,
    Handler: Fn(Call, Request) -> Answering + Clone + Send + Sync + 'static,
    Answering: Future<Output = Result<Response, bbs::Error>> + Send,
{
    post(
        async move |State(face): State<BbsFace>,
                    headers: HeaderMap,
                    body: Result<Bytes, BytesRejection>| {
            let answer = match read::<Request>(body) {
                Ok(request) => {
                    let call = Call { face, trace_id: trace::id_of(&headers) };
                    handler(call, request).await
                }
                Err(error) => Err(error),
            };
            let answer = answer.unwrap_or_else(failed);
            ([(header::CONTENT_TYPE, PROTOBUF)], answer.encode_to_vec()).into_response()
        },
    )
}

fn read<M: Message + Default>(body: Result<Bytes, BytesRejection>) -> Result<M, bbs::Error> {
    let unread = |_| error::unavailable("the request failed for an unknown reason");
    M::decode(body.map_err(unread)?).map_err(|_| error::undecodable())
}
