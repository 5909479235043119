//! Diego's egress rules as a container has them, and the operator's.

use std::net::IpAddr;

use container::container::{AddressRange, EgressProtocol, EgressRule, NetworkPolicy, PortRange};
use model::egress as diego;

use crate::config::{AllowConfig, NetworkConfig};

/// The rules of a desired LRP or a task.
///
/// What they say of IPv6 opens nothing: containers have none.
///
/// # Errors
///
/// What is wrong with the first that is, in Diego's words.
pub(crate) fn rules(rules: &[diego::EgressRule]) -> Result<Vec<EgressRule>, String> {
    rules.iter().filter_map(|one| rule(one).transpose()).collect()
}

/// What the operator says of all containers.
///
/// # Errors
///
/// What is wrong, with the key that it is under.
pub(crate) fn policy(config: &NetworkConfig) -> Result<NetworkPolicy, String> {
    let ranges = |key: &str, texts: &[String]| -> Result<Vec<AddressRange>, String> {
        let range = |text: &String| text.parse().map_err(|error| format!("{key}: {error}"));
        texts.iter().map(range).collect()
    };
    let allowed = |key: &str, allowed: &[AllowConfig]| {
        let allowed: Vec<_> = allowed.iter().map(diego_rule).collect();
        rules(&allowed).map_err(|text| format!("{key}: {text}"))
    };
    Ok(NetworkPolicy {
        container_networks: ranges("container_networks", &config.container_networks)?,
        container_to_container: config.container_to_container,
        deny: ranges("deny_networks", &config.deny_networks)?,
        allow: allowed("allow", &config.allow)?,
        allow_host: allowed("allow_host", &config.allow_host)?,
    })
}

fn diego_rule(config: &AllowConfig) -> diego::EgressRule {
    let AllowConfig { protocol, destinations, ports, port_range, icmp_info } = config.clone();
    diego::EgressRule {
        protocol,
        destinations,
        ports,
        port_range,
        icmp_info,
        ..diego::EgressRule::default()
    }
}

/// `None` where it is about IPv6 only.
fn rule(rule: &diego::EgressRule) -> Result<Option<EgressRule>, String> {
    if let Some(complaint) = rule.complaint() {
        return Err(complaint);
    }
    let protocol = match rule.protocol.as_str() {
        "tcp" => EgressProtocol::Tcp(ports(rule)?),
        "udp" => EgressProtocol::Udp(ports(rule)?),
        "icmp" => icmp(rule)?,
        "icmpv6" => return Ok(None),
        "all" => EgressProtocol::All,
        _ => return Err(invalid("protocol")),
    };
    let mut destinations = Vec::new();
    for text in rule.destinations.iter().flat_map(|text| text.split(',')) {
        if !is_ipv6(text) {
            let range = text.parse().map_err(|_| invalid("destinations [ Invalid IP ]"))?;
            destinations.push(range);
        }
    }
    let is_empty = destinations.is_empty();
    Ok((!is_empty).then(|| EgressRule::new(protocol, &destinations, rule.log)))
}

fn ports(rule: &diego::EgressRule) -> Result<Vec<PortRange>, String> {
    let port = |number: u32| u16::try_from(number).ok();
    let range = |(first, last)| PortRange::new(port(first)?, port(last)?);
    let (key, pairs) = match rule.port_range {
        Some(both) => ("port_range", vec![(both.start, both.end)]),
        None => ("ports", rule.ports.iter().map(|port| (*port, *port)).collect()),
    };
    let ranges: Option<Vec<_>> = pairs.into_iter().map(range).collect();
    ranges.ok_or_else(|| invalid(key))
}

/// Diego: -1 is any. What has no room in the header's byte is refused here and not earlier, as
/// there.
fn icmp(rule: &diego::EgressRule) -> Result<EgressProtocol, String> {
    let byte = |value: i32| match value {
        -1 => Ok(None),
        value => u8::try_from(value).map(Some).map_err(|_| invalid("icmp_info")),
    };
    let info = rule.icmp_info.ok_or_else(|| invalid("icmp_info"))?;
    Ok(EgressProtocol::Icmp { kind: byte(info.kind)?, code: byte(info.code)? })
}

/// Of a destination that the model has found to be one; a range may begin with version 4 and end
/// with version 6.
fn is_ipv6(destination: &str) -> bool {
    destination.split(['/', '-']).any(|part| matches!(part.parse(), Ok(IpAddr::V6(_))))
}

fn invalid(field: &str) -> String {
    format!("Invalid field: {field}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn given(rule: Value) -> Result<Vec<EgressRule>, String> {
        rules(&[serde_json::from_value(rule).unwrap()])
    }

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    fn ports(pairs: &[(u16, u16)]) -> Vec<PortRange> {
        pairs.iter().map(|(first, last)| PortRange::new(*first, *last).unwrap()).collect()
    }

    #[test]
    fn each_kind_of_rule_has_its_counterpart() {
        let icmp = |kind, code| EgressProtocol::Icmp { kind, code };
        let one = ["10.0.0.1"];
        for (rule, protocol, destinations) in [
            (
                json!({"protocol": "tcp", "ports": [443, 80], "destinations": one}),
                EgressProtocol::Tcp(ports(&[(80, 80), (443, 443)])),
                &one[..],
            ),
            (
                json!({"protocol": "udp", "port_range": {"start": 1, "end": 65535},
                       "destinations": ["10.0.0.0/8", "192.0.2.1-192.0.2.9"]}),
                EgressProtocol::Udp(ports(&[(1, 65_535)])),
                &["10.0.0.0/8", "192.0.2.1-192.0.2.9"],
            ),
            (
                json!({"protocol": "icmp", "icmp_info": {"type": 8, "code": 0},
                       "destinations": one}),
                icmp(Some(8), Some(0)),
                &one,
            ),
            (
                json!({"protocol": "icmp", "icmp_info": {"type": -1, "code": -1},
                       "destinations": one}),
                icmp(None, None),
                &one,
            ),
            (
                json!({"protocol": "icmp", "icmp_info": {"type": 255, "code": -1},
                       "destinations": one}),
                icmp(Some(255), None),
                &one,
            ),
            (
                json!({"protocol": "all", "destinations": ["1.1.1.1,2.2.2.2-2.2.2.3,3.0.0.0/8"]}),
                EgressProtocol::All,
                &["1.1.1.1", "2.2.2.2-2.2.2.3", "3.0.0.0/8"],
            ),
        ] {
            for log in [false, true] {
                let mut rule = rule.clone();
                rule["log"] = log.into();
                let destinations: Vec<_> = destinations.iter().map(|text| range(text)).collect();
                let expected = EgressRule::new(protocol.clone(), &destinations, log);
                assert_eq!(given(rule.clone()), Ok(vec![expected]), "{rule}");
            }
        }
    }

    #[test]
    fn what_is_about_ipv6_opens_nothing() {
        for rule in [
            json!({"protocol": "all", "destinations": ["::/0"]}),
            json!({"protocol": "all", "destinations": ["fd00::1-fd00::9", "::1"]}),
            json!({"protocol": "all", "destinations": ["1.1.1.1-fd00::9", "::1-1.1.1.1"]}),
            json!({"protocol": "icmpv6", "icmp_info": {"type": 1, "code": 1},
                   "destinations": ["10.0.0.1"]}),
        ] {
            assert_eq!(given(rule.clone()), Ok(vec![]), "{rule}");
        }
        let mixed = json!({"protocol": "all", "destinations": ["::/0,10.0.0.1", "fd00::/8"]});
        let expected = EgressRule::new(EgressProtocol::All, &[range("10.0.0.1")], false);
        assert_eq!(given(mixed), Ok(vec![expected]));
    }

    #[test]
    fn a_bad_rule_is_refused_in_diegos_words() {
        let tcp = |ports: Value, destinations: Value| json!({"protocol": "tcp", "ports": ports, "destinations": destinations});
        let any = json!(["10.0.0.1"]);
        for (rule, complaint) in [
            (json!({"protocol": "sctp", "destinations": any}), "Invalid field: protocol"),
            (
                json!({"protocol": "all"}),
                "Invalid field: destinations [ Must have at least 1 destination ]",
            ),
            (tcp(json!([]), any.clone()), "Missing required field: ports or port_range"),
            (tcp(json!([0]), any.clone()), "Invalid field: ports"),
            (tcp(json!([65_536]), any.clone()), "Invalid field: ports"),
            (
                tcp(json!([1]), json!(["10.0.0.1; flush ruleset"])),
                "Invalid field: destinations [ Invalid IP ]",
            ),
            (tcp(json!([1]), json!(["10.0.0.1,"])), "Invalid field: destinations [ Invalid IP ]"),
            (
                tcp(json!([1]), json!(["1.1.1.1, 2.2.2.2"])),
                "Invalid field: destinations [ Invalid IP ]",
            ),
            (
                tcp(json!([1]), json!(["10.0.0.1/33"])),
                "Invalid field: destinations [ invalid CIDR address: 10.0.0.1/33 ]",
            ),
            (
                json!({"protocol": "icmp", "icmp_info": {"type": 256, "code": 0},
                       "destinations": any}),
                "Invalid field: icmp_info",
            ),
            (
                json!({"protocol": "icmp", "icmp_info": {"type": 0, "code": -2},
                       "destinations": any}),
                "Invalid field: icmp_info",
            ),
        ] {
            assert_eq!(given(rule.clone()), Err(complaint.to_owned()), "{rule}");
        }
    }

    /// What the model takes, the kernel is told: or there would be apps that no cell can run.
    #[test]
    fn whatever_the_model_takes_as_a_destination_is_read_here() {
        let texts = [
            "10.0.0.1",
            "10.0.0.0/0",
            "10.0.0.1/32",
            "10.0.0.1-10.0.0.1",
            "10.0.0.1 ",
            "+1.1.1.1",
            "010.0.0.1",
            "10.0.0.1/08",
            "10.0.0.1/+8",
            "10.0.0.1/ 8",
            "10.0.0.1 -10.0.0.2",
            "10.0.0.1- 10.0.0.2",
            "10.0.0.1-10.0.0.2-10.0.0.3",
            "10.0.0.1/8-9",
            "::ffff:10.0.0.1",
            "10.0.0.1-::ffff:10.0.0.2",
            "1.1.1.1-::1",
            "fe80::1%eth0",
            "/8",
            "-",
            "",
            "0x0a.0.0.1",
            "10.1",
        ];
        for text in texts {
            let rule = diego::EgressRule {
                protocol: "all".to_owned(),
                destinations: vec![text.to_owned()],
                ..diego::EgressRule::default()
            };
            assert_eq!(rule.complaint().is_none(), rules(&[rule]).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn the_operators_mistakes_are_named_by_their_key() {
        let said = |text: &str| policy(&toml::from_str(text).unwrap()).unwrap_err();
        assert!(said("deny_networks = ['10.0.0.0/8', 'x']").starts_with("deny_networks: invalid"));
        assert!(said("container_networks = ['::/0']").starts_with("container_networks: invalid"));
        let bad = "[[allow]]\nprotocol = 'tcp'\ndestinations = ['10.0.0.1']";
        assert_eq!(said(bad), "allow: Missing required field: ports or port_range");
        let bad = "[[allow_host]]\nprotocol = 'all'";
        assert_eq!(
            said(bad),
            "allow_host: Invalid field: destinations [ Must have at least 1 destination ]"
        );
        assert!(toml::from_str::<NetworkConfig>("[[allow]]\nprotcol = 'tcp'").is_err());
        assert_eq!(policy(&NetworkConfig::default()), Ok(NetworkPolicy::default()));
    }
}
