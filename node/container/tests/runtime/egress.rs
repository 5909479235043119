//! What containers may reach: nothing of the host, of each other or of the link, and elsewhere
//! what their rules and the operator's policy say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use container::container::{
    AddressRange, ContainerSpec, EgressProtocol, EgressRule, NetworkPolicy, PortRange,
};
use expect_test::expect;

use super::network::{get, serve};
use super::other::Other;
use super::world::{PATIENCE, World, command, id, in_network, sh};

/// A refusal that takes longer is none.
const REFUSED_MAX: Duration = Duration::from_secs(2);
/// A datagram that is not back after this does not come.
const SILENCE: Duration = Duration::from_millis(500);

fn range(text: &str) -> AddressRange {
    text.parse().unwrap()
}

fn ports(pairs: &[(u16, u16)]) -> Vec<PortRange> {
    pairs.iter().map(|(first, last)| PortRange::new(*first, *last).unwrap()).collect()
}

fn tcp(destinations: &[&str], pairs: &[(u16, u16)]) -> EgressRule {
    rule(EgressProtocol::Tcp(ports(pairs)), destinations)
}

fn rule(protocol: EgressProtocol, destinations: &[&str]) -> EgressRule {
    let destinations: Vec<_> = destinations.iter().map(|text| range(text)).collect();
    EgressRule::new(protocol, &destinations, false)
}

/// As Cloud Foundry's operators have it.
fn closed() -> NetworkPolicy {
    NetworkPolicy { deny: vec![AddressRange::ALL], ..NetworkPolicy::default() }
}

/// A container that does nothing, in whose network the test speaks.
async fn idle(world: &World, name: &str, egress: Vec<EgressRule>) {
    let spec = ContainerSpec { egress, ..world.spec(name) };
    world.run_with(spec, sh("sleep 1000")).await;
}

/// Whether a connection comes about there; a refusal must come at once.
fn connects(network: &Path, address: Ipv4Addr, port: u16) -> bool {
    let begun = Instant::now();
    let address = SocketAddr::new(IpAddr::V4(address), port);
    match in_network(network, || TcpStream::connect_timeout(&address, REFUSED_MAX)) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}: {error}");
            assert!(begun.elapsed() < REFUSED_MAX, "{address}: left waiting");
            false
        }
    }
}

/// Whether a datagram comes back from there; of many refusals, the kernel tells some.
fn echoes(network: &Path, address: Ipv4Addr, port: u16) -> bool {
    let back = in_network(network, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket.connect((address, port)).unwrap();
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 8])
    });
    match back {
        Ok(_) => true,
        Err(error) => {
            let refused = [io::ErrorKind::ConnectionRefused, io::ErrorKind::WouldBlock];
            assert!(refused.contains(&error.kind()), "{address}:{port}: {error}");
            false
        }
    }
}

/// Whether an echo request is answered there.
fn pings(network: &Path, address: Ipv4Addr) -> bool {
    let namespace = format!("--net={}", network.display());
    let ping = ["busybox", "ping", "-c", "1", "-W", "1", &address.to_string()];
    let output = Command::new("nsenter").arg(namespace).args(ping).output().unwrap();
    output.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_the_host_the_link_and_the_neighbours_are_closed() {
    let world = World::open().await;
    let other = Other::new(&world);
    let _listener = other.listen_on(7000);
    let neighbour = serve(&world, "neighbour").await;
    idle(&world, "app", vec![]).await;
    let app = world.network_of("app");
    let gateway = world.config.subnet.gateway();

    assert!(connects(&app, other.address, 7000), "the world is open");
    assert!(pings(&app, other.address));
    // The host, by each of its addresses: a listener on all of them.
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    for address in [gateway, other.host] {
        assert!(!connects(&app, address, port), "{address}");
        assert!(!pings(&app, address), "{address}");
    }
    assert!(!connects(&app, gateway, 22));
    // Clouds have their metadata here.
    assert!(!connects(&app, Ipv4Addr::new(169, 254, 169, 254), 80));
    // The neighbour, by its own address and by the host's.
    assert!(!connects(&app, neighbour.address, 8080));
    assert!(!connects(&app, gateway, neighbour.ports[0].host));
    assert!(!pings(&app, neighbour.address));
    // An address of the subnet that nobody has leads nowhere, and not out of the host.
    let nobody = Ipv4Addr::from_bits(gateway.to_bits() + 200);
    assert!(!connects(&app, nobody, 80));
    // Answers are no beginnings: whoever asks the neighbour is answered.
    assert_eq!(get(neighbour.address.into(), 8080).await.unwrap(), "neighbour");
    drop(other);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_asked_at_the_gateway_and_nothing_else_is() {
    let world = World::open_with(|config| config.policy = closed()).await;
    let gateway = world.config.subnet.gateway();
    let _tcp = TcpListener::bind((gateway, 53)).unwrap();
    let udp = UdpSocket::bind((gateway, 53)).unwrap();
    let answering = std::thread::spawn(move || {
        let (length, from) = udp.recv_from(&mut [0; 8]).unwrap();
        udp.send_to(&[0; 8][..length], from).unwrap();
    });
    let _other_port = TcpListener::bind((gateway, 54)).unwrap();
    idle(&world, "app", vec![]).await;
    let app = world.network_of("app");
    assert!(connects(&app, gateway, 53));
    assert!(echoes(&app, gateway, 53));
    answering.join().unwrap();
    assert!(!connects(&app, gateway, 54));
    assert!(!echoes(&app, gateway, 54));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_rule_opens_what_it_names_and_no_more() {
    let world = World::open_with(|config| config.policy = closed()).await;
    let other = Other::new(&world);
    let _listeners = [7000, 7001, 7002, 7003].map(|port| other.listen_on(port));
    other.echo_on(7000);
    other.echo_on(7001);
    let at = |number| other.address(number).to_string();
    let icmp = |kind, code| EgressProtocol::Icmp { kind, code };
    let names: [(&str, Vec<EgressRule>); 7] = [
        ("closed", vec![]),
        ("tcp", vec![tcp(&[&at(0)], &[(7000, 7000), (7002, 7002)])]),
        ("udp", vec![rule(EgressProtocol::Udp(ports(&[(7000, 7000)])), &[&at(0)])]),
        ("echo", vec![rule(icmp(Some(8), Some(0)), &[&at(0)])]),
        ("code", vec![rule(icmp(Some(8), Some(1)), &[&at(0)])]),
        ("icmp", vec![rule(icmp(None, None), &[&at(0)])]),
        ("all", vec![rule(EgressProtocol::All, &[&at(0)])]),
    ];
    let mut seen = String::new();
    for (name, egress) in names {
        idle(&world, name, egress).await;
        let network = world.network_of(name);
        let mut open = Vec::new();
        for (number, ports) in [(0, &[7000, 7001, 7002, 7003][..]), (1, &[7000])] {
            let address = other.address(number);
            let tcp = ports.iter().filter(|port| connects(&network, address, **port));
            open.extend(tcp.map(|port| format!("tcp {number}:{port}")));
            let udp = [7000, 7001].into_iter().filter(|port| echoes(&network, address, *port));
            open.extend(udp.map(|port| format!("udp {number}:{port}")));
            open.extend(pings(&network, address).then(|| format!("ping {number}")));
        }
        seen.push_str(&format!("{name}: {}\n", open.join(", ")));
    }
    expect![[r#"
        closed: 
        tcp: tcp 0:7000, tcp 0:7002
        udp: udp 0:7000
        echo: ping 0
        code: 
        icmp: ping 0
        all: tcp 0:7000, tcp 0:7001, tcp 0:7002, tcp 0:7003, udp 0:7000, udp 0:7001, ping 0
    "#]]
    .assert_eq(&seen);
    drop(other);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_are_single_addresses_blocks_and_ranges_and_ports_are_ranges() {
    let world = World::open_with(|config| config.policy = closed()).await;
    let other = Other::new(&world);
    let _listeners = [7000, 7001, 7002].map(|port| other.listen_on(port));
    let at = |number| other.address(number);
    let open = async |name: &str, destinations: &[&str], pairs: &[(u16, u16)]| {
        idle(&world, name, vec![tcp(destinations, pairs)]).await;
        let network = world.network_of(name);
        let mut open = Vec::new();
        for number in 0..8 {
            for port in [7000, 7001, 7002] {
                if connects(&network, at(number), port) {
                    open.push((number, port));
                }
            }
        }
        open
    };
    let first = [(7000, 7000)];
    assert_eq!(open("one", &[&at(3).to_string()], &first).await, [(3, 7000)]);
    // 2 to 9 are the addresses: two blocks of four, and a half of another.
    let block = format!("{}/30", at(2));
    let four = [(2, 7000), (3, 7000), (4, 7000), (5, 7000)];
    assert_eq!(open("block", &[&block], &first).await, four);
    let span = format!("{}-{}", at(5), at(6));
    assert_eq!(open("range", &[&span], &first).await, [(5, 7000), (6, 7000)]);
    let both = [at(0).to_string(), span];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    assert_eq!(open("list", &both, &first).await, [(0, 7000), (5, 7000), (6, 7000)]);
    let single = at(7).to_string();
    assert_eq!(open("ports", &[&single], &[(7001, 7002)]).await, [(7, 7001), (7, 7002)]);
    let all = open("all", &["0.0.0.0/0"], &[(1, 65_535)]).await;
    assert_eq!(all.len(), 24);
    drop(other);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_open_the_link_but_neither_the_host_nor_neighbours() {
    let world = World::open().await;
    let other = Other::new(&world);
    let neighbour = serve(&world, "neighbour").await;
    idle(&world, "app", vec![rule(EgressProtocol::All, &["0.0.0.0/0"])]).await;
    let app = world.network_of("app");
    let gateway = world.config.subnet.gateway();
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    assert!(!connects(&app, gateway, port));
    assert!(!connects(&app, other.host, port));
    assert!(!connects(&app, neighbour.address, 8080));
    assert!(!connects(&app, gateway, neighbour.ports[0].host));
    // Diego's operators open metadata by rules, and so may these: the other host plays its part.
    let metadata = Ipv4Addr::new(169, 254, world.config.subnet.gateway().octets()[2], 9);
    let name = world.config.bridge.replace("gt", "go");
    command("ip", &["-n", &name, "addr", "add", &format!("{metadata}/32"), "dev", "lo"]);
    let via = other.address.to_string();
    command("ip", &["route", "add", &metadata.to_string(), "via", &via]);
    let _listener = other.listen_on(7000);
    assert!(connects(&app, metadata, 7000));
    idle(&world, "other", vec![]).await;
    assert!(!connects(&world.network_of("other"), metadata, 7000));
    drop(other);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_closes_and_opens_for_all() {
    let world = World::open_with(|config| {
        let [_, b, c, _] = config.subnet.gateway().octets();
        let near = |last: u8| Ipv4Addr::new(172, 30, b ^ c, last).to_string();
        config.policy = NetworkPolicy {
            deny: vec![range("172.16.0.0/12")],
            allow: vec![tcp(&[&near(3), &near(1)], &[(7000, 7001)])],
            allow_host: vec![tcp(&[&near(1)], &[(7443, 7443)])],
            ..NetworkPolicy::default()
        };
    })
    .await;
    let other = Other::new(&world);
    let _listeners = [7000, 7001].map(|port| other.listen_on(port));
    idle(&world, "app", vec![tcp(&[&other.address(4).to_string()], &[(7001, 7001)])]).await;
    let app = world.network_of("app");
    assert!(!connects(&app, other.address(0), 7000));
    assert!(connects(&app, other.address(1), 7000));
    assert!(connects(&app, other.address(1), 7001));
    assert!(connects(&app, other.address(4), 7001), "a rule opens what is denied");
    assert!(!connects(&app, other.address(4), 7000));
    // What is open elsewhere is not so on the host, where it is named apart.
    let _on_host = [7000, 7443].map(|port| TcpListener::bind((other.host, port)).unwrap());
    assert!(!connects(&app, other.host, 7000));
    assert!(connects(&app, other.host, 7443));
    drop(other);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_reach_each_other_where_the_operator_lets_them() {
    let open = |networks: &[&str]| NetworkPolicy {
        container_networks: networks.iter().map(|text| range(text)).collect(),
        container_to_container: true,
        ..closed()
    };
    let one = World::open_with(|config| config.policy = open(&[])).await;
    let subnet = one.config.subnet.to_string();
    let two = World::open_with(|config| config.policy = open(&[&subnet])).await;
    let here = serve(&one, "here").await;
    let there = serve(&two, "there").await;
    idle(&one, "one", vec![]).await;
    idle(&two, "two", vec![]).await;
    let (first, second) = (one.network_of("one"), two.network_of("two"));
    assert!(connects(&first, here.address, 8080));
    assert!(connects(&first, one.config.subnet.gateway(), here.ports[0].host));
    // Node one knows of no other networks of containers, so those are the closed world.
    assert!(!connects(&first, there.address, 8080));
    // Node two lets its own go to node one's, which takes them as any stranger.
    let (begun, address) = (Instant::now(), SocketAddr::new(here.address.into(), 8080));
    let stranger = in_network(&second, || TcpStream::connect_timeout(&address, REFUSED_MAX));
    assert_eq!(stranger.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= REFUSED_MAX);
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_two_nodes_see_each_others_own_addresses() {
    let both = |config: &mut container::container::RuntimeConfig| {
        config.policy = NetworkPolicy {
            container_networks: vec![range("10.0.0.0/8")],
            container_to_container: true,
            ..closed()
        };
    };
    let (one, two) = (World::open_with(both).await, World::open_with(both).await);
    idle(&one, "server", vec![]).await;
    idle(&two, "client", vec![]).await;
    let server = one.runtime().get(&id("server")).unwrap().address;
    let client = two.runtime().get(&id("client")).unwrap().address;
    let listener =
        in_network(&one.network_of("server"), || TcpListener::bind("0.0.0.0:80").unwrap());
    assert!(connects(&two.network_of("client"), server, 80));
    assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::V4(client));
    drop(listener);
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_container_still_answers_at_its_published_port_and_only_there() {
    let world = World::open_with(|config| config.policy = closed()).await;
    let other = Other::new(&world);
    other.route(world.config.subnet);
    let server = serve(&world, "server").await;
    let ask = |address: Ipv4Addr, port| {
        let address = SocketAddr::new(IpAddr::V4(address), port);
        in_network(&other.namespace(), || TcpStream::connect_timeout(&address, REFUSED_MAX))
    };
    assert!(ask(other.host, server.ports[0].host).is_ok());
    assert_eq!(get(other.host.into(), server.ports[0].host).await.unwrap(), "server");
    // Who knows the way could go past the published ports; nobody answers.
    let past = ask(server.address, 8080).unwrap_err();
    assert_eq!(past.kind(), io::ErrorKind::TimedOut);
    drop(other);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_names_its_container() {
    let world = World::open_with(|config| config.policy = closed()).await;
    let other = Other::new(&world);
    let _listeners = [7000, 7001].map(|port| other.listen_on(port));
    let destinations = [range(&other.address.to_string())];
    let tcp = |port| EgressProtocol::Tcp(ports(&[(port, port)]));
    let logged = EgressRule::new(tcp(7000), &destinations, true);
    let quiet = EgressRule::new(EgressProtocol::Tcp(ports(&[(7000, 7001)])), &destinations, false);
    let name = |test: &str| format!("{test}-{}", world.config.bridge);
    // The later rule has precedence: the first container's is not logged, the second's is.
    idle(&world, &name("quiet"), vec![logged.clone(), quiet.clone()]).await;
    idle(&world, &name("told"), vec![quiet, logged]).await;
    for container in [name("quiet"), name("told")] {
        let network = world.network_of(&container);
        assert!(connects(&network, other.address, 7000));
        assert!(connects(&network, other.address, 7001));
    }
    let told = command("dmesg", &[]);
    let told: Vec<&str> = told.lines().filter(|line| line.contains(&world.config.bridge)).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [&format!("gavel {}: ", name("told")), "PROTO=TCP", "DPT=7000", "SYN"] {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
    drop(other);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_there_as_long_as_their_container() {
    let mut world = World::open_with(|config| config.policy = closed()).await;
    let other = Other::new(&world);
    let _listener = other.listen_on(7000);
    let logged = EgressRule::new(
        EgressProtocol::Tcp(ports(&[(7000, 7000)])),
        &[range(&other.address.to_string())],
        true,
    );
    let spec = ContainerSpec { ports: vec![80], egress: vec![logged], ..world.spec("app") };
    world.run_with(spec, sh("sleep 1000")).await;
    let app = world.network_of("app");
    let entries = world.entries();
    assert_eq!(entries.len(), 4, "{entries:?}");
    assert!(connects(&app, other.address, 7000));

    world.forget();
    assert!(connects(&app, other.address, 7000), "without a node too");
    world.reopen().await;
    assert_eq!(world.entries(), entries);
    assert!(connects(&app, other.address, 7000));
    // Without a node, a firewall's own restart may take the tables along.
    let table = format!("gavel_{}", world.config.bridge);
    world.forget();
    command("nft", &["delete", "table", "ip", &table]);
    world.reopen().await;
    assert_eq!(world.entries(), entries);
    assert!(connects(&app, other.address, 7000));

    world.destroy("app").await;
    assert_eq!(world.entries(), Vec::<String>::new());
    drop(other);
    world.close().await;
}

/// Firewalls that start anew delete all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_somebody_deletes_come_back_at_once() {
    let world = World::open_with(|config| config.policy = closed()).await;
    let gateway = world.config.subnet.gateway();
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let egress = vec![tcp(&["192.0.2.1"], &[(80, 80)])];
    let spec = ContainerSpec { ports: vec![80], egress, ..world.spec("app") };
    world.run_with(spec, sh("sleep 1000")).await;
    let (app, before) = (world.network_of("app"), world.entries());
    assert_eq!(before.len(), 3, "{before:?}");
    let table = format!("gavel_{}", world.config.bridge);
    for family in ["ip", "ip6", "ip"] {
        command("nft", &["delete", "table", family, &table]);
        let begun = Instant::now();
        while world.traces().iter().filter(|trace| trace.starts_with("table")).count() < 2 {
            assert!(begun.elapsed() < PATIENCE, "the {family} table is gone");
        }
        assert_eq!(world.entries(), before);
        assert!(!connects(&app, gateway, port));
    }
    // Those that come and go later are known too.
    world.run("other", "sleep 1000").await;
    world.destroy("app").await;
    command("nft", &["delete", "table", "ip", &table]);
    let begun = Instant::now();
    while world.traces().iter().filter(|trace| trace.starts_with("table")).count() < 2 {
        assert!(begun.elapsed() < PATIENCE, "the table is gone");
    }
    assert_eq!(world.entries(), Vec::<String>::new());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_rules_count_and_are_bounded() {
    let world = World::open_with(|config| config.policy = closed()).await;
    let other = Other::new(&world);
    let _listener = other.listen_on(7000);
    let mut rules: Vec<EgressRule> = (0..499_u32)
        .map(|number| {
            let network = format!("10.{}.{}.0/24", number / 250, number % 250);
            let far = ["192.0.2.0-192.0.2.7", "192.0.2.9", &network];
            tcp(&far, &[(80, 80), (443, 443), (8000, 8100)])
        })
        .collect();
    rules.push(tcp(&[&other.address.to_string()], &[(7000, 7000)]));
    // The last has precedence, so it is the first in the chain: as the first it comes last.
    rules.rotate_right(1);
    idle(&world, "many", rules.clone()).await;
    let many = world.network_of("many");
    assert!(connects(&many, other.address, 7000));
    assert!(!connects(&many, other.address(1), 7000));
    let chain = command("nft", &["list", "table", "ip", &format!("gavel_{}", world.config.bridge)]);
    assert_eq!(chain.lines().filter(|line| line.contains("tcp dport 443")).count(), 3 * 499);

    rules.push(tcp(&["192.0.2.1"], &[(1, 1)]));
    rules.extend(rules.clone());
    let spec = ContainerSpec { egress: rules, ..world.spec("too-many") };
    let error = world.runtime().create(spec).await.unwrap_err().to_string();
    expect![[
        r#"invalid container too-many: its egress rules have 8986 pairs of destination and port, 5000 at most"#
    ]]
    .assert_eq(&error);
    drop(other);
    world.close().await;
}

/// The whole of the tables, as a reader of `nft list ruleset` sees them.
#[tokio::test(flavor = "multi_thread")]
async fn the_tables_are_as_they_are_meant() {
    let world = World::open_with(|config| {
        config.id_ranges = 2;
        config.policy = NetworkPolicy {
            container_networks: vec![range("10.99.0.0/16")],
            container_to_container: true,
            deny: vec![range("192.168.0.0/16")],
            allow: vec![tcp(&["192.168.1.1"], &[(443, 443)])],
            allow_host: vec![tcp(&["0.0.0.0/0"], &[(9100, 9100)])],
        };
    })
    .await;
    let icmp = EgressProtocol::Icmp { kind: Some(3), code: Some(4) };
    let logged = EgressProtocol::Tcp(ports(&[(80, 81)]));
    let egress = vec![
        rule(EgressProtocol::All, &["1.1.1.1"]),
        rule(icmp, &["2.2.2.0/24"]),
        EgressRule::new(logged, &[range("3.3.3.3"), range("4.4.4.4")], true),
        rule(EgressProtocol::Udp(ports(&[(53, 53)])), &["0.0.0.0/0"]),
    ];
    let spec = ContainerSpec { ports: vec![8080], egress, ..world.spec("app") };
    let info = world.run_with(spec, sh("sleep 1000")).await;
    let mut text = String::new();
    for family in ["ip", "ip6"] {
        let table = format!("gavel_{}", world.config.bridge);
        text.push_str(&command("nft", &["-y", "list", "table", family, &table]));
    }
    // What is this test's own becomes what it would be of a node.
    let gateway = world.config.subnet.gateway();
    let [a, b, c, _] = gateway.octets();
    let text = text
        .replace(&world.config.bridge, "gavel0")
        .replace(&gateway.to_bits().to_string(), "GROUP")
        .replace(&format!("{a}.{b}.{c}."), "10.88.0.")
        .replace(&format!("gv{a:02x}{b:02x}{c:02x}"), "gv0a5800")
        .replace(&info.ports[0].host.to_string(), "61001");
    expect![[r#"
        table ip gavel_gavel0 {
        	map ports {
        		type inet_service : ipv4_addr . inet_service
        		elements = { 61001 : 10.88.0.2 . 8080 }
        	}

        	map egress {
        		type ipv4_addr : verdict
        		elements = { 10.88.0.2 : jump egress_10.88.0.2 }
        	}

        	set senders {
        		type ifname . ipv4_addr
        		elements = { "gv0a580002" . 10.88.0.2,
        			     "gv0a580003" . 10.88.0.3 }
        	}

        	chain guard {
        		type filter hook prerouting priority -300; policy accept;
        		iifgroup != GROUP accept
        		iifname . ip saddr != @senders drop
        		ip daddr 127.0.0.0-127.255.255.255 drop
        	}

        	chain prerouting {
        		type nat hook prerouting priority -100; policy accept;
        		fib daddr type local dnat ip to tcp dport map @ports
        	}

        	chain output {
        		type nat hook output priority -100; policy accept;
        		fib daddr type local dnat ip to tcp dport map @ports
        	}

        	chain postrouting {
        		type nat hook postrouting priority 100; policy accept;
        		oifgroup GROUP ip saddr 127.0.0.0-127.255.255.255 snat to 10.88.0.1
        		oifgroup GROUP ip saddr 10.88.0.0-10.88.0.255 ct status dnat snat to 10.88.0.1
        		ip saddr 10.88.0.0-10.88.0.255 ip daddr 10.88.0.0-10.88.0.255 accept
        		ip saddr 10.88.0.0-10.88.0.255 ip daddr 10.99.0.0-10.99.255.255 accept
        		ip saddr 10.88.0.0-10.88.0.255 masquerade
        	}

        	chain input {
        		type filter hook input priority 0; policy accept;
        		iifgroup != GROUP accept
        		ct state established,related accept
        		ip daddr 10.88.0.1 udp dport 53 accept
        		ip daddr 10.88.0.1 tcp dport 53 accept
        		tcp dport 9100 accept
        		reject with tcp reset
        		reject
        	}

        	chain from_container {
        		ct state established,related accept
        		ct state invalid drop
        		ip daddr 10.88.0.0-10.88.0.255 accept
        		ip daddr 10.99.0.0-10.99.255.255 accept
        		ip saddr vmap @egress
        		ip daddr 192.168.1.1 tcp dport 443 accept
        		ip daddr 169.254.0.0-169.254.255.255 reject with tcp reset
        		ip daddr 169.254.0.0-169.254.255.255 reject
        		ip daddr 192.168.0.0-192.168.255.255 reject with tcp reset
        		ip daddr 192.168.0.0-192.168.255.255 reject
        	}

        	chain to_container {
        		ct state established,related accept
        		ct status dnat accept
        		ip saddr 10.88.0.0-10.88.0.255 accept
        		ip saddr 10.99.0.0-10.99.255.255 accept
        		drop
        	}

        	chain forward {
        		type filter hook forward priority 0; policy accept;
        		iifgroup GROUP goto from_container
        		oifgroup GROUP goto to_container
        	}

        	chain log_10.88.0.2 {
        		limit rate 50/second burst 100 packets log prefix "gavel app: "
        		accept
        	}

        	chain egress_10.88.0.2 {
        		udp dport 53 accept
        		ip daddr 3.3.3.3 tcp dport 80-81 goto log_10.88.0.2
        		ip daddr 4.4.4.4 tcp dport 80-81 goto log_10.88.0.2
        		ip daddr 2.2.2.0-2.2.2.255 icmp type destination-unreachable icmp code frag-needed accept
        		ip daddr 1.1.1.1 accept
        	}
        }
        table ip6 gavel_gavel0 {
        	chain from_container {
        		type filter hook prerouting priority -300; policy accept;
        		iifgroup GROUP drop
        	}

        	chain to_container {
        		type filter hook postrouting priority 100; policy accept;
        		oifgroup GROUP drop
        	}
        }
    "#]]
    .assert_eq(&text);
    world.close().await;
}
