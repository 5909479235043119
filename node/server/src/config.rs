//! What a node is told by its operator: one TOML file.

mod route_emitter;
mod secret;
mod ssh_proxy;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use api::tls::TlsFiles;
use container::container::{DiskEnforcement, DiskScope};
use model::Millis;
use model::egress::{IcmpInfo, PortRange};
use plan::Settings;
use replica::limits::GIVEN_ID_MAX;
use serde::{Deserialize, Serialize};

pub use self::route_emitter::RouteEmitterConfig;
pub use self::secret::Secret;
pub use self::ssh_proxy::SshProxyConfig;

/// A node's configuration. Unknown keys are refused, so that a misspelt one is not silently the
/// default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The member that the node is of a new cluster, from 1 to
    /// [`replica::limits::GIVEN_ID_MAX`]; who joins later is given a number by the cluster.
    pub node_id: u64,
    /// The cell's id, and the node's name in every table.
    pub name: String,
    /// `HOST:PORT` that the node listens on, for clients and for the other nodes.
    pub listen: String,
    /// `HOST:PORT` by which the others reach it; as `listen` where absent.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Everything the node keeps: RocksDB, images, containers.
    pub data_dir: PathBuf,
    /// The members of a new cluster, the same on every node. Once the cluster runs, its own
    /// record of its members counts, and these are whom a new node asks for it.
    pub members: Vec<MemberConfig>,
    #[serde(default)]
    pub cell: CellConfig,
    #[serde(default)]
    pub registries: RegistriesConfig,
    /// Root file systems from this machine's own files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preloaded: Vec<PreloadedConfig>,
    /// How the cluster is planned while this node leads; the same on every node.
    #[serde(default)]
    pub planning: PlanningConfig,
    #[serde(default)]
    pub tls: TlsConfig,
    /// HTTP by host to the apps of the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterConfig>,
    /// Diego's own API, for its clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diego: Option<DiegoConfig>,
    /// Other routers that are told of this cell's instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_emitter: Option<RouteEmitterConfig>,
    /// SSH to daemons in containers of the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_proxy: Option<SshProxyConfig>,
    /// Whether the containers end with the node. Off, they outlive it and are found again; a
    /// cluster on one machine in the foreground turns it on.
    #[serde(default)]
    pub stop_containers_on_exit: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    pub node_id: u64,
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
}

/// Diego's properties of the same names. Weights have at most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanningConfig {
    /// Seconds of silence after which a cell is missing.
    pub presence_ttl_seconds: u32,
    /// What one starting container on a cell counts against it, as a part of a full cell.
    pub starting_container_weight: f64,
    /// Most containers that start at once in the whole cluster; 0 is unlimited.
    pub starting_container_count_maximum: u32,
    /// Above 0, a zone's first cells are filled first: what each cell before it counts against a
    /// cell, as a part of a full cell.
    pub bin_pack_first_fit_weight: f64,
    /// How many times as fast as the wall clock the cluster's time goes: for tests of what takes
    /// minutes. The same on every node, for the cluster's whole life.
    pub clock_speed: u32,
}

impl Default for PlanningConfig {
    fn default() -> Self {
        Self {
            presence_ttl_seconds: 15,
            starting_container_weight: 0.25,
            starting_container_count_maximum: 0,
            bin_pack_first_fit_weight: 0.0,
            clock_speed: 1,
        }
    }
}

impl PlanningConfig {
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            presence_ttl: Millis::from_secs(self.presence_ttl_seconds.max(1).into()),
            starting_container_weight: thousandths(self.starting_container_weight),
            starting_container_count_maximum: self.starting_container_count_maximum,
            bin_pack_first_fit_weight: thousandths(self.bin_pack_first_fit_weight),
            ..Settings::default()
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and what is not a number is 0"
)]
fn thousandths(weight: f64) -> u32 {
    (weight * 1000.0).round() as u32
}

/// The node in its role as a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CellConfig {
    pub zone: String,
    /// Mebibytes for containers; all of the machine's but a fifth where absent.
    pub memory_mb: Option<u32>,
    /// Mebibytes for containers; all that is free under `data_dir` but a tenth where absent.
    pub disk_mb: Option<u32>,
    /// Most containers at once. Diego: garden's `max_containers` less one.
    pub containers: u32,
    pub placement_tags: Vec<String>,
    pub optional_placement_tags: Vec<String>,
    /// Where the containers' host ports are reached.
    pub external_address: Ipv4Addr,
    /// The interface that has the gateway's address, a bridge without ports; unique on the
    /// machine, 15 characters at most.
    pub bridge: String,
    /// The containers' addresses, for instance `10.88.0.0/24`; unique on the machine.
    pub subnet: String,
    /// First and last host port given to containers.
    pub host_ports: (u16, u16),
    /// The first host uid given to containers; each takes 65,536. Unique on the machine.
    pub first_host_id: u32,
    /// Where in the cgroup trees the containers are; unique on the machine.
    pub cgroup: String,
    /// Whether containers that ask for it are privileged, which makes their root the machine's.
    pub privileged_containers: bool,
    /// How the containers' disk limits are enforced: `detect` (the first of what follows that
    /// works here), `project-quotas`, `pool`, `volumes`, or `none`.
    pub disk_enforcement: DiskEnforcement,
    /// Lines a second that a container may log, whatever its own limit is; 0 is unlimited.
    /// Diego: `max_log_lines_per_second`.
    pub log_lines_per_second: u32,
    /// What counts against a container's `disk_mb`: `total`, as Diego has it for Docker images,
    /// counts the image's layers; `exclusive` what the container writes.
    pub disk_scope: DiskScope,
    /// Whether `gavel exec` and `gavel ssh` are let into containers, here and by way of this node.
    /// Cloud Foundry: the same name.
    pub allow_ssh: bool,
    /// What containers may reach.
    pub network: NetworkConfig,
}

impl Default for CellConfig {
    fn default() -> Self {
        Self {
            zone: "z1".to_owned(),
            memory_mb: None,
            disk_mb: None,
            containers: 249,
            placement_tags: Vec::new(),
            optional_placement_tags: Vec::new(),
            external_address: Ipv4Addr::LOCALHOST,
            bridge: "gavel0".to_owned(),
            subnet: "10.88.0.0/24".to_owned(),
            host_ports: (61_001, 65_534),
            first_host_id: 0x1000_0000,
            cgroup: "gavel".to_owned(),
            privileged_containers: false,
            disk_enforcement: DiskEnforcement::Detect,
            log_lines_per_second: 0,
            disk_scope: DiskScope::Total,
            allow_ssh: true,
            network: NetworkConfig::default(),
        }
    }
}

/// What this cell's containers may reach besides what their own egress rules open. Closed to all
/// where nothing opens it: the host itself but for names, link-local addresses, and other
/// containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Whether containers reach each other, here and in `container_networks`.
    pub container_to_container: bool,
    /// Where containers of other cells are, if this machine has a route to them; for instance
    /// `10.88.0.0/16`.
    pub container_networks: Vec<String>,
    /// Closed, unless a rule opens it. Diego: garden's property of the same name.
    pub deny_networks: Vec<String>,
    /// Open to all containers, where it is not this host.
    pub allow: Vec<AllowConfig>,
    /// Open to all containers, where it is this host.
    pub allow_host: Vec<AllowConfig>,
    /// Whom this node asks for names outside of the cluster; the host's own where empty.
    pub nameservers: Vec<IpAddr>,
}

/// As a rule of Diego's security groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowConfig {
    /// `tcp`, `udp`, `icmp` or `all`.
    pub protocol: String,
    /// Addresses, CIDR blocks and `first-last` ranges.
    pub destinations: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_range: Option<PortRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_info: Option<IcmpInfo>,
}

/// Mutual TLS, with clients and between nodes: all three files or none, each in PEM. Read anew when
/// they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The authorities that vouch for clients and nodes.
    pub ca: Option<PathBuf>,
    /// This node's certificate, for servers and clients, with the host that others reach it by.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Without the files: whether the node may listen on an address that others reach.
    pub insecure: bool,
}

impl TlsConfig {
    #[must_use]
    pub fn files(&self) -> Option<TlsFiles> {
        let (ca, cert, key) = (self.ca.clone()?, self.cert.clone()?, self.key.clone()?);
        Some(TlsFiles { ca, cert, key })
    }
}

/// The node as Diego's clients know it: the BBS, the cell's own routes, and Locket, on one
/// listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiegoConfig {
    /// `HOST:PORT`; Diego's BBS has 8889.
    pub listen: String,
    /// How clients reach it, for instance `https://a1.example:8889`; the cell's
    /// `external_address` and the port of `listen` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The authorities that vouch for clients; with `cert` and `key`, or none of them and those of
    /// `[tls]` count. Old clients need a certificate with an RSA key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Plain HTTP, for a `listen` on loopback only.
    #[serde(default)]
    pub insecure: bool,
    /// `HOST:PORT` that answers any request with 200 in plain HTTP while the node lives; Diego's
    /// BBS has `127.0.0.1:8890`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_listen: Option<String>,
}

impl DiegoConfig {
    /// Its own files; nothing where it names none.
    fn own_files(&self) -> Option<TlsFiles> {
        let (ca, cert, key) = (self.ca.clone()?, self.cert.clone()?, self.key.clone()?);
        Some(TlsFiles { ca, cert, key })
    }

    fn check(&self, tls: &TlsConfig) -> Result<(), ConfigError> {
        let wrong = |reason: String| Err(ConfigError::Diego { reason });
        let named = [&self.ca, &self.cert, &self.key].into_iter().flatten().count();
        if !matches!(named, 0 | 3) {
            return wrong("names some of ca, cert and key: it takes all three, or none".to_owned());
        }
        let is_certified = named == 3 || tls.files().is_some();
        if self.insecure && named == 3 {
            return wrong("names certificates and says insecure = true: one of both".to_owned());
        }
        if !self.insecure && !is_certified {
            return wrong(
                "has no certificates: name ca, cert and key, there or in [tls], or say insecure = \
                 true and listen on loopback"
                    .to_owned(),
            );
        }
        for listen in [Some(&self.listen), self.health_listen.as_ref()].into_iter().flatten() {
            if port_of(listen).is_none() {
                return wrong(format!("{listen:?} is not HOST:PORT"));
            }
        }
        Ok(())
    }
}

/// Of `HOST:PORT`.
fn port_of(listen: &str) -> Option<u16> {
    let (_, port) = listen.rsplit_once(':')?;
    port.parse().ok().filter(|port| *port > 0)
}

/// The node in its role as a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// `HOST:PORT` for HTTP, in plain; where absent the node routes nothing, and only tells people
    /// how apps are reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// What an app's name is put before to make its default route: the same on every node, in
    /// lower case.
    pub domain: String,
    /// The port in the URLs that people are told, where it is not `listen`'s: a load balancer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// Connections of clients at once.
    #[serde(default = "router_connections")]
    pub connections_max: u32,
}

fn router_connections() -> u32 {
    u32::try_from(router::limits::CONNECTIONS_DEFAULT).expect("it is small")
}

impl RouterConfig {
    /// What people are told of it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.public_port.or_else(|| self.own_port()).unwrap_or(80)
    }

    fn own_port(&self) -> Option<u16> {
        port_of(self.listen.as_ref()?)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |reason: String| Err(ConfigError::Router { reason });
        if let (Some(listen), None) = (&self.listen, self.own_port()) {
            return wrong(format!("listen = {listen:?} is not HOST:PORT"));
        }
        let is_label = |label: &str| {
            let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            (1..=63).contains(&label.len()) && label.chars().all(is_fine)
        };
        if self.domain.len() > 189 || !self.domain.split('.').all(is_label) {
            return wrong(format!(
                "domain = {:?} is not a name that hosts can be under, in lower case, such as \
                 apps.example.com",
                self.domain
            ));
        }
        if self.public_port == Some(0) {
            return wrong("public_port = 0 is no port".to_owned());
        }
        if !(1..=CONNECTIONS_MOST).contains(&self.connections_max) {
            return wrong(format!("connections_max is not from 1 to {CONNECTIONS_MOST}"));
        }
        Ok(())
    }
}

/// Each client's connection has another to an instance, and Linux gives a process no more than
/// 1,048,576 descriptors (proc(5): `nr_open`).
const CONNECTIONS_MOST: u32 = 500_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistriesConfig {
    /// `HOST:PORT` of registries that may be spoken to without TLS, or without a certificate
    /// that is trusted here. Exact, as Diego's `insecure_docker_registry_list`. Loopback is
    /// always allowed, as Docker does.
    pub insecure: Vec<String>,
    /// Files of authorities, in PEM, that vouch for registries besides the machine's own.
    pub ca: Vec<PathBuf>,
    /// This node's own users of registries: a file as Docker's `config.json`.
    pub credentials: Option<PathBuf>,
    /// Mebibytes of unpacked layers beyond which those go that no container here needs, the longest
    /// unused first.
    pub store_mb: Option<u32>,
    /// Mebibytes kept of layers for other cells; those used longest ago go first.
    pub share_mb: Option<u32>,
    /// Keys that seal the passwords of recipes while the cluster keeps them; the same on every
    /// node.
    pub seal_key: Option<PathBuf>,
    /// `HOST[:PORT]` of mirrors, by the registry that they stand for (`docker.io` for Docker Hub);
    /// asked in this order, then the registry itself.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

impl RegistriesConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let mirrors = self.mirrors.iter().flat_map(|(of, mirrors)| mirrors.iter().chain([of]));
        for host in self.insecure.iter().chain(mirrors) {
            let reason = if host.contains("://") {
                "no scheme allowed"
            } else if host.is_empty() || host.contains(['/', ' ', '@', '*']) {
                "HOST or HOST:PORT expected"
            } else {
                continue;
            };
            return Err(ConfigError::Registry { host: host.clone(), reason });
        }
        Ok(())
    }
}

/// A root file system that the cell has without a registry, for `preloaded:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreloadedConfig {
    /// What recipes call it, for instance `cflinuxfs4`.
    pub name: String,
    /// An OCI image layout, as a directory or a tar, or a file of `docker save`. Read when the node
    /// starts.
    pub path: PathBuf,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path}: {error}")]
    Parse { path: PathBuf, error: Box<toml::de::Error> },
    #[error("cell.network.{reason}")]
    Network { reason: String },
    #[error("[diego] {reason}")]
    Diego { reason: String },
    #[error("[router] {reason}")]
    Router { reason: String },
    #[error("[route_emitter] {reason}")]
    RouteEmitter { reason: String },
    #[error("[ssh_proxy] {reason}")]
    SshProxy { reason: String },
    #[error("members names nobody; a new node needs at least one whom it can ask")]
    NoMembers,
    #[error("node_id {node_id} is not from 1 to {}", replica::limits::GIVEN_ID_MAX)]
    NodeId { node_id: u64 },
    #[error("members names two of node_id {node_id} or of the name {name}")]
    Twice { node_id: u64, name: String },
    #[error(
        "members says that node_id {node_id} is {theirs}, and this node is {mine}; one of the two \
         files is another node's"
    )]
    Another { node_id: u64, theirs: String, mine: String },
    #[error("[registries]: {host:?}: {reason}")]
    Registry { host: String, reason: &'static str },
    #[error("[[preloaded]] name = {name:?}: {reason}")]
    Preloaded { name: String, reason: &'static str },
    #[error("[tls] names some of ca, cert and key: it takes all three, or none")]
    TlsIncomplete,
    #[error("[tls] names certificates and says insecure = true: one of both")]
    TlsContradicts,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the file and the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let config: Self = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            error: Box::new(error),
        })?;
        config.check()?;
        Ok(config)
    }

    /// # Errors
    ///
    /// [`ConfigError`] when the parts contradict one another.
    pub fn check(&self) -> Result<(), ConfigError> {
        let node_id = self.node_id;
        if self.members.is_empty() {
            return Err(ConfigError::NoMembers);
        }
        let ids = self.members.iter().map(|member| member.node_id);
        for node_id in ids.chain([node_id]) {
            if !(1..=GIVEN_ID_MAX).contains(&node_id) {
                return Err(ConfigError::NodeId { node_id });
            }
        }
        for (number, member) in self.members.iter().enumerate() {
            let is_same =
                |other: &MemberConfig| other.node_id == member.node_id || other.name == member.name;
            if self.members[..number].iter().any(is_same) {
                let MemberConfig { node_id, name, .. } = member.clone();
                return Err(ConfigError::Twice { node_id, name });
            }
        }
        let me = self.members.iter().find(|member| member.node_id == node_id);
        if let Some(theirs) = me.map(|me| &me.name).filter(|name| **name != self.name) {
            let (theirs, mine) = (theirs.clone(), self.name.clone());
            return Err(ConfigError::Another { node_id, theirs, mine });
        }
        self.registries.check()?;
        self.check_preloaded()?;
        let tls = &self.tls;
        let named = [&tls.ca, &tls.cert, &tls.key].into_iter().flatten().count();
        if !matches!(named, 0 | 3) {
            return Err(ConfigError::TlsIncomplete);
        }
        if named == 3 && tls.insecure {
            return Err(ConfigError::TlsContradicts);
        }
        self.diego.as_ref().map_or(Ok(()), |diego| diego.check(&self.tls))?;
        self.router.as_ref().map_or(Ok(()), RouterConfig::check)?;
        let emitter = self.route_emitter.as_ref().map_or(Ok(()), RouteEmitterConfig::check);
        emitter.map_err(|reason| ConfigError::RouteEmitter { reason })?;
        let allow_ssh = self.cell.allow_ssh;
        let proxy = self.ssh_proxy.as_ref().map_or(Ok(()), |proxy| proxy.check(allow_ssh));
        proxy.map_err(|reason| ConfigError::SshProxy { reason })
    }

    /// What Diego's clients are shown of certificates; nothing where it is plain HTTP.
    #[must_use]
    pub fn diego_files(&self) -> Option<TlsFiles> {
        let diego = self.diego.as_ref().filter(|diego| !diego.insecure)?;
        diego.own_files().or_else(|| self.tls.files())
    }

    /// How Diego's clients reach this node; empty where they do not.
    #[must_use]
    pub fn diego_url(&self) -> String {
        let Some(diego) = &self.diego else { return String::new() };
        let scheme = if diego.insecure { "http" } else { "https" };
        let own = || {
            let port = port_of(&diego.listen).unwrap_or_default();
            format!("{scheme}://{}:{port}", self.cell.external_address)
        };
        diego.url.clone().unwrap_or_else(own)
    }

    fn check_preloaded(&self) -> Result<(), ConfigError> {
        for (number, PreloadedConfig { name, .. }) in self.preloaded.iter().enumerate() {
            let reason = if name.is_empty() || name.contains(['?', '#', '/', ':', ' ']) {
                "letters, digits and _ . - expected"
            } else if self.preloaded[..number].iter().any(|other| other.name == *name) {
                "named twice"
            } else {
                continue;
            };
            return Err(ConfigError::Preloaded { name: name.clone(), reason });
        }
        Ok(())
    }

    /// `HOST:PORT` by which the others reach this node.
    #[must_use]
    pub fn advertised(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.listen)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// A file of node 1, `a`, with these members and this [tls].
    fn config(members: &[(u64, &str)], tls: &str) -> Config {
        let members: String = members
            .iter()
            .map(|(node_id, name)| {
                format!("[[members]]\nnode_id = {node_id}\nname = \"{name}\"\naddress = \"h:1\"\n")
            })
            .collect();
        let members = if members.is_empty() { "members = []\n".to_owned() } else { members };
        let text = format!(
            "node_id = 1\nname = \"a\"\nlisten = \"127.0.0.1:1\"\ndata_dir = \"/d\"\n{members}\
             [tls]\n{tls}"
        );
        toml::from_str(&text).unwrap()
    }

    fn check(members: &[(u64, &str)], wrong: Expect) {
        let checked = config(members, "").check();
        wrong.assert_eq(&checked.map_or_else(|error| error.to_string(), |()| "fine".to_owned()));
    }

    #[test]
    fn members_that_contradict_each_other_are_refused() {
        check(&[(1, "a"), (2, "b")], expect!["fine"]);
        check(&[(2, "b"), (3, "c")], expect!["fine"]);
        check(&[], expect!["members names nobody; a new node needs at least one whom it can ask"]);
        check(&[(1, "a"), (0, "b")], expect!["node_id 0 is not from 1 to 9999"]);
        check(&[(1, "a"), (10_000, "b")], expect!["node_id 10000 is not from 1 to 9999"]);
        check(&[(1, "a"), (1, "b")], expect!["members names two of node_id 1 or of the name b"]);
        check(&[(1, "a"), (2, "a")], expect!["members names two of node_id 2 or of the name a"]);
        check(
            &[(1, "b"), (2, "a")],
            expect![
                "members says that node_id 1 is b, and this node is a; one of the two files is another node's"
            ],
        );
    }

    #[test]
    fn a_router_is_told_where_and_for_whom() {
        let check = |text: &str| {
            let checked = config(&[(1, "a")], &format!("\n[router]\n{text}")).check();
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check("listen = \"0.0.0.0:80\"\ndomain = \"apps.example.com\""), Ok(()));
        let listen = "[router] listen = \"80\" is not HOST:PORT".to_owned();
        assert_eq!(check("listen = \"80\"\ndomain = \"a.b\""), Err(listen));
        for domain in ["", "A.b", "a..b", "*.a", "a_b"] {
            let error = check(&format!("listen = \"h:1\"\ndomain = \"{domain}\"")).unwrap_err();
            assert!(error.starts_with(&format!("[router] domain = {domain:?} is not")), "{error}");
        }
        let none = check("listen = \"h:1\"\ndomain = \"a\"\nconnections_max = 0").unwrap_err();
        assert_eq!(none, "[router] connections_max is not from 1 to 500000");
    }

    #[test]
    fn diegos_clients_are_answered_with_certificates_or_on_purpose_without() {
        let config = |tls: &str, text: &str| {
            config(&[(1, "a")], &format!("{tls}\n[diego]\nlisten = \"127.0.0.1:8889\"\n{text}"))
        };
        let check =
            |tls: &str, text: &str| config(tls, text).check().map_err(|error| error.to_string());
        let files = "ca = \"a\"\ncert = \"b\"\nkey = \"c\"\n";
        assert_eq!(check("", files), Ok(()));
        assert_eq!(check(files, ""), Ok(()));
        assert_eq!(check("", "insecure = true"), Ok(()));
        let none = check("", "").unwrap_err();
        assert!(none.starts_with("[diego] has no certificates: "), "{none}");
        let half = check(files, "ca = \"a\"").unwrap_err();
        assert_eq!(half, "[diego] names some of ca, cert and key: it takes all three, or none");
        let both = check("", &format!("{files}insecure = true")).unwrap_err();
        assert_eq!(both, "[diego] names certificates and says insecure = true: one of both");
        assert_eq!(config(files, "").diego_url(), "https://127.0.0.1:8889");
        assert_eq!(config(files, "").diego_files(), config("", files).diego_files());
        let plain = config(files, "insecure = true");
        assert_eq!(
            (plain.diego_url().as_str(), plain.diego_files()),
            ("http://127.0.0.1:8889", None)
        );
        assert_eq!(config("", "url = \"https://a\"").diego_url(), "https://a");
    }

    #[test]
    fn preloaded_root_file_systems_have_names_of_their_own() {
        let check = |names: &[&str]| {
            let tables =
                names.iter().map(|name| format!("[[preloaded]]\nname = {name:?}\npath = \"p\"\n"));
            let tables: String = tables.collect();
            let checked = config(&[(1, "a")], &format!("\n{tables}")).check();
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(&["cflinuxfs4", "cflinuxfs5"]), Ok(()));
        let twice = "[[preloaded]] name = \"a\": named twice".to_owned();
        assert_eq!(check(&["a", "b", "a"]), Err(twice));
        for name in ["", "a?layer=x", "a#b", "a:b"] {
            let error = check(&[name]).unwrap_err();
            let expected = format!("[[preloaded]] name = {name:?}: letters, digits");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    fn check_tls(tls: &str) -> Result<(), String> {
        config(&[(1, "a")], tls).check().map_err(|error| error.to_string())
    }

    #[test]
    fn tls_is_whole_or_absent() {
        let all = "ca = \"a\"\ncert = \"b\"\nkey = \"c\"\n";
        assert_eq!(check_tls(""), Ok(()));
        assert_eq!(check_tls("insecure = true"), Ok(()));
        assert_eq!(check_tls(all), Ok(()));
        let incomplete = "[tls] names some of ca, cert and key: it takes all three, or none";
        assert_eq!(check_tls("ca = \"a\""), Err(incomplete.to_owned()));
        let both = check_tls(&format!("{all}insecure = true")).unwrap_err();
        assert_eq!(both, "[tls] names certificates and says insecure = true: one of both");
    }
}
