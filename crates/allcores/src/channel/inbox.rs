//! What was read: cut into messages, and the descriptors that came along, each kept for its own message.

mod saved;

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use allcores_core::channel::{Lines, Message, Texts};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

pub(super) use saved::InboxSaved;

/// The longest line that the other side may send.
pub(crate) const LONGEST: usize = 64 * 1024 * 1024;

/// How much is read at once.
const READ_SIZE: usize = 64 * 1024;

/// How many descriptors may have come before the messages that they belong to.
const MOST_PENDING: usize = 128;

/// A descriptor that came, or should have come.
#[derive(Debug)]
struct Received {
    /// Where in the stream the piece that it came with ends: it belongs to a message that begins before.
    end: u64,
    /// `None` if there was no room for it.
    descriptor: Option<OwnedFd>,
}

/// What was read and has not been taken out yet.
#[derive(Debug)]
pub(super) struct Inbox {
    lines: Lines,
    texts: Texts,
    /// How many bytes have been read since the beginning.
    read: u64,
    received: VecDeque<Received>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { lines: Lines::new(LONGEST), texts: Texts::default(), read: 0, received: VecDeque::new() }
    }
}

impl Inbox {
    /// Reads what there is, up to the end of the next piece that carries a descriptor; returns how much, and
    /// whether nothing is left to be read.
    pub(super) fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<(usize, bool)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [IoSliceMut::new(self.lines.room(READ_SIZE))];
        let message = rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        self.read += message.bytes as u64;
        let before = self.received.len();
        for item in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = item {
                let end = self.read;
                self.received
                    .extend(descriptors.map(|descriptor| Received { end, descriptor: Some(descriptor) }));
            }
        }
        let came = self.received.len() - before;
        if came == 0 && message.flags.contains(ReturnFlags::CTRUNC) {
            self.received.push_back(Received { end: self.read, descriptor: None });
        }
        self.lines.came(message.bytes);
        // A read ends early where a descriptor is, or where there is no more.
        let is_emptied = message.bytes < READ_SIZE && self.received.len() == before;
        Ok((message.bytes, is_emptied))
    }

    /// Takes out the next message. Closes the descriptors that belonged to those before and were not claimed.
    pub(super) fn next_message<M: Message>(&mut self) -> Result<Option<M>, String> {
        let taken = self.read - self.lines.len() as u64;
        while self.received.front().is_some_and(|first| first.end <= taken) {
            self.received.pop_front();
        }
        if self.received.len() > MOST_PENDING {
            return Err(format!("more than {MOST_PENDING} descriptors without their messages"));
        }
        let Some(line) = self.lines.next_line().map_err(|error| error.to_string())? else { return Ok(None) };
        M::parse(line, &mut self.texts).map(Some).map_err(|_| excerpt(line))
    }

    /// The descriptor of the message that was taken out last.
    pub(super) fn claim(&mut self) -> Option<OwnedFd> {
        self.received.pop_front()?.descriptor
    }
}

fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(60)]);
    format!("not a message: {text:?}")
}
