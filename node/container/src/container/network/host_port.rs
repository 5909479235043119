//! The host's ports at which containers are reached.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use tokio::net::TcpSocket;

use super::super::error::{Error, Result};

/// A host port that no other program can bind while this is alive.
#[derive(Debug)]
pub(in super::super) struct HostPort {
    pub port: u16,
    /// Bound, never listening: connections go to the container before they would get here.
    /// `None` if another program took the port while no node was there to hold it.
    _socket: Option<TcpSocket>,
}

impl HostPort {
    fn reserve(port: u16) -> Option<Self> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).ok()?;
        Some(Self { port, _socket: Some(socket) })
    }

    /// Takes a port of a former process of ours back.
    pub(in super::super) fn adopt(port: u16) -> Self {
        Self::reserve(port).unwrap_or(Self { port, _socket: None })
    }

    /// Takes `wanted` ports of the range that neither we (`taken`) nor other programs use,
    /// looking from `cursor` on so that a port just given back rests for a while.
    pub(in super::super) fn allocate(
        range: &RangeInclusive<u16>,
        cursor: &mut u16,
        wanted: usize,
        taken: impl Fn(u16) -> bool,
    ) -> Result<Vec<Self>> {
        let (first, last) = (*range.start(), *range.end());
        let mut ports = Vec::with_capacity(wanted);
        let start = if range.contains(cursor) { *cursor } else { first };
        for port in (start..=last).chain(first..start) {
            if ports.len() == wanted {
                break;
            }
            if !taken(port) {
                ports.extend(Self::reserve(port));
                *cursor = if port == last { first } else { port + 1 };
            }
        }
        if ports.len() < wanted {
            return Err(Error::PortsExhausted { first, last, wanted, free: ports.len() });
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_or_used_range_is_named() {
        // Any free port will do: the kernel picks it, and another program (we) listens on it.
        let other = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut cursor = 0;
        let error =
            HostPort::allocate(&(port..=port), &mut cursor, 1, |_| false).unwrap_err().to_string();
        assert_eq!(error, format!("no free host port in {port}-{port}: 1 wanted, 0 free"));
        drop(other);
        let ports = HostPort::allocate(&(port..=port), &mut cursor, 1, |_| false).unwrap();
        assert_eq!(ports[0].port, port);
        assert!(std::net::TcpListener::bind(("0.0.0.0", port)).is_err(), "it is held");
        assert!(HostPort::allocate(&(port..=port), &mut cursor, 1, |p| p == port).is_err());
    }
}
