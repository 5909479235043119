//! What apps and their clients say to each other by way of the router: each kind of HTTP that it
//! carries, between a client on the machine and instances in containers on two cells.

#![expect(clippy::unwrap_used, reason = "what does not come as it should fails its test")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{COOKIE, HOST, SET_COOKIE};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::cluster::{Cluster, Instance};
use tests::eventually;
use tests::registry::{REGISTRY, Registry};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

const ROUTER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const PATIENCE: Duration = Duration::from_secs(20);

/// `h2.localhost` is the same app, which is spoken to in HTTP/2.
const MANIFEST: &str = "
applications:
- name: web
  docker:
    image: 127.0.0.1:5000/web
  instances: 2
  health-check-type: process
  routes:
  - route: web.localhost
  - route: h2.localhost
    protocol: http2
";

type Body = BoxBody<Bytes, std::io::Error>;

#[test]
fn http_is_carried_as_it_is_spoken() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    registry.push_program("web", Path::new(env!("CARGO_BIN_EXE_tests-web")));
    assert!(MANIFEST.contains(REGISTRY));
    fs::write(cluster.host().dir().join("manifest.yml"), MANIFEST).unwrap();
    let _ = cluster.done(&["push"]);
    let instances = cluster.instances("web", 2);
    eventually("both instances are routed to", PATIENCE, || {
        let indices: BTreeSet<_> =
            (0..4).map(|_| on(&cluster, async || index(&get("/who", &[]).await.1))).collect();
        if indices.len() == 2 { Ok(()) } else { Err(format!("{indices:?}")) }
    });
    on(&cluster, forwarded);
    on(&cluster, sockets);
    on(&cluster, bodies_of_http1);
    on(&cluster, bodies_of_http2);
    let stuck = on(&cluster, sessions);
    one_refuses(&cluster, &instances, &stuck);
}

/// Runs a client on the machine.
fn on<T: Send>(cluster: &Cluster, client: impl AsyncFnOnce() -> T + Send) -> T {
    cluster.host().in_network(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, client()).await.expect("it is done in time") })
    })
}

async fn connect() -> TcpStream {
    TcpStream::connect(ROUTER).await.expect("the router listens")
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path).header(HOST, "web.localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Empty::new().map_err(|never| match never {}).boxed()).unwrap()
}

/// One request over a connection of its own, in HTTP/1.1.
async fn ask(request: Request<Body>) -> Response<Incoming> {
    let (mut send, connection) = http1::handshake(TokioIo::new(connect().await)).await.unwrap();
    tokio::spawn(connection);
    send.send_request(request).await.unwrap()
}

async fn get(path: &str, headers: &[(&str, &str)]) -> (Response<()>, String) {
    read(ask(request(path, headers)).await).await
}

async fn read(answer: Response<Incoming>) -> (Response<()>, String) {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).unwrap())
}

/// Which instance says this.
fn index(said: &str) -> u64 {
    let line = said.lines().next().and_then(|line| line.strip_prefix("index "));
    line.and_then(|index| index.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

async fn forwarded() {
    let (head, said) = get("/who", &[("X-Forwarded-For", "203.0.113.9")]).await;
    assert_eq!(head.status(), 200);
    assert!(head.headers().contains_key("x-vcap-request-id"), "{head:?}");
    assert!(said.contains("\nHTTP/1.1 GET\n"), "{said}");
    for line in [
        "host: web.localhost",
        "x-forwarded-for: 203.0.113.9, 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: web.localhost",
        "x-cf-applicationid: web",
    ] {
        assert!(said.contains(&format!("\n{line}\n")), "{line}: {said}");
    }
    assert!(said.contains(&format!("\nx-cf-instanceindex: {}\n", index(&said))), "{said}");
    // What another proxy has said before stands.
    let (_, said) = get("/who", &[("X-Forwarded-Proto", "https")]).await;
    assert!(said.contains("\nx-forwarded-proto: https\n"), "{said}");
}

/// The app speaks first; then each message comes back before the next is sent.
async fn sockets() {
    let (mut socket, answer) =
        client_async("ws://web.localhost/ws", connect().await).await.expect("an upgrade");
    assert_eq!(answer.status(), 101);
    let next = socket.next().await.unwrap().unwrap();
    assert_eq!(next, Message::text("welcome"));
    for size in [1, 125, 70_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message, "{size} bytes");
    }
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await.unwrap().unwrap(), Message::Close(_)));
}

/// A body that is sent as `say` says, and what comes back of it: no piece is sent before the one
/// before it has come back, so whoever kept either body until its end would wait for ever.
async fn echoes(answer: Response<Incoming>, say: mpsc::Sender<&'static str>, first: &str) {
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut heard = String::new();
    let mut expected = first.to_owned();
    for piece in ["two", "three", ""] {
        while heard.len() < expected.len() {
            let frame = body.frame().await.expect("there is more").unwrap();
            heard.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        assert_eq!(heard, expected);
        if !piece.is_empty() {
            say.send(piece).await.unwrap();
            expected.push_str(piece);
        }
    }
    drop(say);
    while let Some(frame) = body.frame().await {
        assert!(frame.unwrap().data_ref().is_none_or(Bytes::is_empty));
    }
}

fn spoken(mut pieces: mpsc::Receiver<&'static str>) -> Body {
    let pieces = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context));
    let frames = pieces.map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    http_body_util::BodyExt::boxed(StreamBody::new(frames))
}

async fn bodies_of_http1() {
    let (say, pieces) = mpsc::channel(1);
    let request =
        Request::post("/echo").header(HOST, "web.localhost").body(spoken(pieces)).unwrap();
    say.send("one").await.unwrap();
    echoes(ask(request).await, say, "one").await;
}

/// HTTP/2 without TLS and without asking first, to an app that is spoken to in either.
async fn bodies_of_http2() {
    let stream = TokioIo::new(connect().await);
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for (host, version) in [("web.localhost", "HTTP/1.1"), ("h2.localhost", "HTTP/2.0")] {
        let who = format!("http://{host}/who");
        let who = Request::get(who).body(Empty::new().map_err(|never| match never {}).boxed());
        let (_, said) = read(send.send_request(who.unwrap()).await.unwrap()).await;
        assert!(said.contains(&format!("\n{version} GET\n")), "{host}: {said}");
        let (say, pieces) = mpsc::channel(1);
        let echo = Request::post(format!("http://{host}/echo")).body(spoken(pieces)).unwrap();
        say.send("one").await.unwrap();
        echoes(send.send_request(echo).await.unwrap(), say, "one").await;
    }
}

/// Returns the cookies of a session, and whose it is.
async fn sessions() -> (String, u64) {
    let (head, said) = get("/login", &[]).await;
    let own = index(&said);
    let set = head.headers().get_all(SET_COOKIE).iter();
    let pairs: Vec<_> =
        set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap()).collect();
    let cookies = pairs.join("; ");
    assert!(cookies.starts_with("JSESSIONID=1; __VCAP_ID__="), "{cookies}");
    for _ in 0..6 {
        let (_, said) = get("/who", &[(COOKIE.as_str(), &cookies)]).await;
        assert_eq!(index(&said), own);
    }
    // Without the app's own cookie there is no session.
    let alone = pairs[1];
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.insert(index(&get("/who", &[(COOKIE.as_str(), alone)]).await.1));
    }
    assert_eq!(seen.len(), 2);
    (cookies, own)
}

/// The instance of the session closes its port and runs on: nobody notices, and the session is the
/// other's.
fn one_refuses(cluster: &Cluster, instances: &[Instance], (cookies, own): &(String, u64)) {
    on(cluster, async || {
        let (_, said) = get("/deaf", &[(COOKIE.as_str(), cookies)]).await;
        assert_eq!(index(&said), *own);
    });
    let deaf = instances.iter().find(|instance| instance.index == *own).unwrap().address;
    eventually("it takes no connection", PATIENCE, || {
        cluster.host().in_network(|| match std::net::TcpStream::connect(deaf) {
            Ok(_) => Err("it does".to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error.to_string()),
        })
    });
    on(cluster, async || {
        for _ in 0..8 {
            let (head, said) = get("/who", &[]).await;
            assert_eq!((head.status().as_u16(), index(&said)), (200, 1 - own));
        }
        // Nothing of a request was said to who refuses, so it may be of any kind.
        let (say, pieces) = mpsc::channel(1);
        say.send("one").await.unwrap();
        let request =
            Request::post("/echo").header(HOST, "web.localhost").body(spoken(pieces)).unwrap();
        echoes(ask(request).await, say, "one").await;
        let (head, said) = get("/who", &[(COOKIE.as_str(), cookies)]).await;
        assert_eq!(index(&said), 1 - own);
        let moved = head.headers().get(SET_COOKIE).expect("a new instance is told");
        assert!(moved.to_str().unwrap().starts_with("__VCAP_ID__="), "{moved:?}");
    });
    assert_eq!(cluster.instances("web", 2).len(), 2, "both run");
}
