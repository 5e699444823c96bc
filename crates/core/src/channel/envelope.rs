//! What every line of the channel is, whoever wrote it: Node's own message of some kind, or a user's.

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Texts;
use super::handle::{HANDLE_ACK, HandleKind, SocketMessage};

/// A line that is no message. The channel can't be trusted after it.
#[derive(Debug, thiserror::Error)]
#[error("not a channel message")]
pub struct BadLine {
    #[source]
    source: serde_json::Error,
}

impl From<serde_json::Error> for BadLine {
    fn from(source: serde_json::Error) -> Self {
        Self { source }
    }
}

impl From<std::str::Utf8Error> for BadLine {
    fn from(source: std::str::Utf8Error) -> Self {
        Self { source: serde::de::Error::custom(source) }
    }
}

/// A message that can be carried: what [`Incoming`](super::Incoming) and [`FromPrimary`](super::FromPrimary)
/// have in common.
pub trait Message: Sized {
    /// Reads one line, without its line end. A user's message in it is copied into `texts`.
    ///
    /// # Errors
    ///
    /// If it claims to be of node:cluster's messages and is not JSON or has fields of the wrong types. A primary takes nothing
    /// else that is not JSON either; a worker leaves that to who reads the message, as it trusts who started it.
    fn parse(line: &[u8], texts: &mut Texts) -> Result<Self, BadLine>;

    /// What it means to the carrying of descriptors.
    fn carriage(&self) -> Carriage;
}

/// What a message means to the carrying of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// Nothing.
    Plain,
    /// A descriptor rides on it, and an acknowledgement is owed.
    Handle,
    /// The first descriptor of those that were not acknowledged has arrived.
    Ack,
    /// It has not.
    Nack,
}

/// A line, opened as far as its kind.
#[derive(Debug)]
pub(super) enum Envelope<'a> {
    Cluster(&'a str),
    Handle { kind: HandleKind, key: Option<String>, message: &'a str },
    HandleAck,
    HandleNack,
    Socket(SocketMessage),
    User(&'a str),
    Ignored,
}

#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow)]
    cmd: Option<&'a RawValue>,
}

impl<'a> Command<'a> {
    /// Reads an object. An array is none, though it could be read as one: to Node it has no `cmd`.
    fn read(text: &'a str) -> Option<Self> {
        if text.trim_ascii_start().starts_with('{') { serde_json::from_str(text).ok() } else { None }
    }
}

#[derive(Deserialize)]
struct HandleMessage<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
    key: Option<String>,
    #[serde(borrow, rename = "dgramType")]
    dgram: Option<&'a RawValue>,
}

/// How each command of Node's own begins, as it stands in a line.
const OWN: &str = "\"NODE_";

/// Looks for one, fast.
static FIND_OWN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(OWN));

/// Looks for a character that is written by its number.
static FIND_ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\\u"));

/// Whether it can be nothing of Node's own, be it JSON or not.
pub(super) fn is_users(text: &str) -> bool {
    FIND_OWN.find(text.as_bytes()).is_none()
}

/// Whether whoever reads a JSON text may take it for one of Node's own messages, in whatever way that is written: for who lets
/// others say what is to be sent. What can't be read here counts as one: others may well read it.
pub fn is_own(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
        && (FIND_OWN.find(text).is_some() || FIND_ESCAPE.find(text).is_some())
        && serde_json::from_slice(text).map_or(true, |NamesOwn(is_own)| is_own)
}

/// Whether an object has a command of Node's own. Of several of that name readers take different ones.
struct NamesOwn(bool);

impl<'de> Deserialize<'de> for NamesOwn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self(false))
    }
}

impl<'de> Visitor<'de> for NamesOwn {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut fields: M) -> Result<Self, M::Error> {
        while let Some(Letters(name)) = fields.next_key()? {
            if name == b"cmd" {
                // Whatever it is else, a number beyond all others or a nest without a bottom, it is no command.
                let command = fields.next_value::<&RawValue>()?.get();
                self.0 |= command.starts_with('"') && names_own(command).map_err(serde::de::Error::custom)?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(self)
    }
}

fn names_own(command: &str) -> serde_json::Result<bool> {
    let Letters(name) = serde_json::from_str(command)?;
    Ok(name.starts_with(b"NODE_") && name != b"NODE_")
}

/// What a JSON string stands for. JavaScript's may be no Unicode, with half of a pair, which a `String` can't hold.
struct Letters(Vec<u8>);

impl<'de> Deserialize<'de> for Letters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Self(Vec::new()))
    }
}

impl Visitor<'_> for Letters {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, letters: &[u8]) -> Result<Self, E> {
        Ok(Self(letters.to_vec()))
    }
}

impl<'a> Envelope<'a> {
    /// # Errors
    ///
    /// If it is not JSON.
    pub(super) fn open(text: &'a str) -> Result<Self, BadLine> {
        if text == HANDLE_ACK {
            return Ok(Self::HandleAck);
        }
        let Some(Command { cmd }) = Command::read(text) else {
            // Any other JSON is a user's.
            return Ok(Self::User(serde_json::from_str::<&RawValue>(text)?.get()));
        };
        Ok(match cmd.map(RawValue::get) {
            Some("\"NODE_CLUSTER\"") => Self::Cluster(text),
            Some("\"NODE_HANDLE_ACK\"") => Self::HandleAck,
            Some("\"NODE_HANDLE_NACK\"") => Self::HandleNack,
            Some("\"NODE_HANDLE\"") => Self::open_handle(text)?,
            // Exactly `NODE_` is a user's message, anything longer is Node's own.
            Some(other) if other.starts_with(OWN) && other != "\"NODE_\"" => {
                SocketMessage::read(other, text).map_or(Self::Ignored, Self::Socket)
            }
            _ => Self::User(text.trim_ascii()),
        })
    }

    fn open_handle(text: &'a str) -> Result<Self, BadLine> {
        let outer: HandleMessage<'a> = serde_json::from_str(text)?;
        let message = outer.msg.map_or("null", RawValue::get);
        // Node wraps what it sends again for want of an acknowledgement a second time.
        let inner = Command::read(message).and_then(|inner| inner.cmd);
        let is_wrapped_twice = inner.is_some_and(|command| command.get() == "\"NODE_HANDLE\"");
        let HandleMessage { kind, msg, key, dgram } =
            if is_wrapped_twice { serde_json::from_str(message)? } else { outer };
        let kind = HandleKind::read(kind.map(RawValue::get), dgram.map(RawValue::get));
        Ok(Self::Handle { kind, key, message: msg.map_or("null", RawValue::get) })
    }
}
