//! Ports of a container, as if they were here: each connection to one is a stream of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use api::attach::{self, Forward, FromNode, ToNode, What, Window};
use api::limits::ATTACH_CHUNK_BYTES_MAX;
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::open;
use crate::client::Client;
use crate::commands::Instance;
use crate::failure::Failure;
use crate::limits::{ATTACHED_WAITING_MAX, FORWARDS_MAX, RETRY_WAIT_MIN};

/// `[BIND:]PORT:[HOST:]CONTAINER_PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    bind: String,
    port: u16,
    to: Forward,
}

/// # Errors
///
/// Says what a rule looks like.
pub(crate) fn parse_rule(text: &str) -> Result<Rule, String> {
    let wrong = || "a rule is [BIND:]PORT:[HOST:]CONTAINER_PORT, for instance 8080:80".to_owned();
    let parts = split(text).ok_or_else(wrong)?;
    let is_port = |part: &str| part.parse::<u16>().is_ok();
    let (bind, port, host, to) = match parts[..] {
        [port, to] => (None, port, None, to),
        [bind, port, to] if is_port(port) && !is_port(bind) => (Some(bind), port, None, to),
        [port, host, to] => (None, port, Some(host), to),
        [bind, port, host, to] => (Some(bind), port, Some(host), to),
        _ => return Err(wrong()),
    };
    let host = match host {
        None => None,
        Some("localhost") => Some(Ipv4Addr::LOCALHOST),
        Some(host) => Some(host.parse().map_err(|_| {
            format!("{host} is neither localhost nor an IPv4 address, as the container sees them")
        })?),
    };
    let bind = match bind {
        None | Some("localhost") => "127.0.0.1",
        Some("*") => "0.0.0.0",
        Some(bind) => bind,
    };
    let to_port: u16 = to.parse().map_err(|_| wrong())?;
    if to_port == 0 {
        return Err("a container's port is 1 to 65535".to_owned());
    }
    let port = port.parse().map_err(|_| wrong())?;
    Ok(Rule { bind: bind.to_owned(), port, to: Forward { host, port: to_port } })
}

/// At the colons, but for those of an IPv6 address in brackets, as ssh(1) has it.
fn split(text: &str) -> Option<Vec<&str>> {
    let Some(rest) = text.strip_prefix('[') else { return Some(text.split(':').collect()) };
    let (address, rest) = rest.split_once("]:")?;
    Some([address].into_iter().chain(rest.split(':')).collect())
}

/// Ports that are open here, until it is dropped.
#[derive(Debug)]
pub(crate) struct Forwarding(Vec<JoinHandle<()>>);

impl Forwarding {
    /// Opens all ports, or none; says on standard error which lead where.
    ///
    /// # Errors
    ///
    /// A port cannot be had.
    pub(crate) async fn start(
        client: &Client,
        instance: &Instance,
        rules: &[Rule],
    ) -> Result<Self, Failure> {
        let mut listeners = Vec::new();
        for rule in rules {
            let address = (rule.bind.as_str(), rule.port);
            let listener = TcpListener::bind(address).await.map_err(|error| {
                Failure::Failed(format!("cannot listen on {}:{}: {error}", rule.bind, rule.port))
            })?;
            let address = listener
                .local_addr()
                .map_err(|error| Failure::Failed(format!("{}: {error}", rule.bind)))?;
            listeners.push((listener, address, rule.to.clone()));
        }
        let room = Arc::new(Semaphore::new(FORWARDS_MAX));
        let client = Rc::new(client.fork());
        let tasks = listeners.into_iter().map(|(listener, address, to)| {
            let host = to.host.map(|host| format!("{host}:")).unwrap_or_default();
            eprintln!("Forwarding {address} to {host}{} of {instance}", to.port);
            let (client, room) = (Rc::clone(&client), Arc::clone(&room));
            let instance = instance.clone();
            tokio::task::spawn_local(accept(client, room, instance, listener, to))
        });
        Ok(Self(tasks.collect()))
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

async fn accept(
    client: Rc<Client>,
    room: Arc<Semaphore>,
    instance: Instance,
    listener: TcpListener,
    to: Forward,
) {
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("port {}: {error}", to.port);
                tokio::time::sleep(RETRY_WAIT_MIN).await;
                continue;
            }
        };
        let (client, instance, to) = (Rc::clone(&client), instance.clone(), to.clone());
        tokio::task::spawn_local(async move {
            if let Err(failure) = carry(&client, &instance, to, stream, from).await {
                eprintln!("{instance}: {failure}");
            }
            drop(permit);
        });
    }
}

/// Carries one connection, until both sides have ended.
async fn carry(
    client: &Client,
    instance: &Instance,
    to: Forward,
    stream: TcpStream,
    from: SocketAddr,
) -> Result<(), Failure> {
    let broken = |error: std::io::Error| Failure::Failed(format!("{from}: {error}"));
    stream.set_nodelay(true).map_err(broken)?;
    let (mut sink, mut frames) = client.attach(&open(instance, What::Forward(to))).await?.split();
    let (mut here_out, mut here_in) = stream.into_split();
    let (said, mut queue) = mpsc::channel::<ToNode>(ATTACHED_WAITING_MAX);
    let window = Window::default();
    let sending = async {
        while let Some(message) = queue.recv().await {
            sink.send(attach::encode(&message)).await?;
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let feeding = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(ATTACH_CHUNK_BYTES_MAX);
            let mut bounded = (&mut here_out).take(ATTACH_CHUNK_BYTES_MAX as u64);
            if bounded.read_buf(&mut buffer).await? == 0 {
                break;
            }
            window.take(buffer.len()).await;
            drop(said.send(ToNode::Input(buffer.split().freeze())).await);
        }
        drop(said.send(ToNode::InputEnd).await);
        std::future::pending::<std::io::Result<()>>().await
    };
    let receiving = async {
        loop {
            match attach::receive(&mut frames).await? {
                Some(FromNode::Output(bytes)) => here_in.write_all(&bytes).await?,
                Some(FromNode::InputTaken(bytes)) => window.taken(bytes),
                Some(FromNode::OutputEnd) => here_in.shutdown().await?,
                Some(FromNode::Failed(error)) => return Err(std::io::Error::other(error)),
                Some(FromNode::Ready | FromNode::Opened | FromNode::Errors(_)) => {}
                Some(FromNode::Ended(_)) | None => return Ok(()),
            }
        }
    };
    tokio::select! {
        ended = receiving => ended,
        ended = sending => ended,
        ended = feeding => ended,
    }
    .map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_ssh_reads_it() {
        let rule = |bind: &str, port, host: Option<[u8; 4]>, to| {
            let to = Forward { host: host.map(Ipv4Addr::from), port: to };
            Ok(Rule { bind: bind.to_owned(), port, to })
        };
        assert_eq!(parse_rule("8080:80"), rule("127.0.0.1", 8080, None, 80));
        assert_eq!(parse_rule("0:80"), rule("127.0.0.1", 0, None, 80));
        assert_eq!(parse_rule("1:localhost:80"), rule("127.0.0.1", 1, Some([127, 0, 0, 1]), 80));
        assert_eq!(parse_rule("1:10.0.0.5:80"), rule("127.0.0.1", 1, Some([10, 0, 0, 5]), 80));
        assert_eq!(parse_rule("0.0.0.0:1:80"), rule("0.0.0.0", 1, None, 80));
        assert_eq!(parse_rule("*:1:10.0.0.5:80"), rule("0.0.0.0", 1, Some([10, 0, 0, 5]), 80));
        assert_eq!(parse_rule("[::1]:1:80"), rule("::1", 1, None, 80));
        for wrong in ["", "80", "a:80", "80:a", "1:80:", "1:2:3:4:5", "65536:80", "1:0", "[::1:80"]
        {
            assert!(parse_rule(wrong).is_err(), "{wrong}");
        }
        let named = parse_rule("1:db.example:80").unwrap_err();
        assert!(named.starts_with("db.example is neither"), "{named}");
    }
}
