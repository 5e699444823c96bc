//! Clients of the servers under test. They block: the cluster has a thread of its own.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use allcores::ListeningAddress;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Loopback, with this port.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Where a worker listens, as seen from here.
pub fn at(address: &ListeningAddress) -> SocketAddr {
    local(u16::try_from(address.port).expect("a port"))
}

/// Connects; neither reading nor writing takes for ever.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connects, and reads until the server has said all.
pub fn ask(address: SocketAddr) -> io::Result<String> {
    rest(connect(address)?)
}

/// All that is still to come from a server.
pub fn rest(mut stream: impl Read) -> io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The next bytes, as many as asked for.
pub fn bytes(mut stream: impl Read, count: usize) -> io::Result<String> {
    let mut buffer = vec![0; count];
    stream.read_exact(&mut buffer)?;
    String::from_utf8(buffer).map_err(io::Error::other)
}

/// Asks by HTTP; the head and the body of the answer.
pub fn get(address: SocketAddr) -> io::Result<(String, String)> {
    answer(asking(address)?)
}

/// Connects and asks by HTTP; the connection on which the answer is to come.
pub fn asking(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(REQUEST)?;
    Ok(stream)
}

/// As [`get`], over a Unix socket.
pub fn get_at_path(path: &str) -> io::Result<(String, String)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    answer(stream)
}

/// The head and the body of the answer that comes on a connection.
pub fn answer(stream: impl Read) -> io::Result<(String, String)> {
    let answer = rest(stream)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(answer.clone()))?;
    Ok((head.to_owned(), body.to_owned()))
}

/// A listener of ours on a port that the kernel chooses, and the port.
pub fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind(local(0)).expect("a port");
    let port = listener.local_addr().expect("it has an address").port();
    (listener, port)
}

/// The next connection to a listener of ours.
pub fn accept(listener: &TcpListener) -> TcpStream {
    // std has no timeout for this; the whole test has.
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Whether this machine has IPv6 on loopback.
pub fn has_ipv6() -> bool {
    TcpListener::bind((IpAddr::from(std::net::Ipv6Addr::LOCALHOST), 0)).is_ok()
}
