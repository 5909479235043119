//! The node's container network: one link per container, and the tables that say what passes.
//!
//! Each container has a link of its own to the host, which routes (no bridge): no two containers
//! share a wire, so none sees, answers for or speaks as another, whatever frames it makes.
//! Both ends of a link have the same hardware address and no ARP: there is nobody to ask for.
//! The gateway's address is on a bridge without ports, which holds the node's name and subnet on
//! the machine, and nothing else.
//!
//! How a packet to a host port travels: both hooks `prerouting` (from elsewhere) and `output`
//! (from this host) rewrite its destination by the map `ports`.
//! A packet from 127.0.0.1 may leave by a link because of `route_localnet`, with the gateway's
//! address as its source; in return `guard` drops what a container sends to 127/8 (Kubernetes had
//! CVE-2020-8558 for want of that rule).
//!
//! What it never does: start another program, or touch another's table, link or rules.

mod egress;
mod host_port;
mod link;
mod netfilter;
mod rules;
mod subnet;
mod table;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::error::{Context as _, Error, Result};
use super::runtime::AbortOnDrop;
use super::spec::{ContainerId, PortMapping};
use link::{index_of, remove_link};
use rules::Rules;
use table::Tables;

pub use egress::{AddressRange, EgressProtocol, EgressRule, NetworkPolicy, PortRange};
pub(super) use host_port::HostPort;
pub use subnet::Subnet;

/// The kernel's bound on what it writes before a logged packet (`NF_LOG_PREFIXLEN`, with its
/// zero).
const LOG_PREFIX_BYTES: usize = 128;

/// What a container has in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub id: ContainerId,
    pub address: Ipv4Addr,
    pub ports: Vec<PortMapping>,
    pub egress: Vec<EgressRule>,
}

impl Attachment {
    /// Whether the tables have anything that is this container's only.
    fn has_entries(&self) -> bool {
        !self.ports.is_empty() || !self.egress.is_empty()
    }

    fn is_logged(&self) -> bool {
        self.egress.iter().any(|rule| rule.log)
    }

    /// What the kernel's log names the container by: an id is plain text of one byte letters.
    fn log_prefix(&self) -> String {
        let id: String = self.id.as_str().chars().take(LOG_PREFIX_BYTES - 16).collect();
        format!("gavel {id}: ")
    }
}

/// The links and the tables of one node.
#[derive(Debug)]
pub(super) struct Network {
    bridge: String,
    subnet: Subnet,
    /// What passes.
    pub rules: Rules,
    netlink: Handle,
    /// What drives `netlink`.
    _connection: AbortOnDrop,
}

impl Network {
    /// Makes gateway and tables as they must be, whatever was there before, with the ports and
    /// rules of `attached` from the first packet on; `slots` containers have an address.
    pub(super) async fn open(
        bridge: &str,
        subnet: Subnet,
        slots: u32,
        policy: NetworkPolicy,
        attached: Vec<Attachment>,
    ) -> Result<Self> {
        check_bridge_name(bridge)?;
        let (connection, netlink, _) =
            rtnetlink::new_connection().context(|| "open a netlink socket".to_owned())?;
        let connection = AbortOnDrop(tokio::spawn(connection).abort_handle());
        let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let tables = Tables::new(bridge, subnet, slots, policy, has_ipv6);
        let is_new = attached.is_empty();
        let network = Self {
            bridge: bridge.to_owned(),
            subnet,
            rules: Rules::open(tables, attached)?,
            netlink,
            _connection: connection,
        };
        match network.set_up().await {
            Ok(()) => Ok(network),
            Err(error) => {
                // Nobody uses it yet: leave the host as it was.
                if is_new {
                    let _ = remove_link(bridge).await;
                }
                Err(error)
            }
        }
    }

    async fn set_up(&self) -> Result<()> {
        self.open_gateway().await?;
        write_sysctl("ipv4/ip_forward", "1")?;
        self.rules.replace().await
    }

    async fn open_gateway(&self) -> Result<()> {
        let (name, gateway) = (&self.bridge, self.subnet.gateway());
        let bridge = LinkBridge::new(name).address(hardware_address(gateway)).up().build();
        match self.netlink.link().add(bridge).execute().await {
            Err(e) if !is(&e, Errno::EEXIST) => {
                return Err(netlink(format!("create bridge {name}"), &e));
            }
            Ok(()) | Err(_) => {}
        }
        let index = index_of(name).ok_or_else(|| vanished("bridge", name))?;
        // The whole subnet is behind it: what has no link of its own goes nowhere else.
        let mut address =
            self.netlink.address().add(index, IpAddr::V4(gateway), self.subnet.prefix());
        address.message_mut().header.scope =
            rtnetlink::packet_route::address::AddressScope::Universe;
        match address.execute().await {
            Err(e) if !is(&e, Errno::EEXIST) => {
                return Err(Error::Address {
                    bridge: name.clone(),
                    address: gateway,
                    reason: e.to_string(),
                });
            }
            Ok(()) | Err(_) => {}
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        let set = self.netlink.link().set(up).execute().await;
        set.map_err(|e| netlink(format!("set bridge {name} up"), &e))
    }

    /// Gives the network namespace of the process `pid` an `eth0` that leads here.
    /// Its address is set from inside.
    pub(super) async fn connect(&self, address: Ipv4Addr, pid: u32) -> Result<()> {
        let name = link_name(address);
        let hardware = hardware_address(address);
        let mut peer = LinkMessage::default();
        peer.header.flags = LinkFlags::Noarp;
        peer.header.change_mask = LinkFlags::Noarp;
        peer.attributes.push(LinkAttribute::IfName("eth0".to_owned()));
        peer.attributes.push(LinkAttribute::NetNsPid(pid));
        peer.attributes.push(LinkAttribute::Address(hardware.clone()));
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name.clone())
            .address(hardware)
            .link_group(self.rules.group())
            .arp(false)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let added = self.netlink.link().add(pair).execute().await;
        added.map_err(|e| netlink(format!("create link {name}"), &e))?;
        write_sysctl(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        write_sysctl_if_there(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
        let index = index_of(&name).ok_or_else(|| vanished("link", &name))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .pref_source(self.subnet.gateway())
            .scope(RouteScope::Link)
            .build();
        let added = self.netlink.route().add(route).execute().await;
        added.map_err(|e| netlink(format!("route {address} to link {name}"), &e))
    }

    /// Takes the link away; done if it is not there.
    pub(super) async fn disconnect(address: Ipv4Addr) -> Result<()> {
        remove_link(&link_name(address)).await
    }

    /// Removes gateway and tables.
    pub(super) async fn close(&self) -> Result<()> {
        self.rules.remove().await?;
        remove_link(&self.bridge).await
    }
}

fn check_bridge_name(bridge: &str) -> Result<()> {
    // IFNAMSIZ is 16 with its zero; the first letter is for nftables' names.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if bridge.is_empty() || bridge.len() >= libc::IFNAMSIZ || !bridge.chars().all(plain) {
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

/// Of whatever has this address: locally administered (IEEE 802, the second bit), so that it is
/// no card's.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x02, 0x67, a, b, c, d]
}

/// By /proc, which shows the network of whoever looks; sysfs shows that of whoever mounted it.
fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).context(|| format!("write {path}"))
}

fn write_sysctl_if_there(name: &str, value: &str) -> Result<()> {
    match write_sysctl(name, value) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn netlink(what: String, error: &rtnetlink::Error) -> Error {
    Error::Netlink { what, reason: error.to_string() }
}

fn vanished(kind: &str, name: &str) -> Error {
    Error::Netlink { what: format!("find {kind} {name}"), reason: "it vanished".to_owned() }
}

fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_name_fits_the_kernel_and_nft() {
        assert!(check_bridge_name("gavel-br1").is_ok());
        for bad in ["", "0123456789abcdef", "a b", "a\"b", "a;b", "a/b"] {
            assert!(check_bridge_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_log_names_the_container_within_the_kernels_bound() {
        let attachment = |id: &str| Attachment {
            id: ContainerId::new(id).unwrap(),
            address: Ipv4Addr::new(10, 0, 0, 2),
            ports: vec![],
            egress: vec![],
        };
        assert_eq!(attachment("lrp-7").log_prefix(), "gavel lrp-7: ");
        assert!(attachment(&"x".repeat(128)).log_prefix().len() < LOG_PREFIX_BYTES);
    }
}
