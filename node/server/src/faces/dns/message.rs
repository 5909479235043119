//! One message of DNS in, and what is to be done about it. Pure.

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::limits::{DNS_ANSWERS_MAX, DNS_DATAGRAM_BYTES_MAX, DNS_TTL_SECONDS};
use crate::names::ZONE;

/// Bytes of a datagram that every client takes (RFC 1035, 4.2.1).
const DATAGRAM_BYTES_MIN: u16 = 512;

/// How a message came, and an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What a name of the cluster's is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing has this name.
    Unknown,
    Known {
        addresses: Vec<Ipv4Addr>,
        /// Ports, each with the name of its host.
        services: Vec<(u16, String)>,
    },
}

/// What is to be done about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To be sent back.
    Reply(Vec<u8>),
    /// To be asked elsewhere.
    Forward(Question),
    /// Not a question: nobody waits for an answer.
    Ignore,
}

/// A question about the rest of the world, passed on as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    message: Vec<u8>,
    /// Where the question itself ends; it begins after the header.
    end: usize,
}

const HEADER_BYTES: usize = 12;

/// Decides about a message; `look_up` is asked for names of the cluster's, by their labels in
/// lower case.
pub(super) fn decide(
    message: &[u8],
    transport: Transport,
    look_up: impl FnOnce(&[String]) -> Answer,
) -> Verdict {
    let mut decoder = BinDecoder::new(message);
    let Ok(header) = Header::read(&mut decoder) else { return Verdict::Ignore };
    if header.metadata.message_type != MessageType::Query {
        return Verdict::Ignore;
    }
    let refuse = |code| refusal(&header.metadata, code);
    if header.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    // Several at once are not defined (RFC 9619).
    if header.counts.queries != 1 {
        return refuse(ResponseCode::FormErr);
    }
    let Ok(query) = Query::read(&mut decoder) else { return refuse(ResponseCode::FormErr) };
    if !is_ours(query.name()) {
        return Verdict::Forward(Question { message: message.to_vec(), end: decoder.index() });
    }
    let Ok(request) = Message::from_vec(message) else { return refuse(ResponseCode::FormErr) };
    let answer = match labels(query.name()) {
        Some(labels) if matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) => {
            look_up(&labels)
        }
        _ => Answer::Unknown,
    };
    reply(&request, &query, answer, transport)
}

fn is_ours(name: &Name) -> bool {
    let zone = name.iter().next_back();
    zone.is_some_and(|label| label.eq_ignore_ascii_case(ZONE.as_bytes()))
}

/// `None` where no name of the cluster's could have them.
fn labels(name: &Name) -> Option<Vec<String>> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let label = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_ascii_lowercase()).ok()?;
        bytes.iter().all(is_plain).then_some(text)
    };
    name.iter().map(label).collect()
}

fn reply(request: &Message, query: &Query, answer: Answer, transport: Transport) -> Verdict {
    let mut response = response_to(&request.metadata);
    response.add_query(query.clone());
    response.metadata.authoritative = true;
    match answer {
        Answer::Unknown => response.metadata.response_code = ResponseCode::NXDomain,
        Answer::Known { addresses, services } => {
            response.add_answers(records(query, &addresses, &services));
        }
    }
    let bytes_max = match (transport, &request.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => DATAGRAM_BYTES_MIN,
        (Transport::Udp, Some(edns)) => {
            edns.max_payload().clamp(DATAGRAM_BYTES_MIN, DNS_DATAGRAM_BYTES_MAX)
        }
    };
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DNS_DATAGRAM_BYTES_MAX);
        response.set_edns(edns);
    }
    let Ok(mut bytes) = response.to_vec() else {
        return refusal(&request.metadata, ResponseCode::ServFail);
    };
    if bytes.len() > usize::from(bytes_max) {
        // To be asked again by TCP.
        response.metadata.truncation = true;
        response.answers.clear();
        let Ok(truncated) = response.to_vec() else {
            return refusal(&request.metadata, ResponseCode::ServFail);
        };
        bytes = truncated;
    }
    Verdict::Reply(bytes)
}

/// What there is of the kind that was asked for: of other kinds, IPv6 addresses among them, there
/// is nothing.
fn records(query: &Query, addresses: &[Ipv4Addr], services: &[(u16, String)]) -> Vec<Record> {
    let record = |data| Record::from_rdata(query.name().clone(), DNS_TTL_SECONDS, data);
    let mut records = Vec::new();
    if matches!(query.query_type(), RecordType::A | RecordType::ANY) {
        let addresses = addresses.iter().take(DNS_ANSWERS_MAX);
        records.extend(addresses.map(|address| record(RData::A(A(*address)))));
    }
    if query.query_type() == RecordType::SRV {
        let service = |(port, host): &(u16, String)| {
            let host = Name::from_ascii(format!("{host}.")).ok()?;
            Some(record(RData::SRV(SRV::new(0, 0, *port, host))))
        };
        records.extend(services.iter().take(DNS_ANSWERS_MAX).filter_map(service));
    }
    records
}

fn response_to(request: &Metadata) -> Message {
    let mut response = Message::response(request.id, request.op_code);
    response.metadata.recursion_desired = request.recursion_desired;
    response.metadata.recursion_available = true;
    response
}

fn refusal(request: &Metadata, code: ResponseCode) -> Verdict {
    let mut response = response_to(request);
    response.metadata.response_code = code;
    response.to_vec().map_or(Verdict::Ignore, Verdict::Reply)
}

impl Question {
    /// The message under another id: one that only whoever is asked can know.
    pub(super) fn under(&self, id: u16) -> Vec<u8> {
        let mut message = self.message.clone();
        message[..2].copy_from_slice(&id.to_be_bytes());
        message
    }

    /// The reply to it under that id, as it is passed on; `None` where it is none to this
    /// question (RFC 5452, 9.1).
    pub(super) fn reply(&self, id: u16, mut message: Vec<u8>) -> Option<Vec<u8>> {
        const IS_RESPONSE: u8 = 0x80;
        let question = message.get(HEADER_BYTES..self.end)?;
        let is_same = question.eq_ignore_ascii_case(&self.message[HEADER_BYTES..self.end]);
        let is_reply = message[..2] == id.to_be_bytes() && message[2] & IS_RESPONSE != 0;
        if !is_same || !is_reply {
            return None;
        }
        message[..2].copy_from_slice(&self.message[..2]);
        Some(message)
    }

    /// What is said where nobody answers.
    pub(super) fn failure(&self) -> Option<Vec<u8>> {
        let header = Header::read(&mut BinDecoder::new(&self.message)).ok()?;
        match refusal(&header.metadata, ResponseCode::ServFail) {
            Verdict::Reply(bytes) => Some(bytes),
            Verdict::Forward(_) | Verdict::Ignore => None,
        }
    }
}
