//! The primary's side: what workers say, and what is answered.

use std::net::SocketAddr;

use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::{BadLine, Carriage, Envelope, Message};
use super::handle::{HANDLE_ACK, HandleKind, SocketMessage};
use super::{AddressKind, Counter, Texts, fixed, quoted};

/// What arrived on the channel, from a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The worker has booted; the program has not run yet.
    Online,
    /// The program wants to listen; exactly one answer is owed.
    Query(Box<Query>),
    /// A server of the program listens.
    Listening {
        /// The address as the program gave it; `None` for "any".
        address: Option<String>,
        /// The port that it obtained; 0 when the server was closed meanwhile, -1 for a socket path.
        port: i64,
        /// Which family.
        kind: AddressKind,
        /// The primary's descriptor that the program named.
        fd: Option<i64>,
        /// As in its query.
        index: u64,
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
    /// The first descriptor of those that were not acknowledged has arrived.
    HandleAck,
    /// It has not.
    HandleNack,
    /// A message on which a descriptor rides; an acknowledgement is owed at once.
    Handle {
        /// As what to take the descriptor.
        kind: HandleKind,
        /// What came with it; never itself a message with a descriptor.
        message: Box<Incoming>,
        /// The server that a connection came from, whose connections the worker counts.
        key: Option<String>,
    },
    /// About connections that were sent with a key.
    Socket(SocketMessage),
    /// A message for the primary's user, as JSON text.
    User(ByteString),
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
    /// The policy that the program asks for, as one writes it for `--policy`. Only our own workers send it.
    pub policy: Option<String>,
    /// The worker is one of this crate, not of Node.
    pub is_crate: bool,
}

/// The backlog that Node uses where the program names none.
const DEFAULT_BACKLOG: u32 = 511;

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
    policy: Option<String>,
    allcores: Option<bool>,
}

impl Message for Incoming {
    fn parse(line: &[u8], texts: &mut Texts) -> Result<Self, BadLine> {
        if let Some((ack, is_accepted)) = fixed::read_answer(line) {
            return Ok(Incoming::Accepted { ack, is_accepted });
        }
        if line == HANDLE_ACK.as_bytes() {
            return Ok(Incoming::HandleAck);
        }
        Ok(match Envelope::open(std::str::from_utf8(line)?)? {
            Envelope::Handle { kind, key, message } => {
                Incoming::Handle { kind, key, message: Box::new(plain(Envelope::open(message)?, texts)?) }
            }
            Envelope::HandleAck => Incoming::HandleAck,
            Envelope::HandleNack => Incoming::HandleNack,
            other => plain(other, texts)?,
        })
    }

    fn carriage(&self) -> Carriage {
        match self {
            Self::Handle { .. } => Carriage::Handle,
            Self::HandleAck => Carriage::Ack,
            Self::HandleNack => Carriage::Nack,
            _ => Carriage::Plain,
        }
    }
}

fn plain(envelope: Envelope<'_>, texts: &mut Texts) -> Result<Incoming, BadLine> {
    Ok(match envelope {
        Envelope::Cluster(text) => parse_cluster(text)?,
        Envelope::Socket(message) => Incoming::Socket(message),
        Envelope::User(text) => Incoming::User(texts.keep(text)),
        // Messages with descriptors are not wrapped in one another.
        Envelope::Handle { .. } | Envelope::HandleAck | Envelope::HandleNack | Envelope::Ignored => {
            Incoming::Ignored
        }
    })
}

fn parse_cluster(text: &str) -> Result<Incoming, BadLine> {
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
        (Some("listening"), _, Some(kind)) => Incoming::Listening {
            address: message.address,
            port: message.port.unwrap_or(0),
            kind,
            fd: message.fd.filter(|fd| *fd >= 0),
            index: message.index.unwrap_or(0),
        },
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
        policy: message.policy,
        is_crate: message.allcores.unwrap_or(false),
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
    counter: Counter,
}

impl Speaker {
    /// Goes on counting from the number that another one had [come to](Self::next_number).
    pub fn from_number(number: u64) -> Self {
        Self { counter: Counter(number) }
    }

    /// The number of its next message.
    pub fn next_number(&self) -> u64 {
        self.counter.0
    }

    /// Answers a query with a listener, whose descriptor must ride on this line.
    pub fn give_listener(&mut self, query: &Query, key: &str) -> String {
        let inner = self.answer(query, key, 0, None);
        let kind = if query.kind.is_udp() { "dgram.Native" } else { "net.Native" };
        // `socketType` and `nativeKind` are for Deno; Node ignores them.
        let extra = if query.kind.is_udp() { "" } else { r#","socketType":1,"nativeKind":"tcp""# };
        format!(r#"{{"cmd":"NODE_HANDLE","type":"{kind}","msg":{inner}{extra}}}"#)
    }

    /// Answers a query with leave to listen: the primary accepts and hands connections over. `sockname` is what
    /// the primary listens on; `None` for a Unix socket. Never to be said of UDP.
    pub fn listen_by_handoff(&mut self, query: &Query, key: &str, sockname: Option<SocketAddr>) -> String {
        self.answer(query, key, 0, sockname)
    }

    /// Answers a query with an error.
    pub fn refuse_listener(&mut self, query: &Query, key: &str, errno: i32) -> String {
        self.answer(query, key, -errno.saturating_abs(), None)
    }

    fn answer(&mut self, query: &Query, key: &str, errno: i32, sockname: Option<SocketAddr>) -> String {
        // A TLS server dies of an answer without its data, be it an error.
        let data = query.data.as_deref().unwrap_or("null");
        let sockname = sockname.map(sockname_field).unwrap_or_default();
        let (key, ack) = (quoted(key), query.seq);
        self.cluster(&format!(r#""errno":{errno},"key":{key},"ack":{ack},"data":{data}{sockname}"#))
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
        let seq = self.counter.next();
        (seq, fixed::write_connection(key, seq))
    }

    fn cluster(&mut self, fields: &str) -> String {
        self.counter.cluster(fields).1
    }
}

fn sockname_field(address: SocketAddr) -> String {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let (ip, port) = (address.ip(), address.port());
    format!(r#","sockname":{{"address":"{ip}","family":"{family}","port":{port}}}"#)
}
