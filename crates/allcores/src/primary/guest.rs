//! What a primary tells the program of which it is a part, beyond what it tells an operator: what workers say over their
//! channels, and how to talk to them.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use allcores_core::channel::AddressKind;

use super::{Flow, WorkerRef};
use crate::channel;
use crate::message::Message;

/// The program of which a primary is a part.
pub(crate) struct Guest {
    /// Whether more of what any worker writes is wanted.
    pub(crate) flow: Arc<Flow>,
    /// Is told what workers say, in order with the events.
    pub(crate) hear: Box<dyn FnMut(WorkerRef, Said<'_>) + Send>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("flow", &self.flow).finish_non_exhaustive()
    }
}

/// What is known of a worker through its channel.
#[derive(Debug)]
pub(crate) enum Said<'a> {
    /// It exists and can be written to. Comes first, before the event that it was forked.
    Linked(&'a Link),
    /// A server of it listens.
    Listening {
        /// As the program gave it.
        address: Option<&'a str>,
        /// What it obtained; -1 for a Unix socket.
        port: i64,
        kind: AddressKind,
        /// The descriptor of the primary's that it named.
        fd: Option<i64>,
    },
    /// Messages for the user, which came together.
    Messages(Vec<Message>),
    /// It could not take in a socket that the user has sent it, and has not got the message either.
    Unreceived,
    /// It leaves of its own will.
    Leaving,
    /// Its channel has closed, from whichever side.
    Disconnected {
        /// Why.
        end: &'a channel::End,
    },
}

/// What reaches a worker past the engine.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) pidfd: Arc<OwnedFd>,
    pub(crate) channel: Option<channel::Sender>,
    /// Whether more of what it writes is wanted.
    pub(crate) flow: Arc<Flow>,
}
