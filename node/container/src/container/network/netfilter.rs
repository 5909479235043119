//! A transaction of nftables, told to the kernel itself (netlink, nf_tables).
//!
//! Either all of it counts from one packet to the next, or, if any part is refused, none.
//!
//! Not by the `nft` program: it reads every set and chain of the machine before it changes one,
//! so that the change of one container costs what there is of all of them: 8 ms beside 8,000
//! rules, and 6 s where these have sets (version 1.0.6, November 2026), against 1 ms here.
//! It shows what is made here as if it had made it itself.
//!
//! Source of all numbers: `include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h`.

mod deletions;
mod rule;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};

use super::super::runtime::lock;

pub(super) use deletions::Deletions;
pub(super) use rule::{
    DESTINATION_CHANGED, ESTABLISHED, Field, INVALID, LOCAL, RELATED, Rule, Verdict,
};

/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER_BYTES: usize = 16;
const FAMILY_BYTES: usize = 4;
/// Elements in one message: a list of attributes ends at 64 KiB, and one element takes below 100.
const ELEMENTS_OF_MESSAGE_MAX: usize = 500;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// Names a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub family: Family,
    pub name: String,
}

/// Whose packets a table sees (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4 = 2,
    Ipv6 = 10,
}

/// Where packets come into a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub point: Point,
    /// Lower ones see a packet first.
    pub priority: i32,
}

/// `NF_INET_*`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A named set, or a map where it has data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub name: &'static str,
    pub key: &'static [Datatype],
    /// Empty for a set.
    pub data: &'static [Datatype],
}

/// What keys and data are, by the numbers that `nft` has for them, which the kernel only keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datatype {
    Verdict = 1,
    Address = 7,
    Port = 13,
    InterfaceName = 41,
}

impl Datatype {
    fn bytes(self) -> u32 {
        match self {
            Self::Port => 2,
            Self::Address => 4,
            Self::InterfaceName | Self::Verdict => 16,
        }
    }

    /// The number of one, or several together, and their bytes: of several, each has whole
    /// registers of four.
    fn together(types: &[Self]) -> (u32, u32) {
        match types {
            // `NFT_DATA_VERDICT`
            [Self::Verdict] => (0xFFFF_FF00, Self::Verdict.bytes()),
            [one] => (*one as u32, one.bytes()),
            many => many.iter().fold((0, 0), |(number, bytes), one| {
                (number << 6 | *one as u32, bytes + one.bytes().next_multiple_of(4))
            }),
        }
    }
}

/// One entry of a set or a map.
#[derive(Clone, Debug)]
pub(super) struct Element {
    pub key: Vec<u8>,
    pub data: Data,
}

/// What an entry leads to.
#[derive(Clone, Debug)]
pub(super) enum Data {
    None,
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// Changes, in order, none of which has happened yet.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// What each message does, by its number.
    steps: Vec<&'static str>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), steps: Vec::new() };
        batch.boundary("begin", libc::NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// Adds a table, unless it is there.
    pub(super) fn add_table(&mut self, table: &Table) {
        self.message("add table", libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, table, |_| {});
    }

    /// Deletes a table that is there, with all that is in it.
    pub(super) fn delete_table(&mut self, table: &Table) {
        self.message("delete table", libc::NFT_MSG_DELTABLE, 0, table, |_| {});
    }

    /// Adds a chain, unless it is there; without a hook, one that others lead to.
    pub(super) fn add_chain(&mut self, table: &Table, name: &str, hook: Option<Hook>) {
        let (create, message) = (libc::NLM_F_CREATE, libc::NFT_MSG_NEWCHAIN);
        self.message("add chain", message, create, table, |attributes| {
            attributes.text(3, name);
            if let Some(hook) = hook {
                attributes.nested(4, |attributes| {
                    attributes.number(1, hook.point as u32);
                    attributes.number(2, hook.priority.cast_unsigned());
                });
                attributes.text(7, hook.kind);
            }
        });
    }

    /// Deletes a chain that is there, with its rules; nothing may lead to it any more.
    pub(super) fn delete_chain(&mut self, table: &Table, name: &str) {
        self.message("flush chain", libc::NFT_MSG_DELRULE, 0, table, |attributes| {
            attributes.text(2, name);
        });
        self.message("delete chain", libc::NFT_MSG_DELCHAIN, 0, table, |attributes| {
            attributes.text(3, name);
        });
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn add_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        self.message("add rule", libc::NFT_MSG_NEWRULE, flags, table, |attributes| {
            attributes.text(2, chain);
            attributes.nested(4, |attributes| attributes.0.extend(rule.expressions()));
        });
    }

    /// Adds a set, unless it is there.
    pub(super) fn add_set(&mut self, table: &Table, set: &Set) {
        const MAP: u32 = 8;
        // Within the transaction; nothing here refers to it.
        let id = u32::try_from(self.steps.len()).expect("a batch fits the memory");
        let (create, message) = (libc::NLM_F_CREATE, libc::NFT_MSG_NEWSET);
        self.message("add set", message, create, table, |attributes| {
            let (key_type, key_bytes) = Datatype::together(set.key);
            attributes.text(2, set.name);
            attributes.number(3, if set.data.is_empty() { 0 } else { MAP });
            attributes.number(4, key_type);
            attributes.number(5, key_bytes);
            if !set.data.is_empty() {
                let (data_type, data_bytes) = Datatype::together(set.data);
                attributes.number(6, data_type);
                attributes.number(7, data_bytes);
            }
            attributes.number(10, id);
        });
    }

    /// Adds entries, unless the same are there.
    pub(super) fn add_elements(&mut self, table: &Table, set: &Set, elements: &[Element]) {
        self.elements("add element", libc::NFT_MSG_NEWSETELEM, table, set, elements);
    }

    /// Deletes entries that are there.
    pub(super) fn delete_elements(&mut self, table: &Table, set: &Set, elements: &[Element]) {
        self.elements("delete element", libc::NFT_MSG_DELSETELEM, table, set, elements);
    }

    fn elements(
        &mut self,
        step: &'static str,
        message: libc::c_int,
        table: &Table,
        set: &Set,
        elements: &[Element],
    ) {
        for some in elements.chunks(ELEMENTS_OF_MESSAGE_MAX) {
            self.message(step, message, libc::NLM_F_CREATE, table, |attributes| {
                attributes.text(2, set.name);
                attributes.nested(3, |list| {
                    for element in some {
                        list.nested(1, |attributes| element.write(attributes));
                    }
                });
            });
        }
    }

    fn boundary(&mut self, step: &'static str, kind: libc::c_int) {
        let subsystem = u16::try_from(libc::NFNL_SUBSYS_NFTABLES).expect("it is 10");
        self.header(step, kind, 0, 0, subsystem);
        self.finish(self.bytes.len() - HEADER_BYTES - FAMILY_BYTES);
    }

    fn message(
        &mut self,
        step: &'static str,
        message: libc::c_int,
        flags: libc::c_int,
        table: &Table,
        fill: impl FnOnce(&mut Attributes),
    ) {
        let start = self.bytes.len();
        let kind = libc::NFNL_SUBSYS_NFTABLES << 8 | message;
        self.header(step, kind, flags, table.family as u8, 0);
        let mut attributes = Attributes(std::mem::take(&mut self.bytes));
        // The table comes first in every kind of message.
        attributes.text(1, &table.name);
        fill(&mut attributes);
        self.bytes = attributes.0;
        self.finish(start);
    }

    fn header(
        &mut self,
        step: &'static str,
        kind: libc::c_int,
        flags: libc::c_int,
        family: u8,
        resource: u16,
    ) {
        let kind = u16::try_from(kind).expect("message types have two bytes");
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("flags have two bytes");
        let number = u32::try_from(self.steps.len()).expect("a batch fits the memory");
        self.steps.push(step);
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(number.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
    }

    /// Fills in the length of the message that began here.
    fn finish(&mut self, start: usize) {
        let length = u32::try_from(self.bytes.len() - start).expect("a message fits the memory");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Asks for an answer to one message.
    fn acknowledge(&mut self, number: usize) {
        let mut start = 0;
        for _ in 0..number {
            let length = self.bytes[start..start + 4].try_into().expect("four bytes are four");
            start += usize::try_from(u32::from_ne_bytes(length)).expect("it is in memory");
        }
        let flags = &mut self.bytes[start + 6..start + 8];
        let acknowledge = u16::try_from(libc::NLM_F_ACK).expect("it is 4");
        let set = u16::from_ne_bytes([flags[0], flags[1]]) | acknowledge;
        flags.copy_from_slice(&set.to_ne_bytes());
    }
}

/// A way to the kernel.
///
/// Kept open: to close it after something was deleted is to wait until no processor looks at
/// that any more, 8 ms or more.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Held until what was asked is answered.
    socket: Mutex<OwnedFd>,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        let (flags, netfilter) = (SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, netfilter)?;
        Ok(Self { socket: Mutex::new(socket) })
    }

    /// Lets all of a batch happen, or nothing of it. Blocks while the kernel does it.
    ///
    /// # Errors
    ///
    /// The kernel's answer to the first change that it refuses, and which one that is.
    pub(super) fn commit(&self, mut batch: Batch) -> io::Result<()> {
        let last = batch.steps.len() - 1;
        batch.acknowledge(last);
        batch.boundary("end", libc::NFNL_MSG_BATCH_END);
        let socket = lock(&self.socket);
        ask(&socket, &batch.bytes)?;
        // With the batch sent, the kernel has answered: with what it refuses, each by its number,
        // and for the last change in any case.
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = receive(&socket, &mut buffer)?;
            let mut rest = &buffer[..length];
            while let Some((answer, after)) = Answer::split(rest) {
                rest = after;
                if answer.errno != 0 {
                    let step = batch.steps.get(answer.number).copied().unwrap_or("transaction");
                    let reason = io::Error::from_raw_os_error(answer.errno);
                    return Err(io::Error::new(reason.kind(), format!("{step}: {reason}")));
                }
                if answer.number == last {
                    return Ok(());
                }
            }
        }
    }

    /// Whether there is such a table.
    pub(super) fn has(&self, table: &Table) -> io::Result<bool> {
        let mut question = Batch { bytes: Vec::new(), steps: Vec::new() };
        question.message("ask", libc::NFT_MSG_GETTABLE, libc::NLM_F_ACK, table, |_| {});
        let socket = lock(&self.socket);
        ask(&socket, &question.bytes)?;
        let mut buffer = vec![0; 4 << 10];
        let length = receive(&socket, &mut buffer)?;
        // The table, or why there is none.
        let kind = buffer[..length].get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
        if kind.map(i32::from) != Some(libc::NLMSG_ERROR) {
            return Ok(true);
        }
        match Answer::split(&buffer[..length]) {
            Some((answer, _)) if answer.errno == libc::ENOENT => Ok(false),
            Some((answer, _)) => Err(io::Error::from_raw_os_error(answer.errno)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn ask(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    // What was not read of an earlier answer is not this one's.
    let mut left = [0; 32];
    let is_over = |error: &io::Error| error.raw_os_error() != Some(libc::ENOBUFS);
    while !receive(socket, &mut left).is_err_and(|error| is_over(&error)) {}
    // All of it is one datagram.
    setsockopt(socket, sockopt::SndBufForce, &(2 * bytes.len() + (64 << 10)))?;
    sendto(socket.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    Ok(())
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => return Ok(length),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Element {
    fn write(&self, attributes: &mut Attributes) {
        attributes.nested(1, |key| key.bytes(1, &self.key));
        match &self.data {
            Data::None => {}
            Data::Value(value) => attributes.nested(2, |data| data.bytes(1, value)),
            Data::Verdict(verdict) => attributes.nested(2, |data| verdict.write(data)),
        }
    }
}

/// The kernel's word on one message.
struct Answer {
    number: usize,
    /// 0 for done.
    errno: i32,
}

impl Answer {
    /// The first of the answers in these bytes (`struct nlmsgerr`), and what follows it.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let length = usize::try_from(number(0)?).ok()?;
        let errno = number(HEADER_BYTES)?.cast_signed();
        let of = usize::try_from(number(8)?).ok()?;
        let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((Self { number: of, errno: errno.saturating_neg() }, rest))
    }
}

/// Attributes of netlink: a length, a number, a value, padded to four bytes (netlink(7)).
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("values are bounded by our callers");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat());
    }

    /// nf_tables has its numbers in network byte order.
    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn long(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).expect("lists are bounded by our callers");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut attributes = Attributes::default();
        attributes.nested(3, |list| {
            list.text(1, "ab");
            list.number(2, 7);
        });
        let ab = [7, 0, 1, 0, b'a', b'b', 0, 0];
        let seven = [8, 0, 2, 0, 0, 0, 0, 7];
        assert_eq!(attributes.0, [&[20, 0, 3, 0x80][..], &ab, &seven].concat());
    }

    #[test]
    fn an_answer_that_is_cut_short_is_none() {
        let mut answer = vec![0; 36];
        answer[0] = 36;
        answer[8] = 5;
        answer[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        let (whole, rest) = Answer::split(&answer).unwrap();
        assert_eq!((whole.number, whole.errno, rest.len()), (5, 2, 0));
        assert!(Answer::split(&answer[..19]).is_none());
        assert!(Answer::split(&[]).is_none());
    }

    /// As root, whom the kernel answers.
    #[test]
    fn what_is_refused_is_named_and_does_not_disturb_what_follows() {
        let table = Table { family: Family::Ipv4, name: "gavel_never_made".to_owned() };
        let kernel = Kernel::open().unwrap();
        for _ in 0..2 {
            let mut batch = Batch::new();
            batch.add_table(&table);
            batch.delete_table(&table);
            batch.delete_table(&table);
            batch.delete_chain(&table, "no-chain");
            let error = kernel.commit(batch).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().starts_with("delete table: "), "{error}");
            assert!(!kernel.has(&table).unwrap());
        }
        let mut batch = Batch::new();
        batch.add_table(&table);
        batch.delete_table(&table);
        kernel.commit(batch).unwrap();
    }
}
