//! The sample app as it is shipped: static, and hard to upset.

#![expect(clippy::unwrap_used, reason = "a test's helpers are tests, though not marked so")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

const HELLO: &str = concat!(env!("OUT_DIR"), "/hello");

struct Hello {
    child: Child,
    port: u16,
}

impl Hello {
    /// Starts one and waits until it says that it listens.
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(HELLO)
            .env_clear()
            .env("PORT", port.to_string())
            .env("CF_INSTANCE_INDEX", "2")
            .env("GREETING", "hi")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Its output is read no further: an app must bear that.
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, format!("hello listens on port {port}\n"));
        Self { child, port }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    fn send(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, target: &str) -> String {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: hello\r\n\r\n").as_bytes())
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        // Gone already where a test has ended it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn it_is_static() {
    let bytes = std::fs::read(HELLO).unwrap();
    // An ELF that names an interpreter needs a dynamic loader, which the image does not have.
    assert!(bytes.starts_with(b"\x7fELF"));
    let needle = b"/lib64/ld-linux";
    assert!(!bytes.windows(needle.len()).any(|window| window == needle));
}

#[test]
fn it_says_who_it_is() {
    let hello = Hello::start();
    let answer = hello.get("/");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("Hello from instance 2.\n"), "{answer}");
    assert!(hello.get("/env").contains("\nGREETING=hi\n"));
    assert!(hello.get("/healthz").ends_with("\r\n\r\nok\n"));
    let head = hello.send(b"HEAD /healthz HTTP/1.1\r\n\r\n");
    assert!(head.ends_with("Content-Length: 3\r\nConnection: close\r\n\r\n"), "{head}");
}

#[test]
fn it_exits_as_asked() {
    let mut hello = Hello::start();
    assert!(hello.get("/exit?code=7").contains("exiting with status 7"));
    assert_eq!(hello.child.wait().unwrap().code(), Some(7));
}

#[test]
fn rubbish_and_silence_do_not_upset_it() {
    let hello = Hello::start();
    assert!(hello.send(b"\x16\x03\x01 rubbish\r\n\r\n").starts_with("HTTP/1.1 400"));
    let long = [b"GET /".to_vec(), vec![b'a'; 20 << 10], b" HTTP/1.1\r\n\r\n".to_vec()].concat();
    let mut stream = hello.connect();
    // It may answer and close before it has taken all of it.
    drop(stream.write_all(&long));
    drop(stream.shutdown(Shutdown::Both));
    // More silent connections than there are places: the last one is told so.
    let mut silent: Vec<_> = (0..80).map(|_| hello.connect()).collect();
    let mut answer = String::new();
    silent.pop().unwrap().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(silent);
    // The places are given back as the connections are seen to be closed.
    while !hello.get("/healthz").starts_with("HTTP/1.1 200") {}
}
