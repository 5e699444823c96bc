//! A channel as data, to go on in the primary's next program: what was read in part, what waits to be written, and what
//! has not been acknowledged.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::inbox::{Inbox, InboxSaved};
use super::line::Line;
use super::outbox::{Outbox, OutboxSaved};
use super::{Carrier, Open, Sender};
use crate::carry::{FdSaved, Inherited, Manifest};
use crate::sys::Watch;

/// A channel as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChannelSaved {
    socket: FdSaved,
    outbox: OutboxSaved,
    inbox: InboxSaved,
    is_broken: bool,
}

impl Carrier {
    /// Takes down all that there is between the two sides and not with either.
    pub(crate) fn save(&self, manifest: &mut Manifest) -> ChannelSaved {
        let (outbox, is_broken) = self.line.save(manifest);
        let socket = manifest.note(self.socket.as_ref());
        ChannelSaved { socket, outbox, inbox: self.inbox.save(manifest), is_broken }
    }

    /// Makes the same again.
    ///
    /// # Errors
    ///
    /// If its socket, or one that is to be sent, was not left.
    pub(crate) fn restore(saved: ChannelSaved, inherited: &mut Inherited) -> io::Result<(Sender, Self)> {
        let outbox = Outbox::restore(saved.outbox, inherited)?;
        let inbox = Inbox::restore(saved.inbox, inherited)?;
        let socket = Arc::new(Watch::readable(inherited.take(saved.socket)?)?);
        let line = Arc::new(Line::restore(Arc::clone(&socket), outbox, saved.is_broken));
        let sender = Sender(Arc::new(Open(Arc::clone(&line))));
        Ok((sender, Self { socket, line, inbox, room: None, pause: None, rest: None }))
    }
}

#[cfg(test)]
mod tests;
