//! How a worker comes to listen: by asking its primary, or by itself.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use allcores_core::channel::{AddressKind, Ask, FLAG_IPV6_ONLY};
use tokio::net::ToSocketAddrs;

use super::listener::SocketFile;
use super::places::Reservation;
use super::{Kind, ListenOptions, Listener, UnixListener, Worker, bind};
use crate::address::host_text;
use crate::{Error, ErrorKind};

impl Worker {
    /// Listens at `address` together with the other workers.
    ///
    /// All workers that ask for the same address share it. With port 0 the system chooses a port once: the first
    /// listener on any port of each worker shares the one, the second another, and so on. A name is resolved here, in
    /// the worker, and its addresses are tried in their order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AddressUnavailable`] if no address of it can be had: the [source](std::error::Error::source) is
    /// the system's error, such as `AddrInUse` for one that this very worker listens on already.
    /// [`ErrorKind::Disconnected`] if the worker is leaving.
    ///
    /// # Cancel safety
    ///
    /// Safe: a listener that arrives when nobody waits for it is given back. Until then its address is taken.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(worker: allcores::Worker) -> Result<(), allcores::Error> {
    /// let public = worker.listen("0.0.0.0:8080").await?;
    /// let private = worker.listen(("localhost", 9090)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn listen(&self, address: impl ToSocketAddrs) -> Result<Listener, Error> {
        self.listen_with(address, ListenOptions::new()).await
    }

    /// As [`listen`](Self::listen), with more said.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Cancel safety
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn listen_with(
        &self,
        address: impl ToSocketAddrs,
        options: ListenOptions,
    ) -> Result<Listener, Error> {
        let mut failure = no_address();
        for address in resolve(address).await? {
            match self.listen_at(address, &options).await {
                Ok(listener) => return Ok(listener),
                Err(error) => failure = unavailable(error, "listening on", address),
            }
        }
        Err(failure)
    }

    async fn listen_at(&self, address: SocketAddr, options: &ListenOptions) -> io::Result<Listener> {
        if !self.asks() {
            let place = self.reserve(tcp_kind(address), &host_text(address), address.port().into())?;
            let lane = tokio::net::TcpListener::from_std(bind::tcp(address, options)?)?;
            let local = lane.local_addr()?;
            return Ok(Listener::new(Some(lane), local, self.link.grant_alone()?, place));
        }
        let mut ask = ask_for(tcp_kind(address), host_text(address), address.port().into(), options);
        let place = self.reserve_for(&mut ask)?;
        let granted = self.link.ask(&ask, place).await?;
        let lane = granted.socket.map(|socket| lane_of(socket, options)).transpose()?;
        let local = match &lane {
            Some(lane) => lane.local_addr()?,
            None => granted.sockname.unwrap_or(address),
        };
        if address.port() != 0 && local.port() != address.port() {
            // So says a primary of Node's that could not bind.
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.link.say(|speaker| speaker.listening(&ask, local.port().into()));
        Ok(Listener::new(lane, local, granted.grant, granted.place))
    }

    /// Listens at the path of a Unix socket, together with the other workers; at an abstract name if it begins with a
    /// NUL.
    ///
    /// A path that exists is an error, be it a socket that nobody listens on any more.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen); also for a path that is not UTF-8, which can't be asked for.
    ///
    /// # Cancel safety
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (worker, folder) = (allcores::Worker::alone(), tempfile::tempdir()?);
    /// let mut listener = worker.listen_unix(folder.path().join("app.sock")).await?;
    /// let client = tokio::net::UnixStream::connect(folder.path().join("app.sock")).await?;
    /// let (stream, _) = listener.accept().await?;
    /// # Ok(()) }
    /// ```
    pub async fn listen_unix(&self, path: impl AsRef<Path>) -> Result<UnixListener, Error> {
        self.listen_unix_with(path, ListenOptions::new()).await
    }

    /// As [`listen_unix`](Self::listen_unix), with more said.
    ///
    /// # Errors
    ///
    /// As [`listen_unix`](Self::listen_unix).
    ///
    /// # Cancel safety
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn listen_unix_with(
        &self,
        path: impl AsRef<Path>,
        options: ListenOptions,
    ) -> Result<UnixListener, Error> {
        let path = path.as_ref();
        let shown = path.to_string_lossy().replace('\0', "@");
        let listened = self.listen_at_path(path, &options).await;
        listened.map_err(|error| unavailable(error, "listening on", shown))
    }

    async fn listen_at_path(&self, path: &Path, options: &ListenOptions) -> io::Result<UnixListener> {
        let path = absolute(path)?;
        let local = bind::unix_address(&path)?;
        let Some(name) = path.to_str().map(str::to_owned) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8"));
        };
        if !self.asks() {
            let place = self.reserve(AddressKind::Unix, &name, -1)?;
            let lane = tokio::net::UnixListener::from_std(bind::unix(&path, options)?)?;
            let is_ours = self.is_alone() && !bind::is_abstract(&path);
            let file = is_ours.then(|| SocketFile::at(path)).flatten();
            return Ok(UnixListener::new(Some(lane), local, self.link.grant_alone()?, place, file));
        }
        let mut ask = ask_for(AddressKind::Unix, name, -1, options);
        let place = self.reserve_for(&mut ask)?;
        let granted = self.link.ask(&ask, place).await?;
        let lane = granted.socket.map(|socket| unix_lane_of(socket, options)).transpose()?;
        self.link.say(|speaker| speaker.listening(&ask, -1));
        Ok(UnixListener::new(lane, local, granted.grant, granted.place, None))
    }

    /// Binds a UDP socket together with the other workers: the kernel keeps each client with one of them.
    ///
    /// It is tokio's own; the primary learns that it was closed when the worker binds the same address again, or goes.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Cancel safety
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(worker: allcores::Worker) -> Result<(), Box<dyn std::error::Error>> {
    /// let socket = worker.bind_udp("0.0.0.0:5300").await?;
    /// let mut datagram = [0; 1500];
    /// loop {
    ///     let (length, client) = socket.recv_from(&mut datagram).await?;
    ///     socket.send_to(&datagram[..length], client).await?;
    /// }
    /// # }
    /// ```
    #[doc(alias = "dgram")]
    pub async fn bind_udp(&self, address: impl ToSocketAddrs) -> Result<tokio::net::UdpSocket, Error> {
        self.bind_udp_with(address, ListenOptions::new()).await
    }

    /// As [`bind_udp`](Self::bind_udp), with more said.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Cancel safety
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn bind_udp_with(
        &self,
        address: impl ToSocketAddrs,
        options: ListenOptions,
    ) -> Result<tokio::net::UdpSocket, Error> {
        let mut failure = no_address();
        for address in resolve(address).await? {
            match self.bind_udp_at(address, &options).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = unavailable(error, "binding udp", address),
            }
        }
        Err(failure)
    }

    async fn bind_udp_at(
        &self,
        address: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<tokio::net::UdpSocket> {
        if !self.asks() {
            return tokio::net::UdpSocket::from_std(bind::udp(address, options)?);
        }
        self.link.forget_closed_datagram_sockets();
        let kind = if address.is_ipv4() { AddressKind::Udp4 } else { AddressKind::Udp6 };
        let mut ask = ask_for(kind, host_text(address), address.port().into(), options);
        let place = self.reserve_for(&mut ask)?;
        let granted = self.link.ask(&ask, place).await?;
        // Datagrams can't be handed over: an answer without a socket makes no sense.
        let socket = granted.socket.ok_or(io::ErrorKind::Unsupported)?;
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let port = socket.local_addr()?.port();
        if address.port() != 0 && port != address.port() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.link.say(|speaker| speaker.listening(&ask, port.into()));
        self.link.keep_datagram_socket(inode, granted.grant, granted.place);
        Ok(socket)
    }

    /// Whether there is, or was, a primary to be asked. One that is gone gives no listeners, and binding beside what it
    /// leaves behind would be another server.
    fn asks(&self) -> bool {
        self.kind == Kind::Connected
    }

    fn reserve_for(&self, ask: &mut Ask) -> io::Result<Reservation> {
        let place = self.reserve(ask.kind, ask.address.as_deref().unwrap_or_default(), ask.port)?;
        ask.index = place.index();
        Ok(place)
    }

    fn reserve(&self, kind: AddressKind, address: &str, port: i64) -> io::Result<Reservation> {
        let reserved = self.link.places.reserve(kind, Some(address), port);
        reserved.map_err(|_| io::ErrorKind::AddrInUse.into())
    }
}

fn tcp_kind(address: SocketAddr) -> AddressKind {
    if address.is_ipv4() { AddressKind::Tcp4 } else { AddressKind::Tcp6 }
}

fn ask_for(kind: AddressKind, address: String, port: i64, options: &ListenOptions) -> Ask {
    Ask {
        flags: if options.is_only_v6 { FLAG_IPV6_ONLY } else { 0 },
        backlog: options.backlog.unwrap_or(0),
        is_readable_by_all: options.is_readable_by_all,
        is_writable_by_all: options.is_writable_by_all,
        policy: options.policy.as_ref().map(ToString::to_string),
        ..Ask::new(kind, Some(address), port)
    }
}

fn lane_of(socket: OwnedFd, options: &ListenOptions) -> io::Result<tokio::net::TcpListener> {
    prepare(&socket, options)?;
    tokio::net::TcpListener::from_std(socket.into())
}

fn unix_lane_of(socket: OwnedFd, options: &ListenOptions) -> io::Result<tokio::net::UnixListener> {
    prepare(&socket, options)?;
    tokio::net::UnixListener::from_std(socket.into())
}

fn prepare(socket: &impl AsFd, options: &ListenOptions) -> io::Result<()> {
    bind::ensure_listening(socket, options)?;
    Ok(rustix::io::ioctl_fionbio(socket, true)?)
}

/// The primary has a folder of its own.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    if bind::is_abstract(path) { Ok(path.to_owned()) } else { std::path::absolute(path) }
}

async fn resolve(address: impl ToSocketAddrs) -> Result<Vec<SocketAddr>, Error> {
    let found = tokio::net::lookup_host(address).await;
    Ok(found.map_err(|error| unavailable(error, "resolving", "the address to listen on"))?.collect())
}

fn no_address() -> Error {
    Error::new(ErrorKind::AddressUnavailable, "listening on a name that has no address")
}

fn unavailable(error: io::Error, attempt: &str, address: impl Display) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotConnected => ErrorKind::Disconnected,
        _ => ErrorKind::AddressUnavailable,
    };
    Error::new(kind, format!("{attempt} {address}")).because(error)
}
