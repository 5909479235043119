//! The line to NATS: whether it is there, and what the log says of that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectOptions, Event};
use tokio::sync::watch;

use crate::config::RouteEmitterConfig;
use crate::limits::{
    NATS_CONNECT_MAX, NATS_HEARD_MAX, NATS_PING_INTERVAL, NATS_QUEUE_MAX, NATS_RECONNECT_PAUSE,
    NATS_RECONNECT_PAUSE_MAX,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) is_up: bool,
    /// How often it came about.
    pub(super) times: u64,
}

/// A client that connects, and again whenever it is cut off, until it is dropped.
pub(super) async fn open(
    config: &RouteEmitterConfig,
    cell: &str,
) -> Result<(Client, watch::Receiver<Line>), ConnectError> {
    // Which implementation of TLS is meant; set already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (tell, line) = watch::channel(Line::default());
    let teller = Arc::new(Teller { line: tell, said: Mutex::default() });
    let mut options = ConnectOptions::new()
        .name(format!("gavel route-emitter of {cell}"))
        .retry_on_initial_connect()
        .connection_timeout(NATS_CONNECT_MAX)
        .ping_interval(NATS_PING_INTERVAL)
        .client_capacity(NATS_QUEUE_MAX)
        .subscription_capacity(NATS_HEARD_MAX)
        .reconnect_delay_callback(pause)
        .event_callback(move |event| {
            let teller = Arc::clone(&teller);
            async move { teller.note(&event) }
        });
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        options = options.user_and_password(user.clone(), password.reveal().to_owned());
    }
    let scheme = if config.ca.is_some() { "tls" } else { "nats" };
    if let Some(ca) = &config.ca {
        options = options.require_tls(true).add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&config.cert, &config.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    let servers: Vec<String> =
        config.nats.iter().map(|address| format!("{scheme}://{address}")).collect();
    Ok((options.connect(servers).await?, line))
}

/// Before the try of this number since the line was there; not the same on every node.
fn pause(attempt: usize) -> Duration {
    let doubled = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let pause = NATS_RECONNECT_PAUSE.saturating_mul(1 << doubled).min(NATS_RECONNECT_PAUSE_MAX);
    pause.mul_f64(rand::random_range(0.5..1.0))
}

/// Says once what is, and not with each try that it still is so.
struct Teller {
    line: watch::Sender<Line>,
    /// Why there is no line, as it was said last.
    said: Mutex<Option<String>>,
}

impl Teller {
    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                tracing::info!("NATS is connected: routers are told of this cell's routes");
                *self.said() = None;
                self.line.send_modify(|line| {
                    line.is_up = true;
                    line.times += 1;
                });
            }
            // By this side, when the node ends.
            Event::Closed => self.line.send_modify(|line| line.is_up = false),
            Event::Disconnected => {
                if self.line.borrow().is_up {
                    tracing::warn!(
                        "NATS is lost: routers keep what they know until it is stale; it is tried \
                         again"
                    );
                }
                self.line.send_modify(|line| line.is_up = false);
            }
            Event::ServerError(_) | Event::ClientError(_) => self.complain(event.to_string()),
            Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) => {
                tracing::info!(%event, "NATS");
            }
        }
    }

    fn complain(&self, reason: String) {
        let mut said = self.said();
        if said.as_ref() == Some(&reason) {
            tracing::debug!(reason, "NATS does not do");
        } else {
            tracing::warn!(reason, "NATS does not do; it is tried again");
            *said = Some(reason);
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_grow_rarer_and_never_cease() {
        assert!((1..100).all(|_| pause(1) < NATS_RECONNECT_PAUSE));
        assert!((1..100).all(|_| pause(3) >= NATS_RECONNECT_PAUSE));
        for attempt in [10, 100, usize::MAX] {
            let pause = pause(attempt);
            assert!(pause >= NATS_RECONNECT_PAUSE_MAX / 2 && pause < NATS_RECONNECT_PAUSE_MAX);
        }
    }
}
