//! Listening without a primary's help: alone, or adopted, where the primary answers the very calls made here.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{self, UnixListener};
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::ListenOptions;

/// What tokio's own listeners have.
const BACKLOG: u32 = 1024;

pub(super) fn tcp(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = internet(address, Type::STREAM, Protocol::TCP, options)?;
    socket.listen(backlog(options))?;
    Ok(socket.into())
}

pub(super) fn udp(address: SocketAddr, options: &ListenOptions) -> io::Result<UdpSocket> {
    internet(address, Type::DGRAM, Protocol::UDP, options).map(UdpSocket::from)
}

fn internet(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    options: &ListenOptions,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking().cloexec(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(options.is_only_v6)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Makes `socket` listen where it does not already: a primary may give a bound socket and leave that to its workers.
pub(super) fn ensure_listening(socket: &impl std::os::fd::AsFd, options: &ListenOptions) -> io::Result<()> {
    if rustix::net::sockopt::socket_acceptconn(socket)? {
        return Ok(());
    }
    Ok(rustix::net::listen(socket, backlog(options))?)
}

/// Listens at a path, or, where it begins with a NUL, at an abstract name.
pub(super) fn unix(path: &Path, options: &ListenOptions) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if !is_abstract(path) {
        permit(path, options)?;
    }
    socket.listen(backlog(options))?;
    Ok(socket.into())
}

fn permit(path: &Path, options: &ListenOptions) -> io::Result<()> {
    let more = if options.is_readable_by_all { 0o444 } else { 0 }
        | if options.is_writable_by_all { 0o222 } else { 0 };
    if more == 0 {
        return Ok(());
    }
    let bits = std::fs::metadata(path)?.permissions().mode() | more;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits))
}

/// The address of a socket at `path`.
pub(super) fn unix_address(path: &Path) -> io::Result<net::SocketAddr> {
    match path.as_os_str().as_bytes().strip_prefix(b"\0") {
        Some(name) => net::SocketAddr::from_abstract_name(name),
        None => net::SocketAddr::from_pathname(path),
    }
}

pub(super) fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().first() == Some(&0)
}

fn backlog(options: &ListenOptions) -> i32 {
    i32::try_from(options.backlog.unwrap_or(BACKLOG)).unwrap_or(i32::MAX)
}
