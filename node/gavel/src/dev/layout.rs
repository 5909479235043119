//! What each node of a cluster on one machine is told: everything that must be its own is.
//!
//! The first node's port says where the cluster is among others of this machine; names, subnets
//! and ids follow from it, so that two clusters on different ports do not meet.

use std::path::Path;

use server::Config;
use server::config::{CellConfig, DiegoConfig, MemberConfig, NetworkConfig, RouterConfig};

/// The port of the first node, where none is given.
pub(crate) const PORT_DEFAULT: u16 = 7440;
/// What apps' names are put before: every name under it is this machine (RFC 6761, 6.3), and
/// browsers need nobody to tell them.
const DOMAIN: &str = "localhost";
/// The port of the first node's BBS, where none is given: Diego's.
pub(crate) const BBS_PORT_DEFAULT: u16 = 8889;
/// Where in the data directory the certificates of Diego's clients are.
pub(crate) const DIEGO_DIR: &str = "diego";
/// Clients of the first node's router at once: few enough for a usual limit of 1024 descriptors.
const ROUTER_CONNECTIONS: u32 = 256;
/// Subnets and ids repeat after so many ports.
const PLACES: u16 = 50;
/// What the nodes' subnets are parts of.
const CONTAINERS: &str = "10.88.0.0/16";
/// The first host id given to containers, and how many each node has: 1024 containers of 65,536
/// ids. The last of [`PLACES`] ends below 2^32.
const FIRST_HOST_ID: u32 = 0x1000_0000;
const HOST_IDS_OF_NODE: u32 = 0x0400_0000;

/// What the nodes share out among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) nodes: u16,
    /// The first node's; the others follow.
    pub(crate) port: u16,
    /// Where the first node routes HTTP.
    pub(crate) router_port: u16,
    /// Where the first node answers Diego's clients; the others follow.
    pub(crate) bbs_port: u16,
    /// First and last.
    pub(crate) host_ports: (u16, u16),
    /// Mebibytes, of all nodes together.
    pub(crate) memory_mb: u64,
    pub(crate) disk_mb: u64,
}

/// A node's configuration for each node, or why there is none.
///
/// # Errors
///
/// Says which option does not fit.
pub(crate) fn configs(shares: &Shares, home: &Path) -> Result<Vec<Config>, String> {
    let Shares { nodes, port, host_ports: (first, last), .. } = *shares;
    if port.checked_add(nodes - 1).is_none() {
        return Err(format!("--port {port} leaves no room for {nodes} nodes below 65536"));
    }
    let bbs_port = shares.bbs_port;
    if bbs_port.checked_add(nodes - 1).is_none() {
        return Err(format!("--bbs-port {bbs_port} leaves no room for {nodes} nodes below 65536"));
    }
    let each = last.saturating_sub(first).saturating_add(1) / nodes;
    if first == 0 || first > last || each == 0 {
        return Err(format!("--host-ports {first}-{last} does not give each node a port"));
    }
    let address = |at: u16| format!("127.0.0.1:{}", port + at);
    let members: Vec<MemberConfig> = (0..nodes)
        .map(|at| MemberConfig { node_id: node_id(at), name: name(at), address: address(at) })
        .collect();
    let config = |at: u16| {
        let place = place(port + at);
        let first_of_node = first + at * each;
        Config {
            node_id: node_id(at),
            name: name(at),
            listen: address(at),
            advertise: None,
            data_dir: home.join(name(at)),
            members: members.clone(),
            cell: CellConfig {
                memory_mb: Some(share(shares.memory_mb, nodes)),
                disk_mb: Some(share(shares.disk_mb, nodes)),
                bridge: format!("gavel{place}"),
                subnet: format!("10.88.{place}.0/24"),
                host_ports: (first_of_node, first_of_node + (each - 1)),
                first_host_id: FIRST_HOST_ID + HOST_IDS_OF_NODE * u32::from(place - 1),
                cgroup: format!("gavel/dev-{place}"),
                network: NetworkConfig {
                    // One machine has routes to the containers of all of its nodes.
                    container_networks: vec![CONTAINERS.to_owned()],
                    container_to_container: true,
                    ..NetworkConfig::default()
                },
                ..CellConfig::default()
            },
            registries: server::config::RegistriesConfig::default(),
            planning: server::config::PlanningConfig::default(),
            tls: server::config::TlsConfig::default(),
            router: Some(RouterConfig {
                listen: (at == 0).then(|| format!("127.0.0.1:{}", shares.router_port)),
                domain: DOMAIN.to_owned(),
                public_port: Some(shares.router_port),
                connections_max: ROUTER_CONNECTIONS,
            }),
            diego: Some(DiegoConfig {
                listen: format!("127.0.0.1:{}", shares.bbs_port + at),
                url: None,
                ca: Some(home.join(DIEGO_DIR).join("ca.crt")),
                cert: Some(home.join(DIEGO_DIR).join("localhost.crt")),
                key: Some(home.join(DIEGO_DIR).join("localhost.key")),
                insecure: false,
                health_listen: None,
            }),
            preloaded: Vec::new(),
            route_emitter: None,
            ssh_proxy: None,
            stop_containers_on_exit: true,
        }
    };
    Ok((0..nodes).map(config).collect())
}

/// From 1: nodes count as people do.
fn node_id(at: u16) -> u64 {
    u64::from(at) + 1
}

pub(crate) fn name(at: u16) -> String {
    format!("node-{}", node_id(at))
}

/// 1 for the usual first port.
fn place(port: u16) -> u16 {
    let offset = (i32::from(port) - i32::from(PORT_DEFAULT)).rem_euclid(i32::from(PLACES));
    u16::try_from(offset).expect("less than PLACES") + 1
}

fn share(total_mb: u64, nodes: u16) -> u32 {
    u32::try_from(total_mb / u64::from(nodes)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn shares(nodes: u16, port: u16) -> Shares {
        Shares {
            nodes,
            port,
            router_port: 8080,
            bbs_port: 8889,
            host_ports: (61_001, 65_534),
            memory_mb: 9000,
            disk_mb: 30_000,
        }
    }

    #[test]
    fn three_nodes_as_the_file_has_them() {
        let configs = configs(&shares(3, 7440), Path::new("/data")).unwrap();
        expect![[r#"
            node_id = 2
            name = "node-2"
            listen = "127.0.0.1:7441"
            data_dir = "/data/node-2"
            stop_containers_on_exit = true

            [[members]]
            node_id = 1
            name = "node-1"
            address = "127.0.0.1:7440"

            [[members]]
            node_id = 2
            name = "node-2"
            address = "127.0.0.1:7441"

            [[members]]
            node_id = 3
            name = "node-3"
            address = "127.0.0.1:7442"

            [cell]
            zone = "z1"
            memory_mb = 3000
            disk_mb = 10000
            containers = 249
            placement_tags = []
            optional_placement_tags = []
            external_address = "127.0.0.1"
            bridge = "gavel2"
            subnet = "10.88.2.0/24"
            host_ports = [62512, 64022]
            first_host_id = 335544320
            cgroup = "gavel/dev-2"
            privileged_containers = false
            disk_enforcement = "detect"
            log_lines_per_second = 0
            disk_scope = "total"
            allow_ssh = true

            [cell.network]
            container_to_container = true
            container_networks = ["10.88.0.0/16"]
            deny_networks = []
            allow = []
            allow_host = []
            nameservers = []

            [registries]
            insecure = []
            ca = []

            [registries.mirrors]

            [planning]
            presence_ttl_seconds = 15
            starting_container_weight = 0.25
            starting_container_count_maximum = 0
            bin_pack_first_fit_weight = 0.0
            clock_speed = 1

            [tls]
            insecure = false

            [router]
            domain = "localhost"
            public_port = 8080
            connections_max = 256

            [diego]
            listen = "127.0.0.1:8890"
            ca = "/data/diego/ca.crt"
            cert = "/data/diego/localhost.crt"
            key = "/data/diego/localhost.key"
            insecure = false
        "#]]
        .assert_eq(&toml::to_string(&configs[1]).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let error = |shares: Shares| configs(&shares, Path::new("/")).unwrap_err();
        assert_eq!(error(shares(3, 65_534)), "--port 65534 leaves no room for 3 nodes below 65536");
        let narrow = Shares { host_ports: (61_001, 61_002), ..shares(3, 7440) };
        assert_eq!(error(narrow), "--host-ports 61001-61002 does not give each node a port");
        assert!(configs(&shares(1, 65_535), Path::new("/")).is_ok());
    }

    proptest! {
        #[test]
        fn nodes_share_nothing(nodes in 1..=9_u16, port in 1..=65_000_u16, first in 1..=60_000_u16) {
            let shares = Shares { host_ports: (first, first + 100), ..shares(nodes, port) };
            let configs = configs(&shares, Path::new("/data")).unwrap();
            let cells = configs.iter().map(|config| &config.cell);
            let own = cells.clone().map(|cell| {
                (&cell.bridge, &cell.subnet, &cell.cgroup, cell.first_host_id)
            });
            prop_assert_eq!(own.clone().map(|own| own.0).collect::<BTreeSet<_>>().len(), configs.len());
            prop_assert_eq!(own.clone().map(|own| own.1).collect::<BTreeSet<_>>().len(), configs.len());
            prop_assert_eq!(own.clone().map(|own| own.2).collect::<BTreeSet<_>>().len(), configs.len());
            prop_assert_eq!(own.map(|own| own.3).collect::<BTreeSet<_>>().len(), configs.len());
            for cell in cells.clone() {
                prop_assert!(cell.bridge.len() <= 15);
                prop_assert!(cell.first_host_id.checked_add(HOST_IDS_OF_NODE).is_some());
                prop_assert!(cell.host_ports.0 <= cell.host_ports.1);
                prop_assert!(cell.host_ports.1 <= first + 100);
            }
            for (one, next) in cells.clone().zip(cells.skip(1)) {
                prop_assert!(one.host_ports.1 < next.host_ports.0);
            }
        }
    }
}
