//! node:cluster's channel: what a worker says and what a primary answers, as lines of JSON.
//!
//! Knows the words and no sockets: `allcores` carries the lines and the descriptors that ride on them. Only the
//! envelope is parsed; what users send each other is passed through untouched.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What arrived on the channel, from a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Node has booted; the program has not run yet.
    Online,
    /// The program wants to listen; exactly one answer is owed.
    Query(Box<Query>),
    /// A server of the program listens.
    Listening {
        /// The address as the program gave it; `None` for "any".
        address: Option<String>,
        /// The port that it obtained; 0 when the server was closed meanwhile.
        port: i64,
        /// Which family.
        kind: AddressKind,
    },
    /// The program no longer uses the listener of this key.
    Close {
        /// As given in the answer to its query.
        key: String,
    },
    /// It leaves of its own will and waits for an acknowledgement of this sequence number.
    Leaving {
        /// To be echoed as `ack`.
        seq: u64,
    },
    /// Whether it took a connection that was handed to it.
    Accepted {
        /// The sequence number of the hand-off.
        ack: u64,
        /// False: the connection is ours again.
        is_accepted: bool,
    },
    /// The descriptor sent last arrived.
    HandleAck,
    /// It did not.
    HandleNack,
    /// The worker sent a descriptor; an acknowledgement is owed at once.
    Handle,
    /// A message for the primary's user, as JSON text.
    User(String),
    /// Internal and unknown, or of no interest.
    Ignored,
}

/// A worker's wish to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// To be echoed as `ack`.
    pub seq: u64,
    /// The n-th listen on this address in the worker.
    pub index: u64,
    /// For the first worker of a TLS server its ticket keys, as JSON text; never to be logged.
    pub data: Option<String>,
    /// An IP address, a socket path, or `None` for "any".
    pub address: Option<String>,
    /// 0 for any; -1 for a socket path.
    pub port: i64,
    /// Which family.
    pub kind: AddressKind,
    /// A descriptor of the primary's to listen on.
    pub fd: Option<i64>,
    /// libuv's flags.
    pub flags: u32,
    /// Connections that may wait.
    pub backlog: u32,
    /// The socket file is to be readable by all.
    pub is_readable_by_all: bool,
    /// The socket file is to be writable by all.
    pub is_writable_by_all: bool,
}

/// libuv's flag for an IPv6 socket that takes no IPv4.
pub const FLAG_IPV6_ONLY: u32 = 1;

/// The backlog that Node uses where the program names none.
const DEFAULT_BACKLOG: u32 = 511;

/// Node's `addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// TCP over IPv4, or over any address where none was named.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// A Unix socket.
    Unix,
    /// A descriptor.
    Descriptor,
}

impl AddressKind {
    /// True for datagram sockets, whose handle is of another type on the wire.
    pub fn is_udp(self) -> bool {
        matches!(self, Self::Udp4 | Self::Udp6)
    }
}

/// A line that is no message. The channel can't be trusted after it.
#[derive(Debug, thiserror::Error)]
#[error("not a channel message")]
pub struct BadLine {
    #[source]
    source: serde_json::Error,
}

#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow)]
    cmd: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ClusterMessage<'a> {
    act: Option<String>,
    seq: Option<u64>,
    ack: Option<i64>,
    accepted: Option<bool>,
    key: Option<String>,
    index: Option<u64>,
    address: Option<String>,
    port: Option<i64>,
    #[serde(borrow, rename = "addressType")]
    address_type: Option<&'a RawValue>,
    fd: Option<i64>,
    flags: Option<u32>,
    #[serde(borrow)]
    backlog: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(rename = "readableAll")]
    readable_all: Option<bool>,
    #[serde(rename = "writableAll")]
    writable_all: Option<bool>,
}

/// Reads one line, without its line end.
///
/// # Errors
///
/// If it is not JSON, or claims to be a cluster message and has fields of the wrong types.
pub fn parse(line: &[u8]) -> Result<Incoming, BadLine> {
    let bad = |source| BadLine { source };
    let value: &RawValue = serde_json::from_slice(line).map_err(bad)?;
    let command = serde_json::from_str::<Command<'_>>(value.get()).ok().and_then(|message| message.cmd);
    match command.map(RawValue::get) {
        Some("\"NODE_CLUSTER\"") => parse_cluster(value.get()).map_err(bad),
        Some("\"NODE_HANDLE_ACK\"") => Ok(Incoming::HandleAck),
        Some("\"NODE_HANDLE_NACK\"") => Ok(Incoming::HandleNack),
        Some("\"NODE_HANDLE\"") => Ok(Incoming::Handle),
        // Exactly `NODE_` is a user's message, anything longer is Node's own.
        Some(other) if other.starts_with("\"NODE_") && other != "\"NODE_\"" => Ok(Incoming::Ignored),
        _ => Ok(Incoming::User(value.get().to_owned())),
    }
}

fn parse_cluster(text: &str) -> Result<Incoming, serde_json::Error> {
    let message: ClusterMessage<'_> = serde_json::from_str(text)?;
    if let (Some(ack), Some(is_accepted)) =
        (message.ack.and_then(|ack| u64::try_from(ack).ok()), message.accepted)
    {
        return Ok(Incoming::Accepted { ack, is_accepted });
    }
    let kind = address_kind(&message);
    Ok(match (message.act.as_deref(), message.seq, kind) {
        (Some("online"), ..) => Incoming::Online,
        (Some("queryServer"), Some(seq), Some(kind)) => Incoming::Query(Box::new(query(message, seq, kind))),
        (Some("listening"), _, Some(kind)) => {
            Incoming::Listening { address: message.address, port: message.port.unwrap_or(0), kind }
        }
        (Some("close"), ..) => message.key.map_or(Incoming::Ignored, |key| Incoming::Close { key }),
        (Some("exitedAfterDisconnect"), Some(seq), _) => Incoming::Leaving { seq },
        _ => Incoming::Ignored,
    })
}

fn query(message: ClusterMessage<'_>, seq: u64, kind: AddressKind) -> Query {
    let backlog = message.backlog.and_then(|raw| raw.get().parse().ok()).filter(|backlog| *backlog > 0);
    Query {
        seq,
        index: message.index.unwrap_or(0),
        data: message.data.map(RawValue::get).filter(|data| *data != "null").map(str::to_owned),
        address: message.address,
        port: message.port.unwrap_or(-1),
        kind,
        fd: message.fd.filter(|fd| *fd >= 0),
        flags: message.flags.unwrap_or(0),
        backlog: backlog.unwrap_or(DEFAULT_BACKLOG),
        is_readable_by_all: message.readable_all.unwrap_or(false),
        is_writable_by_all: message.writable_all.unwrap_or(false),
    }
}

fn address_kind(message: &ClusterMessage<'_>) -> Option<AddressKind> {
    let is_descriptor = message.fd.is_some_and(|fd| fd >= 0);
    match message.address_type.map(RawValue::get) {
        Some("\"udp4\"") => Some(AddressKind::Udp4),
        Some("\"udp6\"") => Some(AddressKind::Udp6),
        _ if is_descriptor => Some(AddressKind::Descriptor),
        Some("4") => Some(AddressKind::Tcp4),
        Some("6") => Some(AddressKind::Tcp6),
        Some("-1") => Some(AddressKind::Unix),
        _ => None,
    }
}

/// Writes what a primary says. Counts its messages, as each cluster message carries its own number.
#[derive(Debug, Default)]
pub struct Speaker {
    seq: u64,
}

impl Speaker {
    /// Answers a query with a listener, whose descriptor must ride on this line.
    pub fn give_listener(&mut self, query: &Query, key: &str) -> String {
        let inner = self.answer(query, key, 0);
        let kind = if query.kind.is_udp() { "dgram.Native" } else { "net.Native" };
        // `socketType` and `nativeKind` are for Deno; Node ignores them.
        let extra = if query.kind.is_udp() { "" } else { r#","socketType":1,"nativeKind":"tcp""# };
        format!(r#"{{"cmd":"NODE_HANDLE","type":"{kind}","msg":{inner}{extra}}}"#)
    }

    /// Answers a query with an error.
    pub fn refuse_listener(&mut self, query: &Query, key: &str, errno: i32) -> String {
        self.answer(query, key, -errno.abs())
    }

    fn answer(&mut self, query: &Query, key: &str, errno: i32) -> String {
        // A TLS server dies of an answer without its data, be it an error.
        let data = query.data.as_deref().unwrap_or("null");
        let fields = format!(r#""errno":{errno},"key":{},"ack":{},"data":{data}"#, quoted(key), query.seq);
        self.cluster(&fields)
    }

    /// Asks the worker to close its servers, finish its connections and go.
    pub fn disconnect(&mut self) -> String {
        self.cluster(r#""act":"disconnect""#)
    }

    /// Lets a worker go that said it leaves.
    pub fn acknowledge(&mut self, seq: u64) -> String {
        self.cluster(&format!(r#""ack":{seq}"#))
    }

    /// Hands over a connection, whose descriptor must ride on this line; returns the number to be acknowledged.
    pub fn hand_over(&mut self, key: &str) -> (u64, String) {
        let seq = self.seq;
        let inner = self.cluster(&format!(r#""act":"newconn","key":{}"#, quoted(key)));
        let extra = r#""socketType":0,"nativeKind":"tcp""#;
        (seq, format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":{inner},{extra}}}"#))
    }

    fn cluster(&mut self, fields: &str) -> String {
        let mut line = format!(r#"{{"cmd":"NODE_CLUSTER",{fields}"#);
        write!(line, r#","seq":{}}}"#, self.seq).expect("writing to a string");
        self.seq += 1;
        line
    }
}

/// What is owed for each [`Incoming::Handle`].
pub const HANDLE_ACK: &str = r#"{"cmd":"NODE_HANDLE_ACK"}"#;

/// What is owed when no descriptor came with it.
pub const HANDLE_NACK: &str = r#"{"cmd":"NODE_HANDLE_NACK"}"#;

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

/// Cuts a stream of bytes into lines, of bounded length.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    searched: usize,
    limit: usize,
}

/// A line grew beyond the limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {0} bytes")]
pub struct TooLong(usize);

impl Lines {
    /// Lines of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), searched: 0, limit }
    }

    /// Takes in bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes out the next whole line, without its line end.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some(found) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > self.limit { Err(TooLong(self.limit)) } else { Ok(None) };
        };
        let end = self.searched + found;
        if end > self.limit {
            return Err(TooLong(self.limit));
        }
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(end);
        self.searched = 0;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests;
