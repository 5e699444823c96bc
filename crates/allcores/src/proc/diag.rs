//! The kernel's TCP connections by port and state, asked for by sock_diag(7).
//!
//! `/proc/net/tcp` tells the same, and writes a line for each connection in TIME_WAIT first: under short connections
//! there are tens of thousands, and reading them takes a fifth of a second.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
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
/// `NLM_F_REQUEST`.
const ONE: u16 = 1;
/// Where `idiag_state` stands in `struct inet_diag_msg`.
const STATE: usize = 1;
/// TCP's states that a connection can be in while it waits to be accepted: SYN_RECV, NEW_SYN_RECV; ESTABLISHED, CLOSE_WAIT.
const INCOMPLETE: [u8; 2] = [3, 12];
const COMPLETE: [u8; 2] = [1, 8];
/// Where `id.idiag_sport` and `id.idiag_src` stand in it.
const PORT: usize = 4;
const SOURCE: usize = 8;
/// Where `idiag_inode` stands in `struct inet_diag_msg`.
const INODE: usize = 68;
/// `struct inet_diag_req_v2`.
const QUESTION: usize = 56;

/// For so many ports each is asked for; of more, all connections are.
const MOST_QUESTIONS: usize = 8;

/// What the kernel fills at most at once.
const CHUNK: usize = 32 * 1024;

/// The inodes of connections with one of these local ports in one of these states (a bit for each).
///
/// # Errors
///
/// Where the kernel has no such thing, or a container forbids it.
pub(super) fn inodes(ports: &[u16], states: u32) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    let wanted: BTreeSet<u16> = ports.iter().copied().collect();
    // For each question the kernel walks through all connections that there are.
    let any = BTreeSet::from([0]);
    let asked = if wanted.len() > MOST_QUESTIONS { &any } else { &wanted };
    for port in asked {
        let found = sockets(*port, states)?.into_iter();
        inodes.extend(found.filter(|(local, _)| wanted.contains(&local.port())).map(|(_, inode)| inode));
    }
    Ok(inodes)
}

/// The local addresses and the inodes of sockets with this local port in one of these states.
///
/// # Errors
///
/// As with [`inodes`].
pub(super) fn sockets(port: u16, states: u32) -> io::Result<Vec<(SocketAddr, u64)>> {
    let socket = open()?;
    let mut found = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        rustix::net::send(&socket, &question(family, port, states), SendFlags::empty())?;
        while take_answers(&socket, &mut found)? {}
    }
    Ok(found)
}

fn open() -> io::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
    Ok(rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?)
}

/// Whether the end of a connection that is at `local` was taken by a process: until then it belongs to nobody, and so has
/// no inode. True as well for one that is closed already.
///
/// # Errors
///
/// Where the kernel has no such thing, or a container forbids it.
pub(crate) fn is_accepted(local: SocketAddr, peer: SocketAddr) -> io::Result<bool> {
    let socket = open()?;
    rustix::net::send(&socket, &question_about(local, peer), SendFlags::empty())?;
    let mut chunk = [0; 1024];
    let (length, _) = rustix::net::recv(socket.as_fd(), &mut chunk[..], RecvFlags::DONTWAIT)?;
    let (kind, message, _) = split(&chunk[..length]).ok_or(io::ErrorKind::InvalidData)?;
    if kind != BY_FAMILY {
        let errno = word(message, 0).unwrap_or_default().cast_signed();
        let is_gone = kind == ERROR && -errno == libc::ENOENT;
        return if is_gone { Ok(true) } else { Err(io::Error::from_raw_os_error(-errno)) };
    }
    let state = *message.get(STATE).ok_or(io::ErrorKind::InvalidData)?;
    let inode = word(message, INODE).ok_or(io::ErrorKind::InvalidData)?;
    // Where there is no such connection any more, the kernel finds its listener.
    let waits = INCOMPLETE.contains(&state) || COMPLETE.contains(&state) && inode == 0;
    Ok(!waits)
}

fn question_about(local: SocketAddr, peer: SocketAddr) -> [u8; HEADER + QUESTION] {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut bytes = question(family, local.port(), u32::MAX);
    bytes[6..8].copy_from_slice(&ONE.to_ne_bytes());
    bytes[26..28].copy_from_slice(&peer.port().to_be_bytes());
    for (at, ip) in [(28, local.ip()), (44, peer.ip())] {
        match ip {
            IpAddr::V4(ip) => bytes[at..at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes[at..at + 16].copy_from_slice(&ip.octets()),
        }
    }
    // `INET_DIAG_NOCOOKIE`
    bytes[64..72].fill(0xff);
    bytes
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
fn take_answers(socket: &OwnedFd, found: &mut Vec<(SocketAddr, u64)>) -> io::Result<bool> {
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
            BY_FAMILY => found.push(entry(message).ok_or(io::ErrorKind::InvalidData)?),
            _ => {}
        }
        rest = after;
    }
    Ok(true)
}

/// The local address and the inode of a `struct inet_diag_msg`.
fn entry(message: &[u8]) -> Option<(SocketAddr, u64)> {
    let is_v4 = *message.first()? == AddressFamily::INET.as_raw().to_le_bytes()[0];
    let port = u16::from_be_bytes(message.get(PORT..PORT + 2)?.try_into().ok()?);
    let ip: [u8; 16] = message.get(SOURCE..SOURCE + 16)?.try_into().ok()?;
    let ip = match ip {
        [a, b, c, d, ..] if is_v4 => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(ip),
    };
    Some((SocketAddr::new(ip, port), word(message, INODE)?.into()))
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
    const SYN_SENT: u32 = 1 << 2;

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
            let among_many: Vec<u16> = (1..=100).chain([address.port(), own]).collect();
            assert_eq!(inodes(&among_many, ESTABLISHED).unwrap().len(), 2, "of all, two are meant");
        }
    }

    #[test]
    fn a_connection_is_accepted_when_somebody_has_taken_it_and_not_before() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect(server).unwrap();
            let local = client.local_addr().unwrap();
            assert!(!is_accepted(server, local).unwrap());
            let accepted = listener.accept().unwrap();
            assert!(is_accepted(server, local).unwrap());
            drop(accepted);
            assert!(is_accepted(server, local).unwrap(), "it was");
            drop(client);
            assert!(is_accepted(server, local).unwrap(), "it was");
        }
    }

    #[test]
    fn a_connection_to_a_listener_of_both_kinds_is_found_by_its_ipv4_address() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, local) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
        assert!(!is_accepted(server, local).unwrap());
        let _accepted = listener.accept().unwrap();
        assert!(is_accepted(server, local).unwrap());
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
        assert_eq!(inodes(&[address.port()], SYN_SENT).unwrap(), [] as [u64; 0]);
    }
}
