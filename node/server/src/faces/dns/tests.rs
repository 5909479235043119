//! The face on real sockets, with resolvers of the tests' own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use super::message::Answer;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Knows `web.internal`.
struct OneApp;

impl Book for OneApp {
    fn look_up(&self, labels: &[String]) -> Answer {
        match labels {
            [web, _] if web == "web" => Answer::Known {
                addresses: vec![[10, 88, 0, 2].into()],
                services: vec![(8080, "0.web.internal".to_owned())],
            },
            _ => Answer::Unknown,
        }
    }
}

/// The face, which ends with it.
struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn served(clients: &str, upstream: &[SocketAddr]) -> Served {
    let listener = Listener::bind_to("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.tcp.local_addr().unwrap();
    let upstream = Upstream::Fixed(upstream.to_vec());
    let task = tokio::spawn(serve(listener, clients.parse().unwrap(), upstream, OneApp));
    Served { address, task }
}

/// A resolver that answers every question with 192.0.2.1, first under a wrong id; counts them.
async fn resolver() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut reply = resolved(&buffer[..length]);
            reply.metadata.id ^= 1;
            udp.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            reply.metadata.id ^= 1;
            udp.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
        }
    });
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let question = upstream::read(&mut stream, 512).await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let reply = resolved(&question).to_vec().unwrap();
            upstream::write(&mut stream, &reply).await.unwrap();
        }
    });
    (address, count)
}

fn resolved(question: &[u8]) -> Message {
    let mut reply = Message::from_vec(question).unwrap();
    reply.metadata.message_type = MessageType::Response;
    let name = reply.queries[0].name().clone();
    let address = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
    reply.add_answer(Record::from_rdata(name, 60, address));
    reply
}

fn question(name: &str, id: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn told(reply: &[u8], id: u16) -> (ResponseCode, Vec<IpAddr>) {
    let reply = Message::from_vec(reply).unwrap();
    assert_eq!(reply.metadata.id, id);
    let addresses = reply.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    (reply.metadata.response_code, addresses)
}

async fn by_udp(socket: &UdpSocket, name: &str) -> (ResponseCode, Vec<IpAddr>) {
    socket.send(&question(name, 99)).await.unwrap();
    let mut buffer = [0; 1024];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    told(&buffer[..length], 99)
}

async fn client(served: &Served, from: &str) -> UdpSocket {
    let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
    socket.connect(served.address).await.unwrap();
    socket
}

async fn connection(served: &Served, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    socket.connect(served.address).await.unwrap()
}

fn address(text: &str) -> (ResponseCode, Vec<IpAddr>) {
    (ResponseCode::NoError, vec![text.parse().unwrap()])
}

#[tokio::test]
async fn the_clusters_names_are_known_and_the_worlds_are_asked_for() {
    let (resolver, asked) = resolver().await;
    let served = served("127.0.0.0/8", &[resolver]).await;
    let socket = client(&served, "127.0.0.1").await;
    assert_eq!(by_udp(&socket, "web.internal.").await, address("10.88.0.2"));
    assert_eq!(by_udp(&socket, "no.internal.").await, (ResponseCode::NXDomain, vec![]));
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody else is told of them");
    assert_eq!(by_udp(&socket, "example.com.").await, address("192.0.2.1"));
    let mut stream = connection(&served, "127.0.0.1").await;
    for (name, expected) in [("web.internal.", "10.88.0.2"), ("example.com.", "192.0.2.1")] {
        upstream::write(&mut stream, &question(name, 98)).await.unwrap();
        let reply = timeout(PATIENCE, upstream::read(&mut stream, 1024)).await.unwrap().unwrap();
        assert_eq!(told(&reply, 98), address(expected), "one after the other");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_next_resolver_is_asked_where_one_is_silent_or_gone() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (resolver, _) = resolver().await;
    let several = served("127.0.0.0/8", &[gone, silent.local_addr().unwrap(), resolver]).await;
    let socket = client(&several, "127.0.0.1").await;
    assert_eq!(by_udp(&socket, "example.com.").await, address("192.0.2.1"));
    let none = served("127.0.0.0/8", &[gone]).await;
    let socket = client(&none, "127.0.0.1").await;
    assert_eq!(by_udp(&socket, "example.com.").await, (ResponseCode::ServFail, vec![]));
    assert_eq!(by_udp(&socket, "web.internal.").await, address("10.88.0.2"));
}

#[tokio::test]
async fn only_containers_are_answered() {
    let served = served("127.0.0.2-127.0.0.9", &[]).await;
    let stranger = client(&served, "127.0.0.1").await;
    stranger.send(&question("web.internal.", 1)).await.unwrap();
    let mut hung_up = connection(&served, "127.0.0.1").await;
    assert!(timeout(PATIENCE, upstream::read(&mut hung_up, 512)).await.unwrap().is_err());
    // By now the stranger would have been answered.
    let container = client(&served, "127.0.0.2").await;
    assert_eq!(by_udp(&container, "web.internal.").await, address("10.88.0.2"));
    assert!(stranger.try_recv(&mut [0; 512]).is_err());
}

#[tokio::test]
async fn a_container_that_asks_too_much_holds_up_no_other() {
    // Answers nothing until it is told to.
    let slow = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let served = served("127.0.0.0/8", &[slow.local_addr().unwrap()]).await;
    let greedy = client(&served, "127.0.0.2").await;
    for id in 0..200 {
        greedy.send(&question("greedy.example.", id)).await.unwrap();
    }
    let mut streams = Vec::new();
    for _ in 0..2 * DNS_CONNECTIONS_OF_CONTAINER_MAX {
        streams.push(connection(&served, "127.0.0.2").await);
    }
    let modest = client(&served, "127.0.0.3").await;
    modest.send(&question("modest.example.", 7)).await.unwrap();
    let (mut buffer, mut greedily) = ([0; 512], 0);
    loop {
        let (length, from) = timeout(PATIENCE, slow.recv_from(&mut buffer)).await.unwrap().unwrap();
        let reply = resolved(&buffer[..length]);
        if reply.queries[0].name().to_ascii().starts_with("modest") {
            slow.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            break;
        }
        greedily += 1;
    }
    assert_eq!(greedily, DNS_FORWARDS_OF_CONTAINER_MAX);
    let length = timeout(PATIENCE, modest.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(told(&buffer[..length], 7), address("192.0.2.1"));
    // What it may not have is closed at once; what it has, and another's, works.
    let mut open = 0;
    for stream in &mut streams {
        let _ = upstream::write(stream, &question("web.internal.", 8)).await;
        open += usize::from(timeout(PATIENCE, upstream::read(stream, 512)).await.unwrap().is_ok());
    }
    assert_eq!(open, DNS_CONNECTIONS_OF_CONTAINER_MAX);
    let mut other = connection(&served, "127.0.0.3").await;
    upstream::write(&mut other, &question("web.internal.", 9)).await.unwrap();
    assert!(timeout(PATIENCE, upstream::read(&mut other, 512)).await.unwrap().is_ok());
}
