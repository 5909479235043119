//! A neighbour of this host, which is not of the cluster.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use tokio::net::TcpListener;

use super::world::{World, command, in_network};

/// A network namespace at the other end of a veth pair, with eight addresses.
pub(crate) struct Other {
    name: String,
    /// Its first address.
    pub(crate) address: Ipv4Addr,
    /// This host's, towards it.
    pub(crate) host: Ipv4Addr,
}

impl Other {
    pub(crate) fn new(world: &World) -> Self {
        let name = world.config.bridge.replace("gt", "go");
        let [_, b, c, _] = world.config.subnet.gateway().octets();
        let address = |last| Ipv4Addr::new(172, 30, b ^ c, last);
        let (host, other) = (address(1), Self { name, address: address(2), host: address(1) });
        let name = &other.name;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"));
        ip(&format!("addr add {host}/24 dev {name}"));
        ip(&format!("link set {name} up"));
        for number in 0..8 {
            ip(&format!("-n {name} addr add {}/24 dev eth0", other.address(number)));
        }
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
        other
    }

    /// One of its eight addresses, which follow each other.
    pub(crate) fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() + u32::from(number))
    }

    pub(crate) fn namespace(&self) -> PathBuf {
        format!("/run/netns/{}", self.name).into()
    }

    /// Takes connections at every address, on a port of the kernel's choice.
    pub(crate) fn listen(&self) -> TcpListener {
        self.listen_on(0)
    }

    pub(crate) fn listen_on(&self, port: u16) -> TcpListener {
        let listener = in_network(&self.namespace(), || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        TcpListener::from_std(listener).unwrap()
    }

    /// Sends every datagram back, at every address, until the test's process ends.
    pub(crate) fn echo_on(&self, port: u16) {
        for number in 0..8 {
            let address = SocketAddr::new(IpAddr::V4(self.address(number)), port);
            let socket = in_network(&self.namespace(), || UdpSocket::bind(address).unwrap());
            std::thread::spawn(move || {
                let mut datagram = [0; 64];
                while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                    let _ = socket.send_to(&datagram[..length], from);
                }
            });
        }
    }

    /// Knows the way to what is behind this host.
    pub(crate) fn route(&self, network: impl std::fmt::Display) {
        ip(&format!("-n {} route add {network} via {}", self.name, self.host));
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
        // With sockets in it that others hold, it and its link live on.
        let _ = Command::new("ip").args(["link", "del", &self.name]).output();
    }
}

fn ip(words: &str) {
    command("ip", &words.split(' ').collect::<Vec<_>>());
}
