use expect_test::expect;
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn open_message() -> ToNode {
    let terminal = Terminal { kind: "xterm".to_owned(), size: Size { rows: 24, columns: 80 } };
    let exec = Exec { command: vec!["ls".to_owned()], user: None, terminal: Some(terminal) };
    ToNode::Open(Box::new(Open {
        process_guid: "app".into(),
        index: 1,
        what: What::Exec(exec),
        relayed: Some(Relayed { on: "cell".into(), who: "me".to_owned() }),
    }))
}

fn input(length: usize) -> ToNode {
    ToNode::Input(Bytes::from(vec![b'x'; length]))
}

/// What a node reads of these bytes.
async fn read(bytes: &[u8]) -> io::Result<Vec<ToNode>> {
    let (mut client, node) = tokio::io::duplex(1 << 20);
    client.write_all(bytes).await.unwrap();
    drop(client);
    let mut frames = frames(node);
    let mut messages = Vec::new();
    while let Some(message) = receive(&mut frames).await? {
        messages.push(message);
    }
    Ok(messages)
}

fn framed(content: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(content.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes
}

#[tokio::test]
async fn what_is_said_is_what_is_heard() {
    let said = [
        open_message(),
        input(3),
        ToNode::InputEnd,
        ToNode::Resize(Size { rows: 1, columns: 2 }),
        ToNode::Signal(15),
    ];
    let bytes: Vec<u8> = said.iter().flat_map(|message| framed(&encode(message))).collect();
    assert_eq!(read(&bytes).await.unwrap(), said);
    // The numbers of the messages are the protocol: nodes of two versions speak to each other.
    expect!["010378787802030102041e"].assert_eq(&hex(&said[1..]));
    let answers = [
        FromNode::Opened,
        FromNode::InputTaken(3),
        FromNode::OutputEnd,
        FromNode::Ended(End::Signal { number: 9, oom_killed: true }),
        FromNode::Failed(Error::Forbidden("no".to_owned())),
        FromNode::Ready,
    ];
    expect!["00030304050112010606026e6f07"].assert_eq(&hex(&answers));
}

fn hex<T: Serialize>(messages: &[T]) -> String {
    let bytes: Vec<u8> = messages.iter().flat_map(encode).collect();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn garbage_is_an_error_and_nothing_else() {
    let invalid = async |bytes: &[u8]| {
        let error = read(bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    };
    invalid(&[0xff; 64]).await; // a length of 4 GiB
    let too_long = u32::try_from(ATTACH_FRAME_BYTES_MAX + 1).unwrap();
    invalid(&too_long.to_be_bytes()).await;
    invalid(&framed(&[])).await;
    invalid(&framed(&[99])).await; // no such message
    invalid(&framed(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f])).await; // input of 4 GiB in six bytes
    let mut twice = encode(&ToNode::InputEnd).to_vec();
    twice.extend_from_slice(&encode(&ToNode::InputEnd));
    invalid(&framed(&twice)).await;
    // A frame that breaks off is an end that nobody wished for.
    let whole = framed(&encode(&open_message()));
    let cut = read(&whole[..whole.len() - 1]).await.unwrap_err();
    assert!(cut.to_string().contains("bytes remaining"), "{cut}");
    for length in 0..whole.len() - 4 {
        let mut bytes = BytesMut::from(&whole[4..4 + length]);
        assert!(decode::<ToNode>(&bytes).is_err(), "{length}");
        bytes.clear();
    }
}

#[test]
fn what_is_out_of_order_is_refused_by_name() {
    let refused = |has_terminal, said: &[ToNode]| {
        let mut intake = Intake::new(has_terminal);
        said.iter().map(|message| intake.check(message)).find_map(Result::err)
    };
    assert_eq!(refused(true, &[open_message()]), Some(Violation::OpenedTwice));
    assert_eq!(refused(true, &[input(0)]), Some(Violation::Chunk));
    assert_eq!(refused(true, &[input(ATTACH_CHUNK_BYTES_MAX + 1)]), Some(Violation::Chunk));
    assert_eq!(refused(true, &[ToNode::InputEnd, input(1)]), Some(Violation::AfterEnd));
    assert_eq!(refused(true, &[ToNode::InputEnd, ToNode::InputEnd]), Some(Violation::AfterEnd));
    let resize = ToNode::Resize(Size { rows: 0, columns: u16::MAX });
    assert_eq!(refused(false, std::slice::from_ref(&resize)), Some(Violation::NoTerminal));
    for number in [0, -9, 65, i32::MIN] {
        assert_eq!(refused(true, &[ToNode::Signal(number)]), Some(Violation::Signal(number)));
    }
    // Signals and sizes come after the end of input as well.
    assert_eq!(refused(true, &[input(1), ToNode::InputEnd, resize, ToNode::Signal(64)]), None);
}

#[test]
fn input_stays_within_the_window() {
    let mut intake = Intake::new(false);
    let chunk = input(ATTACH_CHUNK_BYTES_MAX);
    for _ in 0..ATTACH_WINDOW_BYTES / ATTACH_CHUNK_BYTES_MAX {
        assert_eq!(intake.check(&chunk), Ok(()));
    }
    intake.taken(1);
    assert_eq!(intake.check(&input(1)), Ok(()));
    assert_eq!(intake.check(&input(1)), Err(Violation::Window));
}

#[tokio::test]
async fn a_client_waits_for_the_window_and_believes_no_more_than_it_sent() {
    let window = Window::default();
    window.taken(u32::MAX); // nothing was sent yet
    for _ in 0..ATTACH_WINDOW_BYTES / ATTACH_CHUNK_BYTES_MAX {
        window.take(ATTACH_CHUNK_BYTES_MAX).await;
    }
    let mut next = Box::pin(window.take(2));
    assert!((&mut next).now_or_never().is_none());
    window.taken(1);
    assert!((&mut next).now_or_never().is_none());
    window.taken(1);
    assert!((&mut next).now_or_never().is_some());
}

#[test]
fn an_end_is_told_as_a_shell_has_it() {
    assert_eq!(
        (End::Code(3).status(), End::Code(3).to_string()),
        (3, "exited with status 3".into())
    );
    let killed = End::Signal { number: 9, oom_killed: true };
    assert_eq!(killed.status(), 137);
    assert_eq!(killed.to_string(), "killed by signal 9 (out of memory)");
}

/// What a client makes of a node that says this after the greeting and hangs up: before it was
/// asked, or when it has been.
async fn opened_at(before: &[FromNode], after: Option<&[FromNode]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let node = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, ATTACH_GREETING);
        let mut frames = frames(stream);
        for message in before {
            frames.send(encode(message)).await.unwrap();
        }
        if let Some(after) = after {
            let asked: Option<ToNode> = receive(&mut frames).await.unwrap();
            assert_eq!(asked, Some(open_message()));
            for message in after {
                frames.send(encode(message)).await.unwrap();
            }
        }
    };
    let ToNode::Open(wish) = open_message() else { unreachable!("it is one") };
    let dialer = Dialer::default();
    let (opened, ()) = tokio::join!(open(&dialer, &address, *wish), node);
    match opened {
        Ok(_) => "opened".to_owned(),
        Err(NotOpened::Unreached(error)) => format!("unreached: {error}"),
        Err(NotOpened::Lost(error)) => format!("lost: {error}"),
        Err(NotOpened::Failed(error)) => format!("failed: {error}"),
    }
}

#[tokio::test]
async fn a_node_lost_before_it_was_ready_was_asked_for_nothing() {
    let end = "unexpected end of file";
    assert_eq!(opened_at(&[], None).await, format!("unreached: {end}"));
    let no_node = opened_at(&[FromNode::Opened], None).await;
    assert_eq!(no_node, "unreached: the node's words are out of order");
    let ready = [FromNode::Ready];
    assert_eq!(opened_at(&ready, Some(&[FromNode::Opened])).await, "opened");
    let no = Error::Unavailable("no".to_owned());
    assert_eq!(opened_at(&ready, Some(&[FromNode::Failed(no)])).await, "failed: no");
    // It may have done it, whatever has become of its answer.
    assert_eq!(opened_at(&ready, Some(&[])).await, format!("lost: {end}"));
    let out_of_order = opened_at(&ready, Some(&[FromNode::Ready])).await;
    assert_eq!(out_of_order, "lost: the node's words are out of order");
}
