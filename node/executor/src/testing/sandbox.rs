//! A container that is only imagined, and may be killed with its node before and after each thing
//! that it does.
//!
//! What a process does is written in its arguments, one word each: `print:TEXT` at its start,
//! `lasts:MS` (for ever where absent), `exit:CODE` or `dies:SIGNAL` in the end, `oom`,
//! `on-term:MS` (how long it takes to end when it is told to, with `exit:CODE`; SIGTERM kills it
//! at once where absent), `deaf` to SIGTERM, `undead` after SIGKILL, `missing` (it cannot be
//! started). A `then` begins what it does the next time that a process of these arguments is
//! started.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use container::container::{ExitStatus, LogStream, Process};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::sandbox::{EndSignal, Output, ProcessEnd, Sandbox};

#[derive(Clone, Debug)]
pub(crate) struct Imagined(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was signalled.
    signalled: Notify,
    killed: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    opened: Instant,
    story: String,
    processes: BTreeMap<String, Running>,
    /// Each start that happened.
    pub(crate) starts: Vec<String>,
    runs: BTreeMap<Vec<String>, usize>,
    pub(crate) marks: BTreeMap<String, String>,
    pub(crate) lines: Vec<String>,
    /// What a port answers, one connection after the other; the last for ever.
    pub(crate) ports: BTreeMap<u16, Vec<Page>>,
    pub(crate) requests: Vec<String>,
    /// Contents by path.
    pub(crate) files: BTreeMap<String, Result<Vec<u8>, String>>,
    pub(crate) unpack_error: Option<String>,
    /// Points until the node dies.
    pub(crate) dies_at: Option<usize>,
    points: usize,
}

#[derive(Clone, Debug)]
struct Running {
    ends_at: Option<Instant>,
    status: ExitStatus,
    oom_killed: bool,
    on_term: Option<(Duration, ExitStatus)>,
    is_undead: bool,
    output: String,
}

/// What a port does with a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Page {
    Refused,
    /// connect(2) fails so.
    Fails(i32),
    /// It never comes about.
    Silent,
    NoAddress,
    /// It is made, and closed at once.
    Closed,
    /// It is made, and nothing is said.
    Deaf,
    Says(&'static str),
    /// It says so, and then waits.
    Holds(&'static str),
}

pub(crate) const OK: Page = Page::Says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
pub(crate) const BROKEN: Page =
    Page::Says("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");

impl Imagined {
    pub(crate) fn new() -> Self {
        let state = State {
            opened: Instant::now(),
            story: String::new(),
            processes: BTreeMap::new(),
            starts: Vec::new(),
            runs: BTreeMap::new(),
            marks: BTreeMap::new(),
            lines: Vec::new(),
            ports: BTreeMap::new(),
            requests: Vec::new(),
            files: BTreeMap::new(),
            unpack_error: None,
            dies_at: None,
            points: 0,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            signalled: Notify::new(),
            killed: Notify::new(),
        }))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Adds to the story, with the milliseconds since its beginning.
    pub(crate) fn tell(&self, text: &str) {
        let mut state = self.state();
        let millis = state.opened.elapsed().as_millis();
        state.story.push_str(&format!("{millis:<6} {text}\n"));
    }

    pub(crate) fn story(&self) -> String {
        self.state().story.clone()
    }

    /// Waits until so many milliseconds after the story's beginning.
    pub(crate) async fn at(&self, millis: u64) {
        let at = self.state().opened + Duration::from_millis(millis);
        sleep_until(at).await;
    }

    /// How many points there were at which the node might have died.
    pub(crate) fn points(&self) -> usize {
        self.state().points
    }

    /// Waits until the node has died.
    pub(crate) async fn killed(&self) {
        self.0.killed.notified().await;
    }

    /// A point at which the node may die: whoever comes there does not come further.
    async fn point(&self) {
        let dies = {
            let mut state = self.state();
            state.points += 1;
            state.dies_at == Some(state.points)
        };
        if dies {
            self.0.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn add_line(&self, stream: LogStream, source: &str, text: &str) {
        let name = match stream {
            LogStream::Stdout => "OUT",
            LogStream::Stderr => "ERR",
        };
        let line = format!("{name} {source}: {text}");
        self.tell(&line);
        self.state().lines.push(line);
    }
}

impl Running {
    fn new(words: &[String]) -> Self {
        let millis = |word: &str| Duration::from_millis(word.parse().unwrap());
        let mut running = Self {
            ends_at: None,
            status: ExitStatus::Code(0),
            oom_killed: false,
            on_term: Some((Duration::ZERO, ExitStatus::Signal(15))),
            is_undead: false,
            output: String::new(),
        };
        for word in words {
            match word.split_once(':').unwrap_or((word, "")) {
                ("print", text) => running.output.push_str(&text.replace('_', " ")),
                ("lasts", text) => running.ends_at = Some(Instant::now() + millis(text)),
                ("exit", text) => running.status = ExitStatus::Code(text.parse().unwrap()),
                ("dies", text) => running.status = ExitStatus::Signal(text.parse().unwrap()),
                ("oom", _) => running.oom_killed = true,
                ("on-term", text) => running.on_term = Some((millis(text), running.status)),
                ("deaf", _) => running.on_term = None,
                ("undead", _) => running.is_undead = true,
                (other, _) => panic!("{other:?} is nothing that a process does"),
            }
        }
        running
    }
}

impl Sandbox for Imagined {
    async fn start(&self, key: &str, process: Process, output: Output) -> Result<(), String> {
        self.point().await;
        if !self.state().processes.contains_key(key) {
            let running = {
                let mut state = self.state();
                let run = state.runs.entry(process.args.clone()).or_default();
                let turns: Vec<_> = process.args[1..].split(|word| word == "then").collect();
                let turn = turns[(*run).min(turns.len() - 1)];
                *run += 1;
                if turn.iter().any(|word| word == "missing") {
                    return Err(format!("exec: {:?}: no such file or directory", process.args[0]));
                }
                let running = Running::new(turn);
                state.processes.insert(key.to_owned(), running.clone());
                state.starts.push(key.to_owned());
                running
            };
            self.tell(&format!("start {key}"));
            match output {
                Output::Log { source } if !running.output.is_empty() => {
                    self.add_line(LogStream::Stdout, &source, &running.output);
                }
                Output::Log { .. } | Output::Discard | Output::Capture => {}
            }
        }
        self.point().await;
        Ok(())
    }

    async fn ended(&self, key: &str) -> ProcessEnd {
        loop {
            let signalled = self.0.signalled.notified();
            let running = self.state().processes.get(key).expect("it was started").clone();
            let Some(ends_at) = running.ends_at else {
                signalled.await;
                continue;
            };
            tokio::select! {
                biased;
                () = sleep_until(ends_at) => {
                    self.point().await;
                    let Running { status, oom_killed, output, .. } = running;
                    return ProcessEnd { status, oom_killed, output: output.into_bytes() };
                }
                () = signalled => {}
            }
        }
    }

    async fn signal(&self, key: &str, signal: EndSignal) {
        self.point().await;
        {
            let mut state = self.state();
            let running = state.processes.get_mut(key).expect("it was started");
            let now = Instant::now();
            let has_ended = running.ends_at.is_some_and(|at| at <= now);
            match signal {
                _ if has_ended => {}
                EndSignal::Terminate => {
                    if let Some((after, status)) = running.on_term {
                        running.ends_at =
                            Some(running.ends_at.unwrap_or(now + after).min(now + after));
                        running.status = status;
                    }
                }
                EndSignal::Kill if running.is_undead => {}
                EndSignal::Kill => {
                    running.ends_at = Some(now);
                    running.status = ExitStatus::Signal(9);
                }
            }
        }
        self.tell(&format!("{signal:?} {key}"));
        self.0.signalled.notify_waiters();
        self.point().await;
    }

    async fn forget(&self, key: &str) {
        self.point().await;
        self.state().processes.remove(key);
        self.point().await;
    }

    async fn unpack<R: AsyncRead + Send + Unpin + 'static>(
        &self,
        user: &str,
        directory: &str,
        mut tar: R,
    ) -> Result<(), String> {
        self.point().await;
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
        if let Some(error) = self.state().unpack_error.clone() {
            return Err(error);
        }
        let mut names = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.map_err(|error| error.to_string())?;
            let mut content = String::new();
            let mut told = entry.path().unwrap().display().to_string();
            if let Some(target) = entry.link_name().unwrap() {
                told.push_str(&format!(" -> {}", target.display()));
            }
            entry.read_to_string(&mut content).unwrap();
            let mode = entry.header().mode().unwrap();
            names.push(format!("{told} {mode:o} {:?}", content));
        }
        self.tell(&format!("unpack as {user} into {directory}: {}", names.join(", ")));
        self.point().await;
        Ok(())
    }

    async fn read_file<W: AsyncWrite + Send + Unpin + 'static>(
        &self,
        user: &str,
        path: &str,
        mut to: W,
    ) -> Result<u64, String> {
        self.point().await;
        let file = self.state().files.get(path).cloned();
        let content = file.unwrap_or_else(|| Err(format!("{path}: no such file or directory")))?;
        // A content that ends so breaks off there.
        let (content, breaks) = match content.strip_suffix(b"BREAKS") {
            Some(content) => (content.to_vec(), true),
            None => (content, false),
        };
        to.write_all(&content).await.map_err(|error| error.to_string())?;
        to.shutdown().await.map_err(|error| error.to_string())?;
        self.tell(&format!("read {path} as {user}"));
        self.point().await;
        if breaks { Err("it broke off".to_owned()) } else { Ok(content.len() as u64) }
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        self.tell(&format!("connect {port}"));
        self.point().await;
        let page = {
            let mut state = self.state();
            let pages = state.ports.get_mut(&port).expect("a port that is thought of");
            if pages.len() > 1 { pages.remove(0) } else { pages[0] }
        };
        match page {
            Page::Refused => return Err(io::Error::from_raw_os_error(111)),
            Page::Fails(errno) => return Err(io::Error::from_raw_os_error(errno)),
            Page::NoAddress => return Err(io::ErrorKind::AddrNotAvailable.into()),
            Page::Silent => return std::future::pending().await,
            Page::Closed | Page::Deaf | Page::Says(_) | Page::Holds(_) => {}
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let ours = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (theirs, _) = listener.accept()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let mut theirs = TcpStream::from_std(theirs)?;
        match page {
            Page::Says(answer) | Page::Holds(answer) => {
                let holds = matches!(page, Page::Holds(_));
                let this = self.clone();
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match theirs.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    this.state().requests.push(String::from_utf8(request.clone()).unwrap());
                    let _ = theirs.write_all(answer.as_bytes()).await;
                    if holds {
                        let _ = theirs.read_to_end(&mut request).await;
                    }
                });
            }
            Page::Deaf => {
                tokio::spawn(async move {
                    let mut rest = Vec::new();
                    let _ = theirs.read_to_end(&mut rest).await;
                });
            }
            Page::Closed | Page::Refused | Page::Fails(_) | Page::Silent | Page::NoAddress => {}
        }
        TcpStream::from_std(ours)
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 255, 0, 2)
    }

    async fn log(&self, stream: LogStream, source: &str, text: &str) {
        self.point().await;
        self.add_line(stream, source, text);
        self.point().await;
    }

    async fn mark(&self, key: &str, value: &str) {
        self.point().await;
        self.state().marks.insert(key.to_owned(), value.to_owned());
        self.point().await;
    }

    fn marked(&self, key: &str) -> Option<String> {
        self.state().marks.get(key).cloned()
    }
}
