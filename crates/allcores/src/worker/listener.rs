//! What a worker's server accepts from.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use rustix::fs::{AtFlags, CWD};
use tokio::net::{TcpStream, UnixStream, unix};

use super::door::{Door, Lane};
use super::link::Grant;
use super::places::Reservation;
use crate::identity::{folder_of, identity};

/// Accepts TCP connections, in whatever way they reach this worker.
///
/// That may be a queue of the kernel's that is this worker's own (a *lane*), one that all workers share, connections
/// that the primary hands over one by one, or, for a worker that is alone, an ordinary listening socket. A worker that
/// has a lane may be handed connections besides: those that wait for another worker which is busy.
///
/// Use it as tokio's own listener. With the feature `axum` it is an `axum::serve::Listener`.
///
/// Dropping it closes it: what waits to be accepted goes to other workers, and the same address may be listened on
/// again. So does [`Worker::disconnect`](crate::Worker::disconnect), and the primary's own wish that this worker goes.
///
/// # Examples
///
/// ```
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let worker = allcores::Worker::alone();
/// let mut listener = worker.listen("127.0.0.1:0").await?;
/// # tokio::spawn(tokio::net::TcpStream::connect(listener.local_addr()?));
/// # let mut is_first = true;
/// # while std::mem::take(&mut is_first) {
/// let (mut stream, client) = listener.accept().await?;
/// tokio::spawn(async move { stream.write_all(format!("hello, {client}\n").as_bytes()).await });
/// # }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Listener {
    door: Door<tokio::net::TcpListener>,
    address: SocketAddr,
    // Given up after the door has said so to the primary.
    _place: Reservation,
}

impl Listener {
    pub(super) fn new(
        lane: Option<tokio::net::TcpListener>,
        address: SocketAddr,
        grant: Grant,
        place: Reservation,
    ) -> Self {
        Self { door: Door::new(lane, grant), address, _place: place }
    }

    /// Waits for the next connection, and takes it.
    ///
    /// A connection that the primary hands over is acknowledged here and not before: by that it sees which worker is
    /// busy, and what to give to another should this worker die. So accept as soon as you can serve, and no sooner.
    ///
    /// # Errors
    ///
    /// Those of accept(2): what is lacking, such as descriptors. That may pass, so go on after a pause. `NotConnected` when
    /// nothing will come any more: the worker has [left](crate::Worker::shutdown). A client that has gone since it was handed
    /// over is none: it is passed over.
    ///
    /// # Cancel safety
    ///
    /// Safe: a connection is taken by the very step that returns it.
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// As [`accept`](Self::accept), for who writes futures by hand. Only the last caller is woken.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.door.poll_accept(context)
    }

    /// The address on which connections arrive; with its real port where any was asked for.
    ///
    /// # Errors
    ///
    /// None today; as with any listener, for those who are generic over them.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Lane for tokio::net::TcpListener {
    type Stream = TcpStream;
    type Address = SocketAddr;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        Self::poll_accept(self, context)
    }

    fn take(connection: OwnedFd) -> io::Result<(TcpStream, SocketAddr)> {
        let connection = std::net::TcpStream::from(connection);
        let client = connection.peer_addr()?;
        connection.set_nonblocking(true)?;
        Ok((TcpStream::from_std(connection)?, client))
    }
}

/// Accepts connections over a Unix socket; otherwise as [`Listener`].
///
/// The socket's file is the primary's: it is there while any worker listens. A worker that is alone removes it when the
/// listener is dropped, unless another file has its name by then.
#[derive(Debug)]
pub struct UnixListener {
    // Goes before its socket, with which the kernel may give its inode to another file.
    _file: Option<SocketFile>,
    door: Door<tokio::net::UnixListener>,
    address: std::os::unix::net::SocketAddr,
    _place: Reservation,
}

impl UnixListener {
    pub(super) fn new(
        lane: Option<tokio::net::UnixListener>,
        address: std::os::unix::net::SocketAddr,
        grant: Grant,
        place: Reservation,
        file: Option<SocketFile>,
    ) -> Self {
        Self { _file: file, door: Door::new(lane, grant), address, _place: place }
    }

    /// Waits for the next connection, and takes it; as [`Listener::accept`].
    ///
    /// # Errors
    ///
    /// As [`Listener::accept`].
    ///
    /// # Cancel safety
    ///
    /// Safe: a connection is taken by the very step that returns it.
    pub async fn accept(&mut self) -> io::Result<(UnixStream, unix::SocketAddr)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// As [`accept`](Self::accept), for who writes futures by hand. Only the last caller is woken.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(UnixStream, unix::SocketAddr)>> {
        self.door.poll_accept(context)
    }

    /// The address on which connections arrive: its path is absolute, whatever the primary's folder is.
    ///
    /// # Errors
    ///
    /// None today; as with any listener, for those who are generic over them.
    pub fn local_addr(&self) -> io::Result<unix::SocketAddr> {
        Ok(self.address.clone().into())
    }
}

impl Lane for tokio::net::UnixListener {
    type Stream = UnixStream;
    type Address = unix::SocketAddr;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(UnixStream, unix::SocketAddr)>> {
        Self::poll_accept(self, context)
    }

    fn take(connection: OwnedFd) -> io::Result<(UnixStream, unix::SocketAddr)> {
        let connection = std::os::unix::net::UnixStream::from(connection);
        connection.set_nonblocking(true)?;
        let stream = UnixStream::from_std(connection)?;
        let client = stream.peer_addr()?;
        Ok((stream, client))
    }
}

/// The file of a socket that we have bound ourselves; removed on drop.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// That of a socket that was bound just now. `None` if it has gone already.
    pub(super) fn at(path: PathBuf) -> Option<Self> {
        let identity = identity(CWD, &path)?;
        Some(Self { path, identity })
    }

    /// Removes it, and nothing that another server has put in its place.
    fn remove(&self) -> io::Result<()> {
        let name = self.path.file_name().map(Path::new).ok_or(io::ErrorKind::NotFound)?;
        let folder = folder_of(&self.path)?;
        if identity(&folder, name) == Some(self.identity) {
            rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}
