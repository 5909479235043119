//! Addresses, published ports, and the way out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use container::container::ContainerInfo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::other::Other;
use super::world::{PATIENCE, World, id, sh};

/// A container whose port 8080 answers with its name.
pub(crate) async fn serve(world: &World, name: &str) -> ContainerInfo {
    let mut spec = world.spec(name);
    spec.ports = vec![8080];
    let script = format!(
        "mkdir /www; echo {name} >/www/index.html; httpd -p 8080 -h /www; echo up; sleep 1000"
    );
    let info = world.run_with(spec, sh(&script)).await;
    world.line(name, "up").await;
    info
}

pub(crate) async fn get(address: IpAddr, port: u16) -> std::io::Result<String> {
    let get = async {
        let mut stream = TcpStream::connect(SocketAddr::new(address, port)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.rsplit('\n').nth(1).unwrap_or_default().to_owned())
    };
    tokio::time::timeout(PATIENCE, get).await.expect("an answer or a refusal")
}

/// The host's address on its way out, if it has one; UDP connects without a packet.
fn external_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    match socket.connect("192.0.2.1:9") {
        Ok(()) => socket.local_addr().unwrap().ip(),
        Err(_no_route) => Ipv4Addr::LOCALHOST.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_the_host_by_every_address() {
    let world = World::open().await;
    let one = serve(&world, "one").await;
    let two = serve(&world, "two").await;
    for (name, info) in [("one", &one), ("two", &two)] {
        let port = info.ports[0];
        assert!(world.config.host_ports.contains(&port.host));
        assert_eq!(port.container, 8080);
        assert_eq!(get(Ipv4Addr::LOCALHOST.into(), port.host).await.unwrap(), name);
        assert_eq!(get(external_address(), port.host).await.unwrap(), name);
        assert_eq!(get(world.config.subnet.gateway().into(), port.host).await.unwrap(), name);
        assert_eq!(get(info.address.into(), 8080).await.unwrap(), name);
    }
    world.destroy("one").await;
    assert!(get(Ipv4Addr::LOCALHOST.into(), one.ports[0].host).await.is_err());
    assert_eq!(get(Ipv4Addr::LOCALHOST.into(), two.ports[0].host).await.unwrap(), "two");
    world.close().await;
}

/// A router that finds an instance gone asks another; one that is left waiting loses its request.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_whose_container_ends_refuses_at_once() {
    const AT_ONCE: Duration = Duration::from_millis(500);
    let world = World::open().await;
    let info = serve(&world, "one").await;
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), info.ports[0].host);
    let mut refused = 0;
    {
        let mut ends = std::pin::pin!(async {
            world.runtime().stop(&id("one"), Duration::from_secs(1)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            world.destroy("one").await;
        });
        let next = || async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::time::timeout(AT_ONCE, TcpStream::connect(address)).await
        };
        loop {
            tokio::select! {
                () = &mut ends => break,
                connected = next() => match connected.expect("it is served or refused") {
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
                        refused += 1;
                    }
                },
            }
        }
    }
    assert!(refused > 10, "it was refused {refused} times");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_reach_each_other_and_themselves_by_host_ports() {
    let world = World::open_with(|config| config.policy.container_to_container = true).await;
    let info = serve(&world, "server").await;
    let (host, port) = (world.config.subnet.gateway(), info.ports[0].host);
    let ask =
        format!("wget -q -O- http://{}:8080/; wget -q -O- http://{host}:{port}/", info.address);
    let (_, out) = world.output("client", &ask).await;
    assert_eq!(out, "server\nserver\n");

    let mut spec = world.spec("self");
    spec.ports = vec![8080];
    let created = world.runtime().create(spec).await.unwrap();
    let script = format!(
        "mkdir /www; echo me >/www/index.html; httpd -p 8080 -h /www; \
         wget -q -O- http://{host}:{}/",
        created.ports[0].host
    );
    world.runtime().start(&id("self"), sh(&script)).await.unwrap();
    world.exit("self").await;
    assert_eq!(world.log("self", container::container::LogStream::Stdout).await, "me\n");
    world.close().await;
}

/// Two nodes on one machine, as `gavel dev` has three.
#[tokio::test(flavor = "multi_thread")]
async fn runtimes_on_one_machine_do_not_disturb_each_other() {
    let (one, two) = (World::open().await, World::open().await);
    let first = serve(&one, "same-name").await;
    let second = serve(&two, "same-name").await;
    for info in [&first, &second] {
        let answer = get(Ipv4Addr::LOCALHOST.into(), info.ports[0].host).await.unwrap();
        assert_eq!(answer, "same-name");
    }
    // From a container of one node to a port of the other.
    let ask =
        format!("wget -q -O- http://{}:{}/", one.config.subnet.gateway(), second.ports[0].host);
    let (_, out) = one.output("across", &ask).await;
    assert_eq!(out, "same-name\n");
    one.close().await;
    let answer = get(Ipv4Addr::LOCALHOST.into(), second.ports[0].host).await.unwrap();
    assert_eq!(answer, "same-name");
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_out_has_the_hosts_address() {
    let world = World::open().await;
    let other = Other::new(&world);
    let listener = other.listen();
    let port = listener.local_addr().unwrap().port();
    let script = format!("echo hello | nc {} {port}", other.address);
    world.run("out", &script).await;
    let (mut stream, peer) =
        tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    assert_eq!(peer.ip(), IpAddr::V4(other.host), "the container's own address stays inside");
    let mut said = String::new();
    let read = stream.read_to_string(&mut said);
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
    assert_eq!(said, "hello\n");
    drop((listener, stream, other));
    world.close().await;
}
