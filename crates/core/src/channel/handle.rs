//! Messages on which a descriptor rides, and what is said about the sockets that were sent.

use serde::Deserialize;

use super::quoted;

/// What is owed for each message with a descriptor.
pub const HANDLE_ACK: &str = r#"{"cmd":"NODE_HANDLE_ACK"}"#;

/// What is owed when no descriptor came with it.
pub const HANDLE_NACK: &str = r#"{"cmd":"NODE_HANDLE_NACK"}"#;

/// As what the receiver is to take a descriptor; Node's `type` in a `NODE_HANDLE` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandleKind {
    /// `net.Native`: a TCP or Unix socket for cluster itself.
    NetNative,
    /// `dgram.Native`: a UDP socket for cluster itself.
    DgramNative,
    /// `net.Socket`: a connection.
    NetSocket,
    /// `net.Server`: a listener.
    NetServer,
    /// `net.BoundSocket`: a TCP socket that is bound, no more. Node 26.
    NetBoundSocket,
    /// `dgram.Socket` with `dgramType` udp4.
    DgramSocket4,
    /// `dgram.Socket` with `dgramType` udp6.
    DgramSocket6,
    /// Something else. Only ever read.
    Unknown,
}

impl HandleKind {
    fn name(self) -> &'static str {
        match self {
            Self::NetNative => "net.Native",
            Self::DgramNative => "dgram.Native",
            Self::NetSocket => "net.Socket",
            Self::NetServer => "net.Server",
            Self::NetBoundSocket => "net.BoundSocket",
            Self::DgramSocket4 | Self::DgramSocket6 => "dgram.Socket",
            Self::Unknown => "unknown",
        }
    }

    /// By the values of `type` and `dgramType`, as JSON.
    pub(super) fn read(kind: Option<&str>, dgram: Option<&str>) -> Self {
        match (kind.unwrap_or_default().trim_matches('"'), dgram) {
            ("net.Native", _) => Self::NetNative,
            ("dgram.Native", _) => Self::DgramNative,
            ("net.Socket", _) => Self::NetSocket,
            ("net.Server", _) => Self::NetServer,
            ("net.BoundSocket", _) => Self::NetBoundSocket,
            ("dgram.Socket", Some("\"udp6\"")) => Self::DgramSocket6,
            ("dgram.Socket", _) => Self::DgramSocket4,
            _ => Self::Unknown,
        }
    }
}

/// Writes a user's message on which a descriptor rides. `json` is one JSON value without line ends; `key` names
/// the server that a connection came from, if the two sides are to count its connections.
pub fn user_with_handle(kind: HandleKind, json: &str, key: Option<&str>) -> String {
    let key = key.map(|key| format!(r#","key":{}"#, quoted(key))).unwrap_or_default();
    let dgram = match kind {
        HandleKind::DgramSocket4 => r#","dgramType":"udp4""#,
        HandleKind::DgramSocket6 => r#","dgramType":"udp6""#,
        _ => "",
    };
    // `socketType` and `nativeKind` are for Deno; Node ignores them.
    let deno = match kind {
        HandleKind::NetServer => r#","socketType":1,"nativeKind":"tcp""#,
        HandleKind::NetSocket => r#","socketType":0,"nativeKind":"tcp""#,
        _ => "",
    };
    format!(r#"{{"cmd":"NODE_HANDLE","type":"{}","msg":{json}{key}{dgram}{deno}}}"#, kind.name())
}

/// What is said about connections that were sent with a key: how many the other side still has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketMessage {
    /// To be answered with [`AllClosed`](Self::AllClosed) once no connection of this key is open.
    NotifyClose {
        /// As it was sent with the connections.
        key: String,
    },
    /// No connection of this key is open any more.
    AllClosed {
        /// As it was sent with the connections.
        key: String,
    },
    /// To be answered with [`Count`](Self::Count) at once.
    GetCount {
        /// As it was sent with the connections.
        key: String,
    },
    /// So many connections of this key are open.
    Count {
        /// As it was sent with the connections.
        key: String,
        /// How many.
        count: u64,
    },
}

impl SocketMessage {
    /// Writes it.
    pub fn line(&self) -> String {
        let (command, key, count) = match self {
            Self::NotifyClose { key } => ("NOTIFY_CLOSE", key, None),
            Self::AllClosed { key } => ("ALL_CLOSED", key, None),
            Self::GetCount { key } => ("GET_COUNT", key, None),
            Self::Count { key, count } => ("COUNT", key, Some(count)),
        };
        let count = count.map(|count| format!(r#","count":{count}"#)).unwrap_or_default();
        format!(r#"{{"cmd":"NODE_SOCKET_{command}","key":{}{count}}}"#, quoted(key))
    }

    /// Reads one whose `cmd` is `command`, as JSON.
    pub(super) fn read(command: &str, text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            key: String,
            count: Option<u64>,
        }
        let command = command.strip_prefix("\"NODE_SOCKET_")?;
        let Fields { key, count } = serde_json::from_str(text).ok()?;
        match command {
            "NOTIFY_CLOSE\"" => Some(Self::NotifyClose { key }),
            "ALL_CLOSED\"" => Some(Self::AllClosed { key }),
            "GET_COUNT\"" => Some(Self::GetCount { key }),
            "COUNT\"" => Some(Self::Count { key, count: count? }),
            _ => None,
        }
    }
}
