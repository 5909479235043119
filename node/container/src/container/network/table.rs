//! What is in the node's tables: which packet goes where, and which nowhere.
//!
//! A packet of a container meets, in this order:
//!
//! - `guard`: it comes by the container's own link under the container's own address, and not to
//!   the host's loopback, or is dropped. What has no address of its own here (IPv6) is dropped.
//! - `prerouting`: a published port of this host becomes a port of its container.
//! - `input`, if it is for the host itself: names on the gateway, and what the operator opens.
//! - `from_container`, if it goes elsewhere: other containers as the operator says; then what the
//!   container's own rules open, what the operator opens, what is closed; the rest is open.
//!
//! A packet to a container, by `to_container`: only where somebody asked a published port of this
//! host, or the container spoke first, or it comes from a container that may.
//! What this host itself says to a container is not looked at.
//!
//! A rule of Diego's opens and never closes, so which of two comes first shows only in the log;
//! there the later one has precedence, as with Diego (`executor.md`, 12).

use std::net::Ipv4Addr;

use nix::libc;

use super::egress::{AddressRange, EgressProtocol, EgressRule, NetworkPolicy, PortRange};
use super::netfilter::{
    Batch, DESTINATION_CHANGED, Data, Datatype, ESTABLISHED, Element, Family, Field, Hook, INVALID,
    LOCAL, Point, RELATED, Rule, Set, Table, Verdict,
};
use super::{Attachment, link_name, subnet::Subnet};
use crate::limits::{EGRESS_LOGS_AT_ONCE_MAX, EGRESS_LOGS_PER_SECOND_MAX};

/// Host port to container.
const PORTS: Set =
    Set { name: "ports", key: &[Datatype::Port], data: &[Datatype::Address, Datatype::Port] };
/// Container to the chain of its own rules.
const EGRESS: Set = Set { name: "egress", key: &[Datatype::Address], data: &[Datatype::Verdict] };
/// Which link has which address: all that there can be, so that no container waits for it, and
/// a link that should not be there has nothing to say.
const SENDERS: Set =
    Set { name: "senders", key: &[Datatype::InterfaceName, Datatype::Address], data: &[] };

/// The kernel's priorities of these names (`enum nf_ip_hook_priorities`).
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// The port of DNS (RFC 1035, 4.2).
const DNS: u16 = 53;

/// The tables of one node.
#[derive(Debug)]
pub(super) struct Tables {
    ipv4: Table,
    /// `None` where the kernel has no IPv6.
    ipv6: Option<Table>,
    subnet: Subnet,
    slots: u32,
    policy: NetworkPolicy,
}

impl Tables {
    /// `slots` addresses of the subnet are given to containers.
    pub(super) fn new(
        name: &str,
        subnet: Subnet,
        slots: u32,
        policy: NetworkPolicy,
        has_ipv6: bool,
    ) -> Self {
        let table = |family| Table { family, name: format!("gavel_{name}") };
        let ipv6 = has_ipv6.then(|| table(Family::Ipv6));
        Self { ipv4: table(Family::Ipv4), ipv6, subnet, slots, policy }
    }

    /// The group that all links of the node's containers are in: a number that is the node's own
    /// on its machine, as its gateway's address is.
    pub(super) fn group(&self) -> u32 {
        self.subnet.gateway().to_bits()
    }

    /// The tables as they must be, in place of former ones.
    pub(super) fn replace<'a>(&self, attached: impl Iterator<Item = &'a Attachment>) -> Batch {
        let mut batch = self.remove();
        batch.add_table(&self.ipv4);
        for set in [&PORTS, &EGRESS, &SENDERS] {
            batch.add_set(&self.ipv4, set);
        }
        let senders: Vec<Element> = (0..self.slots).map(|slot| self.sender(slot)).collect();
        batch.add_elements(&self.ipv4, &SENDERS, &senders);
        self.add_guard(&mut batch);
        self.add_translation(&mut batch);
        self.add_input(&mut batch);
        self.add_forward(&mut batch);
        if let Some(ipv6) = &self.ipv6 {
            self.add_ipv6(&mut batch, ipv6);
        }
        for attachment in attached {
            self.add(&mut batch, attachment);
        }
        batch
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Table> {
        std::iter::once(&self.ipv4).chain(&self.ipv6)
    }

    /// Everything away, whether it is there or not.
    pub(super) fn remove(&self) -> Batch {
        let mut batch = Batch::new();
        for table in self.all() {
            // Deleting what is absent fails, adding what is there does not.
            batch.add_table(table);
            batch.delete_table(table);
        }
        batch
    }

    /// A container's ports and rules; `None` if it has none.
    pub(super) fn attach(&self, attachment: &Attachment) -> Option<Batch> {
        let mut batch = Batch::new();
        self.add(&mut batch, attachment);
        attachment.has_entries().then_some(batch)
    }

    /// The same away, whether they are there or not; `None` if it has none.
    pub(super) fn detach(&self, attachment: &Attachment) -> Option<Batch> {
        let mut batch = Batch::new();
        let (table, chain) = (&self.ipv4, chain_name(attachment.address));
        let ports = ports(attachment);
        batch.add_elements(table, &PORTS, &ports);
        batch.delete_elements(table, &PORTS, &ports);
        if !attachment.egress.is_empty() {
            let jump = [jump(attachment.address)];
            batch.add_chain(table, &chain, None);
            batch.add_elements(table, &EGRESS, &jump);
            batch.delete_elements(table, &EGRESS, &jump);
            batch.delete_chain(table, &chain);
        }
        if attachment.is_logged() {
            let log = log_name(attachment.address);
            batch.add_chain(table, &log, None);
            batch.delete_chain(table, &log);
        }
        attachment.has_entries().then_some(batch)
    }

    fn add(&self, batch: &mut Batch, attachment: &Attachment) {
        let table = &self.ipv4;
        batch.add_elements(table, &PORTS, &ports(attachment));
        if attachment.egress.is_empty() {
            return;
        }
        let (chain, log) = (chain_name(attachment.address), log_name(attachment.address));
        if attachment.is_logged() {
            batch.add_chain(table, &log, None);
            let told = Rule::default()
                .at_most(EGRESS_LOGS_PER_SECOND_MAX, EGRESS_LOGS_AT_ONCE_MAX)
                .logged(&attachment.log_prefix());
            batch.add_rule(table, &log, &told);
            batch.add_rule(table, &log, &Rule::default().then(&Verdict::Accept));
        }
        batch.add_chain(table, &chain, None);
        for rule in attachment.egress.iter().rev() {
            let verdict = if rule.log { Verdict::Goto(log.clone()) } else { Verdict::Accept };
            add_egress_rule(batch, table, &chain, rule, &verdict);
        }
        batch.add_elements(table, &EGRESS, &[jump(attachment.address)]);
    }

    fn sender(&self, slot: u32) -> Element {
        let address = self.subnet.address(slot);
        let mut key = link_name(address).into_bytes();
        key.resize(libc::IFNAMSIZ, 0);
        key.extend(address.octets());
        Element { key, data: Data::None }
    }

    fn sent_by_containers(&self) -> Rule {
        Rule::default().when(Field::InputGroup, &self.group().to_ne_bytes())
    }

    fn sent_to_containers(&self) -> Rule {
        Rule::default().when(Field::OutputGroup, &self.group().to_ne_bytes())
    }

    fn sent_by_others(&self) -> Rule {
        Rule::default().unless(Field::InputGroup, &self.group().to_ne_bytes())
    }

    /// Where the cluster's containers are, as seen from here.
    fn container_networks(&self) -> impl Iterator<Item = AddressRange> {
        std::iter::once(self.subnet.into()).chain(self.policy.container_networks.iter().copied())
    }

    fn add_guard(&self, batch: &mut Batch) {
        let hook = Hook { kind: "filter", point: Point::Prerouting, priority: RAW };
        let loopback = within(Rule::default(), Field::DestinationAddress, AddressRange::LOOPBACK);
        let spoofed =
            Rule::default().unless_in(&[Field::InputName, Field::SourceAddress], &SENDERS);
        let rules = [
            self.sent_by_others().then(&Verdict::Accept),
            spoofed.then(&Verdict::Drop),
            loopback.then(&Verdict::Drop),
        ];
        self.add_chain(batch, "guard", hook, &rules);
    }

    fn add_ipv6(&self, batch: &mut Batch, ipv6: &Table) {
        let into = Hook { kind: "filter", point: Point::Prerouting, priority: RAW };
        let out_of = Hook { kind: "filter", point: Point::Postrouting, priority: SRCNAT };
        batch.add_table(ipv6);
        batch.add_chain(ipv6, "from_container", Some(into));
        batch.add_rule(ipv6, "from_container", &self.sent_by_containers().then(&Verdict::Drop));
        batch.add_chain(ipv6, "to_container", Some(out_of));
        batch.add_rule(ipv6, "to_container", &self.sent_to_containers().then(&Verdict::Drop));
    }

    /// Published ports, and the addresses under which packets leave.
    fn add_translation(&self, batch: &mut Batch) {
        let published = || {
            Rule::default()
                .when(Field::DestinationKind, &LOCAL.to_ne_bytes())
                .when(Field::Protocol, &[TCP])
                .redirected_by(&PORTS)
        };
        let nat = |point, priority| Hook { kind: "nat", point, priority };
        self.add_chain(batch, "prerouting", nat(Point::Prerouting, DSTNAT), &[published()]);
        self.add_chain(batch, "output", nat(Point::Output, DSTNAT), &[published()]);

        let gateway = self.subnet.gateway();
        let ours = self.subnet.into();
        let mut rules = vec![
            // A container knows no way back to the host's loopback addresses,
            within(self.sent_to_containers(), Field::SourceAddress, AddressRange::LOOPBACK)
                .comes_from(gateway),
            // and takes no packet from itself: what it says to its own host port.
            within(self.sent_to_containers(), Field::SourceAddress, ours)
                .when_any(Field::Status, DESTINATION_CHANGED)
                .comes_from(gateway),
        ];
        // Containers have ways to each other without the host's help.
        rules.extend(self.container_networks().map(|network| {
            let between = within(Rule::default(), Field::SourceAddress, ours);
            within(between, Field::DestinationAddress, network).then(&Verdict::Accept)
        }));
        rules.push(within(Rule::default(), Field::SourceAddress, ours).masquerades());
        self.add_chain(batch, "postrouting", nat(Point::Postrouting, SRCNAT), &rules);
    }

    fn add_input(&self, batch: &mut Batch) {
        const CHAIN: &str = "input";
        let hook = Hook { kind: "filter", point: Point::Input, priority: FILTER };
        let gateway = self.subnet.gateway().octets();
        let names = |protocol| {
            Rule::default()
                .when(Field::DestinationAddress, &gateway)
                .when(Field::Protocol, &[protocol])
                .when(Field::DestinationPort, &DNS.to_be_bytes())
                .then(&Verdict::Accept)
        };
        let first =
            [self.sent_by_others().then(&Verdict::Accept), answers(), names(UDP), names(TCP)];
        self.add_chain(batch, CHAIN, hook, &first);
        for rule in &self.policy.allow_host {
            add_egress_rule(batch, &self.ipv4, CHAIN, rule, &Verdict::Accept);
        }
        self.refuse(batch, CHAIN, Rule::default);
    }

    fn add_forward(&self, batch: &mut Batch) {
        const FROM: &str = "from_container";
        const TO: &str = "to_container";
        let table = &self.ipv4;
        let goto = |chain: &str| Verdict::Goto(chain.to_owned());
        batch.add_chain(table, FROM, None);
        batch.add_chain(table, TO, None);
        let hook = Hook { kind: "filter", point: Point::Forward, priority: FILTER };
        let ways = [
            self.sent_by_containers().then(&goto(FROM)),
            self.sent_to_containers().then(&goto(TO)),
        ];
        self.add_chain(batch, "forward", hook, &ways);

        let may = self.policy.container_to_container;
        let closed = std::iter::once(&AddressRange::LINK_LOCAL).chain(&self.policy.deny).copied();
        let to = |range| within(Rule::default(), Field::DestinationAddress, range);
        batch.add_rule(table, FROM, &answers());
        let invalid = Rule::default().when_any(Field::State, INVALID);
        batch.add_rule(table, FROM, &invalid.then(&Verdict::Drop));
        for network in self.container_networks() {
            if may {
                batch.add_rule(table, FROM, &to(network).then(&Verdict::Accept));
            } else {
                self.refuse(batch, FROM, || to(network));
            }
        }
        let own = Rule::default().decided_by(Field::SourceAddress, &EGRESS);
        batch.add_rule(table, FROM, &own);
        for rule in &self.policy.allow {
            add_egress_rule(batch, table, FROM, rule, &Verdict::Accept);
        }
        for range in closed {
            self.refuse(batch, FROM, || to(range));
        }

        batch.add_rule(table, TO, &answers());
        let published = Rule::default().when_any(Field::Status, DESTINATION_CHANGED);
        batch.add_rule(table, TO, &published.then(&Verdict::Accept));
        if may {
            for network in self.container_networks() {
                let rule = within(Rule::default(), Field::SourceAddress, network);
                batch.add_rule(table, TO, &rule.then(&Verdict::Accept));
            }
        }
        batch.add_rule(table, TO, &Rule::default().then(&Verdict::Drop));
    }

    /// As garden does it.
    fn refuse(&self, batch: &mut Batch, chain: &str, rule: impl Fn() -> Rule) {
        let connections = rule().when(Field::Protocol, &[TCP]).reset();
        batch.add_rule(&self.ipv4, chain, &connections);
        batch.add_rule(&self.ipv4, chain, &rule().unreachable());
    }

    fn add_chain(&self, batch: &mut Batch, name: &str, hook: Hook, rules: &[Rule]) {
        batch.add_chain(&self.ipv4, name, Some(hook));
        for rule in rules {
            batch.add_rule(&self.ipv4, name, rule);
        }
    }
}

fn answers() -> Rule {
    Rule::default().when_any(Field::State, ESTABLISHED | RELATED).then(&Verdict::Accept)
}

fn within(rule: Rule, field: Field, range: AddressRange) -> Rule {
    if range == AddressRange::ALL {
        return rule;
    }
    rule.when_within(field, &range.first().octets(), &range.last().octets())
}

/// One rule for each destination with each of the ports, as garden has them.
fn add_egress_rule(
    batch: &mut Batch,
    table: &Table,
    chain: &str,
    rule: &EgressRule,
    verdict: &Verdict,
) {
    for destination in &rule.destinations {
        let to = || within(Rule::default(), Field::DestinationAddress, *destination);
        let protocol = |number| to().when(Field::Protocol, &[number]);
        let mut add = |rule: Rule| batch.add_rule(table, chain, &rule.then(verdict));
        match &rule.protocol {
            EgressProtocol::All => add(to()),
            EgressProtocol::Tcp(ports) => {
                ports.iter().for_each(|range| add(with_ports(protocol(TCP), *range)));
            }
            EgressProtocol::Udp(ports) => {
                ports.iter().for_each(|range| add(with_ports(protocol(UDP), *range)));
            }
            EgressProtocol::Icmp { kind, code } => {
                let wanted = [(Field::IcmpType, kind), (Field::IcmpCode, code)];
                let wanted =
                    wanted.into_iter().filter_map(|(field, value)| Some((field, (*value)?)));
                add(wanted.fold(protocol(ICMP), |rule, (field, value)| rule.when(field, &[value])));
            }
        }
    }
}

fn with_ports(rule: Rule, range: PortRange) -> Rule {
    let (first, last) = (range.first().to_be_bytes(), range.last().to_be_bytes());
    rule.when_within(Field::DestinationPort, &first, &last)
}

/// `IPPROTO_*` (RFC 791).
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

fn ports(attachment: &Attachment) -> Vec<Element> {
    let element = |port: &super::PortMapping| {
        let mut value = attachment.address.octets().to_vec();
        value.extend(port.container.to_be_bytes());
        value.extend([0, 0]);
        Element { key: port.host.to_be_bytes().to_vec(), data: Data::Value(value) }
    };
    attachment.ports.iter().map(element).collect()
}

fn jump(address: Ipv4Addr) -> Element {
    let chain = Verdict::Jump(chain_name(address));
    Element { key: address.octets().to_vec(), data: Data::Verdict(chain) }
}

fn chain_name(address: Ipv4Addr) -> String {
    format!("egress_{address}")
}

fn log_name(address: Ipv4Addr) -> String {
    format!("log_{address}")
}
