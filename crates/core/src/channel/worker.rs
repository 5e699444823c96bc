//! The worker's side: what a primary says, and what a worker asks and answers.

use std::net::{IpAddr, SocketAddr};

use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::{BadLine, Carriage, Envelope, Message, is_users};
use super::handle::{HandleKind, SocketMessage};
use super::{AddressKind, Counter, Texts, fixed, quoted};

/// What arrived on the channel, from the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromPrimary {
    /// What became of a wish to listen. With a [`Handle`](Self::Handle) around it that is the listener, else
    /// connections will be handed over one by one.
    Answer {
        /// The number of the query.
        ack: u64,
        /// 0, or the negative number of an error.
        errno: i32,
        /// Names the listener from now on.
        key: String,
        /// The ticket keys of the first worker's TLS server, as JSON text; never to be logged.
        data: Option<String>,
        /// What the primary listens on.
        sockname: Option<SocketAddr>,
    },
    /// A connection, which rides on the [`Handle`](Self::Handle) around it; an answer is owed.
    Connection {
        /// To be echoed as `ack`.
        seq: u64,
        /// The listener that it is for.
        key: String,
    },
    /// All servers are to be closed, and then the channel.
    Disconnect,
    /// The primary has heard that this worker leaves.
    Acknowledged {
        /// The number of that message.
        ack: u64,
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
        message: Box<FromPrimary>,
        /// The server that a connection came from, whose connections the primary counts.
        key: Option<String>,
    },
    /// About connections that were sent with a key.
    Socket(SocketMessage),
    /// A message for the worker's user, as JSON text; not checked.
    User(ByteString),
    /// Internal and unknown, or of no interest.
    Ignored,
}

#[derive(Deserialize)]
struct ClusterMessage<'a> {
    act: Option<String>,
    seq: Option<u64>,
    ack: Option<i64>,
    errno: Option<i32>,
    key: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    sockname: Option<&'a RawValue>,
}

impl Message for FromPrimary {
    fn parse(line: &[u8], texts: &mut Texts) -> Result<Self, BadLine> {
        if let Some((seq, key)) = fixed::read_connection(line) {
            let message = Box::new(FromPrimary::Connection { seq, key: key.to_owned() });
            return Ok(FromPrimary::Handle { kind: HandleKind::NetNative, key: None, message });
        }
        let text = std::str::from_utf8(line)?;
        if is_users(text) {
            return Ok(FromPrimary::User(texts.keep(text.trim_ascii())));
        }
        Ok(match Envelope::open(text)? {
            Envelope::Handle { kind, key, message } => {
                FromPrimary::Handle { kind, key, message: Box::new(plain(Envelope::open(message)?, texts)?) }
            }
            Envelope::HandleAck => FromPrimary::HandleAck,
            Envelope::HandleNack => FromPrimary::HandleNack,
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

fn plain(envelope: Envelope<'_>, texts: &mut Texts) -> Result<FromPrimary, BadLine> {
    Ok(match envelope {
        Envelope::Cluster(text) => parse_cluster(text)?,
        Envelope::Socket(message) => FromPrimary::Socket(message),
        Envelope::User(text) => FromPrimary::User(texts.keep(text)),
        // Messages with descriptors are not wrapped in one another.
        Envelope::Handle { .. } | Envelope::HandleAck | Envelope::HandleNack | Envelope::Ignored => {
            FromPrimary::Ignored
        }
    })
}

fn parse_cluster(text: &str) -> Result<FromPrimary, BadLine> {
    let ClusterMessage { act, seq, ack, errno, key, data, sockname } = serde_json::from_str(text)?;
    let ack = ack.and_then(|ack| u64::try_from(ack).ok());
    Ok(match (act.as_deref(), ack, seq, key) {
        (Some("newconn"), _, Some(seq), Some(key)) => FromPrimary::Connection { seq, key },
        (Some("disconnect"), ..) => FromPrimary::Disconnect,
        (None, Some(ack), _, Some(key)) => FromPrimary::Answer {
            ack,
            errno: errno.unwrap_or(0),
            key,
            data: data.map(RawValue::get).filter(|data| *data != "null").map(str::to_owned),
            sockname: sockname.map(RawValue::get).and_then(read_sockname),
        },
        (None, Some(ack), _, None) => FromPrimary::Acknowledged { ack },
        _ => FromPrimary::Ignored,
    })
}

fn read_sockname(text: &str) -> Option<SocketAddr> {
    #[derive(Deserialize)]
    struct Name {
        address: IpAddr,
        port: u16,
    }
    let name: Name = serde_json::from_str(text).ok()?;
    Some(SocketAddr::new(name.address, name.port))
}

/// A wish to listen, as [`Query`](super::Query) is when it has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How often this worker has asked for this address before.
    pub index: u64,
    /// A TLS server's ticket keys, as JSON text.
    pub data: Option<String>,
    /// An IP address, an absolute socket path, or `None` for "any".
    pub address: Option<String>,
    /// 0 for any; -1 for a socket path or a descriptor.
    pub port: i64,
    /// Which family.
    pub kind: AddressKind,
    /// A descriptor of the primary's to listen on.
    pub fd: Option<i64>,
    /// libuv's flags.
    pub flags: u32,
    /// Connections that may wait; 0 for the primary's default.
    pub backlog: u32,
    /// The socket file is to be readable by all.
    pub is_readable_by_all: bool,
    /// The socket file is to be writable by all.
    pub is_writable_by_all: bool,
    /// The policy to be used, as one writes it for `--policy`.
    pub policy: Option<String>,
}

impl Ask {
    /// A wish for `address` with nothing else said.
    pub fn new(kind: AddressKind, address: Option<String>, port: i64) -> Self {
        Self {
            index: 0,
            data: None,
            address,
            port,
            kind,
            fd: None,
            flags: 0,
            backlog: 0,
            is_readable_by_all: false,
            is_writable_by_all: false,
            policy: None,
        }
    }

    fn fields(&self, act: &str, port: i64) -> String {
        let address = self.address.as_deref().map_or_else(|| "null".to_owned(), quoted);
        let fd = match self.fd {
            Some(fd) => format!(r#""fd":{fd},"#),
            // As Node says it of UDP alone.
            None if self.kind.is_udp() => r#""fd":-1,"#.to_owned(),
            None => String::new(),
        };
        let policy = self.policy.as_deref().map(|policy| format!(r#""policy":{},"#, quoted(policy)));
        format!(
            r#""act":"{act}","index":{},"data":{},"address":{address},"port":{port},"addressType":{},{fd}{}"flags":{},"backlog":{},"readableAll":{},"writableAll":{},"allcores":true"#,
            self.index,
            self.data.as_deref().unwrap_or("null"),
            self.kind.json(),
            policy.unwrap_or_default(),
            self.flags,
            self.backlog,
            self.is_readable_by_all,
            self.is_writable_by_all,
        )
    }
}

/// Writes what a worker says. Counts its messages, as each cluster message carries its own number.
#[derive(Debug, Default)]
pub struct WorkerSpeaker {
    counter: Counter,
}

impl WorkerSpeaker {
    /// Says that the worker has booted; the first thing to be said.
    pub fn online(&mut self) -> String {
        self.counter.cluster(r#""act":"online""#).1
    }

    /// Asks for a listener; returns the number that the answer will name.
    pub fn query(&mut self, ask: &Ask) -> (u64, String) {
        self.counter.cluster(&ask.fields("queryServer", ask.port))
    }

    /// Says that the server of `ask` listens, on `port`.
    pub fn listening(&mut self, ask: &Ask, port: i64) -> String {
        self.counter.cluster(&ask.fields("listening", port)).1
    }

    /// Says that the listener of `key` is not used any more.
    pub fn close(&mut self, key: &str) -> String {
        self.counter.cluster(&format!(r#""act":"close","key":{}"#, quoted(key))).1
    }

    /// Says that this worker leaves of its own will; returns the number that will be acknowledged.
    pub fn leave(&mut self) -> (u64, String) {
        self.counter.cluster(r#""act":"exitedAfterDisconnect""#)
    }

    /// Says whether it took the connection of number `ack`.
    pub fn accepted(&mut self, ack: u64, is_accepted: bool) -> String {
        fixed::write_answer(ack, is_accepted, self.counter.next())
    }
}
