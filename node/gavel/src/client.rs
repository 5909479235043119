//! Speaks to whichever node answers.
//!
//! Endpoints are tried in turn. A read is asked again elsewhere when a node is lost; a change is
//! sent again, and a command run in a container, only while it is certain that it has not happened. A node that says it cannot serve
//! now, as all do for the moment of an election, is asked again, with growing pauses, until the
//! time is up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::admin::{Consistency, InstanceUsage, Routing, Waiting};
use api::attach::{Exec, Frames, NotOpened, Open, What};
use api::wire::{Dialer, Stream};
use api::{AdminClient, Error};
use model::{ActualLrp, DesiredLrp, FeatureFlag, ProcessGuid};
use tarpc::client::RpcError;
use tarpc::context::Context;

use crate::failure::{Failure, Unreached};
use crate::limits::{PING_TIMEOUT, POLL_SLACK, RETRY_WAIT_MAX, RETRY_WAIT_MIN};
use crate::units;

/// What a call gives: tarpc's answer around the node's.
pub(crate) type Answer<T> = Result<Result<T, Error>, RpcError>;

/// A connection to the cluster, made when it is needed and made anew when it is lost.
#[derive(Debug)]
pub(crate) struct Client {
    endpoints: Vec<String>,
    dialer: Dialer,
    timeout: Duration,
    /// The endpoint to speak to; the next one after a failure.
    current: usize,
    connection: Option<AdminClient>,
}

/// What may be done when an answer is lost.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Read,
    /// A read that the node may hold open for as long as it is allowed to.
    Poll,
    /// A read that takes its time: all that there is, at a node that has just answered.
    Errand,
    /// With the command that shows whether it has happened.
    Change(&'a str),
}

impl Client {
    /// `endpoints` are `HOST:PORT` and at least one.
    pub(crate) fn new(endpoints: Vec<String>, dialer: Dialer, timeout: Duration) -> Self {
        assert!(!endpoints.is_empty(), "clap gives a default");
        Self { endpoints, dialer, timeout, current: 0, connection: None }
    }

    /// Another one with a connection of its own, so that its long polls hold nobody up.
    pub(crate) fn fork(&self) -> Self {
        Self {
            endpoints: self.endpoints.clone(),
            dialer: self.dialer.clone(),
            timeout: self.timeout,
            current: self.current,
            connection: None,
        }
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks something that changes nothing.
    pub(crate) async fn read<T>(
        &mut self,
        call: impl AsyncFn(&AdminClient, Context) -> Answer<T>,
    ) -> Result<T, Failure> {
        self.ask(Kind::Read, self.timeout, call).await
    }

    /// Asks something that a node answers when there is news.
    pub(crate) async fn poll<T>(
        &mut self,
        call: impl AsyncFn(&AdminClient, Context) -> Answer<T>,
    ) -> Result<T, Failure> {
        self.ask(Kind::Poll, api::limits::WAIT_MAX + POLL_SLACK, call).await
    }

    /// As [`Client::read`], of what a node is long about, and for as long as this.
    pub(crate) async fn run_errand<T>(
        &mut self,
        timeout: Duration,
        call: impl AsyncFn(&AdminClient, Context) -> Answer<T>,
    ) -> Result<T, Failure> {
        self.ask(Kind::Errand, timeout, call).await
    }

    /// Changes something. `look` is the command that shows whether it has happened, for when the
    /// answer is lost.
    pub(crate) async fn change<T>(
        &mut self,
        look: &str,
        call: impl AsyncFn(&AdminClient, Context) -> Answer<T>,
    ) -> Result<T, Failure> {
        self.ask(Kind::Change(look), self.timeout, call).await
    }

    /// Opens an attached stream at the first endpoint that can serve it now. A command that a node
    /// may have begun is asked of no other.
    pub(crate) async fn attach(&self, open: &Open) -> Result<Frames<Stream>, Failure> {
        let mut unreached = Vec::new();
        let mut busy = None;
        let from_current = (0..self.endpoints.len()).map(|at| self.current + at);
        for at in from_current {
            let endpoint = &self.endpoints[at % self.endpoints.len()];
            match api::attach::open(&self.dialer, endpoint, open.clone()).await {
                Ok(frames) => return Ok(frames),
                Err(NotOpened::Failed(error @ Error::Unavailable(_))) => busy = Some(error),
                Err(NotOpened::Failed(error)) => return Err(Failure::Refused(error)),
                Err(NotOpened::Lost(error)) => match &open.what {
                    What::Exec(exec) => return Err(may_have_run(endpoint, exec, &error)),
                    // A connection more does no harm.
                    What::Forward(_) => unreached
                        .push(Unreached { endpoint: endpoint.clone(), reason: error.to_string() }),
                },
                Err(NotOpened::Unreached(error)) => {
                    let is_reached = error.kind() == std::io::ErrorKind::UnexpectedEof
                        || error.kind() == std::io::ErrorKind::ConnectionReset;
                    let reason = error.to_string();
                    let reason = if is_reached { self.hung_up(reason) } else { reason };
                    unreached.push(Unreached { endpoint: endpoint.clone(), reason });
                }
            }
        }
        Err(busy.map_or(Failure::Unreachable(unreached), Failure::Refused))
    }

    async fn ask<T>(
        &mut self,
        kind: Kind<'_>,
        timeout: Duration,
        call: impl AsyncFn(&AdminClient, Context) -> Answer<T>,
    ) -> Result<T, Failure> {
        let give_up = Instant::now() + timeout;
        let mut pause = RETRY_WAIT_MIN;
        loop {
            let mut unreached = Vec::new();
            let mut busy = None;
            for untried in (1..=self.endpoints.len()).rev() {
                let left = give_up.saturating_duration_since(Instant::now());
                let reason = match self.attempt(kind, left, untried, &call).await {
                    Attempt::Answered(answer) => return Ok(answer),
                    Attempt::Over(failure) => return Err(failure),
                    Attempt::Unreached(reason) => reason,
                    Attempt::Busy(reason) => {
                        busy = Some(reason);
                        self.move_on();
                        continue;
                    }
                };
                unreached
                    .push(Unreached { endpoint: self.endpoints[self.current].clone(), reason });
                self.move_on();
            }
            let Some(reason) = busy else { return Err(Failure::Unreachable(unreached)) };
            if Instant::now() + pause >= give_up {
                return Err(Failure::Busy { waited: timeout, reason });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_WAIT_MAX);
        }
    }

    /// One endpoint, once. `untried` endpoints, this one among them, share the time that is left.
    async fn attempt<T>(
        &mut self,
        kind: Kind<'_>,
        left: Duration,
        untried: usize,
        call: &impl AsyncFn(&AdminClient, Context) -> Answer<T>,
    ) -> Attempt<T> {
        let share = left / u32::try_from(untried).unwrap_or(u32::MAX);
        let admin = match self.connect(share).await {
            Ok(admin) => admin,
            Err(reason) => return Attempt::Unreached(reason),
        };
        // A change goes only to a node that has just answered: on a connection that is dead, or
        // to something that is no node, it would be lost in a way that says nothing. And an errand
        // would wait there for nothing.
        if let Kind::Change(_) | Kind::Errand = kind
            && let Err(error) = admin.cluster_status(until(share.min(PING_TIMEOUT))).await
        {
            return Attempt::Unreached(self.describe(&error, share.min(PING_TIMEOUT)));
        }
        let wait = match kind {
            Kind::Read => share,
            Kind::Poll | Kind::Errand | Kind::Change(_) => left,
        };
        let answer = call(&admin, until(wait)).await;
        match (answer, kind) {
            (Ok(Ok(answer)), _) => Attempt::Answered(answer),
            (Ok(Err(Error::Unavailable(reason))), _)
            | (Ok(Err(Error::Unknown(reason))), Kind::Read | Kind::Poll | Kind::Errand) => {
                Attempt::Busy(reason)
            }
            (Ok(Err(Error::Unknown(reason))), Kind::Change(look)) => {
                Attempt::Over(Failure::Unknown { reason, look: look.to_owned() })
            }
            (Ok(Err(error)), _) => Attempt::Over(Failure::Refused(error)),
            (Err(error), Kind::Read | Kind::Poll | Kind::Errand) => {
                Attempt::Unreached(self.describe(&error, wait))
            }
            (Err(error), Kind::Change(look)) => {
                self.connection = None;
                let endpoint = &self.endpoints[self.current];
                let reason = format!("{endpoint}: {}", self.describe(&error, wait));
                Attempt::Over(Failure::Unknown { reason, look: look.to_owned() })
            }
        }
    }

    /// A node with TLS hangs up on those without, who would not know why.
    fn hung_up(&self, reason: String) -> String {
        if self.dialer.has_tls() {
            return reason;
        }
        format!("{reason}; a node with TLS takes --ca, --cert and --key")
    }

    fn describe(&self, error: &RpcError, wait: Duration) -> String {
        match error {
            RpcError::DeadlineExceeded => format!("no answer within {}", units::duration(wait)),
            RpcError::Shutdown => {
                self.hung_up("the connection was closed before the answer".to_owned())
            }
            RpcError::Send(cause) => {
                self.hung_up(format!("the request could not be sent: {}", whole(&**cause)))
            }
            RpcError::Channel(cause) => {
                self.hung_up(format!("the connection was lost: {}", whole(cause)))
            }
            RpcError::Server(error) => format!("the node gave the request up: {}", error.detail),
        }
    }

    fn move_on(&mut self) {
        self.current = (self.current + 1) % self.endpoints.len();
        self.connection = None;
    }

    async fn connect(&mut self, wait: Duration) -> Result<AdminClient, String> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let endpoint = &self.endpoints[self.current];
        let connection = tokio::time::timeout(wait, self.dialer.admin(endpoint))
            .await
            .map_err(|_| format!("nobody answers within {}", units::duration(wait)))?
            .map_err(|error| error.to_string())?;
        Ok(self.connection.insert(connection).clone())
    }
}

enum Attempt<T> {
    Answered(T),
    Busy(String),
    Unreached(String),
    Over(Failure),
}

fn may_have_run(endpoint: &str, exec: &Exec, error: &std::io::Error) -> Failure {
    let command = if exec.command.is_empty() { "a shell" } else { &exec.command.join(" ") };
    Failure::Failed(format!(
        "the connection to {endpoint} was lost after it was asked to run {command}: {error}; it \
         may have run, and is not run again"
    ))
}

/// tarpc gives a call ten seconds unless told otherwise.
fn until(wait: Duration) -> Context {
    let mut context = tarpc::context::current();
    context.deadline = Instant::now() + wait;
    context
}

/// An error with what lies beneath it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut beneath = error.source();
    while let Some(cause) = beneath {
        text = format!("{text}: {cause}");
        beneath = cause.source();
    }
    text
}

/// What several commands ask.
impl Client {
    pub(crate) async fn desired_lrp(
        &mut self,
        guid: &ProcessGuid,
        consistency: Consistency,
    ) -> Result<Arc<DesiredLrp>, Failure> {
        self.read(async |admin, context| {
            admin.desired_lrp(context, guid.clone(), consistency).await
        })
        .await
    }

    /// As [`Client::desired_lrp`], with absence as an answer.
    pub(crate) async fn desired_lrp_if_any(
        &mut self,
        guid: &ProcessGuid,
    ) -> Result<Option<Arc<DesiredLrp>>, Failure> {
        match self.desired_lrp(guid, Consistency::Linearizable).await {
            Ok(lrp) => Ok(Some(lrp)),
            Err(Failure::Refused(error)) if error.diego_type() == "ResourceNotFound" => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) async fn actual_lrps(
        &mut self,
        of: Option<&ProcessGuid>,
        consistency: Consistency,
    ) -> Result<Vec<Arc<ActualLrp>>, Failure> {
        self.read(async |admin, context| admin.actual_lrps(context, of.cloned(), consistency).await)
            .await
    }

    /// Why unplaced instances wait, by index.
    pub(crate) async fn waiting_lrps(
        &mut self,
        guid: &ProcessGuid,
    ) -> Result<Vec<(u32, Waiting)>, Failure> {
        self.read(async |admin, context| admin.waiting_lrps(context, guid.clone()).await).await
    }

    /// What the instances of an app use, where their cells say so.
    pub(crate) async fn lrp_usage(
        &mut self,
        guid: &ProcessGuid,
    ) -> Result<Vec<InstanceUsage>, Failure> {
        self.read(async |admin, context| admin.lrp_usage(context, guid.clone()).await).await
    }

    pub(crate) async fn feature_flags(
        &mut self,
        consistency: Consistency,
    ) -> Result<Vec<(FeatureFlag, bool)>, Failure> {
        self.read(async |admin, context| admin.feature_flags(context, consistency).await).await
    }

    /// How people reach apps; none where the node spoken to knows of no router.
    pub(crate) async fn routing(&mut self) -> Result<Option<Routing>, Failure> {
        self.read(async |admin, context| admin.routing(context).await).await
    }

    /// The last entry that the node spoken to has applied: where to wait for news from.
    pub(crate) async fn applied_index(&mut self) -> Result<u64, Failure> {
        let status = self.read(async |admin, context| admin.cluster_status(context).await).await?;
        Ok(status.applied_index)
    }

    /// Waits until something has been applied after `index`, or the node's patience ends.
    pub(crate) async fn news(&mut self, index: u64) -> Result<u64, Failure> {
        self.poll(async |admin, context| admin.wait_applied(context, index).await).await
    }
}
