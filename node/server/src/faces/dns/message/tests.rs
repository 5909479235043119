//! Questions as clients ask them, and as nobody should.

use expect_test::expect;

use super::*;

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn known(count: u8) -> Answer {
    Answer::Known {
        addresses: (0..count).map(|last| [10, 88, 0, last].into()).collect(),
        services: vec![(8080, "0.web.internal".to_owned()), (61_001, "1.web.internal".to_owned())],
    }
}

/// What a reply says, in one line; it is read back as a client would.
fn told(reply: &[u8]) -> String {
    let reply = Message::from_vec(reply).unwrap();
    let metadata = &reply.metadata;
    assert_eq!((metadata.id, metadata.message_type), (7, MessageType::Response));
    let answers: Vec<String> = reply.answers.iter().map(|one| format!("{one}")).collect();
    let cut = if metadata.truncation { " cut" } else { "" };
    format!("{:?}{cut} [{}]", metadata.response_code, answers.join(", "))
}

/// What is done about a message, after the name that was looked up.
fn outcome(message: &Message, transport: Transport, answer: Answer) -> String {
    let bytes = message.to_vec().unwrap();
    let mut asked = String::new();
    let verdict = decide(&bytes, transport, |labels| {
        asked = format!("({}) ", labels.join("."));
        answer
    });
    match verdict {
        Verdict::Reply(reply) => format!("{asked}{}", told(&reply)),
        Verdict::Forward(_) => format!("{asked}forwarded"),
        Verdict::Ignore => format!("{asked}ignored"),
    }
}

#[test]
fn names_of_the_cluster_are_answered_and_others_passed_on() {
    use RecordType as Kind;
    let told = |name: &str, kind, answer| {
        let told = outcome(&query(name, kind), Transport::Udp, answer);
        format!("{name} {kind}: {told}\n")
    };
    let lines = [
        told("web.internal.", Kind::A, known(2)),
        told("WeB.InTeRnAl.", Kind::A, known(1)),
        told("web.internal.", Kind::AAAA, known(2)),
        told("web.internal.", Kind::MX, known(2)),
        told("web.internal.", Kind::ANY, known(1)),
        told("web.internal.", Kind::SRV, known(2)),
        told("web.internal.", Kind::A, known(0)),
        told("no.internal.", Kind::A, Answer::Unknown),
        told("no.internal.", Kind::AAAA, Answer::Unknown),
        told("internal.", Kind::A, known(0)),
        told("example.com.", Kind::A, known(1)),
        told("web.internal.example.com.", Kind::A, known(1)),
        told(".", Kind::NS, known(1)),
        told("ax.notinternal.", Kind::A, known(1)),
    ];
    expect![[r#"
        web.internal. A: (web.internal) NoError [web.internal. 1 IN A 10.88.0.0, web.internal. 1 IN A 10.88.0.1]
        WeB.InTeRnAl. A: (web.internal) NoError [WeB.InTeRnAl. 1 IN A 10.88.0.0]
        web.internal. AAAA: (web.internal) NoError []
        web.internal. MX: (web.internal) NoError []
        web.internal. ANY: (web.internal) NoError [web.internal. 1 IN A 10.88.0.0]
        web.internal. SRV: (web.internal) NoError [web.internal. 1 IN SRV 0 0 8080 0.web.internal., web.internal. 1 IN SRV 0 0 61001 1.web.internal.]
        web.internal. A: (web.internal) NoError []
        no.internal. A: (no.internal) NXDomain []
        no.internal. AAAA: (no.internal) NXDomain []
        internal. A: (internal) NoError []
        example.com. A: forwarded
        web.internal.example.com. A: forwarded
        . NS: forwarded
        ax.notinternal. A: forwarded
    "#]].assert_eq(&lines.concat());
}

#[test]
fn labels_that_no_app_can_have_are_not_looked_up() {
    let hostile = [&b"a.b"[..], b"a b", b"\xff\x00", b"a;b", b"*"];
    for label in hostile {
        let name = Name::from_labels([label, b"internal"]).unwrap();
        let mut message = query("x.", RecordType::A);
        message.queries[0].set_name(name);
        assert_eq!(outcome(&message, Transport::Udp, known(1)), "NXDomain []");
    }
    let mut chaos = query("web.internal.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(outcome(&chaos, Transport::Udp, known(1)), "NXDomain []");
}

#[test]
fn what_does_not_fit_is_cut_and_many_are_some() {
    let long = format!("{0}.{0}.{0}.{0}.internal.", "x".repeat(55));
    let plain = query(&long, RecordType::A);
    assert!(outcome(&plain, Transport::Udp, known(20)).ends_with("NoError cut []"));
    let mut large = plain.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    for (message, transport) in [(&plain, Transport::Tcp), (&large, Transport::Udp)] {
        let bytes = message.to_vec().unwrap();
        let Verdict::Reply(reply) = decide(&bytes, transport, |_| known(200)) else { panic!() };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.answers.len(), DNS_ANSWERS_MAX);
        assert!(!reply.metadata.truncation);
        assert_eq!(reply.edns.is_some(), message.edns.is_some());
    }
    let ordinary = query("a-name-of-some-length.internal.", RecordType::A).to_vec().unwrap();
    let Verdict::Reply(reply) = decide(&ordinary, Transport::Udp, |_| known(200)) else { panic!() };
    assert!(reply.len() <= usize::from(DATAGRAM_BYTES_MIN));
}

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let mut update = query("web.internal.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(outcome(&update, Transport::Udp, known(1)), "NotImp []");
    let mut two = query("web.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(outcome(&two, Transport::Udp, known(1)), "FormErr []");
    let mut none = query("web.internal.", RecordType::A);
    none.queries.clear();
    assert_eq!(outcome(&none, Transport::Udp, known(1)), "FormErr []");
    let mut reply = query("web.internal.", RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    assert_eq!(outcome(&reply, Transport::Udp, known(1)), "ignored");
}

#[test]
fn rubbish_of_any_length_harms_nobody() {
    let whole = query("web.internal.", RecordType::A).to_vec().unwrap();
    for length in 0..whole.len() {
        match decide(&whole[..length], Transport::Udp, |_| known(1)) {
            Verdict::Ignore => assert!(length < HEADER_BYTES),
            Verdict::Reply(reply) => assert_eq!(told(&reply), "FormErr []"),
            Verdict::Forward(_) => panic!("{length}"),
        }
    }
    // A name that leads to itself (RFC 1035, 4.1.4).
    let looped = [&whole[..HEADER_BYTES], &[0xC0, 12, 0, 1, 0, 1]].concat();
    let Verdict::Reply(reply) = decide(&looped, Transport::Udp, |_| known(1)) else { panic!() };
    assert_eq!(told(&reply), "FormErr []");
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_too_wild(bytes in proptest::collection::vec(0..=255_u8, 0..300)) {
        drop(decide(&bytes, Transport::Tcp, |_| known(1)));
    }
}

#[test]
fn only_a_reply_to_the_question_under_its_id_is_one() {
    let bytes = query("example.com.", RecordType::A).to_vec().unwrap();
    let Verdict::Forward(question) = decide(&bytes, Transport::Udp, |_| known(1)) else { panic!() };
    let asked = Message::from_vec(&question.under(4242)).unwrap();
    assert_eq!(asked.metadata.id, 4242);
    let reply = |change: &dyn Fn(&mut Message)| {
        let mut reply = asked.clone();
        reply.metadata.message_type = MessageType::Response;
        change(&mut reply);
        question.reply(4242, reply.to_vec().unwrap())
    };
    let passed_on = reply(&|_| {}).unwrap();
    assert_eq!(told(&passed_on), "NoError []");
    assert!(reply(&|message| message.metadata.id = 4243).is_none());
    assert!(reply(&|message| message.metadata.message_type = MessageType::Query).is_none());
    let other = Name::from_ascii("example.net.").unwrap();
    assert!(
        reply(&|message| {
            message.queries[0].set_name(other.clone());
        })
        .is_none()
    );
    assert!(reply(&|message| message.queries.clear()).is_none());
    assert!(question.reply(4242, vec![]).is_none());
    assert_eq!(told(&question.failure().unwrap()), "ServFail []");
}
