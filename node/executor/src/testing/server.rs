//! A small HTTP server on loopback, that may be as bad as it likes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A status line's end, headers and a body.
    Page { status: &'static str, headers: String, body: Vec<u8> },
    /// A page of which it says nothing after so many bytes of the body, and closes.
    Cut(Vec<u8>, usize),
    /// A page of which it says nothing more after so many bytes, and waits.
    Stall(Vec<u8>, usize),
    /// A byte of the page's body at a time.
    Drip(Vec<u8>, Duration),
    /// Zeros without end.
    Endless,
    /// The connection ends without an answer.
    Nothing,
    /// The connection stays, and nothing is said.
    Silence,
}

impl Reply {
    pub(crate) fn ok(body: &[u8]) -> Self {
        Self::page("200 OK", "", body)
    }

    /// A page with a validator.
    pub(crate) fn tagged(etag: &str, body: &[u8]) -> Self {
        Self::page("200 OK", &format!("ETag: {etag:?}\r\n"), body)
    }

    pub(crate) fn status(status: &'static str) -> Self {
        Self::page(status, "", b"")
    }

    pub(crate) fn page(status: &'static str, headers: &str, body: &[u8]) -> Self {
        Self::Page { status, headers: headers.to_owned(), body: body.to_vec() }
    }
}

/// One request as it came: the head in lower case, and the body.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    replies: Arc<Mutex<Vec<Reply>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Answers one request after the other; the last reply is for ever.
    pub(crate) async fn new(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let replies = Arc::new(Mutex::new(replies));
        let (seen, next) = (Arc::clone(&requests), Arc::clone(&replies));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, next) = (Arc::clone(&seen), Arc::clone(&next));
                tokio::spawn(serve(stream, seen, next));
            }
        });
        Self { address, requests, replies, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// From now on answers so.
    pub(crate) fn reply(&self, replies: Vec<Reply>) {
        *self.replies.lock().unwrap() = replies;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    replies: Arc<Mutex<Vec<Reply>>>,
) {
    while let Some(request) = read(&mut stream).await {
        seen.lock().unwrap().push(request);
        let reply = {
            let mut replies = replies.lock().unwrap();
            if replies.len() > 1 { replies.remove(0) } else { replies[0].clone() }
        };
        if answer(&mut stream, reply).await.is_none() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let mut request =
        Request { head: String::from_utf8(head).unwrap().to_lowercase(), body: Vec::new() };
    let length = request.header("content-length").map_or(0, |text| text.parse().unwrap());
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    request.head = request.head.replace("\r\n", "\n");
    Some(request)
}

/// None where the connection ends with it.
async fn answer(stream: &mut TcpStream, reply: Reply) -> Option<()> {
    let head = |length: usize| {
        format!("HTTP/1.1 200 OK\r\nETag: \"bad\"\r\nContent-Length: {length}\r\n\r\n")
    };
    match reply {
        Reply::Page { status, headers, body } => {
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()
        }
        Reply::Cut(body, after) => {
            stream.write_all(head(body.len()).as_bytes()).await.ok()?;
            stream.write_all(&body[..after]).await.ok()?;
            None
        }
        Reply::Stall(body, after) => {
            stream.write_all(head(body.len()).as_bytes()).await.ok()?;
            stream.write_all(&body[..after]).await.ok()?;
            std::future::pending().await
        }
        Reply::Drip(body, pause) => {
            stream.write_all(head(body.len()).as_bytes()).await.ok()?;
            for byte in body {
                stream.write_all(&[byte]).await.ok()?;
                tokio::time::sleep(pause).await;
            }
            Some(())
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nETag: \"bad\"\r\n\r\n").await.ok()?;
            loop {
                stream.write_all(&[0; 64 << 10]).await.ok()?;
            }
        }
        Reply::Nothing => None,
        Reply::Silence => std::future::pending().await,
    }
}
