//! The emitter and a real NATS server, over mutual TLS.

use std::fs;
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

/// An authority, and one whom it vouches for, in files.
fn certify(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join("own.crt"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(dir.join("own.key"), key.serialize_pem()).unwrap();
}

struct Server(Child);

impl Server {
    fn start(dir: &Path, port: u16) -> Self {
        let at = |file: &str| dir.join(file).display().to_string();
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\n\
             tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\n\
             authorization {{ user: nats, password: pw }}\n",
            at("own.crt"),
            at("own.key"),
            at("ca.crt")
        );
        fs::write(dir.join("nats.conf"), config).unwrap();
        let mut command = Command::new("/usr/sbin/nats-server");
        command.arg("-c").arg(dir.join("nats.conf")).stderr(Stdio::null());
        Self(command.spawn().expect("Debian's nats-server is installed"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Who hears what routers hear, and answers greetings as they do.
async fn router(config: &RouteEmitterConfig) -> (Client, Subscriber) {
    let (client, _line) = line::open(config, "router").await.unwrap();
    let subscriber = client.subscribe("router.*").await.unwrap();
    client.flush().await.unwrap();
    (client, subscriber)
}

async fn registration(subscriber: &mut Subscriber) -> String {
    loop {
        let message = timeout(PATIENCE, subscriber.next()).await.unwrap().unwrap();
        if message.subject.as_str() != "router.greet" {
            let port = &serde_json::from_slice::<Value>(&message.payload).unwrap()["port"];
            return format!("{} {port}", message.subject);
        }
    }
}

#[tokio::test]
async fn a_real_server_is_spoken_to_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let at = |file: &str| Some(dir.path().join(file));
    let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = RouteEmitterConfig {
        nats: vec![format!("localhost:{port}")],
        user: Some("nats".to_owned()),
        password: Some(Secret::from("pw")),
        ca: at("ca.crt"),
        cert: at("own.crt"),
        key: at("own.key"),
        ..RouteEmitterConfig::default()
    };
    let server = Server::start(dir.path(), port);
    let (client, mut subscriber) = router(&config).await;
    let pace = Pace { withdrawal: Duration::from_millis(100), ..slow() };
    let feed = SharedFeed::new(Feed::new("c1".into(), router::feed::Settings::default()));
    let emitter = Emitter::at_pace(&config, "c1", Arc::clone(&feed), pace);
    starts(&feed, "a", 61_001);
    let greeting = timeout(PATIENCE, subscriber.next()).await.unwrap().unwrap();
    assert_eq!(greeting.subject.as_str(), "router.greet");
    client
        .publish(greeting.reply.unwrap(), r#"{"minimumRegisterIntervalInSeconds":1}"#.into())
        .await
        .unwrap();
    assert_eq!(registration(&mut subscriber).await, "router.register 61001");
    assert_eq!(registration(&mut subscriber).await, "router.register 61001");
    drop(server);
    happens(&feed, vec![Event::ActualLrpRemoved(running("a", 61_001))]);
    starts(&feed, "b", 61_002);
    let _server = Server::start(dir.path(), port);
    let (_client, mut subscriber) = router(&config).await;
    let mut heard = std::collections::BTreeSet::new();
    while heard.len() < 2 {
        heard.insert(registration(&mut subscriber).await);
    }
    let expected = ["router.register 61002", "router.unregister 61001"].map(str::to_owned);
    assert_eq!(heard, expected.into());
    emitter.end(Last::Nothing).await;
}
