//! Passing on a connection that no worker would have accepted, by carrying its bytes.
//!
//! The last resort, for any program: the worker sees the connection come from this machine. From its loopback
//! address only if the client was there too, so that no client gains a trust that it did not have.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::ports::Stray;

/// Carries a stray's bytes to and from the address that it was for, until both sides are done.
pub(crate) async fn pass_on(stray: Stray, limit: Duration) {
    // Whatever goes wrong ends the connection, which is what the client would have seen anyway.
    let _ = tokio::time::timeout(limit, carry(stray)).await;
}

async fn carry(stray: Stray) -> io::Result<()> {
    let mut client = TcpStream::from_std(stray.connection.into())?;
    let here = client.local_addr()?;
    let socket = if here.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // From the address that the client came to, which is a loopback address only if the client's is one.
    socket.bind(SocketAddr::new(here.ip(), 0))?;
    let ip: IpAddr = if stray.address.ip().is_unspecified() { here.ip() } else { stray.address.ip() };
    let mut worker = socket.connect(SocketAddr::new(ip, stray.address.port())).await?;
    tokio::io::copy_bidirectional(&mut client, &mut worker).await?;
    Ok(())
}
