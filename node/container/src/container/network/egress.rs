//! What containers may reach: rules of one container, and what the operator lets all of them.
//!
//! Diego: security groups, which its cells hand to garden as `NetOutRule`s.
//! Every rule opens something; only the operator closes.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::error::{Error, Result};
use super::subnet::Subnet;

/// Opens what it names to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRule {
    pub(super) protocol: EgressProtocol,
    pub(super) destinations: Vec<AddressRange>,
    pub(super) log: bool,
}

/// What an [`EgressRule`] opens at its destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EgressProtocol {
    /// These ports of TCP.
    Tcp(Vec<PortRange>),
    /// These ports of UDP.
    Udp(Vec<PortRange>),
    /// ICMP (RFC 792); `None` is any.
    Icmp {
        /// The message's type.
        kind: Option<u8>,
        /// The message's code.
        code: Option<u8>,
    },
    /// Everything.
    All,
}

/// IPv4 addresses that follow each other, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// Ports that follow each other, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// What the node's operator says of all its containers.
///
/// What it does not close and no rule opens stays closed where it is the host itself, another
/// container or link-local (RFC 3927, where clouds have their metadata), and is open elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Where containers of the cluster are besides this node's subnet: reached by a route, each
    /// under its own address.
    pub container_networks: Vec<AddressRange>,
    /// Whether containers reach each other, here and in `container_networks`.
    pub container_to_container: bool,
    /// Closed, unless a rule opens it.
    pub deny: Vec<AddressRange>,
    /// Open to every container; not what is the host's own.
    pub allow: Vec<EgressRule>,
    /// Open to every container where it is the host's own.
    pub allow_host: Vec<EgressRule>,
}

impl EgressRule {
    /// Opens what `protocol` says at the destinations.
    ///
    /// With `log` the first packet of each connection that it lets through is told in the
    /// kernel's log, with the container's name; of very many, some
    /// ([`EGRESS_LOGS_PER_SECOND_MAX`](crate::limits::EGRESS_LOGS_PER_SECOND_MAX)).
    pub fn new(protocol: EgressProtocol, destinations: &[AddressRange], log: bool) -> Self {
        let protocol = match protocol {
            EgressProtocol::Tcp(ports) => EgressProtocol::Tcp(merge_ports(&ports)),
            EgressProtocol::Udp(ports) => EgressProtocol::Udp(merge_ports(&ports)),
            other @ (EgressProtocol::Icmp { .. } | EgressProtocol::All) => other,
        };
        Self { protocol, destinations: merge_addresses(destinations), log }
    }

    /// How many rules the kernel has of it: one for each of its destinations with each of its
    /// ports.
    pub(in super::super) fn size(&self) -> usize {
        let ports = match &self.protocol {
            EgressProtocol::Tcp(ports) | EgressProtocol::Udp(ports) => ports.len(),
            EgressProtocol::Icmp { .. } | EgressProtocol::All => 1,
        };
        self.destinations.len().saturating_mul(ports)
    }
}

impl AddressRange {
    /// Every address there is.
    pub const ALL: Self = Self { first: Ipv4Addr::UNSPECIFIED, last: Ipv4Addr::BROADCAST };
    /// Of every host itself (RFC 1122, 3.2.1.3).
    pub(super) const LOOPBACK: Self =
        Self { first: Ipv4Addr::new(127, 0, 0, 0), last: Ipv4Addr::new(127, 255, 255, 255) };
    /// RFC 3927.
    pub(super) const LINK_LOCAL: Self =
        Self { first: Ipv4Addr::new(169, 254, 0, 0), last: Ipv4Addr::new(169, 254, 255, 255) };

    /// `None` where the last comes before the first.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Its first address.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// Its last address.
    pub fn last(self) -> Ipv4Addr {
        self.last
    }

    /// Whether the address is one of it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// The addresses of a CIDR block (RFC 4632); what is behind the prefix does not count.
    fn block(address: Ipv4Addr, prefix: u32) -> Option<Self> {
        let behind = u32::MAX.checked_shr(prefix).unwrap_or(0);
        let first = address.to_bits() & !behind;
        let range = Self { first: first.into(), last: (first | behind).into() };
        (prefix <= 32).then_some(range)
    }
}

impl From<Subnet> for AddressRange {
    fn from(subnet: Subnet) -> Self {
        Self { first: subnet.first(), last: subnet.last() }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last == self.first { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

impl FromStr for AddressRange {
    type Err = Error;
    /// `10.0.0.1`, `10.0.0.0/8` or `10.0.0.1-10.0.0.9`.
    fn from_str(text: &str) -> Result<Self> {
        let address = |text: &str| text.parse::<Ipv4Addr>().ok();
        let range = if let Some((address_of, prefix)) = text.split_once('/') {
            let prefix = prefix.parse().ok().filter(|_| !prefix.starts_with('+'));
            address(address_of).zip(prefix).and_then(|(one, prefix)| Self::block(one, prefix))
        } else if let Some((first, last)) = text.split_once('-') {
            address(first).zip(address(last)).and_then(|(first, last)| Self::new(first, last))
        } else {
            address(text).and_then(|one| Self::new(one, one))
        };
        range.ok_or_else(|| Error::Invalid {
            what: format!("addresses {text:?}"),
            reason: "they are not of the form 10.0.0.1, 10.0.0.0/8 or 10.0.0.1-10.0.0.9".to_owned(),
        })
    }
}

impl TryFrom<String> for AddressRange {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

impl PortRange {
    /// `None` where the last comes before the first.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Its first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// Its last port.
    pub fn last(self) -> u16 {
        self.last
    }
}

/// The same addresses in as few ranges as there can be.
fn merge_addresses(ranges: &[AddressRange]) -> Vec<AddressRange> {
    let bits = |one: &AddressRange| (one.first.to_bits(), one.last.to_bits());
    let merged = merge(ranges.iter().map(bits).collect());
    merged
        .into_iter()
        .map(|(first, last)| AddressRange { first: first.into(), last: last.into() })
        .collect()
}

/// The same ports in as few ranges as there can be.
fn merge_ports(ranges: &[PortRange]) -> Vec<PortRange> {
    let numbers = |one: &PortRange| (u32::from(one.first), u32::from(one.last));
    let merged = merge(ranges.iter().map(numbers).collect());
    let port = |number| u16::try_from(number).expect("it was a port's");
    merged
        .into_iter()
        .map(|(first, last)| PortRange { first: port(first), last: port(last) })
        .collect()
}

fn merge(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_as_single_ones_blocks_and_ranges() {
        for (text, written) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.1.2.3/8", "10.0.0.0-10.255.255.255"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0-255.255.255.255"),
            ("255.255.255.255/1", "128.0.0.0-255.255.255.255"),
            ("10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9"),
            ("10.0.0.9-10.0.0.9", "10.0.0.9"),
        ] {
            assert_eq!(range(text).to_string(), written);
            assert_eq!(range(&range(text).to_string()), range(text));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_named() {
        for bad in [
            "",
            " ",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "10.0.0.1/33",
            "10.0.0.1/-1",
            "10.0.0.1/+8",
            "10.0.0.1/",
            "10.0.0.1/8/8",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-10.0.0.2-10.0.0.3",
            "-10.0.0.1",
            "10.0.0.1-",
            "::1",
            "10.0.0.1; flush ruleset",
            "10.0.0.1\n",
        ] {
            let error = bad.parse::<AddressRange>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let ranges = ["10.0.0.5-10.0.0.9", "10.0.0.0-10.0.0.4", "10.0.0.7", "10.0.1.0/24"];
        let merged = merge_addresses(&ranges.map(range));
        assert_eq!(merged, [range("10.0.0.0-10.0.0.9"), range("10.0.1.0/24")]);
        let all = merge_addresses(&[AddressRange::ALL, range("1.1.1.1"), AddressRange::ALL]);
        assert_eq!(all, [AddressRange::ALL]);
        let ports = [(80, 80), (81, 90), (65_535, 65_535), (92, 95)];
        let merged = merge_ports(&ports.map(|(first, last)| PortRange { first, last }));
        let pairs: Vec<_> = merged.iter().map(|one| (one.first(), one.last())).collect();
        assert_eq!(pairs, [(80, 90), (92, 95), (65_535, 65_535)]);
    }

    proptest! {
        #[test]
        fn merging_changes_no_members(
            ranges in proptest::collection::vec((0..200_u32, 0..20_u32), 0..20),
            asked in 0..250_u32,
        ) {
            let ranges: Vec<(u32, u32)> =
                ranges.into_iter().map(|(first, more)| (first, first + more)).collect();
            let merged = merge(ranges.clone());
            let has = |ranges: &[(u32, u32)]| {
                ranges.iter().any(|(first, last)| (first..=last).contains(&&asked))
            };
            prop_assert_eq!(has(&ranges), has(&merged));
            prop_assert!(merged.is_sorted_by(|one, next| one.1 + 1 < next.0));
        }
    }
}
