//! Tables that somebody deletes: a firewall that starts anew takes all there are.

use std::io;

use nix::libc;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

/// The group that hears of every change of nftables (`NFNLGRP_NFTABLES`), as a bit.
const CHANGES: u32 = 1 << 6;

/// Hears of every table that is deleted from now on.
pub(in super::super) struct Deletions(TokioSocket);

impl Deletions {
    pub(in super::super) fn listen() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, CHANGES))?;
        Ok(Self(socket))
    }

    /// Returns once a table was deleted, or may have been.
    pub(in super::super) async fn next(&self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(64 << 10);
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer).await {
                Ok(()) if tells_of_deletion(&buffer) => return Ok(()),
                Ok(()) => {}
                // More has happened than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn tells_of_deletion(mut messages: &[u8]) -> bool {
    let deletion = libc::NFNL_SUBSYS_NFTABLES << 8 | libc::NFT_MSG_DELTABLE;
    while let [a, b, c, d, e, f, ..] = *messages {
        if i32::from(u16::from_ne_bytes([e, f])) == deletion {
            return true;
        }
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        messages = messages.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_found_among_other_changes() {
        let message = |kind: u16, bytes: u32| {
            let mut message = vec![0; usize::try_from(bytes).unwrap()];
            message[..4].copy_from_slice(&bytes.to_ne_bytes());
            message[4..6].copy_from_slice(&kind.to_ne_bytes());
            message
        };
        let (new, deleted) = (message(10 << 8, 24), message(10 << 8 | 2, 28));
        assert!(!tells_of_deletion(&[&new[..], &new].concat()));
        assert!(tells_of_deletion(&[&new[..], &deleted].concat()));
        assert!(tells_of_deletion(&deleted[..8]));
        // A length that is none ends the search and harms nobody.
        for length in [0, 1, 5, u32::MAX] {
            let mut wrong = new.clone();
            wrong[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(!tells_of_deletion(&wrong));
        }
        assert!(!tells_of_deletion(&[]));
    }
}
