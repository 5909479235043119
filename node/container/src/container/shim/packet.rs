//! Packets between shim and init, and lines between node and shim: one JSON value each, with
//! descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::syscalls::inherited;
use crate::limits::SHIM_MESSAGE_BYTES_MAX;

/// Descriptors that come with one packet.
pub(super) const FDS_MAX: usize = 4;
/// Bytes of one packet; error texts are cut to fit.
const PACKET_BYTES_MAX: usize = 8192;

/// What arrived.
#[derive(Debug)]
pub(super) struct Packet<T> {
    pub value: T,
    pub fds: Vec<OwnedFd>,
    /// The sender's process id as this process sees it, if the socket was told to say it.
    pub sender: Option<i32>,
}

pub(super) fn send<T: Serialize>(socket: &OwnedFd, value: &T, fds: &[RawFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    let iov = [IoSlice::new(&bytes)];
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &iov, control, flags, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Writes one line of JSON to a stream, with descriptors beside it.
pub(super) fn send_line<T: Serialize>(
    stream: &UnixStream,
    value: &T,
    fds: &[OwnedFd],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    // Short enough to go at once into a socket that nobody else writes to.
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&line)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reads one line of JSON from a blocking stream, and the descriptors that come with it; `None`
/// where the other end closed it instead.
pub(in super::super) fn receive_line<T: DeserializeOwned>(
    stream: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let (mut line, mut fds) = (Vec::new(), Vec::new());
    loop {
        let mut bytes = [0; PACKET_BYTES_MAX];
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let mut control = cmsg_space!([RawFd; FDS_MAX]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
        };
        let length = message.bytes;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                #[expect(unsafe_code, reason = "descriptors arrive as numbers")]
                // SAFETY: the kernel has just made these for us; nobody else knows of them.
                fds.extend(numbers.into_iter().map(|fd| unsafe { inherited(fd) }));
            }
        }
        if length == 0 {
            return Ok(None);
        }
        line.extend_from_slice(&bytes[..length]);
        if line.ends_with(b"\n") {
            return Ok(Some((serde_json::from_slice(&line)?, fds)));
        }
        if line.len() > SHIM_MESSAGE_BYTES_MAX {
            return Err(Errno::EMSGSIZE.into());
        }
    }
}

/// The next packet, or `None` when the other end is closed; waits for it if the socket blocks.
pub(super) fn receive<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<Option<Packet<T>>> {
    let mut bytes = [0; PACKET_BYTES_MAX];
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let mut control = cmsg_space!([RawFd; FDS_MAX], UnixCredentials);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags) {
            Ok(message) => break message,
            // The other end died with packets of ours unread. That is told once, and before what
            // it said last, which is still to be read; then comes the end.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(e) => return Err(e.into()),
        }
    };
    let (length, whole) = (message.bytes, !message.flags.contains(MsgFlags::MSG_TRUNC));
    let (mut fds, mut sender) = (Vec::new(), None);
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            #[expect(unsafe_code, reason = "descriptors arrive as numbers")]
            // SAFETY: the kernel has just made these for us; nobody else knows of them.
            fds.extend(numbers.into_iter().map(|fd| unsafe { inherited(fd) }));
        } else if let ControlMessageOwned::ScmCredentials(credentials) = control {
            sender = Some(credentials.pid());
        }
    }
    if length == 0 {
        return Ok(None);
    }
    if !whole {
        return Err(Errno::EMSGSIZE.into());
    }
    Ok(Some(Packet { value: serde_json::from_slice(&bytes[..length])?, fds, sender }))
}

/// Cuts a text so that it fits a packet whatever JSON makes of it.
pub(super) fn fitting(mut text: String) -> String {
    let mut end = text.len().min(PACKET_BYTES_MAX / 8);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Tells the kernel to name the sender of each packet (SO_PASSCRED, unix(7)).
pub(super) fn name_senders(socket: &OwnedFd) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::PassCred, &true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn the_last_words_of_one_who_did_not_listen_are_heard() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        send(&ours, &"go on", &[]).unwrap();
        send(&theirs, &"failed", &[]).unwrap();
        drop(theirs);
        assert_eq!(receive::<String>(&ours).unwrap().unwrap().value, "failed");
        assert!(receive::<String>(&ours).unwrap().is_none());
    }
}
