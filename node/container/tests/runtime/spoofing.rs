//! A container speaks under its own address only, and hears nothing that is not for it, even if
//! it had every privilege over its own network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use container::container::{AddressRange, EgressProtocol, EgressRule};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use super::network::{get, serve};
use super::other::Other;
use super::world::{PATIENCE, World, command, in_network, sh};

/// What comes at all comes within this.
const SILENCE: Duration = Duration::from_millis(300);

/// Sends a datagram of UDP with any source address (RFC 791, RFC 768).
fn forge(network: &Path, source: Ipv4Addr, to: (Ipv4Addr, u16), text: &[u8]) {
    let length = u16::try_from(28 + text.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(to.0.octets());
    packet.extend(7000_u16.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(text);
    in_network(network, || {
        let (raw, flags) = (SockProtocol::Raw, SockFlag::SOCK_CLOEXEC);
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, raw).unwrap();
        let [a, b, c, d] = to.0.octets();
        let address = SockaddrIn::new(a, b, c, d, 0);
        sendto(socket.as_raw_fd(), &packet, &address, MsgFlags::empty()).unwrap();
    });
}

/// What comes next, and who sent it.
fn hears(socket: &UdpSocket) -> Option<(String, IpAddr)> {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let mut datagram = [0; 64];
    let (length, from) = socket.recv_from(&mut datagram).ok()?;
    Some((String::from_utf8(datagram[..length].to_vec()).unwrap(), from.ip()))
}

/// As the container, were it root of its network.
fn enter(network: &Path, words: &str) -> Output {
    let namespace = format!("--net={}", network.display());
    Command::new("nsenter").arg(namespace).args(words.split(' ')).output().unwrap()
}

fn entered(network: &Path, words: &str) {
    let output = enter(network, words);
    assert!(output.status.success(), "{words}: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_under_another_address_is_dropped() {
    let world = World::open_with(|config| {
        config.policy.container_to_container = true;
        config.policy.allow_host =
            vec![EgressRule::new(EgressProtocol::All, &[AddressRange::ALL], false)];
    })
    .await;
    let other = Other::new(&world);
    for name in ["liar", "victim", "target"] {
        world.run(name, "sleep 1000").await;
    }
    let address = |name| world.runtime().get(&super::world::id(name)).unwrap().address;
    let liar = world.network_of("liar");
    let outside = in_network(&other.namespace(), || UdpSocket::bind("0.0.0.0:7001").unwrap());
    let inside =
        in_network(&world.network_of("target"), || UdpSocket::bind("0.0.0.0:7001").unwrap());
    let gateway = world.config.subnet.gateway();
    let host = UdpSocket::bind((gateway, 53)).unwrap();
    let sources = [
        address("victim"),
        gateway,
        other.host,
        other.address(3),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(0, 0, 0, 1),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
    ];
    for source in sources {
        forge(&liar, source, (other.address, 7001), b"forged");
        forge(&liar, source, (address("target"), 7001), b"forged");
        forge(&liar, source, (gateway, 53), b"forged");
    }
    // The same under its own address arrives, and nothing before it.
    forge(&liar, address("liar"), (other.address, 7001), b"honest");
    forge(&liar, address("liar"), (address("target"), 7001), b"honest");
    forge(&liar, address("liar"), (gateway, 53), b"honest");
    let own = IpAddr::V4(address("liar"));
    assert_eq!(hears(&outside), Some(("honest".to_owned(), other.host.into())));
    assert_eq!(hears(&inside), Some(("honest".to_owned(), own)));
    assert_eq!(hears(&host), Some(("honest".to_owned(), own)));
    assert_eq!([&outside, &inside, &host].map(hears), [None, None, None]);
    // Nor is it led to the host's own loopback, which the link would take packets for.
    let loopback = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = loopback.local_addr().unwrap().port();
    for words in [
        "ip route add 127.0.0.0/8 dev eth0 table 77",
        "ip rule add pref 7 lookup 77",
        "ip rule add pref 8 lookup local",
        "ip rule del pref 0",
    ] {
        entered(&liar, words);
    }
    forge(&liar, address("liar"), (Ipv4Addr::LOCALHOST, port), b"forged");
    assert_eq!(hears(&loopback), None);
    drop((outside, inside, other));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_takes_its_neighbours_addresses_gets_nothing() {
    let world = World::open_with(|config| config.policy.container_to_container = true).await;
    let victim = serve(&world, "victim").await;
    let thief = world.run("thief", "sleep 1000").await;
    let network = world.network_of("thief");
    let shown = command("ip", &["link", "show", &format!("gv{:08x}", victim.address.to_bits())]);
    let hardware = shown.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    for words in [
        // Speaks ARP again, under the neighbour's hardware address, and has all its addresses.
        "ip link set eth0 arp on".to_owned(),
        format!("ip link set eth0 address {hardware}"),
        format!("ip addr add {}/32 dev eth0", victim.address),
        format!("ip addr add {}/32 dev eth0", world.config.subnet.gateway()),
    ] {
        entered(&network, &words);
    }
    // Announces itself to whoever may listen, as the neighbour and as the gateway.
    let heard = in_network(&network, || UdpSocket::bind("0.0.0.0:8080").unwrap());
    for address in [victim.address, world.config.subnet.gateway()] {
        enter(&network, &format!("busybox arping -c 2 -w 1 -A -I eth0 -s {address} {address}"));
        enter(&network, &format!("busybox arping -c 2 -w 1 -I eth0 {address}"));
    }
    let neighbours = command("ip", &["neigh"]);
    assert!(!neighbours.contains(&format!("gv{:08x}", thief.address.to_bits())), "{neighbours}");
    world.run("client", "sleep 1000").await;
    let client = world.network_of("client");
    let asked = SocketAddr::new(victim.address.into(), 8080);
    for _ in 0..3 {
        assert_eq!(get(victim.address.into(), 8080).await.unwrap(), "victim");
        let port = victim.ports[0].host;
        assert_eq!(get(Ipv4Addr::LOCALHOST.into(), port).await.unwrap(), "victim");
        assert!(in_network(&client, || TcpStream::connect_timeout(&asked, SILENCE)).is_ok());
        in_network(&client, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"secret", asked).unwrap();
        });
    }
    assert_eq!(hears(&heard), None);
    drop(heard);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_ipv6_by_which_to_leave() {
    let mut world = World::open().await;
    let (_, inside) = world.output("app", "cat /proc/net/if_inet6; ip -6 route").await;
    let loopback_only = inside.lines().all(|line| line.ends_with(" lo"));
    assert!(loopback_only, "{inside}");

    // Were it on at both ends, the tables still hold.
    let app = world.run("six", "sleep 1000").await;
    let network = world.network_of("six");
    let link = format!("gv{:08x}", app.address.to_bits());
    let host = ["fe80::1", "fd00:6761::1"];
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "0").unwrap();
    in_network(&network, || {
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
    });
    for address in host {
        command("ip", &["addr", "add", &format!("{address}/64"), "dev", &link, "nodad"]);
    }
    for address in ["fe80::2", "fd00:6761::2"] {
        entered(&network, &format!("ip addr add {address}/64 dev eth0 nodad"));
    }
    let (ours, theirs) = ("fd00:6761::1", "fd00:6761::2");
    let on_host = UdpSocket::bind((ours, 0)).unwrap();
    let in_container = in_network(&network, || UdpSocket::bind((theirs, 0)).unwrap());
    let (to_host, to_container) =
        (on_host.local_addr().unwrap(), in_container.local_addr().unwrap());
    let say = || {
        in_container.send_to(b"out", to_host).unwrap();
        // The kernel may say that it was dropped.
        let _ = on_host.send_to(b"in", to_container);
        (hears(&on_host).is_some(), hears(&in_container).is_some())
    };
    // Without the tables both are heard, once the kernel is done with the new addresses.
    let table = format!("gavel_{}", world.config.bridge);
    command("nft", &["flush", "table", "ip6", &table]);
    let begun = Instant::now();
    while say() != (true, true) {
        assert!(begun.elapsed() < PATIENCE, "the control does not work");
    }
    world.reopen().await;
    assert_eq!(say(), (false, false));
    drop((on_host, in_container));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_speak_raw_as_another_with_the_privileges_it_has() {
    let world = World::open().await;
    let script = "ip addr add 10.9.9.9/32 dev eth0; ip link set eth0 address 02:00:00:00:00:01; \
                  ip route add 192.0.2.0/24 dev eth0; ip link set eth0 arp on; ip link set eth0 down";
    let info = world.run_with(world.spec("app"), sh(&format!("{script}; ip addr; ip route"))).await;
    world.exit("app").await;
    let out = world.log("app", container::container::LogStream::Stdout).await;
    assert!(out.contains(&format!("inet {}/32", info.address)), "{out}");
    assert!(out.contains("NOARP,UP"), "{out}");
    for changed in ["10.9.9.9", "02:00:00:00:00:01", "192.0.2.0"] {
        assert!(!out.contains(changed), "{changed}: {out}");
    }
    world.close().await;
}
