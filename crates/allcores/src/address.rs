//! Addresses that workers listen on.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use allcores_core::text::printable;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with, sockopt};

/// What a group of lanes, or a shared listener, is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// TCP. `is_only_v6` keeps an IPv6 socket from taking IPv4 too, and is false for IPv4.
    Tcp { socket: SocketAddr, is_only_v6: bool },
    /// UDP.
    Udp { socket: SocketAddr, is_only_v6: bool },
    /// A Unix stream socket: its path as bytes, with a leading NUL if abstract.
    Unix(Vec<u8>),
}

/// Writes an IP address as Node does: one that means something on one network interface alone names that behind a `%`.
pub(crate) fn host_text(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => {
            let name =
                any_socket().and_then(|socket| netdevice::index_to_name(socket, address.scope_id()).ok());
            format!("{}%{}", address.ip(), name.unwrap_or_else(|| address.scope_id().to_string()))
        }
        address => address.ip().to_string(),
    }
}

/// Reads what [`host_text`] writes; also with the number of the interface. `None` for what is no address, or names no interface.
pub(crate) fn read_host(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((ip, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, port));
    };
    let IpAddr::V6(ip) = ip.parse().ok()? else { return None };
    let by_name = || netdevice::name_to_index(any_socket()?, zone).ok();
    let scope = zone.parse().ok().or_else(by_name)?;
    Some(SocketAddrV6::new(ip, port, 0, scope).into())
}

/// A socket to ask for interfaces by.
fn any_socket() -> Option<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}

impl Address {
    /// What a socket is bound to, or why it can't be listened on by workers.
    pub(crate) fn of_socket(socket: &OwnedFd) -> io::Result<Self> {
        let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::Unsupported, why));
        let (reference, kind) = (socket2::SockRef::from(socket), sockopt::socket_type(socket)?);
        let address = reference.local_addr()?;
        if let Some(socket) = address.as_socket() {
            let is_only_v6 = socket.is_ipv6() && reference.only_v6()?;
            return match kind {
                SocketType::STREAM => Ok(Self::Tcp { socket, is_only_v6 }),
                SocketType::DGRAM => Ok(Self::Udp { socket, is_only_v6 }),
                _ => refuse("neither TCP nor UDP"),
            };
        }
        if kind != SocketType::STREAM {
            return refuse("no stream socket");
        }
        let path = address.as_pathname().map(|path| path.as_os_str().as_bytes().to_vec());
        let name = address.as_abstract_namespace().map(|name| [&[0], name].concat());
        match path.or(name) {
            Some(name) => Ok(Self::Unix(name)),
            None => refuse("neither an IP nor a Unix socket that is bound"),
        }
    }

    /// The IP address and port, if it has one.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { socket, .. } | Self::Udp { socket, .. } => Some(*socket),
            Self::Unix(_) => None,
        }
    }

    /// The same with another port.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        let mut other = self.clone();
        if let Self::Tcp { socket, .. } | Self::Udp { socket, .. } = &mut other {
            socket.set_port(port);
        }
        other
    }

    /// Whether connections to it can be spread over lanes.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }

    /// Whether the kernel gives each flow to one of several sockets by itself.
    pub(crate) fn is_udp(&self) -> bool {
        matches!(self, Self::Udp { .. })
    }

    /// Whether the kernel lets a program bind only one of two, though they are not the same: one that listens on all
    /// addresses is in the way of who wants one of them.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let ((
            Self::Tcp { socket: one, is_only_v6: one_only },
            Self::Tcp { socket: another, is_only_v6: another_only },
        )
        | (
            Self::Udp { socket: one, is_only_v6: one_only },
            Self::Udp { socket: another, is_only_v6: another_only },
        )) = (self, other)
        else {
            return false;
        };
        let (one, another) = (canonical(*one), canonical(*another));
        let is_scope_other = |one: SocketAddr, another: SocketAddr| match (one, another) {
            (SocketAddr::V6(one), SocketAddr::V6(another)) => {
                let (one, another) = (one.scope_id(), another.scope_id());
                one != another && one != 0 && another != 0
            }
            _ => false,
        };
        let is_any = |address: SocketAddr| address.ip().is_unspecified();
        one.port() == another.port()
            && one.port() != 0
            && !is_scope_other(one, another)
            && match (one.is_ipv6(), another.is_ipv6()) {
                (true, false) => is_any(one) && !one_only,
                (false, true) => is_any(another) && !another_only,
                _ => one.ip() == another.ip() || is_any(one) || is_any(another),
            }
    }

    /// The path of a Unix socket that is in the file system.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(name) if name.first() != Some(&0) => {
                Some(Path::new(std::ffi::OsStr::from_bytes(name)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { socket, .. } => canonical(*socket).fmt(f),
            Self::Udp { socket, .. } => write!(f, "udp {}", canonical(*socket)),
            Self::Unix(name) => {
                let text = String::from_utf8_lossy(name);
                // Whoever may listen chooses the name.
                match text.strip_prefix('\0') {
                    Some(name) => write!(f, "@{}", printable(name)),
                    None => f.write_str(&printable(&text)),
                }
            }
        }
    }
}

/// An IPv4 address as such: programs that have only IPv6 sockets (java) bind it mapped, as `::ffff:127.0.0.1`.
pub(crate) fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_one_interface_names_it_and_is_read_back() {
        let loopback = netdevice::name_to_index(any_socket().unwrap(), "lo").unwrap();
        let address = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, loopback).into();
        assert_eq!(host_text(address), "fe80::1%lo");
        assert_eq!(read_host("fe80::1%lo", 80), Some(address));
        assert_eq!(read_host(&format!("fe80::1%{loopback}"), 80), Some(address));
        // One that is gone keeps its number.
        let gone = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 987_654).into();
        assert_eq!(read_host(&host_text(gone), 80), Some(gone));
        for plain in ["127.0.0.1:80", "[::1]:80"] {
            let plain = plain.parse().unwrap();
            assert_eq!(read_host(&host_text(plain), 80), Some(plain));
        }
        for wrong in [
            "",
            "%lo",
            "127.0.0.1%lo",
            "fe80::1%",
            "fe80::1%no such",
            "localhost",
            "fe80::1%a-name-that-is-too-long",
        ] {
            assert_eq!(read_host(wrong, 80), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_is_shown_as_clients_write_it() {
        for (address, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[::]:80", "[::]:80"),
        ] {
            let socket = address.parse().unwrap();
            assert_eq!(Address::Tcp { socket, is_only_v6: false }.to_string(), shown);
            assert_eq!(Address::Udp { socket, is_only_v6: false }.to_string(), format!("udp {shown}"));
        }
    }

    /// Compares with what the kernel says of two sockets of one program, of which the first listens.
    #[test]
    fn addresses_overlap_where_the_kernel_says_so() {
        use socket2::{Domain, Socket, Type};
        if std::net::TcpListener::bind("[::1]:0").is_err() {
            return;
        }
        let open = |socket: SocketAddr, is_only_v6: bool| {
            let listener = Socket::new(Domain::for_address(socket), Type::STREAM, None)?;
            if socket.is_ipv6() {
                listener.set_only_v6(is_only_v6)?;
            }
            listener.bind(&socket.into())?;
            listener.listen(1)?;
            io::Result::Ok(listener)
        };
        let of = |socket, is_only_v6| Address::Tcp { socket, is_only_v6 };
        let hosts = [
            ("0.0.0.0", false),
            ("127.0.0.1", false),
            ("127.0.0.2", false),
            ("::", false),
            ("::", true),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
        ];
        for ((one, one_only), (other, other_only)) in
            hosts.iter().flat_map(|one| hosts.map(|other| (*one, other)))
        {
            let first = open(SocketAddr::new(one.parse().unwrap(), 0), one_only).unwrap();
            let at = first.local_addr().unwrap().as_socket().unwrap();
            let beside = SocketAddr::new(other.parse().unwrap(), at.port());
            let is_refused = match open(beside, other_only) {
                Ok(_) => false,
                Err(error) => error.kind() == io::ErrorKind::AddrInUse,
            };
            let overlaps = of(at, one_only).overlaps(&of(beside, other_only));
            assert_eq!(overlaps, is_refused, "{at} {one_only}, {beside} {other_only}");
            let udp = Address::Udp { socket: beside, is_only_v6: other_only };
            assert!(!of(at, one_only).overlaps(&udp));
        }
        let any = of("0.0.0.0:0".parse().unwrap(), false);
        assert!(!any.overlaps(&any), "the kernel chooses another port each time");
    }
}
