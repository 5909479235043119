//! What is said, and with which status, when the cluster cannot be asked or its answer is lost.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::attach::FromNode;

use crate::fake::Fake;
use crate::{Ran, gavel};

fn ask(endpoints: &str, line: &str) -> Ran {
    gavel(endpoints).args(line.split_whitespace()).output().unwrap().into()
}

/// An endpoint at which nobody listens: bound once, so nobody else has it, and closed.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// An endpoint that takes connections and never says a word.
fn silence() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    (listener, endpoint)
}

#[test]
fn nobody_reached_is_3_and_names_each_endpoint_and_its_reason() {
    let (first, second) = (nobody(), nobody());
    for line in ["apps", "scale hello -i 2"] {
        let failed = ask(&format!("{first},{second}"), line).failed();
        let lines: Vec<_> = failed.lines().collect();
        assert_eq!(lines[0], "3: error: nobody could be reached", "{line}");
        assert!(lines[1].starts_with(&format!("  {first}: Connection refused")), "{failed}");
        assert!(lines[2].starts_with(&format!("  {second}: Connection refused")), "{failed}");
    }
}

#[test]
fn any_endpoint_that_answers_will_do() {
    let fake = Fake::start();
    let endpoints = format!("{},{}", nobody(), fake.endpoint());
    ask(&endpoints, "push hello -o me/hello").ok();
    ask(&endpoints, "scale hello -i 2").ok();
}

#[test]
fn a_node_that_hangs_is_passed_over_by_reads_and_by_changes() {
    let fake = Fake::start();
    let (_hanging, silent) = silence();
    let endpoints = format!("{silent},{}", fake.endpoint());
    ask(&endpoints, "cells --timeout 2s").ok();
    ask(&endpoints, "set-domain mine --timeout 2s").ok();
    // Staging may take long, at a node that is there.
    ask(&endpoints, "push hello -o me/hello --timeout 4s").ok();
    let failed = ask(&silent, "set-domain mine --timeout 500ms").failed();
    assert!(failed.starts_with("3: error: nobody could be reached"), "{failed}");
    assert!(failed.contains(&format!("{silent}: no answer within ")), "{failed}");
}

#[test]
fn people_do_not_see_an_election() {
    let fake = Fake::start();
    fake.with(|cluster| cluster.unavailable = 4);
    let ran = fake.type_in("cells");
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    fake.with(|cluster| cluster.unavailable = 4);
    let ran = fake.type_in("set-domain mine");
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert_eq!(fake.with(|cluster| cluster.asked.clone()), ["upsert_domain"]);
}

#[test]
fn a_cluster_that_never_serves_is_given_up_when_the_time_is_up() {
    let fake = Fake::start();
    fake.with(|cluster| cluster.unavailable = u32::MAX);
    let failed = fake.type_in("set-domain mine --timeout 300ms").failed();
    assert_eq!(
        failed,
        "1: error: UnknownError: the cluster could not serve this within 300ms; nothing has \
         changed; the last node asked said: the lease is not confirmed\n"
    );
}

#[test]
fn a_lost_answer_is_an_unknown_outcome_and_is_not_sent_twice() {
    let fake = Fake::start();
    fake.type_in("push hello -o me/hello").ok();
    fake.with(|cluster| {
        cluster.asked.clear();
        cluster.loses_answer = true;
    });
    let failed = fake.type_in("scale hello -i 3").failed();
    assert!(
        failed.starts_with("1: error: UnknownError: the answer was lost on the way"),
        "{failed}"
    );
    assert!(failed.contains("the outcome is unknown"), "{failed}");
    assert!(failed.ends_with("see with: gavel app hello\n"), "{failed}");
    assert_eq!(fake.with(|cluster| cluster.asked.clone()), ["update_desired_lrp"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let fake = Fake::start();
    fake.type_in("push hello -o me/hello -i 3").ok();
    let mut child = gavel(fake.endpoint())
        .arg("apps")
        .stdout({
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        })
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let mut told = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut told).unwrap();
    assert_eq!(told, "");
}

/// A node of attached streams, and how often it was connected to.
struct Attached {
    endpoint: String,
    connections: Arc<AtomicUsize>,
}

impl Attached {
    /// Says this after the greeting, reads so many frames of its client's, and hangs up.
    fn hangs_up_after(said: &'static [FromNode], frames: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                let mut stream = stream.unwrap();
                stream.read_exact(&mut [0; 8]).unwrap();
                for message in said {
                    let content = api::attach::encode(message);
                    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
                    stream.write_all(&length).unwrap();
                    stream.write_all(&content).unwrap();
                }
                for _ in 0..frames {
                    let mut length = [0; 4];
                    stream.read_exact(&mut length).unwrap();
                    let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
                    stream.read_exact(&mut vec![0; length]).unwrap();
                }
            }
        });
        Self { endpoint, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

#[test]
fn a_command_that_may_have_run_is_not_run_again() {
    let lost = Attached::hangs_up_after(&[FromNode::Ready], 1);
    let next = Attached::hangs_up_after(&[], 0);
    let endpoints = format!("{},{}", lost.endpoint, next.endpoint);
    for (words, what) in [("exec hello -- date -u", "date -u"), ("ssh hello -T", "a shell")] {
        assert_eq!(
            ask(&endpoints, words).failed(),
            format!(
                "1: error: the connection to {} was lost after it was asked to run {what}: \
                 unexpected end of file; it may have run, and is not run again\n",
                lost.endpoint
            )
        );
    }
    assert_eq!((lost.connections(), next.connections()), (2, 0));
}

#[test]
fn a_node_that_hangs_up_before_it_was_asked_is_passed_over() {
    let first = Attached::hangs_up_after(&[], 0);
    let second = Attached::hangs_up_after(&[], 0);
    let failed =
        ask(&format!("{},{}", first.endpoint, second.endpoint), "exec hello -- date").failed();
    assert!(failed.starts_with("3: error: nobody could be reached"), "{failed}");
    assert!(failed.contains("a node with TLS takes --ca, --cert and --key"), "{failed}");
    assert_eq!((first.connections(), second.connections()), (1, 1));
}
