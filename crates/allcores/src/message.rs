//! What a user's message is, on either side of the channel.

mod rider;
mod write;

use std::fmt;

use allcores_core::channel::is_own;
use bytestring::ByteString;
use serde::Deserialize;

use crate::channel::LONGEST;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use rider::Rider;

/// More than what is written around a message that a socket rides on.
const ENVELOPE: usize = 1024;

/// A message that came over the channel: any JSON value, and perhaps a socket that rode on it.
///
/// Cheap to clone; the socket goes to whoever [takes](Message::take_handle) it first. Short ones share 4 KiB of memory with
/// those that came before and after: who keeps few of very many for long keeps what was [parsed](Message::parse).
///
/// # Examples
///
/// ```no_run
/// # fn example(message: allcores::Message) -> Result<(), allcores::Error> {
/// #[derive(serde::Deserialize)]
/// struct Served {
///     requests: u64,
/// }
///
/// let Served { requests } = message.parse()?;
/// println!("{requests} requests so far");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Message {
    json: ByteString,
    /// Of a message that came with one.
    handle: Option<Rider>,
}

impl Message {
    pub(crate) fn new(json: ByteString, handle: Option<Handle>) -> Self {
        Self { json, handle: handle.map(Rider::new) }
    }

    /// The message as the other side wrote it: one JSON value. Of a worker's that has been checked; of the primary's it has not,
    /// as it is read by who [parses](Self::parse) it.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Reads the message as a value of a type of yours, which may borrow from it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Message`] if it is something else.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_str(&self.json).map_err(|error| {
            let wanted = std::any::type_name::<T>();
            Error::new(ErrorKind::Message, format!("reading a message as {wanted}")).because(error)
        })
    }

    /// Whether a socket came with it, be it taken or not.
    pub(crate) fn came_with_handle(&self) -> bool {
        self.handle.is_some()
    }

    /// Whether a socket came with it and nobody has taken it yet.
    pub fn has_handle(&self) -> bool {
        self.handle.as_ref().is_some_and(Rider::is_there)
    }

    /// Takes the socket that came with it. One that nobody takes is closed with the last clone of the message that anybody has
    /// been told of: a stream of events that nobody has asked for yet does not keep it open.
    pub fn take_handle(&self) -> Option<Handle> {
        self.handle.as_ref()?.take()
    }

    /// Somebody is there to be told of this clone.
    pub(crate) fn tell(&mut self) {
        self.handle.as_mut().into_iter().for_each(Rider::tell);
    }

    /// Nobody has asked for this clone, and perhaps nobody will.
    pub(crate) fn shelve(&mut self) {
        self.handle.as_mut().into_iter().for_each(Rider::shelve);
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("json", &self.json()).field("has_handle", &self.has_handle()).finish()
    }
}

/// Writes a value as the one line of JSON that it travels as. Refuses what the other side would take for an order of the
/// cluster's: a program may pass on what it was sent by its clients.
pub(crate) fn to_json(value: &(impl serde::Serialize + ?Sized)) -> Result<Vec<u8>, Error> {
    let mut json = write::to_vec(value)
        .map_err(|error| Error::new(ErrorKind::Message, "writing a message as JSON").because(error))?;
    if json.len() > LONGEST - ENVELOPE {
        let attempt = format!("sending a message of {} bytes: no side takes in more than 64 MiB", json.len());
        return Err(Error::new(ErrorKind::Message, attempt));
    }
    // What a `RawValue` has between its tokens is written as it is, and would end the line for the other side: what
    // follows would be a message that nobody has sent.
    if memchr::memchr(b'\n', &json).is_some() {
        json.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    }
    if is_own(&json) {
        let attempt = "sending a message whose `cmd` begins with NODE_, which would be taken for one of the cluster's own";
        return Err(Error::new(ErrorKind::Message, attempt));
    }
    Ok(json)
}
