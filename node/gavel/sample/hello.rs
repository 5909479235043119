//! The sample app that `gavel dev` offers from its registry: a small HTTP server that says which
//! instance answers. Standard library only, so that it builds to one static binary.
//!
//! - `/` says who answers: app, instance, host and port;
//! - `/env` lists the whole environment: it is a sample, give it no secrets;
//! - `/healthz` says `ok`;
//! - `/exit?code=N` answers and exits with N, 1 where absent, to see a restart.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Threads, one for each connection; who comes when all are busy is told so.
const CONNECTIONS_MAX: usize = 64;
/// Longest request line with its headers, in bytes.
const HEAD_BYTES_MAX: u64 = 16 << 10;
/// A client that says nothing for this long is left.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where Cloud Foundry names no port.
const PORT_DEFAULT: u16 = 8080;

fn main() -> ExitCode {
    let port = match std::env::var("PORT") {
        Err(_) => PORT_DEFAULT,
        Ok(text) => match text.parse() {
            Ok(port) => port,
            Err(error) => return fail(&format!("PORT is {text:?}: {error}")),
        },
    };
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => {
            say(&format!("hello listens on port {port}"));
            serve(&listener)
        }
        Err(error) => fail(&format!("cannot listen on port {port}: {error}")),
    }
}

fn serve(listener: &TcpListener) -> ! {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: those that are open will close.
                complain(&format!("cannot accept: {error}"));
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let place = Place::take(&connections);
        let connection = std::thread::Builder::new().spawn(move || talk(&stream, place.is_some()));
        if let Err(error) = connection {
            complain(&format!("cannot start a thread: {error}"));
        }
    }
}

/// One of the places for connections, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(connections));
        (connections.fetch_add(1, Ordering::SeqCst) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One request, one answer.
fn talk(stream: &TcpStream, has_place: bool) {
    let answer = if has_place {
        match read(stream) {
            Ok(Some(request)) => {
                let answer = route(&request);
                say(&format!("{} {} {}", request.method, request.target, answer.status));
                Answer { has_body: request.method != "HEAD", ..answer }
            }
            Ok(None) => return,
            Err(error) => {
                complain(&format!("a request that is none: {error}"));
                Answer::new("400 Bad Request", "bad request\n")
            }
        }
    } else {
        Answer::new("503 Service Unavailable", "too many connections\n")
    };
    if let Err(error) = answer.write(stream) {
        complain(&format!("a client left before its answer: {error}"));
    }
    if let Some(code) = answer.exit {
        say(&format!("hello exits with status {code}, as asked"));
        std::process::exit(code);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    target: String,
}

/// The request line; the headers are read and passed over. Nothing when the client said nothing.
fn read(stream: &TcpStream) -> io::Result<Option<Request>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    parse(BufReader::new(stream.take(HEAD_BYTES_MAX)))
}

fn parse(mut head: impl BufRead) -> io::Result<Option<Request>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("the request line has not three words"));
    };
    let is_token = method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_token || !target.starts_with('/') || !version.starts_with("HTTP/1.") {
        return Err(bad("the request line is not of HTTP/1.1"));
    }
    let request = Request { method: method.to_owned(), target: target.to_owned() };
    let mut header = Vec::new();
    loop {
        header.clear();
        match head.read_until(b'\n', &mut header)? {
            0 => return Err(bad("the headers do not end, or are too long")),
            _ if header == b"\r\n" || header == b"\n" => return Ok(Some(request)),
            _ => {}
        }
    }
}

struct Answer {
    status: &'static str,
    body: String,
    has_body: bool,
    exit: Option<i32>,
}

impl Answer {
    fn new(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), has_body: true, exit: None }
    }

    fn write(&self, mut stream: &TcpStream) -> io::Result<()> {
        let (status, length) = (self.status, self.body.len());
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        if self.has_body {
            text.push_str(&self.body);
        }
        stream.write_all(text.as_bytes())?;
        stream.flush()?;
        stream.shutdown(std::net::Shutdown::Write)?;
        // What the client still sends is taken off, or closing would reset the connection and
        // the answer with it.
        io::copy(&mut stream.take(HEAD_BYTES_MAX), &mut io::sink()).map(|_| ())
    }
}

fn route(request: &Request) -> Answer {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Answer::new("405 Method Not Allowed", "only GET and HEAD\n");
    }
    match path {
        "/" => Answer::new("200 OK", who()),
        "/env" => Answer::new("200 OK", environment()),
        "/healthz" => Answer::new("200 OK", "ok\n"),
        "/exit" => match exit_code(query) {
            Some(code) => {
                let body = format!("exiting with status {code}\n");
                Answer { exit: Some(code), ..Answer::new("200 OK", body) }
            }
            None => Answer::new("400 Bad Request", "code is a number from 0 to 255\n"),
        },
        _ => Answer::new("404 Not Found", "there are /, /env, /healthz and /exit?code=N\n"),
    }
}

fn exit_code(query: &str) -> Option<i32> {
    match query.split('&').find_map(|pair| pair.strip_prefix("code=")) {
        None => Some(1),
        Some(code) => code.parse::<u8>().ok().map(i32::from),
    }
}

/// Who answers; what is not known is left out.
fn who() -> String {
    let variable = |name: &str| std::env::var(name).ok();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let index = variable("CF_INSTANCE_INDEX").or_else(|| variable("INSTANCE_INDEX"));
    let guid = variable("CF_INSTANCE_GUID").or_else(|| variable("INSTANCE_GUID"));
    let facts = [
        ("instance index", index.clone()),
        ("instance guid", guid),
        ("hostname", host.map(|host| host.trim().to_owned())),
        ("container ip", variable("CF_INSTANCE_INTERNAL_IP")),
        ("reached at", variable("CF_INSTANCE_ADDR")),
        ("port", variable("PORT")),
        ("memory limit", variable("MEMORY_LIMIT")),
    ];
    let mut text = match index {
        Some(index) => format!("Hello from instance {index}.\n"),
        None => "Hello.\n".to_owned(),
    };
    for (name, fact) in facts {
        if let Some(fact) = fact {
            let _ = writeln!(text, "{name}: {fact}");
        }
    }
    text
}

fn environment() -> String {
    let mut lines: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}\n", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// A line on standard output. An app whose output nobody reads goes on serving.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn fail(text: &str) -> ExitCode {
    complain(text);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str) -> Request {
        Request { method: method.to_owned(), target: target.to_owned() }
    }

    #[test]
    fn requests_are_read_and_rubbish_is_refused() {
        let read = |text: &[u8]| parse(text).map_err(|error| error.to_string());
        let good = read(b"GET /env?a=b HTTP/1.1\r\nHost: x\r\n\r\nrest");
        assert_eq!(good, Ok(Some(request("GET", "/env?a=b"))));
        assert_eq!(read(b""), Ok(None));
        for rubbish in [
            &b"\r\n\r\n"[..],
            b"GET /\r\n\r\n",
            b"GET / HTTP/2\r\n\r\n",
            b"get / HTTP/1.1\r\n\r\n",
            b"GET nowhere HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\xff\xfe",
        ] {
            assert!(read(rubbish).is_err(), "{rubbish:?}");
        }
    }

    #[test]
    fn every_path_has_its_answer() {
        let status = |method, target| route(&request(method, target)).status;
        assert_eq!(status("GET", "/"), "200 OK");
        assert_eq!(status("HEAD", "/healthz"), "200 OK");
        assert_eq!(status("GET", "/env?x"), "200 OK");
        assert_eq!(status("POST", "/"), "405 Method Not Allowed");
        assert_eq!(status("GET", "/nothing"), "404 Not Found");
        let exit = |target| route(&request("GET", target)).exit;
        assert_eq!(exit("/exit"), Some(1));
        assert_eq!(exit("/exit?code=7"), Some(7));
        assert_eq!(exit("/exit?x=1&code=0"), Some(0));
        assert_eq!(exit("/exit?code=256"), None);
        assert_eq!(exit("/exit?code=-1"), None);
    }
}
