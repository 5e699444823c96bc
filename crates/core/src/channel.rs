//! node:cluster's channel: what workers and primaries say to each other, as lines of JSON.
//!
//! Both directions: what a primary reads and says ([`Incoming`], [`Speaker`]), and what a worker does
//! ([`FromPrimary`], [`WorkerSpeaker`]). Knows the words and no sockets: `allcores` carries the lines and the
//! descriptors that ride on them. Only the envelope is parsed; what users send each other is passed through
//! untouched.

mod envelope;
mod fixed;
mod handle;
mod lines;
mod primary;
mod texts;
mod worker;

pub use envelope::{BadLine, Carriage, Message, is_own};
pub use handle::{HANDLE_ACK, HANDLE_NACK, HandleKind, SocketMessage, user_with_handle};
pub use lines::{Lines, TooLong};
pub use primary::{Incoming, Query, Speaker};
pub use texts::Texts;
pub use worker::{Ask, FromPrimary, WorkerSpeaker};

/// libuv's flag for an IPv6 socket that takes no IPv4.
pub const FLAG_IPV6_ONLY: u32 = 1;

/// libuv's flag for a UDP socket that may share its address with others who ask for the same.
pub const FLAG_REUSE_ADDRESS: u32 = 4;

/// How messages are written on a channel; Node's `serialization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serialization {
    /// A line of JSON each.
    #[default]
    Json,
    /// V8's own format, as of the structured clone algorithm. Known by name, and refused: see
    /// docs/adr/0006-the-channel-speaks-json.md.
    Advanced,
}

impl Serialization {
    /// Its value in `NODE_CHANNEL_SERIALIZATION_MODE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Advanced => "advanced",
        }
    }
}

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

    /// As JSON.
    fn json(self) -> &'static str {
        match self {
            Self::Tcp4 => "4",
            Self::Tcp6 => "6",
            Self::Udp4 => "\"udp4\"",
            Self::Udp6 => "\"udp6\"",
            Self::Unix => "-1",
            Self::Descriptor => "null",
        }
    }
}

/// Numbers the cluster messages of one speaker.
#[derive(Debug, Default)]
struct Counter(u64);

impl Counter {
    fn next(&mut self) -> u64 {
        let seq = self.0;
        self.0 += 1;
        seq
    }

    /// Makes a cluster message of `fields`; returns its number too.
    fn cluster(&mut self, fields: &str) -> (u64, String) {
        let seq = self.next();
        (seq, format!(r#"{{"cmd":"NODE_CLUSTER",{fields},"seq":{seq}}}"#))
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

#[cfg(test)]
mod tests;
