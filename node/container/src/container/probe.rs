//! Speaking to what listens in a container, from inside of its network.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};

use super::error::{Error, Result};
use super::runtime::{Runtime, blocking, lock};
use super::spec::ContainerId;

impl Runtime {
    /// A connection to a TCP port at the container's own address, as a process in the container
    /// would make it: no rule for what comes from outside stands in between.
    ///
    /// # Errors
    ///
    /// There is no such container. Within: what connect(2) says; waiting is the caller's to bound.
    pub async fn connect(&self, id: &ContainerId, port: u16) -> Result<io::Result<TcpStream>> {
        let address = self.0.find(id)?.record.address;
        self.connect_to(id, SocketAddr::from((address, port))).await
    }

    /// A connection to anywhere that a process in the container could make, by its own network: its
    /// loopback is the container's, and the rules for what leaves it hold.
    ///
    /// # Errors
    ///
    /// As [`Runtime::connect`].
    pub async fn connect_to(
        &self,
        id: &ContainerId,
        address: SocketAddr,
    ) -> Result<io::Result<TcpStream>> {
        let container = self.0.find(id)?;
        let namespace = match &*lock(&container.namespace) {
            Some(namespace) => namespace.try_clone(),
            None => return Err(Error::NotFound(id.clone())),
        };
        Ok(async {
            let namespace = namespace?;
            let socket = blocking(move || socket_in(&namespace, address)).await?;
            socket.connect(address).await
        }
        .await)
    }
}

/// A socket belongs to the network namespace in which it was made, wherever it is used.
fn socket_in(namespace: &File, address: SocketAddr) -> io::Result<TcpSocket> {
    /// Brings the thread back, whatever happens: it is used for other things later.
    struct Back(File);
    impl Drop for Back {
        fn drop(&mut self) {
            if setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).is_err() {
                // A thread of this node's in a stranger's network is worse than no node.
                std::process::abort();
            }
        }
    }
    let back = Back(File::open("/proc/thread-self/ns/net")?);
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    drop(back);
    socket
}
