//! The kernel's TCP and UDP sockets: `/proc/net/{tcp,udp}{,6}`, as proc_pid_net(5) describes them, and where it is asked
//! often a faster way.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{diag, text};

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

/// Addresses and inodes of the sockets that listen (TCP) or are bound (UDP), at this port at least.
pub(super) fn listeners(protocol: Protocol, port: u16) -> Vec<(SocketAddr, u64)> {
    if protocol == Protocol::Tcp
        && let Ok(listeners) = diag::sockets(port, 1 << LISTEN)
    {
        return listeners;
    }
    let wanted = match protocol {
        Protocol::Tcp => LISTEN,
        Protocol::Udp => UDP_UNCONNECTED,
    };
    rows(protocol).into_iter().filter(|row| row.state == wanted).map(|row| (row.local, row.inode)).collect()
}

/// The TCP addresses that sockets with these inodes listen on.
pub(crate) fn listened_on(inodes: &HashSet<u64>) -> BTreeSet<SocketAddr> {
    let is_meant = |(_, inode): &(SocketAddr, u64)| inodes.contains(inode);
    listeners(Protocol::Tcp, 0).into_iter().filter(is_meant).map(|(address, _)| address).collect()
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

/// Inodes of the connections that were accepted from Unix sockets with these inodes.
pub(crate) fn connected_unix_inodes(listeners: &[u64]) -> Vec<u64> {
    if listeners.is_empty() {
        return Vec::new();
    }
    connected_to(listeners, &fs::read("/proc/net/unix").unwrap_or_default())
}

/// Whether the Unix socket with this inode is one for streams, by the table of the network that `pid` is in.
pub(crate) fn is_unix_stream(pid: u32, inode: u64) -> bool {
    let table = fs::read(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    unix_rows(&table).any(|row| row.inode == inode && row.kind == UNIX_STREAM)
}

/// A connection shows the path of the socket that it was accepted from.
fn connected_to(listeners: &[u64], table: &[u8]) -> Vec<u64> {
    let rows: Vec<UnixRow<'_>> = unix_rows(table).collect();
    let listening = rows.iter().filter(|row| listeners.contains(&row.inode));
    let paths: Vec<&[u8]> = listening.map(|row| row.path).filter(|path| !path.is_empty()).collect();
    let is_meant = |row: &&UnixRow<'_>| row.state == UNIX_CONNECTED && paths.contains(&row.path);
    rows.iter().filter(is_meant).map(|row| row.inode).collect()
}

/// What the kernel shows for a Unix socket that is connected.
const UNIX_CONNECTED: u8 = 0x03;
/// What it shows for one for streams (`SOCK_STREAM`).
const UNIX_STREAM: u16 = 0x0001;

#[derive(Debug)]
struct UnixRow<'a> {
    kind: u16,
    state: u8,
    inode: u64,
    path: &'a [u8],
}

/// The rows of a table of Unix sockets, which has a head.
fn unix_rows(table: &[u8]) -> impl Iterator<Item = UnixRow<'_>> {
    table.split(|byte| *byte == b'\n').skip(1).filter_map(UnixRow::parse)
}

impl<'a> UnixRow<'a> {
    /// Number, references, protocol, flags, type, state, inode, path; the path may hold anything, and need not be text.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut rest = line;
        let mut field = || {
            let text = rest.trim_ascii_start();
            let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
            rest = &text[end..];
            str::from_utf8(&text[..end]).unwrap_or_default()
        };
        let fields: [&str; 7] = std::array::from_fn(|_| field());
        let kind = u16::from_str_radix(fields[4], 16).ok()?;
        let state = u8::from_str_radix(fields[5], 16).ok()?;
        let path = rest.strip_prefix(b" ").unwrap_or_default();
        Some(Self { kind, state, inode: fields[6].parse().ok()?, path })
    }
}

fn rows(protocol: Protocol) -> Vec<Row> {
    let files = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let mut rows = Vec::new();
    for file in files {
        let text = text(file).unwrap_or_default();
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
    fn connections_to_a_unix_socket_are_found_by_its_path() {
        use std::os::unix::net::{UnixListener, UnixStream};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let inode = |socket: &dyn std::os::fd::AsFd| rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let ask = || connected_unix_inodes(&[inode(&listener)]);
        assert_eq!(ask(), [] as [u64; 0]);
        let _client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(ask(), [inode(&server)], "the client's end has no path");
        drop(server);
        assert_eq!(ask(), [] as [u64; 0]);
    }

    #[test]
    fn a_name_that_is_no_text_hides_no_socket() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
        let inode = |socket: &dyn std::os::fd::AsFd| rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let us = std::process::id();
        let bind = |name: &[u8]| {
            let address = SocketAddr::from_abstract_name([name, us.to_string().as_bytes()].concat()).unwrap();
            let listener = UnixListener::bind_addr(&address).unwrap();
            let client = UnixStream::connect_addr(&address).unwrap();
            let server = listener.accept().unwrap().0;
            (listener, client, server)
        };
        let sockets = [bind(b"\xff\xfe"), bind(b"\xff\xfd"), bind(b"text")];
        for (listener, _, server) in &sockets {
            assert_eq!(connected_unix_inodes(&[inode(listener)]), [inode(server)]);
            assert!(is_unix_stream(us, inode(server)));
        }
    }

    #[test]
    fn of_unix_sockets_those_for_streams_are_told_apart() {
        use std::os::unix::net::{UnixDatagram, UnixStream};
        let inode = |socket: &dyn std::os::fd::AsFd| rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let (stream, datagram) = (UnixStream::pair().unwrap().0, UnixDatagram::unbound().unwrap());
        let is_stream = |socket: &dyn std::os::fd::AsFd| is_unix_stream(std::process::id(), inode(socket));
        assert!(is_stream(&stream));
        assert!(!is_stream(&datagram));
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listeners(Protocol::Tcp, address.port()).iter().any(|(bound, _)| *bound == address));
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        assert_eq!(listened_on(&HashSet::from([inode])), BTreeSet::from([address]));
    }
}
