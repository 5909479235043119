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
    each.filter_map(|text| parse_destination(text.trim()).err()).collect()
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
