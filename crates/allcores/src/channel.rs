//! Carrying node:cluster's channel: lines and the descriptors that ride on them, over one Unix socket.
//!
//! Knows neither workers nor listeners. Reads continuously, whatever becomes of the messages, so that a worker
//! never blocks on us for longer than the engine takes to look at one message.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use allcores_core::channel::{self, HANDLE_ACK, HANDLE_NACK, Incoming, Lines};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::sync::mpsc;

use crate::sys::Watch;

/// The longest message that a worker may send.
const LONGEST_LINE: usize = 64 * 1024 * 1024;

/// What libuv reads at once, and the most descriptors that it makes room for.
const READ_SIZE: usize = 64 * 1024;

/// A line to be sent, and the descriptor that rides on it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) line: String,
    pub(crate) descriptor: Option<OwnedFd>,
}

/// Our end of a worker's channel: send into it; dropping it closes the channel.
#[derive(Clone, Debug)]
pub(crate) struct Sender(mpsc::UnboundedSender<Outgoing>);

impl Sender {
    /// Queues a line. One that comes after the channel has closed is dropped, as the worker is gone or going.
    pub(crate) fn send(&self, line: String, descriptor: Option<OwnedFd>) {
        let _ = self.0.send(Outgoing { line, descriptor });
    }
}

/// Why a channel ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The worker closed it, or died.
    Closed,
    /// The worker wrote what is no message; the channel was closed by us. In words.
    Garbage(String),
}

/// Makes a channel: what to send into, the carrier to be run, and the worker's end.
pub(crate) fn open() -> io::Result<(Sender, Carrier, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let (sender, queue) = mpsc::unbounded_channel();
    let carrier = Carrier {
        socket: Watch::duplex(ours)?,
        queue,
        sending: VecDeque::new(),
        awaits_ack: false,
        lines: Lines::new(LONGEST_LINE),
        received: VecDeque::new(),
        buffer: vec![0; READ_SIZE],
        acknowledgements: VecDeque::new(),
    };
    Ok((Sender(sender), carrier, theirs))
}

/// Moves lines between the socket and the engine, until the channel ends.
#[derive(Debug)]
pub(crate) struct Carrier {
    socket: Watch,
    queue: mpsc::UnboundedReceiver<Outgoing>,
    sending: VecDeque<Pending>,
    /// A descriptor was sent and not acknowledged yet: as in Node, everything behind it waits.
    awaits_ack: bool,
    lines: Lines,
    /// Descriptors that arrived and whose message has not been read yet.
    received: VecDeque<OwnedFd>,
    buffer: Vec<u8>,
    /// Owed to the worker.
    acknowledgements: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    sent: usize,
    descriptor: Option<OwnedFd>,
    /// It has been sent, on this line.
    carries_descriptor: bool,
}

impl Pending {
    fn new(line: String, descriptor: Option<OwnedFd>) -> Self {
        let mut bytes = line.into_bytes();
        bytes.push(b'\n');
        Self { bytes, sent: 0, descriptor, carries_descriptor: false }
    }

    fn is_acknowledgement(&self) -> bool {
        let line = self.bytes.strip_suffix(b"\n").unwrap_or_default();
        line == HANDLE_ACK.as_bytes() || line == HANDLE_NACK.as_bytes()
    }
}

impl Carrier {
    /// Runs until the channel ends; tells of each message, as `wrap` makes it.
    pub(crate) async fn run<T>(mut self, tell: &mpsc::Sender<T>, wrap: impl Fn(Incoming) -> T) -> End {
        loop {
            self.release_acknowledgements();
            let can_send =
                self.sending.front().is_some_and(|first| !self.awaits_ack || first.is_acknowledgement());
            tokio::select! {
                outgoing = self.queue.recv() => match outgoing {
                    Some(outgoing) => self.enqueue(outgoing),
                    None => return End::Closed,
                },
                sent = self.socket.write(|socket| send(socket, self.sending.front())), if can_send => match sent {
                    Ok(count) => self.note_sent(count),
                    Err(error) if is_congestion(&error) => tokio::task::yield_now().await,
                    Err(_) => return End::Closed,
                },
                read = self.socket.read(|socket| receive(socket, &mut self.buffer, &mut self.received)) => {
                    match read {
                        Ok(0) | Err(_) => return End::Closed,
                        Ok(count) => self.lines.push(&self.buffer[..count]),
                    }
                    while let Some(line) = match self.lines.next_line() {
                        Ok(line) => line,
                        Err(error) => return End::Garbage(error.to_string()),
                    } {
                        match channel::parse(&line) {
                            Ok(message) => {
                                self.note(&message);
                                let _ = tell.send(wrap(message)).await;
                            }
                            Err(_) => return End::Garbage(excerpt(&line)),
                        }
                    }
                }
            }
        }
    }

    /// Puts acknowledgements in front of all that has not been begun.
    fn release_acknowledgements(&mut self) {
        let behind_started = usize::from(self.sending.front().is_some_and(|pending| pending.sent > 0));
        for pending in self.acknowledgements.drain(..).rev() {
            self.sending.insert(behind_started, pending);
        }
    }

    fn enqueue(&mut self, outgoing: Outgoing) {
        self.sending.push_back(Pending::new(outgoing.line, outgoing.descriptor));
    }

    fn note_sent(&mut self, count: usize) {
        let Some(pending) = self.sending.front_mut() else { return };
        pending.sent += count;
        if count > 0 {
            // It has gone with the first byte; our copy is not needed any more.
            pending.carries_descriptor |= pending.descriptor.take().is_some();
        }
        if pending.sent == pending.bytes.len() {
            self.awaits_ack = pending.carries_descriptor;
            self.sending.pop_front();
        }
    }

    /// Takes note of what concerns the carrying itself.
    fn note(&mut self, message: &Incoming) {
        match message {
            Incoming::HandleAck | Incoming::HandleNack => self.awaits_ack = false,
            Incoming::Handle => {
                // An acknowledgement overtakes everything else, what waits for an acknowledgement too: the worker
                // sends nothing until it has it.
                let answer = if self.received.pop_front().is_some() { HANDLE_ACK } else { HANDLE_NACK };
                self.acknowledgements.push_back(Pending::new(answer.to_owned(), None));
            }
            _ => {}
        }
    }
}

/// More descriptors of this user are on their way than the kernel allows: the receivers have to catch up.
fn is_congestion(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
    format!("not a message: {text:?}")
}

fn send(socket: BorrowedFd<'_>, pending: Option<&Pending>) -> io::Result<usize> {
    let Some(pending) = pending else { return Ok(0) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = pending.descriptor.as_ref().map(AsFd::as_fd);
    if let Some(descriptor) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
    }
    let data = [IoSlice::new(&pending.bytes[pending.sent..])];
    Ok(rustix::net::sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL)?)
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], received: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(buffer)];
    let message = rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = item {
            received.extend(descriptors);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost"));
    }
    Ok(message.bytes)
}
