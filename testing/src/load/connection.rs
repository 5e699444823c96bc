//! One client connection, and one request on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::answer::{Answer, AnswerReader, Broken};
use super::report::FailureKind;

/// Why a request has no good answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) kind: FailureKind,
    pub(super) detail: String,
}

impl Failed {
    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    fn from_io(doing: &str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => FailureKind::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => FailureKind::Reset,
            io::ErrorKind::TimedOut => FailureKind::Timeout,
            _ => FailureKind::Other,
        };
        Self::new(kind, format!("{doing}: {error}"))
    }
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Io(error) => Self::from_io("read", &error),
            Broken::Closed => {
                Self::new(FailureKind::ClosedEarly, "closed before the head of the answer ended")
            }
            Broken::Short => Self::new(FailureKind::Short, "closed within the body of the answer"),
            Broken::Malformed(what) => Self::new(FailureKind::Other, format!("not HTTP: {what}")),
        }
    }
}

/// A connection that may carry several requests, one after the other.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    reader: AnswerReader,
    local: SocketAddr,
    requests: u32,
}

impl Connection {
    /// Connects; tells the local address as soon as it is known, which is before the attempt if a source is given.
    pub(super) async fn open(
        target: SocketAddr,
        source: Option<Ipv4Addr>,
        local: &mut Option<SocketAddr>,
    ) -> Result<Self, Failed> {
        let socket = client_socket(target, source).map_err(|error| Failed::from_io("bind", &error))?;
        if source.is_some() {
            *local = socket.local_addr().ok();
        }
        let stream = socket.connect(target).await.map_err(|error| Failed::from_io("connect", &error))?;
        let own = stream.local_addr().map_err(|error| Failed::from_io("connect", &error))?;
        *local = Some(own);
        Ok(Self { stream, reader: AnswerReader::default(), local: own, requests: 0 })
    }

    /// Sends a request and reads its answer, whatever its status.
    pub(super) async fn get(&mut self, path: &str, is_last: bool) -> Result<Answer, Failed> {
        self.requests += 1;
        let connection = if is_last { "Connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{connection}\r\n");
        self.stream.write_all(request.as_bytes()).await.map_err(|error| Failed::from_io("write", &error))?;
        Ok(self.reader.read(&mut self.stream).await?)
    }

    /// True while the server has neither ended the connection nor sent anything unasked.
    pub(super) fn is_idle(&self) -> bool {
        let nothing_came =
            matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        nothing_came && !self.reader.has_leftover()
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Counts the requests sent on this connection.
    pub(super) fn requests(&self) -> u32 {
        self.requests
    }
}

/// The addresses from which to connect to a target.
///
/// One address has some 28 000 ports, and each connection that the client closes first keeps its port for a minute
/// (`TIME_WAIT`). The whole of 127.0.0.0/8 is ours to connect from, so many addresses are used in turn; 127.0.0.1 is
/// left to everybody else.
pub(super) fn sources(target: SocketAddr) -> Vec<Ipv4Addr> {
    match target.ip() {
        IpAddr::V4(_) => (2..=250).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect(),
        IpAddr::V6(_) => Vec::new(),
    }
}

fn client_socket(target: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpSocket> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        // No IP_BIND_ADDRESS_NO_PORT, for which there is no safe wrapper: with this many addresses the kernel can
        // afford to choose the port now, and the port is then known even if the connect fails.
        socket.bind(SocketAddr::from((source, 0)))?;
    }
    Ok(socket)
}
