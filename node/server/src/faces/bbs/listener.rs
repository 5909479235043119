//! Accepts Diego's clients, over TLS as configured, and serves them HTTP/1.1 or HTTP/2.

use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::limits::{DIEGO_CONNECTIONS_MAX, DIEGO_HEAD_MAX};
use crate::security::Security;

/// Accepts until the task is dropped. A flood of connections waits in the kernel's queue.
pub(crate) async fn serve(listener: TcpListener, security: Security, routes: Router) {
    let room = Arc::new(Semaphore::new(DIEGO_CONNECTIONS_MAX));
    let security = Arc::new(security);
    let service = TowerToHyperService::new(routes);
    loop {
        let permit =
            Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer is gone already: others may still get through.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let (security, service) = (Arc::clone(&security), service.clone());
        tokio::spawn(async move {
            let serving = async {
                stream.set_nodelay(true)?;
                api::wire::keep_alive(&stream)?;
                let (stream, _) = security.accept(stream, from).await?;
                let mut builder = Builder::new(TokioExecutor::new());
                builder.http1().timer(TokioTimer::new()).header_read_timeout(DIEGO_HEAD_MAX);
                builder.http2().timer(TokioTimer::new());
                builder.serve_connection(TokioIo::new(stream), service).await
            };
            if let Err(error) = serving.await {
                tracing::debug!(%from, %error, "a connection of a client of Diego's ended");
            }
            drop(permit);
        });
    }
}
