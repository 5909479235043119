//! An app for tests of the router: HTTP/1.1 and HTTP/2 without TLS on one port.
//!
//! - `/who` tells which instance answers, and the request as it came;
//! - `/echo` sends the body back, each piece as it comes;
//! - `/login` begins a session;
//! - `/ws` is a WebSocket that greets, and then sends back what it gets;
//! - `/deaf` closes the port for good, and the process goes on.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SET_COOKIE, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

type Body = BoxBody<Bytes, hyper::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    let is_deaf = watch::Sender::new(false);
    let mut deaf = is_deaf.subscribe();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = deaf.wait_for(|is_deaf| *is_deaf) => break,
        };
        let is_deaf = is_deaf.clone();
        tokio::spawn(async move {
            let mut deaf = is_deaf.subscribe();
            let service = service_fn(|request| answer(request, is_deaf.clone()));
            let builder = Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                // Whoever hangs up does so on purpose.
                _ = connection.as_mut() => return,
                _ = deaf.wait_for(|is_deaf| *is_deaf) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        });
    }
    drop(listener);
    std::future::pending().await
}

async fn answer(
    mut request: Request<Incoming>,
    is_deaf: watch::Sender<bool>,
) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/who" => plain(who(&request)),
        "/echo" => Response::new(request.into_body().boxed()),
        "/login" => {
            let mut answer = plain(who(&request));
            answer.headers_mut().insert(SET_COOKIE, "JSESSIONID=1; Path=/".parse().expect("plain"));
            answer
        }
        "/deaf" => {
            is_deaf.send_replace(true);
            plain(who(&request))
        }
        "/ws" => upgrade(&mut request),
        _ => status(StatusCode::NOT_FOUND),
    })
}

fn plain(text: String) -> Response<Body> {
    Response::new(Full::from(text).map_err(|never| match never {}).boxed())
}

fn status(status: StatusCode) -> Response<Body> {
    let mut answer = plain(String::new());
    *answer.status_mut() = status;
    answer
}

fn who(request: &Request<Incoming>) -> String {
    let index = std::env::var("CF_INSTANCE_INDEX").unwrap_or_default();
    let mut text = format!("index {index}\n{:?} {}\n", request.version(), request.method());
    for (name, value) in request.headers() {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

fn upgrade(request: &mut Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(stream) = upgraded.await else { return };
        let stream = TokioIo::new(stream);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let mut send = socket.send(Message::text("welcome")).await;
        while let (Ok(()), Some(Ok(message))) = (&send, socket.next().await) {
            // What is told of a close or a ping, the library answers itself.
            if message.is_text() || message.is_binary() {
                send = socket.send(message).await;
            }
        }
    });
    let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, "Upgrade".parse().expect("plain"));
    headers.insert(UPGRADE, "websocket".parse().expect("plain"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().expect("plain"));
    answer
}
