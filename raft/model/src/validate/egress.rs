//! Egress rules: which fields go with which protocol, and destinations that can be parsed.

use std::net::IpAddr;

use super::BadFields;
use crate::egress::EgressRule;

pub(super) fn bad_fields(rule: &EgressRule) -> BadFields {
    let mut bad = BadFields::default();
    match rule.protocol.as_str() {
        "tcp" | "udp" => {
            ports(&mut bad, rule);
            bad.field("icmp_info", rule.icmp_info.is_some());
        }
        "icmp" => {
            no_ports(&mut bad, rule);
            bad.field("icmp_info", rule.icmp_info.is_none());
        }
        "icmpv6" => {
            no_ports(&mut bad, rule);
            bad.field("icmpv6_info", rule.icmp_info.is_none());
        }
        "all" => {
            no_ports(&mut bad, rule);
            bad.field("icmp_info", rule.icmp_info.is_some());
        }
        _ => bad.field("protocol", true),
    }
    let reasons = bad_destinations(&rule.destinations);
    bad.field(&format!("destinations [ {} ]", reasons.join(", ")), !reasons.is_empty());
    bad
}

fn bad_destinations(destinations: &[String]) -> Vec<String> {
    if destinations.is_empty() {
        return vec!["Must have at least 1 destination".to_owned()];
    }
    let each = destinations.iter().flat_map(|text| text.split(','));
    each.flat_map(complaints_of_destination).collect()
}

fn ports(bad: &mut BadFields, rule: &EgressRule) {
    let is_port = |port: u32| (1..=u32::from(u16::MAX)).contains(&port);
    match (rule.ports.is_empty(), rule.port_range) {
        (true, None) => bad.sentence("Missing required field: ports or port_range", true),
        (false, Some(_)) => bad.sentence("Invalid: ports and port_range provided", true),
        (false, None) => {
            for port in &rule.ports {
                bad.field("ports", !is_port(*port));
            }
        }
        (true, Some(range)) => {
            bad.field("port_range", !is_port(range.start));
            bad.field("port_range", !is_port(range.end));
            bad.field("port_range", range.start > range.end);
        }
    }
}

fn no_ports(bad: &mut BadFields, rule: &EgressRule) {
    bad.field("port_range", rule.port_range.is_some());
    bad.field("ports", !rule.ports.is_empty());
}

/// An address, a CIDR block (RFC 4632), or a range of addresses: whichever sign comes first says
/// which of these. No blanks are dropped.
fn complaints_of_destination(text: &str) -> Vec<String> {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    let faults = match text.find(['-', '/']).map(|at| (text.split_at(at), &text[at + 1..])) {
        None => usize::from(address(text).is_none()),
        Some(((network, rest), prefix)) if rest.starts_with('/') => {
            let is_block = address(network).is_some_and(|network| is_prefix(network, prefix));
            return if is_block { vec![] } else { vec![format!("invalid CIDR address: {text}")] };
        }
        Some(((first, _), last)) => address(first)
            .zip(address(last))
            .map_or(1, |(first, last)| faults_of_range(first, last)),
    };
    vec!["Invalid IP".to_owned(); faults]
}

/// Digits only, as Go's `net.ParseCIDR` has it: no sign.
fn is_prefix(network: IpAddr, prefix: &str) -> bool {
    let bits_max = if network.is_ipv4() { 32 } else { 128 };
    prefix.parse::<u8>().is_ok_and(|bits| bits <= bits_max) && !prefix.starts_with('+')
}

/// Diego compares the 16 bytes of both, of version 4 as mapped ones, and complains of each byte
/// that is greater than the other's, up to the first that is less.
fn faults_of_range(first: IpAddr, last: IpAddr) -> usize {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let pairs = bytes(first).into_iter().zip(bytes(last));
    pairs.take_while(|(first, last)| first >= last).filter(|(first, last)| first > last).count()
}
