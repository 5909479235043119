//! One rule: what it looks at, in order, and what it does where all of it is so.

use std::net::Ipv4Addr;

use super::{Attributes, Set};

/// Sixteen registers of four bytes; a value may take several that follow each other.
const FIRST_REGISTER: u32 = 8;
/// Where a verdict goes.
const VERDICT_REGISTER: u32 = 0;

/// What a packet is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Field {
    /// The group of the interface that it came in by, in the machine's byte order.
    InputGroup,
    /// The same of the interface that it leaves by.
    OutputGroup,
    /// The name of the interface that it came in by, 16 bytes with zeros.
    InputName,
    SourceAddress,
    DestinationAddress,
    /// `IPPROTO_*`, one byte.
    Protocol,
    /// Of TCP and UDP.
    DestinationPort,
    IcmpType,
    IcmpCode,
    /// What connection tracking has it for: bits [`ESTABLISHED`] and its like.
    State,
    /// What was done to its connection: bits [`DESTINATION_CHANGED`] and its like.
    Status,
    /// What the destination is to this host: `RTN_*`, in the machine's byte order.
    DestinationKind,
}

/// Bits of [`Field::State`].
pub(in super::super) const INVALID: u32 = 1;
pub(in super::super) const ESTABLISHED: u32 = 2;
pub(in super::super) const RELATED: u32 = 4;
/// A bit of [`Field::Status`]: `IPS_DST_NAT`.
pub(in super::super) const DESTINATION_CHANGED: u32 = 0x20;
/// A value of [`Field::DestinationKind`]: `RTN_LOCAL`, one of the host's own addresses.
pub(in super::super) const LOCAL: u32 = 2;

impl Field {
    fn bytes(self) -> u32 {
        match self {
            Self::InputName => 16,
            Self::Protocol | Self::IcmpType | Self::IcmpCode => 1,
            Self::DestinationPort => 2,
            Self::InputGroup
            | Self::OutputGroup
            | Self::SourceAddress
            | Self::DestinationAddress
            | Self::State
            | Self::Status
            | Self::DestinationKind => 4,
        }
    }

    fn load(self, register: u32, to: &mut Attributes) {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        match self {
            Self::InputName => meta(6, register, to),
            Self::Protocol => meta(16, register, to),
            Self::InputGroup => meta(21, register, to),
            Self::OutputGroup => meta(22, register, to),
            Self::SourceAddress => payload(NETWORK, 12, self.bytes(), register, to),
            Self::DestinationAddress => payload(NETWORK, 16, self.bytes(), register, to),
            Self::IcmpType => payload(TRANSPORT, 0, self.bytes(), register, to),
            Self::IcmpCode => payload(TRANSPORT, 1, self.bytes(), register, to),
            Self::DestinationPort => payload(TRANSPORT, 2, self.bytes(), register, to),
            Self::State => connection(0, register, to),
            Self::Status => connection(2, register, to),
            Self::DestinationKind => expression("fib", to, |fib| {
                const ADDRESS_TYPE: u32 = 3;
                const OF_DESTINATION: u32 = 2;
                fib.number(1, register);
                fib.number(2, ADDRESS_TYPE);
                fib.number(3, OF_DESTINATION);
            }),
        }
    }
}

fn meta(key: u32, register: u32, to: &mut Attributes) {
    expression("meta", to, |meta| {
        meta.number(1, register);
        meta.number(2, key);
    });
}

fn payload(base: u32, offset: u32, bytes: u32, register: u32, to: &mut Attributes) {
    expression("payload", to, |payload| {
        payload.number(1, register);
        payload.number(2, base);
        payload.number(3, offset);
        payload.number(4, bytes);
    });
}

fn connection(key: u32, register: u32, to: &mut Attributes) {
    expression("ct", to, |connection| {
        connection.number(1, register);
        connection.number(2, key);
    });
}

fn expression(name: &str, to: &mut Attributes, fill: impl FnOnce(&mut Attributes)) {
    to.nested(1, |expression| {
        expression.text(1, name);
        expression.nested(2, fill);
    });
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// This hook lets it pass.
    Accept,
    Drop,
    /// On to another chain, and back where that does not decide.
    Jump(String),
    /// On to another chain, and where that does not decide, to the end of this one.
    Goto(String),
}

impl Verdict {
    pub(super) fn write(&self, data: &mut Attributes) {
        let (code, chain): (i32, _) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
        };
        data.nested(2, |verdict| {
            verdict.number(1, code.cast_unsigned());
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    }
}

/// A rule in the making.
#[derive(Debug, Default)]
pub(in super::super) struct Rule(Attributes);

impl Rule {
    pub(super) fn expressions(&self) -> &[u8] {
        &self.0.0
    }

    /// Where the field is just this.
    pub(in super::super) fn when(self, field: Field, value: &[u8]) -> Self {
        const EQUAL: u32 = 0;
        self.compare(field, EQUAL, value)
    }

    /// Where the field is anything but this.
    pub(in super::super) fn unless(self, field: Field, value: &[u8]) -> Self {
        const NOT_EQUAL: u32 = 1;
        self.compare(field, NOT_EQUAL, value)
    }

    fn compare(mut self, field: Field, operator: u32, value: &[u8]) -> Self {
        field.load(FIRST_REGISTER, &mut self.0);
        self.compare_register(operator, value);
        self
    }

    fn compare_register(&mut self, operator: u32, value: &[u8]) {
        expression("cmp", &mut self.0, |compare| {
            compare.number(1, FIRST_REGISTER);
            compare.number(2, operator);
            compare.nested(3, |data| data.bytes(1, value));
        });
    }

    /// Where the field, in network byte order, is from the first to the last value.
    pub(in super::super) fn when_within(self, field: Field, first: &[u8], last: &[u8]) -> Self {
        const FROM: u32 = 5;
        const TO: u32 = 3;
        if first == last {
            return self.when(field, first);
        }
        let mut rule = self;
        field.load(FIRST_REGISTER, &mut rule.0);
        rule.compare_register(FROM, first);
        rule.compare_register(TO, last);
        rule
    }

    /// Where at least one of these bits is set.
    pub(in super::super) fn when_any(mut self, field: Field, bits: u32) -> Self {
        const NOT_EQUAL: u32 = 1;
        field.load(FIRST_REGISTER, &mut self.0);
        expression("bitwise", &mut self.0, |bitwise| {
            bitwise.number(1, FIRST_REGISTER);
            bitwise.number(2, FIRST_REGISTER);
            bitwise.number(3, 4);
            bitwise.nested(4, |mask| mask.bytes(1, &bits.to_ne_bytes()));
            bitwise.nested(5, |xor| xor.bytes(1, &[0; 4]));
        });
        self.compare_register(NOT_EQUAL, &[0; 4]);
        self
    }

    /// Where these fields together are no entry of the set.
    pub(in super::super) fn unless_in(mut self, fields: &[Field], set: &Set) -> Self {
        const INVERTED: u32 = 1;
        let mut register = FIRST_REGISTER;
        for field in fields {
            field.load(register, &mut self.0);
            register += field.bytes().div_ceil(4);
        }
        expression("lookup", &mut self.0, |lookup| {
            lookup.text(1, set.name);
            lookup.number(2, FIRST_REGISTER);
            lookup.number(5, INVERTED);
        });
        self
    }

    /// What the map has for this field, if anything.
    pub(in super::super) fn decided_by(mut self, field: Field, map: &Set) -> Self {
        field.load(FIRST_REGISTER, &mut self.0);
        self.look_up(map, VERDICT_REGISTER);
        self
    }

    fn look_up(&mut self, map: &Set, into: u32) {
        expression("lookup", &mut self.0, |lookup| {
            lookup.text(1, map.name);
            lookup.number(2, FIRST_REGISTER);
            lookup.number(3, into);
        });
    }

    /// Goes to the address and port that the map has for the destination port, if any.
    pub(in super::super) fn redirected_by(mut self, map: &Set) -> Self {
        const DESTINATION: u32 = 1;
        Field::DestinationPort.load(FIRST_REGISTER, &mut self.0);
        self.look_up(map, FIRST_REGISTER);
        expression("nat", &mut self.0, |nat| {
            nat.number(1, DESTINATION);
            nat.number(2, super::Family::Ipv4 as u32);
            nat.number(3, FIRST_REGISTER);
            nat.number(5, FIRST_REGISTER + 1);
        });
        self
    }

    /// Comes from this address, and answers go back to where it came from.
    pub(in super::super) fn comes_from(mut self, address: Ipv4Addr) -> Self {
        const SOURCE: u32 = 0;
        expression("immediate", &mut self.0, |immediate| {
            immediate.number(1, FIRST_REGISTER);
            immediate.nested(2, |data| data.bytes(1, &address.octets()));
        });
        expression("nat", &mut self.0, |nat| {
            nat.number(1, SOURCE);
            nat.number(2, super::Family::Ipv4 as u32);
            nat.number(3, FIRST_REGISTER);
        });
        self
    }

    /// Comes from the address of the interface that it leaves by.
    pub(in super::super) fn masquerades(mut self) -> Self {
        expression("masq", &mut self.0, |_| {});
        self
    }

    /// At most so many a second, and so many at once.
    pub(in super::super) fn at_most(mut self, per_second: u32, burst: u32) -> Self {
        expression("limit", &mut self.0, |limit| {
            limit.long(1, per_second.into());
            limit.long(2, 1);
            limit.number(3, burst);
            limit.number(4, 0);
        });
        self
    }

    /// Is told in the kernel's log; goes on.
    pub(in super::super) fn logged(mut self, prefix: &str) -> Self {
        expression("log", &mut self.0, |log| log.text(2, prefix));
        self
    }

    /// Is refused, and its sender told so, as if nobody listened there: connections are reset.
    pub(in super::super) fn reset(self) -> Self {
        const TCP_RESET: u32 = 1;
        self.refused(TCP_RESET, 0)
    }

    /// The same for all but TCP (port unreachable, RFC 792). The kernel tells one sender so
    /// about once a second and no more (`icmp_ratelimit`).
    pub(in super::super) fn unreachable(self) -> Self {
        const ICMP: u32 = 0;
        const PORT_UNREACHABLE: u8 = 3;
        self.refused(ICMP, PORT_UNREACHABLE)
    }

    fn refused(mut self, kind: u32, code: u8) -> Self {
        expression("reject", &mut self.0, |reject| {
            reject.number(1, kind);
            reject.bytes(2, &[code]);
        });
        self
    }

    pub(in super::super) fn then(mut self, verdict: &Verdict) -> Self {
        expression("immediate", &mut self.0, |immediate| {
            immediate.number(1, VERDICT_REGISTER);
            immediate.nested(2, |data| verdict.write(data));
        });
        self
    }
}
