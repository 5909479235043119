//! The container's side of its link: loopback up, address, routes.
//!
//! Five ioctls of netdevice(7) and two of rtentry, on a socket in the container's network
//! namespace; the init has no runtime to drive a netlink library with.

#![expect(unsafe_code, reason = "the ioctls of netdevice(7)")]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::protocol::Setup;

// include/uapi/linux/sockios.h
const SIOCADDRT: libc::Ioctl = 0x890B;
const SIOCSIFFLAGS: libc::Ioctl = 0x8914;
const SIOCSIFADDR: libc::Ioctl = 0x8916;
const SIOCSIFNETMASK: libc::Ioctl = 0x891C;

/// IFF_NOARP (netdevice(7)): both ends of the link have one hardware address.
const NO_ARP: i16 = 0x80;

/// `struct ifreq`: a name, and a union that is 24 bytes on 64 bit machines.
#[repr(C)]
struct IfReq<T> {
    name: [u8; libc::IFNAMSIZ],
    value: T,
    padding: [u8; 24],
}

/// Sets the links of the calling process's network namespace up.
pub(super) fn configure(setup: &Setup) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    up(&socket, "lo", 0)?;
    // Alone on its link: everybody else, its neighbours too, is behind the gateway.
    request(&socket, SIOCSIFADDR, "eth0", socket_address(setup.address))?;
    request(&socket, SIOCSIFNETMASK, "eth0", socket_address(Ipv4Addr::BROADCAST))?;
    up(&socket, "eth0", NO_ARP)?;
    let host = libc::RTF_UP | libc::RTF_HOST;
    add_route(&socket, setup.gateway, Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED, host)?;
    let through = libc::RTF_UP | libc::RTF_GATEWAY;
    add_route(&socket, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, setup.gateway, through)
}

fn up(socket: &OwnedFd, name: &str, more: i16) -> io::Result<()> {
    // IFF_UP and IFF_RUNNING, a c_short in the union.
    request(socket, SIOCSIFFLAGS, name, 0x1_i16 | 0x40_i16 | more)
}

fn request<T>(socket: &OwnedFd, ioctl: libc::Ioctl, name: &str, value: T) -> io::Result<()> {
    let mut req = IfReq { name: [0; libc::IFNAMSIZ], value, padding: [0; 24] };
    req.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: `req` is at least as large as the kernel's `struct ifreq`, is initialised where
    // this ioctl reads (name and its member of the union), and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ioctl, &raw mut req) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn add_route(
    socket: &OwnedFd,
    destination: Ipv4Addr,
    mask: Ipv4Addr,
    gateway: Ipv4Addr,
    flags: libc::c_ushort,
) -> io::Result<()> {
    let mut device = *b"eth0\0";
    // SAFETY: `struct rtentry` is plain numbers and pointers, for which zero is "absent".
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = generic(socket_address(destination));
    route.rt_genmask = generic(socket_address(mask));
    route.rt_gateway = generic(socket_address(gateway));
    route.rt_flags = flags;
    route.rt_dev = device.as_mut_ptr().cast();
    // SAFETY: `route` is what this ioctl reads, and it outlives the call with the zero-terminated
    // name that it points to.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCADDRT, &raw const route) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr_in {
    #[expect(clippy::cast_possible_truncation, reason = "the kernel's constant is 2")]
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    }
}

fn generic(address: libc::sockaddr_in) -> libc::sockaddr {
    // SAFETY: both are 16 bytes of plain numbers that begin with the family (ip(7)).
    unsafe { std::mem::transmute(address) }
}
