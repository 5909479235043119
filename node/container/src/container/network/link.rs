//! Links by their names: whether there is one, and its end.

use std::io;
use std::num::NonZeroI32;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::super::error::{Error, Result};
use super::super::runtime::blocking;
use crate::limits::LINK_GONE_PAUSE;

/// The kernel's number for a link, if it is there.
pub(super) fn index_of(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}

/// Takes a link away, with its other end; done if it is not there.
///
/// Returns when it is gone. The kernel answers later, when no processor looks at it any more:
/// 1 ms and 25 ms, measured in November 2026. It is told by a thread of its own, which others need
/// not wait for.
pub(super) async fn remove_link(name: &str) -> Result<()> {
    if index_of(name).is_none() {
        return Ok(());
    }
    let asked = name.to_owned();
    let mut deletion = std::pin::pin!(blocking(move || delete(&asked)));
    loop {
        tokio::select! {
            deleted = &mut deletion => match deleted {
                // The kernel took it meanwhile, with the namespace of its other end.
                Err(error) if error.raw_os_error() != Some(Errno::ENODEV as i32) => {
                    let (what, reason) = (format!("delete link {name}"), error.to_string());
                    return Err(Error::Netlink { what, reason });
                }
                Ok(()) | Err(_) => return Ok(()),
            },
            () = tokio::time::sleep(LINK_GONE_PAUSE) => {
                if index_of(name).is_none() {
                    return Ok(());
                }
            }
        }
    }
}

fn delete(name: &str) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::DelLink(link));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
    let NetlinkPayload::Error(answer) = answer.map_err(io::Error::other)?.payload else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    match answer.code.map(NonZeroI32::get) {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
    }
}
