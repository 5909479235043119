//! Clients and instances that are sockets, with a router between them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::table::Endpoint;

/// An answer of an instance: what it was asked goes in, what it says comes out.
type Answer = fn(&str) -> String;

/// An instance that answers each request, and remembers them.
struct Instance {
    endpoint: Endpoint,
    heard: Arc<Mutex<Vec<String>>>,
}

fn endpoint(guid: &str, address: SocketAddr) -> Endpoint {
    let SocketAddr::V4(address) = address else { panic!("of IPv4") };
    let (app, instance_guid) = ("app".into(), guid.to_owned());
    Endpoint { app, index: 7, instance_guid, address, is_http2: false }
}

async fn instance(guid: &str, answer: Answer) -> Instance {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = endpoint(guid, listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hears = Arc::clone(&hears);
            tokio::spawn(async move {
                loop {
                    let head = read_head(&mut stream).await;
                    if head.is_empty() {
                        return;
                    }
                    let said = answer(&head);
                    hears.lock().unwrap().push(head);
                    stream.write_all(said.as_bytes()).await.unwrap();
                    if said.starts_with("HTTP/1.1 101") {
                        let (mut from, mut to) = stream.split();
                        tokio::io::copy(&mut from, &mut to).await.unwrap();
                        return;
                    }
                }
            });
        }
    });
    Instance { endpoint, heard }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with("\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
        text.push(char::from(byte[0]));
    }
    text
}

fn hello(_: &str) -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned()
}

/// Of whom nobody listens.
async fn refusing(guid: &str) -> Endpoint {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    endpoint(guid, listener.local_addr().unwrap())
}

/// A router with `app.test`, which is these.
async fn router(endpoints: Vec<Endpoint>) -> (SocketAddr, Router) {
    let mut table = Table::default();
    table.set("app.test", endpoints);
    table.set("empty.test", Vec::new());
    let router =
        Router::new(Arc::new(RwLock::new(table)), Settings { connections_max: 8, workers: 2 });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    router.serve(listener).unwrap();
    (address, router)
}

/// Everything that comes for what is said, until the router closes.
async fn say(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await.unwrap();
    String::from_utf8(said).unwrap()
}

fn get(host: &str, lines: &str) -> String {
    format!("GET /p?q HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n")
}

#[tokio::test]
async fn refusals_are_in_gorouters_words() {
    let gone = refusing("gone").await;
    let (address, _) = router(vec![gone.clone(), gone]).await;
    for (host, status, code, text) in [
        ("no.test:80", "404", "unknown_route", "Requested route ('no.test') does not exist."),
        (
            "empty.test",
            "503",
            "no_endpoints",
            "Requested route ('empty.test') has no available endpoints.",
        ),
        (
            "app.test",
            "502",
            "endpoint_failure",
            "502 Bad Gateway: Registered endpoint failed to handle the request.",
        ),
    ] {
        let said = say(address, &get(host, "")).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        let lower = said.to_lowercase();
        assert!(lower.contains(&format!("\r\nx-cf-routererror: {code}\r\n")), "{said}");
        assert!(said.contains(text), "{said}");
    }
    for (lines, code, text) in [
        ("X-Cf-App-Instance: app\r\n", "invalid_cf_app_instance_header", "X-CF-App-Instance"),
        ("X-Cf-Process-Instance: :1\r\n", "invalid_cf_process_instance_header", "Header"),
        ("X-Cf-App-Instance: app:8\r\n", "unknown_route", "instance ('8') with guid ('app')"),
        ("X-Cf-Process-Instance: b\r\n", "unknown_route", "Requested instance with guid ('b')"),
    ] {
        let said = say(address, &get("app.test", lines)).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
        assert!(said.to_lowercase().contains(&format!("error: {code}\r\n")), "{said}");
        assert!(said.contains(text), "{said}");
    }
    let said = say(address, &get("127.0.0.1:80", "")).await;
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("empty Host header"), "{said}");
    let many = format!("X-Long: {}\r\n", "x".repeat(HEADER_BYTES_MAX));
    assert!(say(address, &get("app.test", &many)).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn an_instance_that_refuses_is_passed_over() {
    let there = instance("there", hello).await;
    let endpoints = vec![refusing("gone").await, there.endpoint.clone(), refusing("gone2").await];
    let (address, _) = router(endpoints).await;
    for _ in 0..6 {
        let said = say(address, &get("APP.test:8080", "")).await;
        assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("hello"), "{said}");
    }
    assert_eq!(there.heard.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn an_instance_is_told_who_asks() {
    let there = instance("there", hello).await;
    let (address, _) = router(vec![there.endpoint.clone()]).await;
    let lines = "X-Forwarded-For: 9.9.9.9\r\nTE: trailers\r\nKeep-Alive: 5\r\nX-Secret: 1\r\n\
                 X-Vcap-Request-Id: mine\r\nConnection: x-secret\r\n";
    let said = say(address, &get("app.test", lines)).await.to_lowercase();
    assert!(said.contains("\r\nx-vcap-request-id: "), "{said}");
    let heard = there.heard.lock().unwrap()[0].to_lowercase();
    for line in [
        "get /p?q http/1.1",
        "host: app.test",
        "x-forwarded-for: 9.9.9.9, 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: app.test",
        "x-cf-applicationid: app",
        "x-cf-instanceid: there",
        "x-cf-instanceindex: 7",
    ] {
        assert!(heard.contains(&format!("{line}\r\n")), "{line} is not in\n{heard}");
    }
    for name in ["keep-alive:", "x-secret:", "request-id: mine"] {
        assert!(!heard.contains(name), "{name} is in\n{heard}");
    }
}

#[tokio::test]
async fn one_instance_is_asked_for() {
    let (a, b) = (instance("a", hello).await, instance("b", hello).await);
    let second = Endpoint { index: 8, ..b.endpoint.clone() };
    let gone = Endpoint { index: 9, ..refusing("gone").await };
    let (address, _) = router(vec![a.endpoint.clone(), second, gone]).await;
    for lines in ["X-Cf-App-Instance: app:8\r\n", "X-Cf-Process-Instance: app:8\r\n"] {
        for _ in 0..3 {
            let lines = format!("{lines}Cookie: JSESSIONID=1; __VCAP_ID__=a\r\n");
            assert!(say(address, &get("app.test", &lines)).await.ends_with("hello"));
        }
    }
    assert_eq!((a.heard.lock().unwrap().len(), b.heard.lock().unwrap().len()), (0, 6));
    let said = say(address, &get("app.test", "X-Cf-App-Instance: app:9\r\n")).await;
    assert!(said.starts_with("HTTP/1.1 502 "), "no other answers: {said}");
}

#[tokio::test]
async fn sessions_stick() {
    let login: Answer = |_| {
        "HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=1; Secure\r\nContent-Length: 0\r\n\r\n".into()
    };
    let (a, b) = (instance("a", login).await, instance("b", login).await);
    let (address, _) = router(vec![a.endpoint.clone(), b.endpoint.clone()]).await;
    let said = say(address, &get("app.test", "")).await;
    assert!(said.contains("__VCAP_ID__=a; Path=/; HttpOnly; Secure\r\n"), "{said}");
    for _ in 0..5 {
        say(address, &get("app.test", "Cookie: JSESSIONID=1; __VCAP_ID__=b\r\n")).await;
    }
    assert_eq!((a.heard.lock().unwrap().len(), b.heard.lock().unwrap().len()), (1, 5));
}

#[tokio::test]
async fn an_upgraded_connection_is_passed_on_both_ways() {
    let upgrade: Answer = |_| {
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            .into()
    };
    let there = instance("there", upgrade).await;
    let (address, _) = router(vec![there.endpoint.clone()]).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask = "GET /chat HTTP/1.1\r\nHost: app.test\r\nUpgrade: websocket\r\n\
               Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
               Sec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut echo = [0; 3];
        timeout(HEADER_MAX, stream.read_exact(&mut echo)).await.unwrap().unwrap();
        assert_eq!(echo, word.as_bytes());
    }
}

#[tokio::test]
async fn http2_is_spoken_with_clients_that_know_it() {
    let there = instance("there", hello).await;
    let (address, _) = router(vec![there.endpoint.clone()]).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let request = http::Request::get("http://app.test/p?q").body(()).unwrap();
        answers.push(client.send_request(request, true).unwrap().0);
    }
    for answer in answers {
        let mut answer = timeout(HEADER_MAX, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(&answer.body_mut().data().await.unwrap().unwrap()[..], b"hello");
    }
    assert!(there.heard.lock().unwrap()[0].to_lowercase().contains("host: app.test\r\n"));
}

/// What one reads as one request and the next as two: each is refused, or passed on in one way only
/// and its connection ended. Source: RFC 9112, 6.1, 6.3 and 11.2.
#[tokio::test]
async fn a_request_is_not_two() {
    let there = instance("there", hello).await;
    let (address, _) = router(vec![there.endpoint.clone()]).await;
    let inner = "GET /inner HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let length = inner.len() + 5;
    for (lines, body) in [
        (format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
        (format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), ""),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n".to_owned(), "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(), "0\r\n\r\n"),
        ("Content-Length: +0\r\n".to_owned(), ""),
    ] {
        let text = format!("POST /outer HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n{body}{inner}");
        say(address, &text).await;
        let heard = std::mem::take(&mut *there.heard.lock().unwrap());
        assert!(heard.iter().all(|head| !head.starts_with("GET /inner")), "{lines}: {heard:?}");
        for head in heard.iter().map(|head| head.to_lowercase()) {
            let (cl, te) = (head.contains("content-length:"), head.contains("transfer-encoding:"));
            assert!(!(cl && te), "{lines}: {head}");
        }
    }
    for host in ["", "Host: app.test\r\nHost: empty.test\r\n"] {
        let said =
            say(address, &format!("GET / HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    assert_eq!(there.heard.lock().unwrap().len(), 0);
}

/// It has the time that a header may take, however it spends it.
#[tokio::test]
async fn a_client_that_dawdles_is_left() {
    let there = instance("there", hello).await;
    let (address, _) = router(vec![there.endpoint.clone()]).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n").await.unwrap();
    let begun = tokio::time::Instant::now();
    let left = async {
        for _ in 0..100 {
            sleep(Duration::from_millis(500)).await;
            if stream.write_all(b"X-Slow: 1\r\n").await.is_err() {
                return true;
            }
        }
        false
    };
    assert!(timeout(HEADER_MAX * 2, left).await.unwrap());
    assert!(begun.elapsed() >= HEADER_MAX);
}

#[tokio::test]
async fn an_ending_router_lets_requests_end() {
    let slow = refusing("slow").await;
    let listener = TcpListener::bind(SocketAddr::V4(SocketAddrV4::new(
        Ipv4Addr::LOCALHOST,
        slow.address.port(),
    )))
    .await
    .unwrap();
    let (address, router) = router(vec![slow]).await;
    let asked = tokio::spawn(async move { say(address, &get("app.test", "")).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_head(&mut stream).await;
    let ending = tokio::spawn(async move { router.end().await });
    sleep(Duration::from_millis(100)).await;
    assert!(!ending.is_finished());
    stream.write_all(hello("").as_bytes()).await.unwrap();
    assert!(asked.await.unwrap().ends_with("hello"));
    drop(stream);
    timeout(END_MAX / 2, ending).await.unwrap().unwrap();
}

#[test]
fn request_ids_are_uuids() {
    assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}
