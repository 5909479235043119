//! Diego's own API, as its clients speak it: bytes over mutual TLS, against what `golden/bbs.txt`
//! says, and streams of events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::cluster::Cluster;
use tests::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
/// The first node's port for Diego's clients; the others follow.
const PORT: u16 = 8889;

/// A client of Diego's on the cluster's machine, with a certificate.
struct Client<'a> {
    cluster: &'a Cluster,
}

impl Client<'_> {
    /// A curl with TLS 1.2 and an RSA suite only, as old clients have it.
    fn curl(&self) -> Command {
        let file = |name: &str| self.cluster.data_dir().join("diego").join(name);
        let mut curl = self.cluster.host().command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20"]);
        curl.args(["--tlsv1.2", "--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"]);
        curl.arg("--cacert").arg(file("ca.crt"));
        curl.arg("--cert").arg(file("client.crt")).arg("--key").arg(file("client.key"));
        curl
    }

    /// The status and the body of an answer.
    fn ask(&self, request: &Request, node: u16, body: &[u8]) -> (u16, Vec<u8>) {
        let (sent, heard) = (self.file("request"), self.file("answer"));
        fs::write(&sent, body).expect("the directory is ours");
        fs::write(&heard, []).expect("the directory is ours");
        let url = format!("https://127.0.0.1:{}{}", PORT + node - 1, request.path);
        let mut curl = self.curl();
        curl.args(["--request", &request.method, "--write-out", "%{http_code}", &url]);
        curl.arg("--output").arg(&heard);
        curl.arg("--data-binary").arg(format!("@{}", sent.display()));
        let Output { status, stdout, stderr } = curl.output().expect("nsenter starts");
        assert!(status.success(), "{url}: {}", String::from_utf8_lossy(&stderr));
        let code = String::from_utf8_lossy(&stdout).parse().expect("a status");
        (code, fs::read(&heard).expect("curl wrote it"))
    }

    /// The code and the message of a gRPC call, and what it answered.
    fn call(&self, call: &Call, body: &[u8]) -> (u16, String, Vec<u8>) {
        let [sent, heard, head] = ["request", "answer", "head"].map(|name| self.file(name));
        fs::write(&sent, grpc_frame(body)).expect("the directory is ours");
        fs::write(&heard, []).expect("the directory is ours");
        let url = format!("https://127.0.0.1:{}/models.Locket/{}", PORT + call.node - 1, call.name);
        let mut curl = self.curl();
        curl.args(["--http2", "--header", "content-type: application/grpc"]);
        curl.args(["--header", "te: trailers", "--header", "uuid: any"]);
        curl.arg("--dump-header").arg(&head).arg("--output").arg(&heard);
        curl.arg("--data-binary").arg(format!("@{}", sent.display())).arg(&url);
        let Output { status, stderr, .. } = curl.output().expect("nsenter starts");
        assert!(status.success(), "{url}: {}", String::from_utf8_lossy(&stderr));
        // The trailers are there as well.
        let head = fs::read_to_string(&head).expect("curl wrote it");
        let said = |name: &str| {
            let mut values = head.lines().filter_map(|line| line.strip_prefix(name));
            values.next().map(|value| value.trim().to_owned())
        };
        let code = said("grpc-status:").unwrap_or_else(|| panic!("{url}: {head}"));
        let message = said("grpc-message:").unwrap_or_default();
        let answer = fs::read(&heard).expect("curl wrote it");
        let answer = answer.get(5..).unwrap_or_default().to_vec();
        (code.parse().expect("a number"), message, answer)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.cluster.host().dir().join(name)
    }

    /// Begins to read a stream of events of the second node.
    fn subscribe(&self, name: &str, method: &str, path: &str) -> Subscriber {
        let heard = self.file(&format!("events.{name}"));
        let out = fs::File::create(&heard).expect("the directory is ours");
        let mut curl = self.curl();
        let head = self.file(&format!("head.{name}"));
        curl.args(["--no-buffer", "--max-time", "600", "--request", method, "--dump-header"]);
        curl.arg(&head);
        curl.arg(format!("https://127.0.0.1:{}{path}", PORT + 1));
        let child = curl.stdout(out).stderr(Stdio::null()).spawn().expect("nsenter starts");
        let subscriber = Subscriber { child, heard, read: 0 };
        eventually("a stream begins", PATIENCE, || {
            let head = fs::read_to_string(&head).unwrap_or_default().to_lowercase();
            let is_stream = head.contains("content-type: text/event-stream; charset=utf-8");
            if is_stream { Ok(()) } else { Err(head) }
        });
        subscriber
    }
}

/// A message as gRPC has it: not compressed, its length, itself.
fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// A stream that a client reads.
struct Subscriber {
    child: Child,
    heard: PathBuf,
    /// Events that were looked at.
    read: usize,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // It ends with the machine at the latest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Subscriber {
    /// Stops curl, and with it nsenter, which has started it and does as it does.
    fn stop(&self) {
        let nsenter = self.child.id();
        // proc(5)
        let children = fs::read_to_string(format!("/proc/{nsenter}/task/{nsenter}/children"));
        let curl = children.expect("it runs").trim().parse().expect("it has started one");
        kill(Pid::from_raw(curl), Signal::SIGSTOP).expect("it runs");
    }

    /// Has nsenter go on, and with it curl.
    fn go_on(&self) {
        let nsenter = self.child.id().try_into().expect("a process id");
        kill(Pid::from_raw(nsenter), Signal::SIGCONT).expect("it waits");
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.heard).unwrap_or_default()
    }

    /// All events so far, by name, each with its message. Their numbers count from 0.
    fn events(&self) -> Vec<(String, Vec<u8>)> {
        let text = self.text();
        let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let blocks = whole.split("\n\n").filter(|block| !block.is_empty());
        let event = |(number, block): (usize, &str)| {
            let mut lines = block.lines();
            let mut line = |name: &str| {
                let line = lines.next().unwrap_or_default();
                line.strip_prefix(name)
                    .unwrap_or_else(|| panic!("{line:?} is not {name}"))
                    .to_owned()
            };
            assert_eq!(line("id: "), number.to_string());
            (line("event: "), base64(&line("data: ")))
        };
        blocks.enumerate().map(event).collect()
    }
}

/// RFC 4648 section 4.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<usize> = text
        .trim_end_matches('=')
        .bytes()
        .map(|byte| ALPHABET.iter().position(|it| *it == byte).expect("base64"))
        .collect();
    let bits = |chunk: &[usize]| chunk.iter().fold(0, |bits, digit| bits << 6 | digit);
    let bytes = |chunk: &[usize]| {
        let count = chunk.len() * 6 / 8;
        let bits = bits(chunk) >> (chunk.len() * 6 % 8);
        (0..count).rev().map(move |at| u8::try_from(bits >> (8 * at) & 0xff).expect("a byte"))
    };
    digits.chunks(4).flat_map(bytes).collect()
}

/// A step of the contract.
#[derive(Debug)]
struct Step {
    line: usize,
    what: What,
    sent: Vec<Part>,
    heard: Vec<Part>,
}

#[derive(Debug)]
enum What {
    Ask(Request),
    Call(Call),
    Event { stream: String, name: String },
    Signal { node: u16, signal: Signal },
    Lead { node: u16 },
}

/// A call of Locket's.
#[derive(Debug)]
struct Call {
    /// Whether it is asked again until the answer fits.
    until: bool,
    /// From 1.
    node: u16,
    name: String,
    /// gRPC's, and what is said with it.
    code: u16,
    message: String,
}

impl Call {
    fn read(words: &[&str], until: bool) -> Self {
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        Self {
            until,
            node: word(1).parse().expect("a node's number"),
            name: word(2).to_owned(),
            code: words.get(3).map_or(0, |code| code.parse().expect("a code")),
            message: word(4).to_owned(),
        }
    }
}

#[derive(Debug)]
struct Request {
    /// Whether it is asked again until the answer fits.
    until: bool,
    method: String,
    node: Asked,
    path: String,
    status: u16,
}

/// Which node is asked.
#[derive(Debug)]
enum Asked {
    /// From 1.
    Number(u16),
    /// The cell of that name, in the bytes that have it.
    Cell(String),
}

impl Asked {
    fn read(word: &str) -> Self {
        match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
            Some(name) => Self::Cell(name.to_owned()),
            None => Self::Number(word.parse().expect("a node's number")),
        }
    }

    fn number(&self, names: &Names) -> u16 {
        match self {
            Self::Number(number) => *number,
            Self::Cell(name) => {
                let cell = names.get(name).unwrap_or_else(|| panic!("{name} has no bytes"));
                let number = cell.strip_prefix(b"node-").and_then(|it| str::from_utf8(it).ok());
                number.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{cell:?}"))
            }
        }
    }
}

/// A part of a message.
#[derive(Clone, Debug)]
enum Part {
    Byte(u8),
    /// So many bytes that are not looked at.
    Any(usize),
    /// As many as there are until what follows fits.
    Rest,
    /// So many bytes, or as many as there are, that have a name from then on.
    Named(String, Option<usize>),
    /// The bytes of that name.
    Again(String),
}

type Names = BTreeMap<String, Vec<u8>>;

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [">", parts @ ..] => {
                steps.last_mut().expect("a step").sent.extend(parts.iter().map(|it| part(it)));
            }
            ["<", parts @ ..] => {
                steps.last_mut().expect("a step").heard.extend(parts.iter().map(|it| part(it)));
            }
            ["EVENT", stream, name] => {
                let (stream, name) = ((*stream).to_owned(), (*name).to_owned());
                steps.push(step(number, What::Event { stream, name }));
            }
            [word @ ("FREEZE" | "THAW"), node] => {
                let signal = if *word == "FREEZE" { Signal::SIGSTOP } else { Signal::SIGCONT };
                let node = node.parse().expect("a node's number");
                steps.push(step(number, What::Signal { node, signal }));
            }
            ["LEAD", node] => {
                let node = node.parse().expect("a node's number");
                steps.push(step(number, What::Lead { node }));
            }
            words => {
                let until = words[0] == "UNTIL";
                let words = if until { &words[1..] } else { words };
                if words[0] == "GRPC" {
                    steps.push(step(number, What::Call(Call::read(words, until))));
                    continue;
                }
                let status = words.get(3).map_or(200, |status| status.parse().expect("a status"));
                steps.push(step(
                    number,
                    What::Ask(Request {
                        until,
                        method: words[0].to_owned(),
                        node: Asked::read(words[1]),
                        path: words[2].to_owned(),
                        status,
                    }),
                ));
            }
        }
    }
    steps
}

fn step(line: usize, what: What) -> Step {
    Step { line, what, sent: Vec::new(), heard: Vec::new() }
}

fn part(word: &str) -> Part {
    let Some(inner) = word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) else {
        return Part::Byte(u8::from_str_radix(word, 16).unwrap_or_else(|_| panic!("{word:?}")));
    };
    match inner.split_once(':') {
        Some((name, "*")) => Part::Named(name.to_owned(), None),
        Some((name, count)) => Part::Named(name.to_owned(), Some(count.parse().expect("a count"))),
        None if inner == "*" => Part::Rest,
        None => match inner.parse() {
            Ok(count) => Part::Any(count),
            Err(_) => Part::Again(inner.to_owned()),
        },
    }
}

/// What is said, with the names put in.
fn written(parts: &[Part], names: &Names) -> Vec<u8> {
    let bytes = |part: &Part| match part {
        Part::Byte(byte) => vec![*byte],
        Part::Again(name) => {
            names.get(name).unwrap_or_else(|| panic!("{name} has no bytes")).clone()
        }
        Part::Any(_) | Part::Rest | Part::Named(..) => panic!("{part:?} in a request"),
    };
    parts.iter().flat_map(bytes).collect()
}

/// Whether what is heard is what should be; the names that it has given then.
fn fits(parts: &[Part], bytes: &[u8], names: &Names) -> Option<Names> {
    let Some((part, rest)) = parts.split_first() else {
        return bytes.is_empty().then(|| names.clone());
    };
    match part {
        Part::Byte(byte) => fits(rest, bytes.strip_prefix(&[*byte])?, names),
        Part::Any(count) => fits(rest, bytes.get(*count..)?, names),
        Part::Rest => (0..=bytes.len()).find_map(|skipped| fits(rest, &bytes[skipped..], names)),
        Part::Again(name) => {
            let known = names.get(name).unwrap_or_else(|| panic!("{name} has no bytes"));
            fits(rest, bytes.strip_prefix(known.as_slice())?, names)
        }
        Part::Named(name, count) => {
            let counts = count.map_or(0..=bytes.len(), |count| count..=count);
            counts.into_iter().find_map(|count| {
                let mut names = names.clone();
                names.insert(name.clone(), bytes.get(..count)?.to_vec());
                fits(rest, &bytes[count..], &names)
            })
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    let hex = bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x} ");
        text
    });
    format!("{hex}\n{}", String::from_utf8_lossy(bytes))
}

/// A contract that is followed: what was named so far, and which routes were asked.
struct Contract<'a> {
    client: Client<'a>,
    streams: BTreeMap<&'static str, Subscriber>,
    names: Names,
    paths: BTreeSet<String>,
}

impl<'a> Contract<'a> {
    fn with(cluster: &'a Cluster) -> Self {
        let client = Client { cluster };
        let streams = BTreeMap::from([
            ("instances", client.subscribe("instances", "POST", "/v1/events/lrp_instances.r1")),
            ("groups", client.subscribe("groups", "GET", "/v1/events.r1")),
            ("tasks", client.subscribe("tasks", "POST", "/v1/events/tasks.r1")),
        ]);
        Self { client, streams, names: Names::new(), paths: BTreeSet::new() }
    }

    fn follow(&mut self, text: &str) {
        for Step { line, what, sent, heard } in steps(text) {
            match what {
                What::Ask(request) => self.ask(line, &request, &sent, &heard),
                What::Call(call) => self.call(line, &call, &sent, &heard),
                What::Event { stream, name } => self.hear(line, &stream, &name, &heard),
                What::Signal { node, signal } => {
                    self.client.cluster.signal_node(&format!("node-{node}"), signal);
                }
                What::Lead { node } => lead_from(self.client.cluster, &format!("node-{node}")),
            }
        }
    }

    fn ask(&mut self, line: usize, request: &Request, sent: &[Part], heard: &[Part]) {
        let (node, body) = (request.node.number(&self.names), written(sent, &self.names));
        let ask = || {
            let (status, answer) = self.client.ask(request, node, &body);
            let told = || format!("line {line}: {}: {status}\n{}", request.path, shown(&answer));
            if status != request.status {
                return Err(told());
            }
            if status != 200 {
                return Ok(Names::new());
            }
            fits(heard, &answer, &self.names).ok_or_else(told)
        };
        let named = if request.until {
            eventually("the answer fits", PATIENCE, ask)
        } else {
            ask().unwrap_or_else(|told| panic!("{told}"))
        };
        self.names.extend(named);
        self.paths.insert(request.path.clone());
    }

    fn call(&mut self, line: usize, call: &Call, sent: &[Part], heard: &[Part]) {
        let body = written(sent, &self.names);
        let ask = || {
            let (code, message, answer) = self.client.call(call, &body);
            let told =
                || format!("line {line}: {}: {code} {message:?}\n{}", call.name, shown(&answer));
            if (code, &message) != (call.code, &call.message) {
                return Err(told());
            }
            fits(heard, &answer, &self.names).ok_or_else(told)
        };
        let named = if call.until {
            eventually("the answer fits", PATIENCE, ask)
        } else {
            ask().unwrap_or_else(|told| panic!("{told}"))
        };
        self.names.extend(named);
    }

    fn hear(&mut self, line: usize, stream: &str, name: &str, heard: &[Part]) {
        let stream = self.streams.get_mut(stream).expect("a stream");
        let (at, named) = eventually(&format!("line {line}: {name}"), PATIENCE, || {
            let events = stream.events();
            let mut next = events.iter().enumerate().skip(stream.read);
            let found = next.find_map(|(at, (of, message))| {
                Some((at, fits(heard, message, &self.names)?)).filter(|_| *of == name)
            });
            found.ok_or_else(|| {
                let unread = events.iter().skip(stream.read);
                unread.map(|(of, message)| format!("{of}\n{}\n", shown(message))).collect()
            })
        });
        stream.read = at + 1;
        self.names.extend(named);
    }
}

#[test]
fn clients_of_diegos_are_answered_byte_by_byte() {
    let cluster = Cluster::start();
    let mut contract = Contract::with(&cluster);
    contract.follow(include_str!("../../golden/bbs.txt"));
    let routes = contract.paths.len();
    assert!(routes > 40, "the contract has {routes} routes");
}

/// Of all who ask whether a task may start, a cell of Diego's and the node whose cell it is, one is
/// told so.
#[test]
fn a_task_starts_for_who_asks_first() {
    let cluster = Cluster::start();
    Contract::with(&cluster).follow(include_str!("../../golden/bbs_task_start.txt"));
}

#[test]
fn a_cell_that_is_not_heard_is_answered_byte_by_byte() {
    let cluster = Cluster::start();
    Contract::with(&cluster).follow(include_str!("../../golden/bbs_suspect.txt"));
}

#[test]
fn locket_is_answered_byte_by_byte() {
    let cluster = Cluster::start();
    Contract::with(&cluster).follow(include_str!("../../golden/locket.txt"));
}

fn lead_from(cluster: &Cluster, name: &str) {
    if cluster.leader() != name {
        let _ = cluster.done(&["cluster", "transfer-leadership", name]);
    }
    eventually("it leads", PATIENCE, || match cluster.leader() {
        leader if leader == name => Ok(()),
        leader => Err(leader),
    });
}

/// A client without a certificate, one whose certificate another authority has signed, one that
/// speaks in plain; TLS 1.3 and HTTP/2 with a good one. A body that is too long is refused.
#[test]
fn strangers_are_not_answered_and_floods_are_refused() {
    let cluster = Cluster::start();
    let client = Client { cluster: &cluster };
    let status = |mut curl: Command, url: &str, more: &[&str]| {
        curl.args(["--output", "/dev/null", "--write-out", "%{http_code}/%{http_version}"]);
        let output = curl.args(more).arg(url).output().expect("nsenter starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let plain = || {
        let mut curl = cluster.host().command("curl");
        curl.args(["--silent", "--insecure", "--max-time", "10", "--request", "POST"]);
        curl
    };
    let url = format!("https://127.0.0.1:{PORT}/v1/ping");
    assert_eq!(status(plain(), &url, &[]), "000/0", "no certificate");
    assert_eq!(status(plain(), &url.replace("https", "http"), &[]), "000/0", "no TLS");
    let others = client.file("others");
    let made = cluster.gavel(&["cluster", "certs", "--dir", "others", "x=127.0.0.1"]).output();
    assert!(made.expect("nsenter starts").status.success());
    let (cert, key) = (others.join("operator.crt"), others.join("operator.key"));
    let theirs = ["--cert", cert.to_str().expect("a path"), "--key", key.to_str().expect("a path")];
    assert_eq!(status(plain(), &url, &theirs), "000/0", "another authority's");

    let dir = cluster.data_dir().join("diego");
    let (cert, key) = (dir.join("client.crt"), dir.join("client.key"));
    let ours = ["--cert", cert.to_str().expect("a path"), "--key", key.to_str().expect("a path")];
    assert_eq!(status(plain(), &url, &[&ours[..], &["--tlsv1.3"]].concat()), "200/2");
    let flood = client.file("flood");
    fs::File::create(&flood).and_then(|file| file.set_len(9 << 20)).expect("the disk has room");
    let body = format!("@{}", flood.display());
    let desire = format!("https://127.0.0.1:{PORT}/v1/desired_lrp/desire.r2");
    let refused = status(client.curl(), &desire, &["--http1.1", "--data-binary", &body]);
    assert_eq!(refused, "200/1.1");
    // It goes on.
    assert_eq!(status(client.curl(), &url, &["--request", "POST", "--http1.1"]), "200/1.1");
}

/// A request of the contract that desires what a cell can run.
fn desire_hello() -> Vec<u8> {
    let steps = steps(include_str!("../../golden/bbs.txt"));
    let desires = steps.into_iter().filter(|step| {
        matches!(&step.what, What::Ask(request) if request.path == "/v1/desired_lrp/desire.r2")
    });
    let mut bodies = desires.map(|step| written(&step.sent, &Names::new()));
    bodies.find(|body| body.windows(6).any(|bytes| bytes == b"/hello")).expect("one runs")
}

/// The request that gives an LRP an annotation.
fn annotate(process_guid: &str, annotation: &str) -> Vec<u8> {
    let field = |number: u8, value: &[u8]| {
        let mut length = Vec::new();
        let mut rest = value.len();
        while rest > 0x7f {
            length.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
            rest >>= 7;
        }
        length.push(u8::try_from(rest).expect("seven bits"));
        [&[number << 3 | 2], length.as_slice(), value].concat()
    };
    // process_guid and update; in that, annotation.
    [field(1, process_guid.as_bytes()), field(2, &field(3, annotation.as_bytes()))].concat()
}

/// More is told than the sockets and the node keep for it.
#[test]
fn a_subscriber_that_does_not_read_is_cut_off_and_holds_nothing_up() {
    const UPDATES: usize = 1500;
    let cluster = Cluster::start();
    let client = Client { cluster: &cluster };
    let [mut slow, quick] =
        ["slow", "quick"].map(|name| client.subscribe(name, "POST", "/v1/events/lrp_instances.r1"));
    let sent = client.file("request");
    fs::write(&sent, desire_hello()).expect("the directory is ours");
    let mut curl = client.curl();
    curl.arg("--data-binary").arg(format!("@{}", sent.display())).args(["--output", "/dev/null"]);
    curl.arg(format!("https://127.0.0.1:{}/v1/desired_lrp/desire.r2", PORT + 1));
    assert!(curl.status().expect("nsenter starts").success());

    slow.stop();
    fs::write(&sent, annotate("run", &"a".repeat(10_000))).expect("the directory is ours");
    let mut curl = client.curl();
    curl.args(["--parallel", "--parallel-max", "16", "--max-time", "300"]);
    curl.args(["--output", "/dev/null", "--data-binary"]).arg(format!("@{}", sent.display()));
    let url = format!("https://127.0.0.1:{}/v1/desired_lrp/update?[1-{UPDATES}]", PORT + 1);
    // Many at once have a progress bar, however silent.
    let flood = curl.arg(url).stderr(Stdio::null()).status();
    assert!(flood.expect("nsenter starts").success());
    let changes =
        |subscriber: &Subscriber| subscriber.text().matches("event: desired_lrp_changed\n").count();
    eventually("who reads is told all", PATIENCE, || match changes(&quick) {
        UPDATES => Ok(()),
        heard => Err(heard.to_string()),
    });
    slow.go_on();
    eventually("who did not read is cut off", PATIENCE, || {
        match slow.child.try_wait().expect("it is our child") {
            // Its answer ended as answers do.
            Some(status) if status.success() => Ok(()),
            status => Err(format!("{status:?}, {} heard", changes(&slow))),
        }
    });
    // Without a gap until there: their numbers are looked at.
    let heard = slow.events().iter().filter(|(name, _)| name == "desired_lrp_changed").count();
    assert!((1..UPDATES).contains(&heard), "{heard}");
}

#[test]
fn a_request_is_followed_by_its_trace_and_a_stream_goes_on_without_its_leader() {
    let cluster = Cluster::start();
    let client = Client { cluster: &cluster };
    if cluster.leader() == "node-2" {
        let _ = cluster.done(&["cluster", "transfer-leadership", "node-1"]);
        eventually("another leads", PATIENCE, || match cluster.leader() {
            leader if leader == "node-2" => Err(leader),
            _ => Ok(()),
        });
    }
    let stream = client.subscribe("instances", "POST", "/v1/events/lrp_instances.r1");
    let sent = client.file("request");
    fs::write(&sent, desire_hello()).expect("the directory is ours");
    let mut curl = client.curl();
    curl.args(["--header", "X-Vcap-Request-Id: trace-of-the-test", "--data-binary"]);
    curl.arg(format!("@{}", sent.display())).args(["--output", "/dev/null"]);
    curl.arg(format!("https://127.0.0.1:{}/v1/desired_lrp/desire.r2", PORT + 2));
    assert!(curl.status().expect("nsenter starts").success());
    eventually("it runs", PATIENCE, || {
        let rows = cluster.json(&["actual-lrps", "-p", "run"]);
        let runs = rows.iter().any(|row| row["state"] == "RUNNING");
        if runs { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    eventually("asked, placed and made under its trace", PATIENCE, || {
        let logs: String = (1..=3)
            .map(|node| cluster.data_dir().join(format!("node-{node}.log")))
            .map(|log| fs::read_to_string(log).unwrap_or_default())
            .collect();
        let told = |what: &str| {
            let mut lines = logs.lines().filter(|line| line.contains("trace-of-the-test"));
            lines.any(|line| line.contains(what))
        };
        let all = ["an LRP is desired", "placed", "making"];
        if all.into_iter().all(told) { Ok(()) } else { Err(logs) }
    });
    let told = |name: &str| stream.events().into_iter().filter(|(of, _)| of == name).count();
    assert_eq!(told("desired_lrp_created"), 1);
    let with_trace = stream
        .events()
        .into_iter()
        .filter(|(_, message)| message.windows(17).any(|bytes| bytes == b"trace-of-the-test"));
    assert!(with_trace.count() > 1, "events have it too");

    let leader = cluster.leader();
    let next = if leader == "node-1" { "node-3" } else { "node-1" };
    let _ = cluster.done(&["cluster", "transfer-leadership", next]);
    eventually("another leads", PATIENCE, || match cluster.leader() {
        leads if leads == next => Ok(()),
        leads => Err(leads),
    });
    // That it is gone for good is not what the stream waits for.
    cluster.kill_node(&leader);
    let _ = cluster.done(&["delete-desired-lrp", "run"]);
    eventually("the stream goes on", PATIENCE, || match told("desired_lrp_removed") {
        1 => Ok(()),
        _ => Err(stream.text()),
    });
}
