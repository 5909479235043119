//! Egress rules: what a container may reach.

use serde::{Deserialize, Serialize};

/// Diego: `models.SecurityGroupRule`. Which fields go with which protocol is validated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressRule {
    /// `tcp`, `udp`, `icmp`, `icmpv6` or `all`.
    pub protocol: String,
    /// Addresses, CIDR blocks and `first-last` ranges; each text may hold several, with commas.
    pub destinations: Vec<String>,
    pub ports: Vec<u32>,
    pub port_range: Option<PortRange>,
    pub icmp_info: Option<IcmpInfo>,
    /// Whether what it lets through is logged.
    pub log: bool,
    pub annotations: Vec<String>,
}

impl EgressRule {
    /// What is wrong with it, if anything, in the words in which Diego refuses it.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        crate::validate::egress_rule(self)
    }
}

/// Both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortRange {
    pub start: u32,
    pub end: u32,
}

/// RFC 792's type and code; -1 is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IcmpInfo {
    #[serde(rename = "type")]
    pub kind: i32,
    pub code: i32,
}
