//! The kernel's TCP and UDP sockets: `/proc/net/{tcp,udp}{,6}`, as proc_pid_net(5) describes them, and where it is asked
//! often a faster way.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::diag;

/// Which tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

const ESTABLISHED: u8 = 0x01;
const CLOSE_WAIT: u8 = 0x08;
const LISTEN: u8 = 0x0A;
/// What the kernel shows for a UDP socket that is bound and not connected.
const UDP_UNCONNECTED: u8 = 0x07;

#[derive(Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    state: u8,
    inode: u64,
}

/// Addresses and inodes of the sockets that listen (TCP) or are bound (UDP).
pub(crate) fn listener_inodes(protocol: Protocol) -> Vec<(SocketAddr, u64)> {
    let wanted = match protocol {
        Protocol::Tcp => LISTEN,
        Protocol::Udp => UDP_UNCONNECTED,
    };
    rows(protocol).into_iter().filter(|row| row.state == wanted).map(|row| (row.local, row.inode)).collect()
}

/// Inodes of the TCP connections whose local port is one of `ports` and whose answer may still be owed: those that
/// are open, or whose peer has only finished sending. 0 is a connection that waits to be accepted.
pub(crate) fn established_inodes(ports: &[u16]) -> Vec<u64> {
    let states = [ESTABLISHED, CLOSE_WAIT];
    let mask = states.iter().map(|state| 1 << state).sum();
    diag::inodes(ports, mask).unwrap_or_else(|_| {
        let is_meant = |row: &Row| states.contains(&row.state) && ports.contains(&row.local.port());
        rows(Protocol::Tcp).into_iter().filter(is_meant).map(|row| row.inode).collect()
    })
}

fn rows(protocol: Protocol) -> Vec<Row> {
    let files = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let mut rows = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_default();
        rows.extend(text.lines().skip(1).filter_map(parse));
    }
    rows
}

fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace();
    let local = parse_address(fields.nth(1)?)?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Row { local, state, inode })
}

/// Addresses are written as 32-bit words in the machine's own byte order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = address
        .as_bytes()
        .chunks(8)
        .map(|word| Some(u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<_>>()?;
    let ip = match words.concat().as_slice() {
        four @ [_, _, _, _] => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(four).ok()?)),
        sixteen => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(sixteen).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1 0 100 0 0 10 0";
        let row = parse(line).unwrap();
        assert_eq!(row, Row { local: "127.0.0.1:8080".parse().unwrap(), state: LISTEN, inode: 31337 });
    }

    #[test]
    fn an_ipv6_address_is_read() {
        let address = parse_address("00000000000000000000000001000000:0050").unwrap();
        assert_eq!(address, "[::1]:80".parse().unwrap());
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listener_inodes(Protocol::Tcp).iter().any(|(bound, _)| *bound == address));
    }
}
