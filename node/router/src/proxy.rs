//! Carries requests and answers, on pingora (docs/adr/0012).
//!
//! What is ours here: the loop that accepts, and its bounds; which headers say who asked and who
//! answers; what is tried again. How HTTP is read and written is the library's.

mod buffered;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_core::apps::{HttpServerApp as _, HttpServerOptions, ServerApp as _};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::{GetSocketDigest as _, SocketDigest};
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use self::buffered::Buffered;
use crate::choice::{self, APP_INSTANCE, PROCESS_INSTANCE, Refusal, Wanted, choose};
use crate::limits::{
    ANSWER_MAX, CLIENT_SILENCE_MAX, CONNECT_MAX, CONNECTIONS_DEFAULT, END_MAX, H2_STREAMS_MAX,
    HEADER_BYTES_MAX, HEADER_MAX, IDLE_MAX, KEPT_CONNECTIONS_MAX, KEPT_MAX, TRIES_MAX,
    UPGRADED_SILENCE_MAX, WORKERS_MAX,
};
use crate::route::host_of;
use crate::table::{Endpoint, Pool, Table};

/// What a connection of HTTP/2 begins with. RFC 9113, 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// After a failure to accept, and between two looks at a preface that comes in pieces.
const PAUSE: Duration = Duration::from_millis(20);

/// The table, kept by whoever has the records.
pub type SharedTable = Arc<RwLock<Table>>;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections of clients at once.
    pub connections_max: usize,
    /// Threads, each with its own connections to clients and to instances.
    pub workers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { connections_max: CONNECTIONS_DEFAULT, workers: cores.min(WORKERS_MAX) }
    }
}

/// A router that can be asked to end. Clones are the same.
#[derive(Clone)]
pub struct Router {
    /// One for each thread: it keeps connections to instances, and whoever takes one that another
    /// thread waits at has to wake that thread for each piece.
    proxies: Arc<[Arc<HttpProxy<Face>>]>,
    room: Arc<Semaphore>,
    connections_max: usize,
    ending: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("connections_max", &self.connections_max).finish()
    }
}

tokio::task_local! {
    /// Whether the header of this connection's request is there.
    static HAS_HEADER: Arc<AtomicBool>;
}

impl Router {
    #[must_use]
    pub fn new(table: SharedTable, settings: Settings) -> Self {
        let workers = settings.workers.max(1);
        let conf = ServerConf {
            upstream_keepalive_pool_size: KEPT_CONNECTIONS_MAX.div_ceil(workers),
            max_retries: TRIES_MAX,
            ..ServerConf::default()
        };
        let conf = Arc::new(conf);
        let proxy = |_| {
            let face = Face { table: Arc::clone(&table) };
            let mut proxy = HttpProxy::new(face, Arc::clone(&conf));
            proxy.handle_init_modules();
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            options.h2_idle_timeout = Some(IDLE_MAX);
            proxy.server_options = Some(options);
            let mut h2 = H2Options::new();
            h2.max_concurrent_streams(H2_STREAMS_MAX);
            h2.max_header_list_size(u32::try_from(HEADER_BYTES_MAX).expect("it is small"));
            proxy.h2_options = Some(h2);
            Arc::new(proxy)
        };
        Self {
            proxies: (0..workers).map(proxy).collect(),
            room: Arc::new(Semaphore::new(settings.connections_max)),
            connections_max: settings.connections_max,
            ending: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Serves until the router is asked to end, on threads of its own: a request's tasks never move
    /// between cores, as they do on the node's runtime. Whichever is idle accepts.
    ///
    /// # Errors
    /// No thread, or no descriptor, for one of them.
    pub fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let started = self.start(listener);
        if started.is_err() {
            // Those that have started accept nothing.
            self.ending.send_replace(true);
        }
        started
    }

    fn start(&self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        for worker in 0..self.proxies.len() {
            let (router, listener) = (self.clone(), listener.try_clone()?);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let work = move || {
                runtime.block_on(async move {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => router.accept(worker, listener).await,
                        Err(error) => tracing::error!(%error, worker, "the router does not listen"),
                    }
                });
            };
            std::thread::Builder::new().name(format!("router-{worker}")).spawn(work)?;
        }
        Ok(())
    }

    /// One thread's work: accepts until the router is asked to end, and then waits for what it has
    /// accepted, for a while.
    async fn accept(self, worker: usize, listener: TcpListener) {
        let mut ending = self.ending.subscribe();
        loop {
            let place =
                Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is not closed");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = ending.wait_for(|is_ending| *is_ending) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let router = self.clone();
            tokio::spawn(async move {
                let has_header = Arc::new(AtomicBool::new(false));
                let talk = router.talk(worker, stream, &has_header);
                HAS_HEADER.scope(Arc::clone(&has_header), talk).await;
                drop(place);
            });
        }
        self.ended().await;
    }

    /// Takes no more requests, and lets those that are in progress end, for a while.
    pub async fn end(&self) {
        self.ending.send_replace(true);
        for proxy in &*self.proxies {
            proxy.http_cleanup().await;
        }
        self.ended().await;
    }

    /// Returns once no connection is left, and after a while in any case.
    async fn ended(&self) {
        let all = u32::try_from(self.connections_max).unwrap_or(u32::MAX);
        drop(timeout(END_MAX, self.room.acquire_many(all)).await);
    }

    /// One connection. The client has a time for each request's header, however slowly it comes.
    async fn talk(&self, worker: usize, stream: TcpStream, has_header: &AtomicBool) {
        let proxy = &self.proxies[worker];
        // A client that is gone says so when it is written to.
        let _ = stream.set_nodelay(true);
        let Ok(is_h2) = timeout(HEADER_MAX, is_http2(&stream)).await else { return };
        let shutdown = self.ending.subscribe();
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let mut stream = Stream::from(stream);
        // Whom the client's address is asked of.
        stream.set_socket_digest(digest);
        if is_h2 {
            proxy.process_new(Box::new(stream), &shutdown).await;
            return;
        }
        let mut session = ServerSession::new_http1(Box::new(Buffered::new(stream)));
        session.set_keepalive(Some(IDLE_MAX.as_secs()));
        let mut patience = HEADER_MAX;
        loop {
            has_header.store(false, Ordering::Relaxed);
            let served = tokio::select! {
                served = proxy.process_new_http(session, &shutdown) => served,
                () = is_late(patience, has_header) => return,
            };
            let Some((stream, settings)) = served.map(|served| served.consume()) else { return };
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            patience = IDLE_MAX;
        }
    }
}

/// Returns once the header's time is over, and never if it was there in time.
async fn is_late(patience: Duration, has_header: &AtomicBool) {
    sleep(patience).await;
    if has_header.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Whether a connection begins as HTTP/2 does.
async fn is_http2(stream: &TcpStream) -> bool {
    let mut buffer = [0; H2_PREFACE.len()];
    loop {
        let Ok(count) = stream.peek(&mut buffer).await else { return false };
        let seen = &buffer[..count];
        if count == 0 || !H2_PREFACE.starts_with(seen) {
            return false;
        }
        if count == H2_PREFACE.len() {
            return true;
        }
        sleep(PAUSE).await;
    }
}

/// What pingora asks.
struct Face {
    table: SharedTable,
}

/// What is known of one request.
#[derive(Default)]
struct Asked {
    host: String,
    path: String,
    /// The instances that the client asks for.
    wanted: Option<Wanted>,
    /// The instance that the client came for.
    sticky: Option<String>,
    tried: Vec<Arc<Endpoint>>,
    tries: usize,
    is_upgrade: bool,
    /// Of the first try.
    pool: Option<Arc<Pool>>,
    request_id: String,
}

impl Face {
    fn look_up(&self, host: &str, path: &str) -> Option<Arc<Pool>> {
        // A table is whole after each change.
        self.table.read().unwrap_or_else(PoisonError::into_inner).look_up(host, path)
    }

    /// Where a request goes, or why nowhere.
    fn find(
        &self,
        request: &RequestHeader,
        client: Option<IpAddr>,
        asked: &mut Asked,
    ) -> Result<(), Refusal> {
        let size: usize = request.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
        if size + request.raw_path().len() > HEADER_BYTES_MAX {
            return Err(Refusal::HeaderTooLarge);
        }
        let header = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // A target with an authority is what counts: RFC 9112, 3.2.2.
        let authority = request.uri.authority().map(http::uri::Authority::as_str).or(header);
        asked.host = host_of(authority.unwrap_or_default().trim());
        let address = asked.host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let is_clients = address.is_some() && address == client.map(|client| client.to_canonical());
        if asked.host.is_empty() || is_clients {
            return Err(Refusal::EmptyHost);
        }
        asked.path = request.uri.path().to_owned();
        let host = || asked.host.clone();
        let pool = self
            .look_up(&asked.host, &asked.path)
            .ok_or_else(|| Refusal::UnknownRoute { host: host() })?;
        if pool.endpoints.is_empty() {
            return Err(Refusal::NoEndpoints { host: host() });
        }
        asked.wanted = wanted(request)?;
        if let Some(wanted) = &asked.wanted
            && !pool.endpoints.iter().any(|endpoint| wanted.is(endpoint))
        {
            return Err(Refusal::UnknownInstance { host: host(), wanted: wanted.clone() });
        }
        let cookies = request.headers.get_all(header::COOKIE);
        let cookies = cookies.iter().filter_map(|cookie| cookie.to_str().ok());
        asked.sticky = choice::sticky(cookies).map(str::to_owned);
        asked.pool = Some(pool);
        Ok(())
    }
}

/// The instances that a request asks for; for one of an app before those of a process.
fn wanted(request: &RequestHeader) -> Result<Option<Wanted>, Refusal> {
    for (header, needs_index) in [(APP_INSTANCE, true), (PROCESS_INSTANCE, false)] {
        if let Some(value) = request.headers.get(header)
            && !value.is_empty()
        {
            let read = value.to_str().ok().and_then(|text| Wanted::read(text, needs_index));
            return read.ok_or(Refusal::BadInstance { header }).map(Some);
        }
    }
    Ok(None)
}

#[async_trait]
impl ProxyHttp for Face {
    type CTX = Asked;

    fn new_ctx(&self) -> Asked {
        Asked::default()
    }

    /// None: the library's own would look at each piece of an answer, and compress nothing.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        _: &mut Session,
        _: &mut Asked,
    ) -> pingora_core::Result<()> {
        // Streams of HTTP/2 have tasks of their own, and bounds of the library's.
        let _ = HAS_HEADER.try_with(|has_header| has_header.store(true, Ordering::Relaxed));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        asked: &mut Asked,
    ) -> pingora_core::Result<bool> {
        let downstream = session.as_downstream_mut();
        asked.is_upgrade = downstream.is_upgrade_req();
        let silence = if asked.is_upgrade { UPGRADED_SILENCE_MAX } else { CLIENT_SILENCE_MAX };
        downstream.set_read_timeout(Some(silence));
        downstream.set_write_timeout(Some(silence));
        let client = session.client_addr().and_then(|address| address.as_inet());
        let client = client.map(SocketAddr::ip);
        match self.find(session.req_header(), client, asked) {
            Ok(()) => {
                asked.request_id = uuid(rand::random());
                Ok(false)
            }
            Err(refusal) => {
                refuse(session, &refusal).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        asked: &mut Asked,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        // After a failure, whoever has taken the place of the one that failed counts as well.
        let pool = asked
            .pool
            .take()
            .or_else(|| self.look_up(&asked.host, &asked.path))
            .unwrap_or_default();
        let chosen = choose(&pool, asked.wanted.as_ref(), asked.sticky.as_deref(), &asked.tried);
        let Some(endpoint) = chosen.filter(|_| asked.tries < TRIES_MAX) else {
            return Err(Error::new_up(ErrorType::ConnectError));
        };
        asked.tries += 1;
        asked.tried.push(Arc::clone(endpoint));
        let mut peer = HttpPeer::new(SocketAddr::from(endpoint.address), false, String::new());
        if endpoint.is_http2 {
            peer.options.set_http_version(2, 2);
        }
        peer.options.connection_timeout = Some(CONNECT_MAX);
        peer.options.total_connection_timeout = Some(CONNECT_MAX);
        let answer_max = if asked.is_upgrade { UPGRADED_SILENCE_MAX } else { ANSWER_MAX };
        peer.options.read_timeout = Some(answer_max);
        peer.options.write_timeout = Some(answer_max);
        peer.options.idle_timeout = Some(KEPT_MAX);
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        peer: &HttpPeer,
        asked: &mut Asked,
        mut error: Box<Error>,
    ) -> Box<Error> {
        tracing::debug!(host = asked.host, %peer, %error, "an instance did not take a connection");
        // Nothing of the request has been said yet.
        error.set_retry(true);
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        asked: &mut Asked,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        let is_lost = session.as_ref().retry_buffer_truncated();
        if !session.req_header().method.is_idempotent() || is_lost {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(client_reused);
        }
        // It closed a kept connection, as it may: that is no failure of it.
        if client_reused && error.retry() {
            asked.tried.pop();
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        asked: &mut Asked,
    ) -> pingora_core::Result<()> {
        let address = session.client_addr().and_then(|address| address.as_inet());
        if let Some(address) = address.map(|address| plain(address.ip())) {
            let mut all = String::new();
            for before in request.headers.get_all("x-forwarded-for") {
                if let Ok(before) = before.to_str() {
                    all.push_str(before);
                    all.push_str(", ");
                }
            }
            all.push_str(&address);
            request.insert_header("X-Forwarded-For", all)?;
        }
        if !request.headers.contains_key("x-forwarded-proto") {
            request.insert_header("X-Forwarded-Proto", "http")?;
        }
        if !request.headers.contains_key("x-forwarded-host") {
            let host = request.headers.get(header::HOST).cloned();
            if let Some(host) = host {
                request.insert_header("X-Forwarded-Host", host)?;
            }
        }
        if !request.headers.contains_key("x-request-start") {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            request.insert_header("X-Request-Start", HeaderValue::from(millis))?;
        }
        request.insert_header("X-Vcap-Request-Id", asked.request_id.as_str())?;
        if let Some(endpoint) = asked.tried.last() {
            request.insert_header("X-Cf-Applicationid", endpoint.app.as_str())?;
            request.insert_header("X-Cf-Instanceid", endpoint.instance_guid.as_str())?;
            request.insert_header("X-Cf-Instanceindex", HeaderValue::from(endpoint.index))?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        asked: &mut Asked,
    ) -> pingora_core::Result<()> {
        response.insert_header("X-Vcap-Request-Id", asked.request_id.as_str())?;
        if let Some(endpoint) = asked.tried.last() {
            let set = response.headers.get_all(header::SET_COOKIE);
            let set = set.iter().filter_map(|cookie| cookie.to_str().ok());
            let cookie = choice::stick(set, asked.sticky.as_deref(), &endpoint.instance_guid);
            if let Some(cookie) = cookie {
                response.append_header(header::SET_COOKIE, cookie)?;
            }
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        asked: &mut Asked,
    ) -> FailToProxy {
        let is_upstreams = matches!(error.esource(), ErrorSource::Upstream);
        let is_late = matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
        let refusal = match (is_upstreams, is_late) {
            (true, true) => Some(Refusal::EndpointTimeout),
            (true, false) => Some(Refusal::EndpointFailure),
            (false, _) => None,
        };
        let code = match (&refusal, error.etype()) {
            (Some(refusal), _) => refusal.status(),
            (None, ErrorType::HTTPStatus(code)) => *code,
            // The client is gone, or silent.
            (
                None,
                ErrorType::WriteError
                | ErrorType::ReadError
                | ErrorType::ConnectionClosed
                | ErrorType::WriteTimedout,
            ) => 0,
            (None, ErrorType::ReadTimedout) => 408,
            (None, _) if matches!(error.esource(), ErrorSource::Downstream) => 400,
            (None, _) => 500,
        };
        tracing::debug!(host = asked.host, code, %error, "a request failed");
        if code > 0 && session.response_written().is_none() {
            let told = match &refusal {
                Some(refusal) => refuse(session, refusal).await,
                None => session.respond_error(code).await,
            };
            if let Err(error) = told {
                tracing::debug!(%error, "a client left before it was told");
            }
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Asked, _: &Error) -> bool {
        true
    }
}

/// Answers in an app's stead; the connection ends with it.
async fn refuse(session: &mut Session, refusal: &Refusal) -> pingora_core::Result<()> {
    let body = Bytes::from(refusal.text());
    let mut response = ResponseHeader::build(refusal.status(), Some(6))?;
    let lines = [
        ("Cache-Control", "no-cache, no-store"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Cf-Routererror", refusal.code()),
        ("X-Content-Type-Options", "nosniff"),
    ];
    for (name, value) in lines {
        response.insert_header(name, value)?;
    }
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    session.set_keepalive(None);
    session.write_response_header(Box::new(response), false).await?;
    session.write_response_body(Some(body), true).await
}

/// An address as it is written; IPv4 as itself also where a socket of both families has it.
fn plain(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// Random bits as a UUID of version 4. RFC 9562, 5.4.
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let (a, b, c) = (bits >> 96, bits >> 80 & 0xffff, bits >> 64 & 0xffff);
    format!("{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", bits >> 48 & 0xffff, bits & ((1 << 48) - 1))
}
