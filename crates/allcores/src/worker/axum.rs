//! Listeners as `axum::serve` takes them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, unix};

use super::listener::{Listener, UnixListener};

/// How long after an error that is nobody's but our own; as axum's own listeners.
const PAUSE: Duration = Duration::from_secs(1);

/// Errors are waited out, as by axum's own listeners. When the worker has left, this waits for ever: end `axum::serve`
/// by `with_graceful_shutdown(worker.shutdown())`.
///
/// For `ConnectInfo<SocketAddr>` tap the listener, if only to set an option: axum has that for every listener which is
/// tapped, and for its own.
///
/// # Examples
///
/// ```no_run
/// use std::net::SocketAddr;
/// use axum::serve::ListenerExt;
/// # async fn example(worker: allcores::Worker, app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = worker.listen("0.0.0.0:8080").await?.tap_io(|stream| {
///     let _ = stream.set_nodelay(true);
/// });
/// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
///     .with_graceful_shutdown(worker.shutdown())
///     .await?;
/// # Ok(()) }
/// ```
impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match Self::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) => wait_out(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Self::local_addr(self)
    }
}

/// As [`Listener`]'s.
impl axum::serve::Listener for UnixListener {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match Self::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) => wait_out(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Self::local_addr(self)
    }
}

async fn wait_out(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset => {}
        io::ErrorKind::NotConnected => std::future::pending().await,
        _ => tokio::time::sleep(PAUSE).await,
    }
}
