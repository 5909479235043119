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
    bad.sentence("Must have at least 1 destination", rule.destinations.is_empty());
    for destination in rule.destinations.iter().flat_map(|text| text.split(',')) {
        if let Err(reason) = parse_destination(destination.trim()) {
            bad.field(&format!("destinations [ {reason} ]"), true);
        }
    }
    bad
}

fn ports(bad: &mut BadFields, rule: &EgressRule) {
    let is_port = |port: u32| (1..=u32::from(u16::MAX)).contains(&port);
    match (rule.ports.is_empty(), rule.port_range) {
        (true, None) => bad.sentence("Missing required field: ports or port_range", true),
        (false, Some(_)) => bad.sentence("Invalid: ports and port_range provided", true),
        (false, None) => bad.field("ports", !rule.ports.iter().all(|port| is_port(*port))),
        (true, Some(range)) => {
            let is_range = is_port(range.start) && is_port(range.end) && range.start <= range.end;
            bad.field("port_range", !is_range);
        }
    }
}

fn no_ports(bad: &mut BadFields, rule: &EgressRule) {
    bad.field("ports", !rule.ports.is_empty());
    bad.field("port_range", rule.port_range.is_some());
}

/// An address, a CIDR block (RFC 4632), or a range of addresses.
fn parse_destination(text: &str) -> Result<(), String> {
    const INVALID: &str = "Invalid IP";
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| INVALID.to_owned());
    if let Some((network, prefix)) = text.split_once('/') {
        let invalid = || format!("invalid CIDR address: {text}");
        let bits_max = match address(network).map_err(|_| invalid())? {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        // Digits only, as Go's `net.ParseCIDR` has it: no sign.
        let bits: u8 = prefix.parse().map_err(|_| invalid())?;
        let is_prefix = bits <= bits_max && !prefix.starts_with('+');
        return if is_prefix { Ok(()) } else { Err(invalid()) };
    }
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (address(first)?, address(last)?);
        let is_range = first.is_ipv4() == last.is_ipv4() && first <= last;
        return if is_range { Ok(()) } else { Err(INVALID.to_owned()) };
    }
    address(text).map(drop)
}
