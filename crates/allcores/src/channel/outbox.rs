//! What waits to be sent: in which order it goes, and when a descriptor has to wait.
//!
//! Node's receiver reads up to 64 KiB at once and remembers one descriptor. A message with a descriptor of which
//! it has read only the beginning gets the descriptor of the next one, if the two are read together. So whatever
//! may be cut by such a read is the last one with a descriptor until it is acknowledged.

mod saved;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::{HANDLE_ACK, HANDLE_NACK};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

pub(super) use saved::OutboxSaved;

/// What Node reads at once.
const NODE_READS: usize = 64 * 1024;

/// What the kernel takes in one piece, be the send buffer as small as it can be: half of 4,608 bytes, less 64.
const PIECE: usize = 2048;

/// How often a user's descriptor is sent again. Node does so three times, at once: whoever lacks descriptors for a moment lacks them
/// still.
const RETRANSMISSIONS: u8 = 6;

/// The same for those that follow one which was given up: they would hold back all that is behind them for long.
const FURTHER_RETRANSMISSIONS: u8 = 2;

/// How long one waits before it is sent again, and twice as long each further time: a second in all.
const REST: Duration = Duration::from_millis(16);

/// So many acknowledgements may wait to be written.
const MOST_OWED: usize = 256;

/// So many bytes of the protocol's own messages may wait for the other side to read. A user's are the user's business.
const MOST_UNREAD: usize = 4 * 1024 * 1024;

/// How many descriptors of the protocol's own may wait for who does not read: each is one of ours meanwhile.
const MOST_DESCRIPTORS: usize = 1024;

/// So many descriptors may be on their way. A thousand listeners have eight thousand connections unanswered at most.
const MOST_OUTSTANDING: usize = 16 * 1024;

/// How many pieces are written at once.
const GATHERED: usize = 64;

/// Up to so many bytes of a user's messages wait as one piece. An acknowledgement waits for the rest of one that is written
/// in part.
const JOINED: usize = 4096;

/// For so much counts a descriptor of a user's that waits, among the bytes that wait: 64 of them are as much as Node's limit.
const DESCRIPTOR_WEIGHT: usize = 2048;

/// A message to be sent, and the descriptor that rides on it; or several without.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    sent: usize,
    cargo: Cargo,
    /// It has to be noted when it is written.
    is_metered: bool,
    /// It is one of the protocol's own.
    is_own: bool,
}

#[derive(Clone, Debug)]
enum Cargo {
    None,
    /// May be sent while others are not acknowledged.
    Handle {
        descriptor: Option<Arc<OwnedFd>>,
        number: Option<u64>,
    },
    /// Everything behind it waits, and it is sent again if need be.
    UserHandle {
        descriptor: Arc<OwnedFd>,
        retransmissions: u8,
    },
}

impl Pending {
    pub(super) fn plain(line: String) -> Self {
        Self::new(line.into_bytes(), Cargo::None)
    }

    pub(super) fn user(line: Vec<u8>) -> Self {
        Self { is_own: false, ..Self::new(line, Cargo::None) }
    }

    pub(super) fn handle(line: String, descriptor: Arc<OwnedFd>, number: Option<u64>) -> Self {
        Self::new(line.into_bytes(), Cargo::Handle { descriptor: Some(descriptor), number })
    }

    pub(super) fn user_handle(line: String, descriptor: Arc<OwnedFd>) -> Self {
        let cargo = Cargo::UserHandle { descriptor, retransmissions: 0 };
        Self { is_own: false, ..Self::new(line.into_bytes(), cargo) }
    }

    fn new(mut bytes: Vec<u8>, cargo: Cargo) -> Self {
        bytes.push(b'\n');
        Self { bytes, sent: 0, cargo, is_metered: true, is_own: true }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How much of it waits to be written.
    pub(super) fn weight(&self) -> usize {
        let waits = self.sent == 0 && matches!(self.cargo, Cargo::UserHandle { .. });
        self.rest().len() + if waits { DESCRIPTOR_WEIGHT } else { 0 }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Whether it may be collected with others: a user's own words may, as nobody's decision hangs on them.
    pub(super) fn may_wait(&self) -> bool {
        !self.is_own && !self.is_handle()
    }

    /// Takes in what follows it, if it is of the same kind and there is little of both. An allocation for each message
    /// would be a good part of its cost.
    fn join(&mut self, next: Self) -> Option<Self> {
        let is_alike = self.may_wait() && next.may_wait() && self.is_metered == next.is_metered;
        if !is_alike || self.sent + next.sent > 0 || self.len() + next.len() > JOINED {
            return Some(next);
        }
        if self.bytes.capacity() < JOINED {
            self.bytes.reserve_exact(JOINED - self.bytes.len());
        }
        self.bytes.extend_from_slice(&next.bytes);
        None
    }

    pub(super) fn is_handle(&self) -> bool {
        !matches!(self.cargo, Cargo::None)
    }

    fn has_own_descriptor(&self) -> bool {
        matches!(self.cargo, Cargo::Handle { descriptor: Some(_), .. })
    }

    /// The descriptor that was to ride on it, of a message that was not sent.
    pub(super) fn into_descriptor(self) -> Option<Arc<OwnedFd>> {
        match self.cargo {
            Cargo::None => None,
            Cargo::Handle { descriptor, .. } => descriptor,
            Cargo::UserHandle { descriptor, .. } => Some(descriptor),
        }
    }

    /// What is to ride on the next byte.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.cargo {
            _ if self.sent > 0 => None,
            Cargo::None => None,
            Cargo::Handle { descriptor, .. } => descriptor.as_ref().map(AsFd::as_fd),
            Cargo::UserHandle { descriptor, .. } => Some(descriptor.as_fd()),
        }
    }
}

/// A descriptor that was sent and has not been acknowledged.
#[derive(Debug)]
enum Outstanding {
    Handle(Option<u64>),
    User(Pending),
}

/// A descriptor that is lost to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreceived {
    /// As it was [handed over](super::Sender::hand_over).
    Numbered(u64),
    /// On another of the protocol's own messages.
    Own,
    /// On a user's message, which is lost with it.
    Users,
}

/// What becomes of a descriptor that was not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    Lost(Unreceived),
    /// It is sent again when it has [rested](Outbox::end_rest) so long.
    Again(Duration),
}

/// What waits to be sent, in order.
#[derive(Debug)]
pub(super) struct Outbox {
    /// How much the other side reads at once.
    window: usize,
    /// Written in part.
    begun: Option<Pending>,
    /// Owed to the other side, which sends nothing until it has them: they overtake everything.
    acknowledgements: VecDeque<Pending>,
    waiting: VecDeque<Pending>,
    /// How many bytes of the protocol's own wait, acknowledgements apart.
    unread: usize,
    /// How many descriptors of the protocol's own wait.
    descriptors: usize,
    outstanding: VecDeque<Outstanding>,
    /// Bytes written since the last message with a descriptor.
    plain: usize,
    /// No more descriptors until all are acknowledged.
    is_fenced: bool,
    /// Nothing more until a user's descriptor is acknowledged.
    is_held: bool,
    /// Nothing more until one that was not received may be sent again: the first that waits.
    is_resting: bool,
    /// How often one is sent again: less where the last was given up.
    patience: u8,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::to_reader_of(NODE_READS)
    }
}

impl Outbox {
    /// For another side that reads `window` bytes at once.
    pub(super) fn to_reader_of(window: usize) -> Self {
        Self {
            window,
            begun: None,
            acknowledgements: VecDeque::new(),
            waiting: VecDeque::new(),
            unread: 0,
            descriptors: 0,
            outstanding: VecDeque::new(),
            plain: 0,
            is_fenced: false,
            is_held: false,
            is_resting: false,
            patience: RETRANSMISSIONS,
        }
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.unread += if pending.is_own { pending.len() } else { 0 };
        self.descriptors += usize::from(pending.has_own_descriptor());
        let alone = match self.waiting.back_mut() {
            Some(last) => last.join(pending),
            None => Some(pending),
        };
        self.waiting.extend(alone);
    }

    pub(super) fn acknowledge(&mut self, is_received: bool) {
        let line = if is_received { HANDLE_ACK } else { HANDLE_NACK };
        let pending = Pending { is_metered: false, is_own: false, ..Pending::plain(line.to_owned()) };
        self.acknowledgements.push_back(pending);
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_none() && self.acknowledgements.is_empty() && self.waiting.is_empty()
    }

    /// Whether the other side has sent many descriptors without taking their acknowledgements.
    pub(super) fn owes_much(&self) -> bool {
        self.acknowledgements.len() >= MOST_OWED
    }

    /// What the other side has not taken in, beyond reason.
    pub(super) fn neglect(&self) -> Option<&'static str> {
        if self.unread > MOST_UNREAD {
            Some("has not read its channel, where more than 4 MiB wait")
        } else if self.descriptors > MOST_DESCRIPTORS {
            Some("has not read its channel, where more than 1,024 descriptors wait")
        } else if self.outstanding.len() > MOST_OUTSTANDING {
            Some("has not acknowledged more than 16,384 descriptors that it was sent")
        } else {
            None
        }
    }

    /// Whether a descriptor of the user's was sent and has not been acknowledged: what is behind it waits for that.
    pub(super) fn awaits_receipt(&self) -> bool {
        self.is_held
    }

    /// Whether something may be written now.
    pub(super) fn is_ready(&self) -> bool {
        self.first().is_some()
    }

    /// The message whose turn it is.
    fn first(&self) -> Option<&Pending> {
        let waiting = self.waiting.front().filter(|first| {
            let is_fenced = self.is_fenced && first.is_handle();
            !self.is_held && !self.is_resting && !is_fenced
        });
        self.begun.as_ref().or(self.acknowledgements.front()).or(waiting)
    }

    /// Writes as much as goes into one system call, and says how much that was, to be [noted](Self::note_written).
    pub(super) fn write(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let Some(first) = self.first() else { return Ok(0) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptor = first.descriptor();
        if let Some(descriptor) = &descriptor {
            // Alone: a descriptor belongs to the message that it was sent with.
            control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
            let data = [IoSlice::new(first.rest())];
            return Ok(rustix::net::sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL)?);
        }
        let waiting = self
            .waiting
            .iter()
            .take_while(|pending| !self.is_held && !self.is_resting && !pending.is_handle());
        let all = self.begun.iter().chain(&self.acknowledgements).chain(waiting);
        let mut data = [IoSlice::new(&[]); GATHERED];
        let mut count = 0;
        for (slot, pending) in data.iter_mut().zip(all) {
            *slot = IoSlice::new(pending.rest());
            count += 1;
        }
        Ok(rustix::net::sendmsg(socket, &data[..count], &mut control, SendFlags::NOSIGNAL)?)
    }

    /// Notes what has been written; returns how much of it was metered.
    pub(super) fn note_written(&mut self, mut count: usize) -> usize {
        let mut metered = 0;
        while count > 0 {
            let next = self.begun.take().or_else(|| self.acknowledgements.pop_front());
            let Some(mut pending) = next.or_else(|| self.waiting.pop_front()) else { break };
            if pending.sent == 0 {
                self.begin(&mut pending);
            }
            let part = count.min(pending.rest().len());
            let before = pending.weight();
            pending.sent += part;
            count -= part;
            self.plain = if pending.is_handle() { 0 } else { self.plain + part };
            metered += if pending.is_metered { before - pending.weight() } else { 0 };
            self.unread -= if pending.is_own { part } else { 0 };
            if !pending.rest().is_empty() {
                self.begun = Some(pending);
            }
        }
        metered
    }

    /// The first byte of a message has gone, and its descriptor with it.
    fn begin(&mut self, pending: &mut Pending) {
        let outstanding = match &mut pending.cargo {
            Cargo::None => return,
            Cargo::Handle { descriptor, number } => {
                self.descriptors -= usize::from(descriptor.take().is_some());
                Outstanding::Handle(*number)
            }
            Cargo::UserHandle { .. } => {
                self.is_held = true;
                Outstanding::User(pending.clone())
            }
        };
        self.outstanding.push_back(outstanding);
        self.is_fenced |= self.plain + pending.len() > self.window || pending.len() > PIECE;
    }

    /// The first of the outstanding descriptors has arrived.
    pub(super) fn note_received(&mut self) {
        if let Some(Outstanding::User(_)) = self.take_outstanding() {
            self.patience = RETRANSMISSIONS;
        }
    }

    /// The first of the outstanding descriptors has not arrived.
    pub(super) fn note_unreceived(&mut self) -> Option<Returned> {
        let mut pending = match self.take_outstanding()? {
            Outstanding::Handle(number) => {
                return Some(Returned::Lost(number.map_or(Unreceived::Own, Unreceived::Numbered)));
            }
            Outstanding::User(pending) => pending,
        };
        let Cargo::UserHandle { retransmissions, .. } = &mut pending.cargo else { return None };
        if *retransmissions >= self.patience {
            self.patience = FURTHER_RETRANSMISSIONS;
            return Some(Returned::Lost(Unreceived::Users));
        }
        let rest = REST * (1 << *retransmissions);
        *retransmissions += 1;
        pending.is_metered = false;
        self.waiting.push_front(pending);
        self.is_resting = true;
        Some(Returned::Again(rest))
    }

    /// The first that waits may be sent again.
    pub(super) fn end_rest(&mut self) {
        self.is_resting = false;
    }

    /// One that comes without need is of no consequence.
    fn take_outstanding(&mut self) -> Option<Outstanding> {
        let first = self.outstanding.pop_front();
        self.is_held &= !matches!(first, Some(Outstanding::User(_)));
        self.is_fenced &= !self.outstanding.is_empty();
        first
    }

    /// Drops everything; returns how much of it was metered, and the last of those of which nothing was written.
    pub(super) fn clear(&mut self) -> (usize, Option<Pending>) {
        let mut dropped = std::mem::take(self);
        let all = dropped.begun.iter().chain(&dropped.waiting);
        let metered = all.filter(|pending| pending.is_metered).map(Pending::weight).sum();
        (metered, dropped.waiting.pop_back())
    }
}
