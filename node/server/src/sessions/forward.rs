//! A connection from inside a container's network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use api::Error;
use api::attach::{Forward, Frames};
use api::wire::Stream;
use container::container::{ContainerId, Runtime};
use tokio::net::TcpStream;

use super::Sessions;
use super::talk::{Over, Talk, refuse};
use crate::limits::FORWARD_CONNECT_MAX;

impl Sessions {
    /// Returns how it ended.
    pub(super) async fn forward(
        &self,
        id: &ContainerId,
        forward: &Forward,
        frames: Frames<Stream>,
    ) -> String {
        let connection = match reach(&self.runtime, id, forward).await {
            Ok(connection) => connection,
            Err(error) => {
                let how = format!("not connected: {error}");
                refuse(frames, error).await;
                return how;
            }
        };
        let talk = match Talk::begin(frames, false).await {
            Ok(talk) => talk,
            Err(error) => return format!("the client has gone: {error}"),
        };
        let (output, input) = connection.into_split();
        tokio::select! {
            over = talk.with_connection((Box::new(input), Box::new(output))) => match over {
                Over::Ended(_) => "closed".to_owned(),
                Over::Gone(None) => "closed by the client".to_owned(),
                Over::Gone(Some(error)) => format!("the client has gone: {error}"),
                Over::Violated(reason) => format!("the client was cut off: {reason}"),
            },
            () = self.closing.cancelled() => "the node is ending".to_owned(),
        }
    }
}

/// Who listens in the container does so on its address, or on its loopback alone.
async fn reach(runtime: &Runtime, id: &ContainerId, forward: &Forward) -> Result<TcpStream, Error> {
    let gone = |error: container::container::Error| Error::NotFound(error.to_string());
    let own = runtime.get(id).map_err(gone)?.address;
    let hosts = match forward.host {
        Some(host) => vec![host],
        None => vec![own, Ipv4Addr::LOCALHOST],
    };
    let mut refused = Error::NotFound(String::new());
    for host in hosts {
        let address = SocketAddr::from((host, forward.port));
        let connected = tokio::time::timeout(FORWARD_CONNECT_MAX, runtime.connect_to(id, address));
        match connected.await.unwrap_or_else(|_| Ok(Err(timed_out(FORWARD_CONNECT_MAX)))) {
            Ok(Ok(stream)) => {
                // Without it small answers wait for each other; where it cannot be had they do.
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Ok(Err(error)) => {
                refused = Error::NotFound(format!("{address} in the container: {error}"));
            }
            Err(error) => return Err(gone(error)),
        }
    }
    Err(refused)
}

fn timed_out(patience: Duration) -> io::Error {
    let reason = format!("nobody answers within {} s", patience.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, reason)
}
