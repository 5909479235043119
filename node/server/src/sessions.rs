//! Who is in which container now: sessions, from their admission to their end in the logs.
//!
//! - `admission`: how many there may be;
//! - `talk`: the bytes between a client and a process or a port;
//! - `exec`: a process of a session, which ends with it;
//! - `forward`: a connection from inside a container's network;
//! - `terminal`: a terminal's master side as a stream.
//!
//! A session is the node's: it ends with the node, and a node that comes back ends what a former
//! life has left ([`end_leftovers`]). The containers do not mind.

mod admission;
mod exec;
mod forward;
mod talk;
mod terminal;

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use api::attach::{Frames, What};
use api::wire::Stream;
use container::container::{ContainerId, LogStream, Process, Runtime};
use tokio_util::sync::CancellationToken;

use crate::limits::{SESSION_COMMAND_CHARS_MAX, SESSION_END_MAX};

use admission::Admission;
pub(crate) use exec::end_leftovers;

/// Where a session's lines in its container's log come from, as Cloud Foundry has it.
const LOG_SOURCE: &str = "CELL/SSHD";

/// The sessions of this node.
#[derive(Debug)]
pub(crate) struct Sessions {
    runtime: Runtime,
    admission: Admission,
    /// Cancelled when the node ends.
    closing: CancellationToken,
}

/// Who has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visitor {
    /// Of the client's certificate, where it has shown one.
    pub(crate) name: Option<String>,
    pub(crate) address: SocketAddr,
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({})", name.escape_debug(), self.address),
            None => self.address.fmt(f),
        }
    }
}

/// What is to be done where, and for whom.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) container: ContainerId,
    /// As people know it: `APP/INDEX`.
    pub(crate) instance: String,
    pub(crate) who: String,
    pub(crate) what: What,
    /// As the app's own processes are started.
    pub(crate) process: Process,
}

impl Sessions {
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self { runtime, admission: Admission::default(), closing: CancellationToken::new() }
    }

    /// Carries a visit out, to its end: whatever that is, nothing of it is left.
    pub(crate) async fn carry_out(&self, visit: Visit, frames: Frames<Stream>) {
        let _admitted = match self.admission.admit(&visit.container) {
            Ok(admitted) => admitted,
            Err(error) => return talk::refuse(frames, error).await,
        };
        let (id, who, instance) = (&visit.container, &visit.who, &visit.instance);
        let what = told(&visit.what);
        let note = async |text: String| {
            if let Err(error) = self.runtime.log(id, LogStream::Stdout, LOG_SOURCE, &text).await {
                tracing::debug!(container = %id, %error, "its log is gone");
            }
        };
        let begun = Instant::now();
        tracing::info!(who, instance, container = %id, what, "a session begins");
        note(format!("Successful remote access by {who}: {what}")).await;
        let how = match &visit.what {
            What::Exec(exec) => self.exec(id, exec, &visit.process, frames).await,
            What::Forward(forward) => self.forward(id, forward, frames).await,
        };
        let seconds = begun.elapsed().as_secs();
        tracing::info!(who, instance, container = %id, what, how, seconds, "a session has ended");
        note(format!("Remote access ended for {who}: {what}: {how} after {seconds} s")).await;
    }

    /// Ends every session, and returns when all have ended; no other begins.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        if tokio::time::timeout(SESSION_END_MAX, self.admission.close()).await.is_err() {
            tracing::warn!("sessions do not end; the node ends before them");
        }
    }
}

/// What is done, on one line that a client cannot forge.
fn told(what: &What) -> String {
    match what {
        What::Exec(exec) => {
            let command = exec.command.join(" ");
            let words = if command.is_empty() { "a shell" } else { &command };
            let words = words.escape_debug();
            let mut text: String = words.clone().take(SESSION_COMMAND_CHARS_MAX).collect();
            if words.count() > SESSION_COMMAND_CHARS_MAX {
                text.push('…');
            }
            match &exec.user {
                Some(user) => format!("exec as {}: {text}", user.escape_debug()),
                None => format!("exec: {text}"),
            }
        }
        What::Forward(forward) => match forward.host {
            Some(host) => format!("forward to {host}:{}", forward.port),
            None => format!("forward to port {}", forward.port),
        },
    }
}

#[cfg(test)]
mod tests {
    use api::attach::{Exec, Forward};
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_is_done_is_told_on_one_line() {
        let exec = |command: &[&str], user: Option<&str>| {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            told(&What::Exec(Exec { command, user: user.map(str::to_owned), terminal: None }))
        };
        let lines = [
            exec(&["ls", "-l"], None),
            exec(&[], Some("root")),
            exec(&["x\nRemote access ended for 1.2.3.4"], Some("a\x1b[2J")),
            told(&What::Forward(Forward { host: None, port: 80 })),
            told(&What::Forward(Forward { host: Some([127, 0, 0, 1].into()), port: 80 })),
        ];
        expect![[r"
            exec: ls -l
            exec as root: a shell
            exec as a\u{1b}[2J: x\nRemote access ended for 1.2.3.4
            forward to port 80
            forward to 127.0.0.1:80"]]
        .assert_eq(&lines.join("\n"));
        let long = exec(&["y".repeat(100_000).as_str()], None);
        assert!(long.ends_with("y…") && long.len() < 2000, "{} bytes", long.len());
    }

    #[test]
    fn a_visitor_is_an_address_and_perhaps_a_name() {
        let address = "10.0.0.9:4321".parse().unwrap();
        let visitor = |name: Option<&str>| Visitor { name: name.map(str::to_owned), address };
        assert_eq!(visitor(None).to_string(), "10.0.0.9:4321");
        assert_eq!(visitor(Some("ops\n")).to_string(), "ops\\n (10.0.0.9:4321)");
    }
}
