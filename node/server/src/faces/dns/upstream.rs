//! Whom this node asks for names outside of the cluster.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Question, Transport};
use crate::limits::{DNS_REREAD_PAUSE, DNS_UPSTREAM_WAIT, DNS_UPSTREAMS_MAX};

/// The port of DNS.
const PORT: u16 = 53;

/// The resolvers, in the order in which they are asked.
#[derive(Debug)]
pub(crate) enum Upstream {
    /// Those that the operator names.
    Fixed(Vec<SocketAddr>),
    /// The host's own, by its resolv.conf(5), which changes as laptops travel.
    OfHost { path: PathBuf, known: Mutex<Option<(Instant, Vec<SocketAddr>)>> },
}

impl Upstream {
    pub(crate) fn new(nameservers: &[IpAddr]) -> Self {
        if nameservers.is_empty() {
            return Self::OfHost { path: "/etc/resolv.conf".into(), known: Mutex::default() };
        }
        let servers = nameservers.iter().take(DNS_UPSTREAMS_MAX);
        Self::Fixed(servers.map(|address| (*address, PORT).into()).collect())
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let (path, known) = match self {
            Self::Fixed(servers) => return servers.clone(),
            Self::OfHost { path, known } => (path, known),
        };
        let mut known = known.lock().expect("no holder of the lock panics");
        if let Some((at, servers)) = &*known
            && at.elapsed() < DNS_REREAD_PAUSE
        {
            return servers.clone();
        }
        let servers = of_resolv_conf(&std::fs::read_to_string(path).unwrap_or_default());
        *known = Some((Instant::now(), servers.clone()));
        servers
    }

    /// Asks one after the other until one answers.
    pub(super) async fn ask(&self, question: &Question, transport: Transport) -> Option<Vec<u8>> {
        for server in self.servers() {
            let answer = async {
                match transport {
                    Transport::Udp => ask_by_udp(server, question).await,
                    Transport::Tcp => ask_by_tcp(server, question).await,
                }
            };
            match timeout(DNS_UPSTREAM_WAIT, answer).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a resolver was not asked"),
                Err(_) => tracing::debug!(%server, "a resolver does not answer"),
            }
        }
        None
    }
}

/// The servers of a resolv.conf(5); loopback ones too, for it is this host that asks.
fn of_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address: IpAddr = words
            .next()
            .filter(|word| *word == "nameserver")
            .and_then(|_| words.next()?.parse().ok())?;
        Some((address, PORT).into())
    };
    text.lines().filter_map(server).take(DNS_UPSTREAMS_MAX).collect()
}

/// From a port of the kernel's choice, under an id of ours: whoever would answer in another's
/// place has to guess both (RFC 5452).
async fn ask_by_udp(server: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = rand::random();
    socket.send(&question.under(id)).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = question.reply(id, buffer[..length].to_vec()) {
            return Ok(reply);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = rand::random();
    write(&mut stream, &question.under(id)).await?;
    loop {
        let reply = read(&mut stream, usize::from(u16::MAX)).await?;
        if let Some(reply) = question.reply(id, reply) {
            return Ok(reply);
        }
    }
}

/// One message of a stream: its length comes first (RFC 1035, 4.2.2).
pub(super) async fn read(stream: &mut TcpStream, bytes_max: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > bytes_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    // In one piece: the parts of another would wait for each other's acknowledgement.
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_names_up_to_three_resolvers() {
        let text = "# nameserver 1.1.1.1\nsearch lan\nnameserver 127.0.0.53\n nameserver\t::1 # x\n\
                    nameservers 2.2.2.2\nnameserver\nnameserver fe80::1%eth0\nnameserver x\n\
                    nameserver 9.9.9.9\nnameserver 8.8.8.8\n";
        let servers: Vec<String> = of_resolv_conf(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["127.0.0.53:53", "[::1]:53", "9.9.9.9:53"]);
        assert_eq!(of_resolv_conf(""), []);
    }

    #[test]
    fn the_hosts_resolvers_are_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of_host =
            |known| Upstream::OfHost { path: file.path().to_owned(), known: Mutex::new(known) };
        std::fs::write(file.path(), "nameserver 9.9.9.9\n").unwrap();
        let before = Instant::now().checked_sub(DNS_REREAD_PAUSE).unwrap();
        assert_eq!(of_host(Some((before, vec![]))).servers(), ["9.9.9.9:53".parse().unwrap()]);
        assert_eq!(of_host(Some((Instant::now(), vec![]))).servers(), []);
        let fixed = Upstream::new(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(fixed.servers().len(), 2);
    }
}
