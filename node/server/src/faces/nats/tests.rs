//! The emitter against a NATS server that the tests speak by hand
//! (docs.nats.io, "Client Protocol").

mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use model::{ActualLrp, DesiredLrp, Event};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::config::Secret;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a client does.
#[derive(Debug)]
enum Said {
    Connect(Value),
    Publish { subject: String, reply: Option<String>, payload: String },
}

/// One connection, at the server.
struct Session {
    stream: BufReader<TcpStream>,
    /// By subject.
    subscriptions: BTreeMap<String, String>,
}

impl Session {
    async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let info = r#"{"server_id":"s","version":"2.10.0","headers":true,"max_payload":1048576}"#;
        stream.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        Self { stream: BufReader::new(stream), subscriptions: BTreeMap::new() }
    }

    async fn write(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// What the client does next; what is of the protocol alone is answered.
    async fn next(&mut self) -> Option<Said> {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await.unwrap();
            if read.unwrap_or(0) == 0 {
                return None;
            }
            let words: Vec<&str> = line.trim_end().splitn(2, ' ').collect();
            match words[..] {
                ["CONNECT", options] => {
                    return Some(Said::Connect(serde_json::from_str(options).unwrap()));
                }
                ["PING"] => self.write("PONG\r\n").await,
                ["PONG"] => {}
                ["SUB", rest] => {
                    let (subject, sid) = rest.split_once(' ').unwrap();
                    self.subscriptions.insert(subject.to_owned(), sid.to_owned());
                }
                ["PUB", rest] => {
                    let words: Vec<&str> = rest.split(' ').collect();
                    let (subject, reply) = (words[0].to_owned(), words.get(1));
                    let reply = reply.filter(|_| words.len() == 3).map(|word| (*word).to_owned());
                    let mut payload = vec![0; words.last().unwrap().parse::<usize>().unwrap() + 2];
                    self.stream.read_exact(&mut payload).await.unwrap();
                    let payload = String::from_utf8(payload).unwrap().trim_end().to_owned();
                    return Some(Said::Publish { subject, reply, payload });
                }
                _ => panic!("{line:?}"),
            }
        }
    }

    /// The next message, if it is one of routes.
    async fn telling(&mut self) -> String {
        loop {
            match self.next().await.expect("the client is there") {
                Said::Connect(_) => {}
                Said::Publish { subject, .. } if subject.ends_with(".greet") => {}
                Said::Publish { subject, payload, .. } => {
                    let message: Value = serde_json::from_str(&payload).unwrap();
                    return format!("{subject} {} {}", message["uris"], message["port"]);
                }
            }
        }
    }

    /// The next greeting's subject, and where its answer goes.
    async fn greeting(&mut self) -> (String, String) {
        loop {
            if let Said::Publish { subject, reply: Some(reply), payload } =
                self.next().await.expect("the client is there")
            {
                assert_eq!(payload, "");
                return (subject, reply);
            }
        }
    }

    async fn send(&mut self, subject: &str, payload: &str) {
        let sid = &self.subscriptions[subject];
        let message = format!("MSG {subject} {sid} {}\r\n{payload}\r\n", payload.len());
        self.write(&message).await;
    }
}

struct Told {
    emitter: Emitter,
    feed: Arc<SharedFeed>,
    listener: TcpListener,
}

async fn told(config: RouteEmitterConfig, pace: Pace) -> Told {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = router::feed::Settings {
        has_direct_routes: false,
        has_internal_routes: config.internal_routes,
    };
    let feed = SharedFeed::new(Feed::new("c1".into(), settings));
    let address = listener.local_addr().unwrap().to_string();
    let config = RouteEmitterConfig { nats: vec![address], ..config };
    let emitter = Emitter::at_pace(&config, "c1", Arc::clone(&feed), pace);
    Told { emitter, feed, listener }
}

fn desired(name: &str) -> Event {
    let lrp: DesiredLrp = serde_json::from_value(json!({
        "process_guid": name, "domain": "d", "rootfs": "docker:///a",
        "routes": {
            "cf-router": format!(r#"[{{"hostnames":["{name}.example"],"port":8080}}]"#),
            "internal-router": format!(r#"[{{"hostname":"{name}.apps.internal"}}]"#),
        },
    }))
    .unwrap();
    Event::DesiredLrpCreated(Arc::new(lrp))
}

fn running(name: &str, host_port: u16) -> Arc<ActualLrp> {
    let lrp: ActualLrp = serde_json::from_value(json!({
        "key": {"process_guid": name, "index": 0, "domain": "d"}, "presence": "ORDINARY",
        "state": {"Running": {
            "instance": {"instance_guid": "ig", "cell_id": "c1"},
            "net_info": {
                "address": "10.0.0.1", "instance_address": "10.88.0.7",
                "ports": [{"container_port": 8080, "host_port": host_port}],
            },
        }},
        "crash_count": 0, "crash_reason": "", "since": 1, "memory_mb": 1, "disk_mb": 1,
        "modification_tag": {"epoch": "e", "index": 1}, "routable": true, "availability_zone": "z",
    }))
    .unwrap();
    Arc::new(lrp)
}

fn happens(feed: &SharedFeed, events: Vec<Event>) {
    let events: Vec<_> = (1..).zip(events).collect();
    feed.follow(&News::Events(&events));
}

fn starts(feed: &SharedFeed, name: &str, host_port: u16) {
    happens(feed, vec![desired(name), Event::ActualLrpCreated(running(name, host_port))]);
}

/// Nothing that a test does not wait for happens in it.
fn slow() -> Pace {
    let hour = Duration::from_secs(3600);
    Pace { registration: hour, greeting: hour, withdrawal: hour }
}

#[tokio::test]
async fn changes_are_told_at_once() {
    let Told { emitter, feed, listener } = told(RouteEmitterConfig::default(), slow()).await;
    let mut session = Session::accept(&listener).await;
    assert_eq!(session.greeting().await.0, "router.greet");
    starts(&feed, "a", 61_001);
    assert_eq!(session.telling().await, "router.register [\"a.example\"] 61001");
    happens(&feed, vec![Event::ActualLrpRemoved(running("a", 61_001))]);
    assert_eq!(session.telling().await, "router.unregister [\"a.example\"] 61001");
    emitter.end(Last::Nothing).await;
    assert!(session.next().await.is_none(), "it is gone without a word");
}

#[tokio::test]
async fn who_it_is_is_said() {
    let config = RouteEmitterConfig {
        user: Some("nats".to_owned()),
        password: Some(Secret::from("pw")),
        ..RouteEmitterConfig::default()
    };
    let Told { emitter: _emitter, listener, .. } = told(config, slow()).await;
    let mut session = Session::accept(&listener).await;
    let Some(Said::Connect(options)) = session.next().await else { panic!("no CONNECT") };
    assert_eq!(options["user"], "nats");
    assert_eq!(options["pass"], "pw");
    assert_eq!(options["name"], "gavel route-emitter of c1");
}

#[tokio::test]
async fn routes_are_told_at_the_interval_that_routers_ask_for() {
    let greeting = Duration::from_millis(20);
    let Told { emitter: _emitter, feed, listener } =
        told(RouteEmitterConfig::default(), Pace { greeting, ..slow() }).await;
    starts(&feed, "a", 61_001);
    let mut session = Session::accept(&listener).await;
    // It goes on greeting until it is answered.
    session.greeting().await;
    let (_, inbox) = session.greeting().await;
    session.send(&inbox, "none of ours").await;
    let (_, inbox) = session.greeting().await;
    let start = r#"{"id":"r","hosts":["h"],"minimumRegisterIntervalInSeconds":1,"pruneThresholdInSeconds":120}"#;
    session.send(&inbox, start).await;
    let begun = Instant::now();
    for _ in 0..2 {
        assert_eq!(session.telling().await, "router.register [\"a.example\"] 61001");
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "an interval lies between");
}

#[tokio::test]
async fn a_router_that_starts_is_told_soon() {
    let Told { emitter: _emitter, feed, listener } =
        told(RouteEmitterConfig::default(), slow()).await;
    starts(&feed, "a", 61_001);
    let mut session = Session::accept(&listener).await;
    session.greeting().await;
    assert_eq!(session.telling().await, "router.register [\"a.example\"] 61001");
    session.send("router.start", r#"{"minimumRegisterIntervalInSeconds":5}"#).await;
    let begun = Instant::now();
    assert_eq!(session.telling().await, "router.register [\"a.example\"] 61001");
    assert!(begun.elapsed() < Duration::from_secs(4), "within a part of the interval");
}

#[tokio::test]
async fn a_line_that_was_lost_is_made_up_for() {
    let withdrawal = Duration::from_secs(3600);
    let registration = Duration::from_millis(100);
    let pace = Pace { registration, withdrawal, ..slow() };
    let Told { emitter: _emitter, feed, listener } =
        told(RouteEmitterConfig::default(), pace).await;
    starts(&feed, "a", 61_001);
    starts(&feed, "b", 61_002);
    let mut session = Session::accept(&listener).await;
    session.telling().await;
    drop(session);
    // Nobody hears it now.
    happens(&feed, vec![Event::ActualLrpRemoved(running("a", 61_001))]);
    starts(&feed, "c", 61_003);
    let mut session = Session::accept(&listener).await;
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let telling = session.telling().await;
        if !heard.contains(&telling) {
            heard.push(telling);
        }
    }
    heard.sort();
    // That of `a` is a repetition: the withdrawal itself was lost.
    let expected = [
        "router.register [\"b.example\"] 61002",
        "router.register [\"c.example\"] 61003",
        "router.unregister [\"a.example\"] 61001",
    ];
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_server_that_comes_late_is_found() {
    let pace = slow();
    let spare = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = spare.local_addr().unwrap();
    drop(spare);
    let feed = SharedFeed::new(Feed::new("c1".into(), router::feed::Settings::default()));
    let config = RouteEmitterConfig { nats: vec![address.to_string()], ..Default::default() };
    let emitter = Emitter::at_pace(&config, "c1", Arc::clone(&feed), pace);
    starts(&feed, "a", 61_001);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let mut session = Session::accept(&listener).await;
    assert_eq!(session.telling().await, "router.register [\"a.example\"] 61001");
    emitter.end(Last::Nothing).await;
}

#[tokio::test]
async fn service_discovery_is_told_where_that_is_wanted() {
    let config = RouteEmitterConfig { internal_routes: true, ..RouteEmitterConfig::default() };
    let Told { emitter: _emitter, feed, listener } = told(config, slow()).await;
    let mut session = Session::accept(&listener).await;
    assert_eq!(session.greeting().await.0, "router.greet");
    assert_eq!(session.greeting().await.0, "service-discovery.greet");
    starts(&feed, "a", 61_001);
    assert_eq!(session.telling().await, "router.register [\"a.example\"] 61001");
    let names = "service-discovery.register [\"a.apps.internal\",\"0.a.apps.internal\"] 0";
    assert_eq!(session.telling().await, names);
}

#[tokio::test]
async fn withdrawals_are_said_more_than_once() {
    let pace = Pace { withdrawal: Duration::from_millis(20), ..slow() };
    let Told { emitter: _emitter, feed, listener } =
        told(RouteEmitterConfig::default(), pace).await;
    let mut session = Session::accept(&listener).await;
    session.greeting().await;
    starts(&feed, "a", 61_001);
    session.telling().await;
    happens(&feed, vec![Event::ActualLrpRemoved(running("a", 61_001))]);
    for _ in 0..=ROUTES_WITHDRAWALS_MAX {
        assert_eq!(session.telling().await, "router.unregister [\"a.example\"] 61001");
    }
    starts(&feed, "b", 61_002);
    assert_eq!(session.telling().await, "router.register [\"b.example\"] 61002", "and no more");
}

#[tokio::test]
async fn who_ends_with_its_instances_takes_its_routes_back() {
    let Told { emitter, feed, listener } = told(RouteEmitterConfig::default(), slow()).await;
    let mut session = Session::accept(&listener).await;
    session.greeting().await;
    starts(&feed, "a", 61_001);
    session.telling().await;
    let (tell, mut said) = mpsc::channel(1);
    tokio::spawn(async move { tell.send(session.telling().await).await });
    emitter.end(Last::Withdrawals).await;
    let last = timeout(PATIENCE, said.recv()).await.unwrap().unwrap();
    assert_eq!(last, "router.unregister [\"a.example\"] 61001");
}

#[tokio::test]
async fn a_node_ends_although_nats_is_away() {
    let Told { emitter, feed, listener } = told(RouteEmitterConfig::default(), slow()).await;
    starts(&feed, "a", 61_001);
    drop(listener);
    let begun = Instant::now();
    emitter.end(Last::Withdrawals).await;
    assert!(begun.elapsed() < NATS_FAREWELL_MAX + Duration::from_secs(2));
}
