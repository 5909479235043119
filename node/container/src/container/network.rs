//! The node's container network: one bridge, one veth pair per container, one nftables table.
//!
//! Every change of the table is one transaction of the `nft` program, so a packet sees either
//! all of it or none.
//! Links and addresses go over netlink.
//!
//! How a packet to a host port travels: both hooks `prerouting` (from elsewhere) and `output`
//! (from this host) rewrite its destination by the map `ports`.
//! A packet from 127.0.0.1 may leave through the bridge because of `route_localnet`, with the
//! bridge's address as its source; in return `guard` drops what a container sends to 127/8 or
//! under another's address (Kubernetes had CVE-2020-8558 for want of that rule).
//!
//! What it never does: shell out to `ip`, or touch another's table, bridge or rules.

use std::fmt::{self, Write as _};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::str::FromStr;

use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::process::Command;

use super::error::{Context as _, Error, Result};
use super::spec::PortMapping;

/// An IPv4 network such as `10.88.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// A network of 4 to 65,536 addresses (prefix 16 to 30) without host bits.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Result<Self> {
        let invalid = |reason: &str| Error::Invalid {
            what: format!("subnet {network}/{prefix}"),
            reason: reason.to_owned(),
        };
        if !(16..=30).contains(&prefix) {
            return Err(invalid("its prefix is not of 16 to 30"));
        }
        let subnet = Self { network, prefix };
        if network.to_bits() & (subnet.addresses() - 1) != 0 {
            return Err(invalid("it has bits behind its prefix"));
        }
        Ok(subnet)
    }

    fn addresses(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The network's length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The bridge's own address, the first of the network.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// How many containers it has addresses for: all but network, bridge and broadcast.
    pub(super) fn slots(self) -> u32 {
        self.addresses() - 3
    }

    /// The address of a slot below [`Self::slots`].
    pub(super) fn address(self, slot: u32) -> Ipv4Addr {
        assert!(slot < self.slots(), "slot {slot} is outside {self}");
        Ipv4Addr::from_bits(self.network.to_bits() + 2 + slot)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid {
            what: format!("subnet {text:?}"),
            reason: "it is not of the form 10.88.1.0/24".to_owned(),
        };
        let (network, prefix) = text.split_once('/').ok_or_else(invalid)?;
        Self::new(network.parse().map_err(|_| invalid())?, prefix.parse().map_err(|_| invalid())?)
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// What a container has in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub address: Ipv4Addr,
    pub ports: Vec<PortMapping>,
}

/// The bridge and the table of one node.
#[derive(Debug)]
pub(super) struct Network {
    bridge: String,
    bridge_index: u32,
    subnet: Subnet,
    netlink: Handle,
    connection: tokio::task::JoinHandle<()>,
    /// One transaction at a time: `nft` retries when another commits in between, in vain if
    /// all of ours do so at once.
    transaction: tokio::sync::Mutex<()>,
}

impl Network {
    /// Makes the bridge and the table as they must be, whatever was there before, with the
    /// ports of `attached` published from the first packet on.
    pub(super) async fn open(
        bridge: &str,
        subnet: Subnet,
        attached: &[Attachment],
    ) -> Result<Self> {
        check_bridge_name(bridge)?;
        let (connection, netlink, _) =
            rtnetlink::new_connection().context(|| "open a netlink socket".to_owned())?;
        let connection = tokio::spawn(connection);
        let mut network = Self {
            bridge: bridge.to_owned(),
            bridge_index: 0,
            subnet,
            netlink,
            connection,
            transaction: tokio::sync::Mutex::new(()),
        };
        match network.set_up(attached).await {
            Ok(()) => Ok(network),
            Err(error) => {
                // Nobody uses it yet: leave the host as it was.
                if attached.is_empty() {
                    let _ = network.remove_link(bridge).await;
                }
                Err(error)
            }
        }
    }

    async fn set_up(&mut self, attached: &[Attachment]) -> Result<()> {
        self.open_bridge().await?;
        write_sysctl("ipv4/ip_forward", "1")?;
        write_sysctl(&format!("ipv4/conf/{}/route_localnet", self.bridge), "1")?;
        self.nft(&self.table(attached)).await
    }

    async fn open_bridge(&mut self) -> Result<()> {
        // A fixed hardware address: a bridge without one takes the lowest of its ports', and
        // each change of it would cost the containers their neighbour entries.
        let [a, b, c, d] = self.subnet.gateway().octets();
        let mac = vec![0x02, 0x67, a, b, c, d];
        let bridge = LinkBridge::new(&self.bridge).address(mac).up().build();
        match self.netlink.link().add(bridge).execute().await {
            Err(e) if !is(&e, Errno::EEXIST) => {
                return Err(netlink(format!("create bridge {}", self.bridge), &e));
            }
            Ok(()) | Err(_) => {}
        }
        self.bridge_index = self.index_of(&self.bridge).await?.ok_or_else(|| Error::Netlink {
            what: format!("find bridge {}", self.bridge),
            reason: "it vanished".to_owned(),
        })?;
        let gateway = self.subnet.gateway();
        let mut address =
            self.netlink.address().add(self.bridge_index, IpAddr::V4(gateway), self.subnet.prefix);
        address.message_mut().header.scope =
            rtnetlink::packet_route::address::AddressScope::Universe;
        match address.execute().await {
            Err(e) if !is(&e, Errno::EEXIST) => {
                return Err(Error::Address {
                    bridge: self.bridge.clone(),
                    address: gateway,
                    reason: e.to_string(),
                });
            }
            Ok(()) | Err(_) => {}
        }
        let up = LinkUnspec::new_with_index(self.bridge_index).up().build();
        let set = self.netlink.link().set(up).execute().await;
        set.map_err(|e| netlink(format!("set bridge {} up", self.bridge), &e))
    }

    async fn index_of(&self, name: &str) -> Result<Option<u32>> {
        use futures_util::TryStreamExt as _;
        let mut links = self.netlink.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(e) if is(&e, Errno::ENODEV) => Ok(None),
            Err(e) => Err(netlink(format!("find link {name}"), &e)),
        }
    }

    /// Gives the network namespace of the process `pid` an `eth0` on the bridge.
    /// Its address is set from inside.
    pub(super) async fn connect(&self, address: Ipv4Addr, pid: u32) -> Result<()> {
        let name = link_name(address);
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName("eth0".to_owned()));
        peer.attributes.push(LinkAttribute::NetNsPid(pid));
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(
            rtnetlink::packet_route::link::InfoKind::Veth,
        )
        .name(name.clone())
        .controller(self.bridge_index)
        .up()
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
        let added = self.netlink.link().add(pair).execute().await;
        added.map_err(|e| netlink(format!("create link {name}"), &e))?;
        // A container that calls its own host port: where br_netfilter is on, the bridge
        // rewrites the packet itself and has to send it back where it came from.
        // The kernel takes this for a link that exists, not together with its creation. Not by
        // sysfs: that shows the network of whoever mounted it, which need not be ours.
        let index = self.index_of(&name).await?.ok_or_else(|| {
            netlink(format!("find link {name}"), &rtnetlink::Error::RequestFailed)
        })?;
        let port = LinkBridgePort::new(index).hairpin(true).build();
        let set = self.netlink.link().set_port(port).execute().await;
        set.map_err(|e| netlink(format!("set hairpin mode of link {name}"), &e))
    }

    /// Takes the link away; done if it is not there.
    pub(super) async fn disconnect(&self, address: Ipv4Addr) -> Result<()> {
        self.remove_link(&link_name(address)).await
    }

    async fn remove_link(&self, name: &str) -> Result<()> {
        let Some(index) = self.index_of(name).await? else { return Ok(()) };
        match self.netlink.link().del(index).execute().await {
            // The kernel took it meanwhile, with the namespace of its other end.
            Err(e) if !is(&e, Errno::ENODEV) => Err(netlink(format!("delete link {name}"), &e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Publishes the ports, all at once.
    pub(super) async fn publish(&self, attachment: &Attachment) -> Result<()> {
        if attachment.ports.is_empty() {
            return Ok(());
        }
        let elements = elements(std::slice::from_ref(attachment));
        self.nft(&format!("add element ip {} ports {{ {elements} }}\n", self.table_name())).await
    }

    /// Takes the ports back; done if they are not there.
    pub(super) async fn unpublish(&self, attachment: &Attachment) -> Result<()> {
        if attachment.ports.is_empty() {
            return Ok(());
        }
        // Deleting what is absent fails, adding what is there does not: so both, in one
        // transaction.
        let elements = elements(std::slice::from_ref(attachment));
        let table = self.table_name();
        self.nft(&format!(
            "add element ip {table} ports {{ {elements} }}\n\
             delete element ip {table} ports {{ {elements} }}\n"
        ))
        .await
    }

    /// Removes the bridge and the table.
    pub(super) async fn close(&self) -> Result<()> {
        let table = self.table_name();
        self.nft(&format!("table ip {table} {{}}\ndelete table ip {table}\n")).await?;
        self.remove_link(&self.bridge).await
    }

    fn table_name(&self) -> String {
        format!("gavel_{}", self.bridge)
    }

    /// The whole table, in place of a former one.
    fn table(&self, attached: &[Attachment]) -> String {
        let (table, bridge, subnet) = (self.table_name(), &self.bridge, self.subnet);
        let elements = match elements(attached) {
            none if none.is_empty() => none,
            some => format!("elements = {{ {some} }}"),
        };
        format!(
            "table ip {table} {{}}
delete table ip {table}
table ip {table} {{
  map ports {{ type inet_service : ipv4_addr . inet_service; {elements} }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
    iifname \"{bridge}\" ip saddr != {subnet} drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local dnat ip to tcp dport map @ports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to tcp dport map @ports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != \"{bridge}\" masquerade
    ip saddr {subnet} oifname \"{bridge}\" ct status dnat masquerade
    ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade
  }}
}}
"
        )
    }

    async fn nft(&self, script: &str) -> Result<()> {
        let _one_at_a_time = self.transaction.lock().await;
        let context = || "run nft".to_owned();
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(context)?;
        let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
        // nft reads all of its script before it says anything.
        stdin.write_all(script.as_bytes()).await.context(context)?;
        drop(stdin);
        let output = child.wait_with_output().await.context(context)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn check_bridge_name(bridge: &str) -> Result<()> {
    // IFNAMSIZ is 16 with its zero; the first letter is for nft's names.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if bridge.is_empty() || bridge.len() > 15 || !bridge.chars().all(plain) {
        return Err(Error::Invalid {
            what: format!("bridge name {bridge:?}"),
            reason: "it is not 1 to 15 letters, digits, '_' or '-'".to_owned(),
        });
    }
    Ok(())
}

/// The host's end of a container's link; unique on the host as its address is.
fn link_name(address: Ipv4Addr) -> String {
    format!("gv{:08x}", address.to_bits())
}

fn elements(attached: &[Attachment]) -> String {
    let mut text = String::new();
    for Attachment { address, ports } in attached {
        for PortMapping { container, host } in ports {
            let comma = if text.is_empty() { "" } else { ", " };
            write!(text, "{comma}{host} : {address} . {container}")
                .expect("a String takes whatever is written to it");
        }
    }
    text
}

fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).context(|| format!("write {path}"))
}

fn netlink(what: String, error: &rtnetlink::Error) -> Error {
    Error::Netlink { what, reason: error.to_string() }
}

fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}

/// A host port that no other program can bind while this is alive.
#[derive(Debug)]
pub(super) struct HostPort {
    pub port: u16,
    /// Bound, never listening: connections go to the container before they would get here.
    /// `None` if another program took the port while no node was there to hold it.
    _socket: Option<TcpSocket>,
}

impl HostPort {
    fn reserve(port: u16) -> Option<Self> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).ok()?;
        Some(Self { port, _socket: Some(socket) })
    }

    /// Takes a port of a former process of ours back.
    pub(super) fn adopt(port: u16) -> Self {
        Self::reserve(port).unwrap_or(Self { port, _socket: None })
    }

    /// Takes `wanted` ports of the range that neither we (`taken`) nor other programs use,
    /// looking from `cursor` on so that a port just given back rests for a while.
    pub(super) fn allocate(
        range: &RangeInclusive<u16>,
        cursor: &mut u16,
        wanted: usize,
        taken: impl Fn(u16) -> bool,
    ) -> Result<Vec<Self>> {
        let (first, last) = (*range.start(), *range.end());
        let mut ports = Vec::with_capacity(wanted);
        let start = if range.contains(cursor) { *cursor } else { first };
        for port in (start..=last).chain(first..start) {
            if ports.len() == wanted {
                break;
            }
            if !taken(port) {
                ports.extend(Self::reserve(port));
                *cursor = if port == last { first } else { port + 1 };
            }
        }
        if ports.len() < wanted {
            return Err(Error::PortsExhausted { first, last, wanted, free: ports.len() });
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_all_but_three_addresses_for_containers() {
        let subnet: Subnet = "10.88.1.0/24".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 88, 1, 1));
        assert_eq!(subnet.slots(), 253);
        assert_eq!(subnet.address(0), Ipv4Addr::new(10, 88, 1, 2));
        assert_eq!(subnet.address(252), Ipv4Addr::new(10, 88, 1, 254));
        assert_eq!("10.0.0.0/30".parse::<Subnet>().unwrap().slots(), 1);
        assert_eq!(subnet.to_string(), "10.88.1.0/24");
    }

    #[test]
    fn a_bad_subnet_is_named() {
        for bad in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/8", "x/24", "::/24"] {
            let error = bad.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains("subnet"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_map_names_each_port_once() {
        let attached = [
            Attachment {
                address: Ipv4Addr::new(10, 0, 0, 2),
                ports: vec![
                    PortMapping { container: 8080, host: 61001 },
                    PortMapping { container: 22, host: 61002 },
                ],
            },
            Attachment { address: Ipv4Addr::new(10, 0, 0, 3), ports: vec![] },
            Attachment {
                address: Ipv4Addr::new(10, 0, 0, 4),
                ports: vec![PortMapping { container: 80, host: 61003 }],
            },
        ];
        assert_eq!(
            elements(&attached),
            "61001 : 10.0.0.2 . 8080, 61002 : 10.0.0.2 . 22, 61003 : 10.0.0.4 . 80"
        );
    }

    #[test]
    fn a_bridge_name_fits_the_kernel_and_nft() {
        assert!(check_bridge_name("gavel-br1").is_ok());
        for bad in ["", "0123456789abcdef", "a b", "a\"b", "a;b", "a/b"] {
            assert!(check_bridge_name(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_full_or_used_range_is_named() {
        // Any free port will do: the kernel picks it, and another program (we) listens on it.
        let other = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut cursor = 0;
        let error =
            HostPort::allocate(&(port..=port), &mut cursor, 1, |_| false).unwrap_err().to_string();
        assert_eq!(error, format!("no free host port in {port}-{port}: 1 wanted, 0 free"));
        drop(other);
        let ports = HostPort::allocate(&(port..=port), &mut cursor, 1, |_| false).unwrap();
        assert_eq!(ports[0].port, port);
        assert!(std::net::TcpListener::bind(("0.0.0.0", port)).is_err(), "it is held");
        assert!(HostPort::allocate(&(port..=port), &mut cursor, 1, |p| p == port).is_err());
    }
}
