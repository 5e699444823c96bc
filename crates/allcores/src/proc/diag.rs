//! The kernel's TCP connections by port and state, asked for by sock_diag(7).
//!
//! `/proc/net/tcp` tells the same, and writes a line for each connection in TIME_WAIT first: under short connections
//! there are tens of thousands, and reading them takes a fifth of a second.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `SOCK_DIAG_BY_FAMILY`, the type of the question and of each answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// `struct nlmsghdr`, and in it the length and the type.
const HEADER: usize = 16;
/// Where `idiag_inode` stands in `struct inet_diag_msg`.
const INODE: usize = 68;
/// `struct inet_diag_req_v2`.
const QUESTION: usize = 56;

/// What the kernel fills at most at once.
const CHUNK: usize = 32 * 1024;

/// The inodes of connections with one of these local ports in one of these states (a bit for each).
///
/// # Errors
///
/// Where the kernel has no such thing, or a container forbids it.
pub(super) fn inodes(ports: &[u16], states: u32) -> io::Result<Vec<u64>> {
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    let mut inodes = Vec::new();
    for port in ports {
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            rustix::net::send(&socket, &question(family, *port, states), SendFlags::empty())?;
            while take_answers(&socket, &mut inodes)? {}
        }
    }
    Ok(inodes)
}

fn question(family: AddressFamily, port: u16, states: u32) -> [u8; HEADER + QUESTION] {
    let mut bytes = [0; HEADER + QUESTION];
    let length = u32::try_from(bytes.len()).expect("a few bytes");
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    bytes[16] = family.as_raw().to_le_bytes()[0];
    bytes[17] = libc::IPPROTO_TCP.to_le_bytes()[0];
    bytes[20..24].copy_from_slice(&states.to_ne_bytes());
    bytes[24..26].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// Takes the answers that come together; false if they were the last.
fn take_answers(socket: &OwnedFd, inodes: &mut Vec<u64>) -> io::Result<bool> {
    let mut chunk = vec![0; CHUNK];
    // They are there as soon as the question is asked: nothing is waited for.
    let (length, _) = rustix::net::recv(socket.as_fd(), &mut chunk[..], RecvFlags::DONTWAIT)?;
    let mut rest = &chunk[..length];
    while !rest.is_empty() {
        let (kind, message, after) = split(rest).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            DONE => return Ok(false),
            ERROR => {
                let errno = word(message, 0).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(-errno));
            }
            BY_FAMILY => inodes.push(word(message, INODE).ok_or(io::ErrorKind::InvalidData)?.into()),
            _ => {}
        }
        rest = after;
    }
    Ok(true)
}

/// The type and the content of the first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(HEADER..length)?, after))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const ESTABLISHED: u32 = 1 << 1;

    #[test]
    fn open_connections_are_found_by_their_port() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let address = listener.local_addr().unwrap();
            let ask = || inodes(&[address.port()], ESTABLISHED).unwrap();
            assert_eq!(ask(), [] as [u64; 0], "a listener is no connection");
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(ask(), [0], "one that waits has no inode");
            let (server, _) = listener.accept().unwrap();
            assert_eq!(ask(), [rustix::fs::fstat(&server).unwrap().st_ino]);
            let own = client.local_addr().unwrap().port();
            let both = inodes(&[address.port(), own], ESTABLISHED).unwrap();
            assert_eq!(both.len(), 2, "{both:?}");
        }
    }

    #[test]
    fn many_connections_come_in_several_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pairs: Vec<_> =
            (0..300).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap())).collect();
        assert_eq!(inodes(&[address.port()], ESTABLISHED).unwrap().len(), pairs.len());
    }

    #[test]
    fn a_state_that_is_not_asked_for_is_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(inodes(&[address.port()], 1 << 6).unwrap(), [] as [u64; 0]);
    }
}
