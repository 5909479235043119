//! One check of a port of the container, from inside of its network.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use model::check::{Check, HttpCheck, TcpCheck};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::limits::{PROBE_BODY_BYTES_MAX, UNHEALTHY_PAUSE_FIRST};
use crate::sandbox::Sandbox;
use crate::services::Settings;
use crate::units;

/// A valid check, with what it leaves open filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    port: u16,
    /// Of a page that must be answered with 200; none where a connection is enough.
    path: Option<String>,
    timeout: Duration,
    /// Between two checks of what has passed.
    interval: Duration,
}

impl Probe {
    /// None for a check that is invalid.
    pub(super) fn of(check: &Check, settings: &Settings) -> Option<Self> {
        let (port, path, timeout_ms, interval_ms) = match check {
            Check { tcp_check: Some(check), http_check: None } => {
                let TcpCheck { port, connect_timeout_ms, interval_ms } = *check;
                (port, None, connect_timeout_ms, interval_ms)
            }
            Check { tcp_check: None, http_check: Some(check) } => {
                let HttpCheck { port, request_timeout_ms, path, interval_ms } = check;
                let path = if path.is_empty() { "/" } else { path };
                (*port, Some(path.to_owned()), *request_timeout_ms, *interval_ms)
            }
            Check { .. } => return None,
        };
        let or = |ms, default| if ms == 0 { default } else { Duration::from_millis(ms) };
        Some(Self {
            port: u16::try_from(port).ok().filter(|port| *port > 0)?,
            path,
            timeout: or(timeout_ms, settings.probe_timeout),
            interval: or(interval_ms, settings.healthy_interval),
        })
    }

    /// Checks at once, then after pauses that grow to `every`, and then every `every`, until it
    /// passes or its time is over. What comes is known by twice the time that it took to come.
    pub(super) async fn until_passed(
        &self,
        sandbox: &impl Sandbox,
        every: Duration,
        deadline: Option<(Duration, Instant)>,
    ) -> Result<(), String> {
        let mut attempts: u64 = 0;
        let mut last = String::new();
        let (mut pause, mut next) = (UNHEALTHY_PAUSE_FIRST.min(every), Instant::now());
        let passed = async {
            loop {
                sleep_until(next).await;
                attempts += 1;
                match self.check(sandbox).await {
                    Ok(()) => return,
                    Err(text) => last = text,
                }
                // A check that took longer than the pause is followed by the next at once.
                next = (next + pause).max(Instant::now());
                pause = (pause * 2).min(every);
            }
        };
        let Some((long, at)) = deadline else {
            passed.await;
            return Ok(());
        };
        tokio::select! {
            biased;
            () = passed => return Ok(()),
            () = sleep_until(at) => {}
        }
        if last.is_empty() {
            last = self.failure(sandbox, &Trouble::TimedOut(long));
        }
        let long = units::duration(long);
        Err(format!(
            "Timed out after {long} ({attempts} attempts) waiting for startup check to succeed: \
             {last}"
        ))
    }

    /// Checks at once and then whenever the interval has passed since, until it fails: how.
    pub(super) async fn until_failed(&self, sandbox: &impl Sandbox) -> String {
        loop {
            if let Err(text) = self.check(sandbox).await {
                return text;
            }
            sleep(self.interval).await;
        }
    }

    /// Checks once; what fails is told in Diego's words.
    pub(super) async fn check(&self, sandbox: &impl Sandbox) -> Result<(), String> {
        let deadline = Instant::now() + self.timeout;
        let result = match timeout_at(deadline, sandbox.connect(self.port)).await {
            Err(_) => Err(Trouble::TimedOut(self.timeout)),
            Ok(Err(error)) => Err(Trouble::Connect(error)),
            Ok(Ok(stream)) => match &self.path {
                None => Ok(()),
                Some(path) => self.get(sandbox, stream, path, deadline).await,
            },
        };
        result.map_err(|trouble| self.failure(sandbox, &trouble))
    }

    async fn get(
        &self,
        sandbox: &impl Sandbox,
        stream: TcpStream,
        path: &str,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let request = Request::get(path)
            .header(HOST, format!("{}:{}", sandbox.address(), self.port))
            .header(USER_AGENT, "diego-healthcheck")
            .header("X-Forwarded-Proto", "https")
            .body(Empty::<Bytes>::new());
        let request = request.ok().filter(|_| path.starts_with('/')).ok_or(Trouble::NoRequest)?;
        let begin = Instant::now();
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| Trouble::Http)?;
        let exchange = async {
            let response = timeout_at(deadline, sender.send_request(request)).await;
            let response = response.map_err(|_| Trouble::TimedOut(self.timeout))?;
            let response = response.map_err(|_| Trouble::Http)?;
            let (status, took) = (response.status(), begin.elapsed());
            // An app may take it amiss when nobody listens to the end.
            let mut body = response.into_body();
            let mut read = 0;
            while read < PROBE_BODY_BYTES_MAX
                && let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await
            {
                read += frame.data_ref().map_or(0, Bytes::len);
            }
            if status == StatusCode::OK { Ok(()) } else { Err(Trouble::Status(status, took)) }
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            result = &mut exchange => return result,
            // The connection's own end is no answer yet: what it has brought is still to be read.
            _ = connection => {}
        }
        exchange.await
    }

    fn failure(&self, sandbox: &impl Sandbox, trouble: &Trouble) -> String {
        let port = self.port;
        let reason = match (trouble, &self.path) {
            (Trouble::Connect(error), _) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return "failure to find suitable interface".to_owned();
            }
            (Trouble::NoRequest, Some(path)) => {
                return format!("failed to create an HTTP request to '{path}' on port {port}");
            }
            (Trouble::TimedOut(long), _) => timed_out(*long),
            (Trouble::Connect(error), _) if error.kind() == io::ErrorKind::TimedOut => {
                timed_out(self.timeout)
            }
            (Trouble::Connect(error), None) => dial_error(sandbox, port, error),
            (Trouble::Status(status, took), _) => {
                format!("received status code {} in {}ms", status.as_u16(), took.as_millis())
            }
            (Trouble::Connect(_) | Trouble::NoRequest | Trouble::Http, _) => {
                "connection refused".to_owned()
            }
        };
        match &self.path {
            None => {
                let address = sandbox.address();
                format!("failed to make TCP connection to {address}:{port}: {reason}")
            }
            Some(path) => {
                format!("failed to make HTTP request to '{path}' on port {port}: {reason}")
            }
        }
    }
}

/// Why a check did not pass.
#[derive(Debug)]
enum Trouble {
    Connect(io::Error),
    TimedOut(Duration),
    /// The path is none.
    NoRequest,
    /// What came was no HTTP, or nothing came.
    Http,
    Status(StatusCode, Duration),
}

fn timed_out(long: Duration) -> String {
    format!("timed out after {:.2} seconds", long.as_secs_f64())
}

/// A failed connect(2) as Go tells of it.
fn dial_error(sandbox: &impl Sandbox, port: u16, error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("dial tcp {}:{port}: connect: {words}", sandbox.address())
}
