//! Sockets that ride on messages, to the primary and to workers.
//!
//! Which class one is, is read from the kernel's object and not from what the sender calls it.

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use allcores_core::channel::{HandleKind, user_with_handle};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::error::{Error, ErrorKind};

mod send;

pub use send::SendHandleError;
pub(crate) use send::send_with_handle;

/// A socket that is sent with a message, or came with one.
///
/// The types are the standard library's, so that any runtime can take them; they are non-blocking already, as
/// runtimes want them (`tokio::net::TcpStream::from_std` and its like).
///
/// Sending moves the socket: the sender's copy is closed once the other side has it.
///
/// # Examples
///
/// ```
/// use allcores::Handle;
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// assert!(matches!(Handle::from(listener), Handle::TcpListener(_)));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Handle {
    /// A TCP connection: `net.Socket`.
    TcpStream(TcpStream),
    /// A socket that accepts TCP connections: `net.Server`.
    TcpListener(TcpListener),
    /// A connection of a Unix socket: `net.Socket`.
    UnixStream(UnixStream),
    /// A socket that accepts Unix connections: `net.Server`.
    UnixListener(UnixListener),
    /// `dgram.Socket`.
    UdpSocket(UdpSocket),
}

impl Handle {
    /// Sees what a descriptor is, and makes it non-blocking.
    pub(crate) fn of(descriptor: OwnedFd) -> Result<Self, Error> {
        let failed = |error: rustix::io::Errno| {
            Error::new(ErrorKind::Handle, "taking a socket that came with a message")
                .because(io::Error::from(error))
        };
        let family = sockopt::socket_domain(&descriptor).map_err(failed)?;
        let kind = sockopt::socket_type(&descriptor).map_err(failed)?;
        let accepts =
            kind == SocketType::STREAM && sockopt::socket_acceptconn(&descriptor).map_err(failed)?;
        rustix::io::ioctl_fionbio(&descriptor, true).map_err(failed)?;
        let is_internet = family == AddressFamily::INET || family == AddressFamily::INET6;
        Ok(match (is_internet, kind, accepts) {
            (true, SocketType::STREAM, true) => Self::TcpListener(descriptor.into()),
            (true, SocketType::STREAM, false) => Self::TcpStream(descriptor.into()),
            (true, SocketType::DGRAM, _) => Self::UdpSocket(descriptor.into()),
            (false, SocketType::STREAM, true) if family == AddressFamily::UNIX => {
                Self::UnixListener(descriptor.into())
            }
            (false, SocketType::STREAM, false) if family == AddressFamily::UNIX => {
                Self::UnixStream(descriptor.into())
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Handle,
                    "taking a socket of an unknown kind that came with a message",
                ));
            }
        })
    }

    /// What is written for a message that this is to ride on.
    fn announce(&self, json: &[u8]) -> Result<String, Error> {
        let line = user_with_handle(self.kind()?, &String::from_utf8_lossy(json), None);
        // The other side has the same open file, and a runtime that wants it so.
        rustix::io::ioctl_fionbio(self, true)
            .map_err(|error| Error::io("readying a socket to be sent", error.into()))?;
        Ok(line)
    }

    /// Makes the same of its descriptor again.
    fn kept(&self) -> fn(OwnedFd) -> Self {
        match self {
            Self::TcpStream(_) => |socket| Self::TcpStream(socket.into()),
            Self::TcpListener(_) => |socket| Self::TcpListener(socket.into()),
            Self::UnixStream(_) => |socket| Self::UnixStream(socket.into()),
            Self::UnixListener(_) => |socket| Self::UnixListener(socket.into()),
            Self::UdpSocket(_) => |socket| Self::UdpSocket(socket.into()),
        }
    }

    /// As what it is to be announced to the other side.
    fn kind(&self) -> Result<HandleKind, Error> {
        Ok(match self {
            Self::TcpStream(_) | Self::UnixStream(_) => HandleKind::NetSocket,
            Self::TcpListener(_) | Self::UnixListener(_) => HandleKind::NetServer,
            Self::UdpSocket(socket) => {
                let family = sockopt::socket_domain(socket)
                    .map_err(|error| Error::io("looking at a socket to be sent", error.into()))?;
                if family == AddressFamily::INET6 {
                    HandleKind::DgramSocket6
                } else {
                    HandleKind::DgramSocket4
                }
            }
        })
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::TcpStream(socket) => socket.as_fd(),
            Self::TcpListener(socket) => socket.as_fd(),
            Self::UnixStream(socket) => socket.as_fd(),
            Self::UnixListener(socket) => socket.as_fd(),
            Self::UdpSocket(socket) => socket.as_fd(),
        }
    }
}

impl From<Handle> for OwnedFd {
    fn from(handle: Handle) -> Self {
        match handle {
            Handle::TcpStream(socket) => socket.into(),
            Handle::TcpListener(socket) => socket.into(),
            Handle::UnixStream(socket) => socket.into(),
            Handle::UnixListener(socket) => socket.into(),
            Handle::UdpSocket(socket) => socket.into(),
        }
    }
}

macro_rules! handle_from {
    ($($variant:ident),*) => {$(
        impl From<$variant> for Handle {
            fn from(socket: $variant) -> Self {
                Self::$variant(socket)
            }
        }

        /// Fails only where the runtime refuses to let go of the socket.
        impl TryFrom<tokio::net::$variant> for Handle {
            type Error = io::Error;

            fn try_from(socket: tokio::net::$variant) -> io::Result<Self> {
                socket.into_std().map(Self::$variant)
            }
        }
    )*};
}

handle_from!(TcpStream, TcpListener, UnixStream, UnixListener, UdpSocket);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_becomes_what_the_kernel_says_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(matches!(Handle::of(client.into()).unwrap(), Handle::TcpStream(_)));
        assert!(matches!(Handle::of(listener.into()).unwrap(), Handle::TcpListener(_)));
        let (one, other) = UnixStream::pair().unwrap();
        assert!(matches!(Handle::of(one.into()).unwrap(), Handle::UnixStream(_)));
        drop(other);
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("a.sock")).unwrap();
        assert!(matches!(Handle::of(listener.into()).unwrap(), Handle::UnixListener(_)));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(matches!(Handle::of(udp.into()).unwrap(), Handle::UdpSocket(_)));
    }

    #[test]
    fn what_arrives_does_not_block() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let Ok(Handle::UdpSocket(udp)) = Handle::of(udp.into()) else { panic!("not a UDP socket") };
        assert_eq!(udp.recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(Handle::of(file.into()).unwrap_err().kind(), ErrorKind::Handle);
    }
}
