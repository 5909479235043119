use std::time::Duration;

use tokio::io::{duplex, empty, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::either::Either;

use super::*;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's end, and an open talk with it.
async fn talk(has_terminal: bool) -> (Frames<TcpStream>, Talk) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let talk = Talk::begin(attach::frames(Either::Left(stream)), has_terminal).await.unwrap();
    let mut client = attach::frames(client);
    assert_eq!(heard(&mut client).await, Some(FromNode::Opened));
    (client, talk)
}

async fn heard(client: &mut Frames<TcpStream>) -> Option<FromNode> {
    tokio::time::timeout(PATIENCE, attach::receive(client)).await.unwrap().unwrap()
}

async fn say(client: &mut Frames<TcpStream>, message: &ToNode) {
    client.send(attach::encode(message)).await.unwrap();
}

/// A talk with a process that reads nothing, says nothing and does not end.
async fn over(talk: Talk) -> Over {
    let (held, input) = duplex(1);
    let (controls, _wishes) = mpsc::channel(1);
    let (quiet, output) = duplex(1);
    let standard: (Input, Output, _) = (Box::new(input), Box::new(output), None);
    let talking = talk.with_process(standard, &controls, std::future::pending());
    let over = tokio::time::timeout(PATIENCE, talking).await.unwrap();
    drop((held, quiet));
    over
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_although_nobody_reads_its_input() {
    let (mut client, talk) = talk(false).await;
    let chunk = ToNode::Input(Bytes::from(vec![0; ATTACH_CHUNK_BYTES_MAX]));
    for _ in 0..ATTACH_WINDOW_BYTES / ATTACH_CHUNK_BYTES_MAX {
        say(&mut client, &chunk).await;
    }
    drop(client);
    let over = over(talk).await;
    assert!(matches!(over, Over::Gone(_)), "{over:?}");
}

#[tokio::test]
async fn a_client_that_is_not_ours_is_cut_off_by_reason() {
    for (bytes, reason) in [
        (&[0xff; 8][..], "frame size too big"),
        (&[0, 0, 0, 1, 77], "Serde Deserialization Error"),
        (&[0, 0, 0, 2, 4, 0], "signal 0 does not exist"),
        (&[0, 0, 0, 3, 3, 1, 1], "a terminal's size where there is no terminal"),
        (&[0, 0, 0, 2, 2, 2], "bytes after a message"),
    ] {
        let (mut client, talk) = talk(false).await;
        client.get_mut().write_all(bytes).await.unwrap();
        let over = over(talk).await;
        let is_said = matches!(&over, Over::Violated(said) if said.contains(reason));
        assert!(is_said, "{bytes:?}: {over:?}");
    }
    let (mut client, talk) = talk(false).await;
    let chunk = ToNode::Input(Bytes::from(vec![0; ATTACH_CHUNK_BYTES_MAX]));
    for _ in 0..=ATTACH_WINDOW_BYTES / ATTACH_CHUNK_BYTES_MAX {
        say(&mut client, &chunk).await;
    }
    // One byte at the most was taken of all that.
    let over = over(talk).await;
    assert!(matches!(&over, Over::Violated(said) if said.contains("not taken")), "{over:?}");
}

#[tokio::test]
async fn all_output_and_then_the_end_is_heard_though_input_is_on_its_way() {
    let (mut client, talk) = talk(false).await;
    let (mut app, output) = duplex(64);
    let listening = tokio::spawn(async move {
        let (controls, _wishes) = mpsc::channel(1);
        let standard: (Input, Output, _) = (Box::new(sink()), Box::new(output), None);
        let ended = async move {
            app.write_all(&[7; 100_000]).await.unwrap();
            End::Code(5)
        };
        talk.with_process(standard, &controls, ended).await
    });
    let (mut output, mut end) = (Vec::new(), None);
    while let Some(message) = heard(&mut client).await {
        match message {
            FromNode::Output(bytes) => output.extend_from_slice(&bytes),
            FromNode::InputTaken(_) => {}
            FromNode::Ended(how) => end = Some(how),
            FromNode::Ready
            | FromNode::Opened
            | FromNode::Errors(_)
            | FromNode::OutputEnd
            | FromNode::Failed(_) => {
                panic!("{message:?}")
            }
        }
        if end.is_none() {
            say(&mut client, &ToNode::Input(Bytes::from_static(b"x"))).await;
        }
    }
    assert_eq!((output, end), (vec![7; 100_000], Some(End::Code(5))));
    drop(client);
    let over = tokio::time::timeout(PATIENCE, listening).await.unwrap().unwrap();
    assert!(matches!(over, Over::Ended(End::Code(5))), "{over:?}");
}

#[tokio::test]
async fn a_connection_is_over_when_both_sides_have_ended() {
    let (mut client, talk) = talk(false).await;
    let (mut app, ours) = duplex(64);
    let (output, input) = tokio::io::split(ours);
    let streams: (Input, Output) = (Box::new(input), Box::new(output));
    let carrying = tokio::spawn(talk.with_connection(streams));
    say(&mut client, &ToNode::Input(Bytes::from_static(b"ping"))).await;
    say(&mut client, &ToNode::InputEnd).await;
    let mut asked = String::new();
    app.read_to_string(&mut asked).await.unwrap();
    assert_eq!(asked, "ping");
    assert_eq!(heard(&mut client).await, Some(FromNode::InputTaken(4)));
    app.write_all(b"pong").await.unwrap();
    drop(app);
    assert_eq!(heard(&mut client).await, Some(FromNode::Output(Bytes::from_static(b"pong"))));
    assert_eq!(heard(&mut client).await, Some(FromNode::OutputEnd));
    assert_eq!(heard(&mut client).await, Some(FromNode::Ended(End::Code(0))));
    drop(client);
    let over = tokio::time::timeout(PATIENCE, carrying).await.unwrap().unwrap();
    assert!(matches!(over, Over::Ended(_)), "{over:?}");
}

#[tokio::test]
async fn input_that_nobody_wants_any_more_holds_nobody_up() {
    let (mut client, talk) = talk(false).await;
    let (gone, input) = duplex(1);
    drop(gone);
    let (end, ended) = tokio::sync::oneshot::channel();
    let listening = tokio::spawn(async move {
        let (controls, _wishes) = mpsc::channel(1);
        let standard: (Input, Output, _) = (Box::new(input), Box::new(empty()), None);
        talk.with_process(standard, &controls, async { ended.await.unwrap() }).await
    });
    let chunk = ToNode::Input(Bytes::from(vec![0; ATTACH_CHUNK_BYTES_MAX]));
    let mut taken = 0;
    for _ in 0..4 * ATTACH_WINDOW_BYTES / ATTACH_CHUNK_BYTES_MAX {
        say(&mut client, &chunk).await;
        let before = taken;
        while taken - before < ATTACH_CHUNK_BYTES_MAX {
            match heard(&mut client).await {
                Some(FromNode::InputTaken(bytes)) => taken += usize::try_from(bytes).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
    end.send(End::Code(0)).unwrap();
    assert_eq!(heard(&mut client).await, Some(FromNode::Ended(End::Code(0))));
    drop(client);
    listening.await.unwrap();
}
