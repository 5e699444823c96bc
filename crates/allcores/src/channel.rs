//! Carrying node:cluster's channel: messages and the descriptors that ride on them, over one Unix socket.
//!
//! The same for a primary's end and a worker's. Knows neither workers nor listeners. Acknowledges descriptors by
//! itself, at once, and reads continuously, so that the other side never waits for us for longer than somebody
//! takes to look at one message.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use allcores_core::channel::{Carriage, Message, Serialization};
use tokio::time::Sleep;

use crate::sys::Watch;

mod inbox;
mod line;
mod outbox;
mod saved;

use inbox::Inbox;
pub(crate) use inbox::LONGEST;
use line::{Line, Obstacle};
pub(crate) use outbox::Unreceived;
use outbox::{Pending, Returned};
pub(crate) use saved::ChannelSaved;

/// So much may wait to be written before [`Sender::send_user`] advises to wait, as in Node.
const HIGH_WATER: usize = 128 * 1024;

/// How long to wait where nothing tells when to go on: when the kernel has too many descriptors on their way, or somebody
/// says so much that it is collected.
const PAUSE: Duration = Duration::from_millis(1);

/// Our end of a channel, for sending. Once all clones are dropped the channel closes, when what waits has been
/// written.
///
/// What is sent is written at once, by whoever sends it, unless something is before it or the socket has no room.
#[derive(Clone, Debug)]
pub(crate) struct Sender(Arc<Open>);

/// Keeps a channel open.
#[derive(Debug)]
struct Open(Arc<Line>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Sender {
    /// Sends one of the protocol's own messages. A descriptor on it may go out behind others that have not been
    /// acknowledged. What comes after the channel has closed is dropped, as the other side is gone or going: then false.
    pub(crate) fn send(&self, line: String, descriptor: Option<Arc<OwnedFd>>) -> bool {
        let sent = self.line().send(match descriptor {
            Some(descriptor) => Pending::handle(line, descriptor, None),
            None => Pending::plain(line),
        });
        sent.is_ok()
    }

    /// As [`send`](Self::send); should the descriptor not be received, [`Arrival::Unreceived`] names `number`.
    pub(crate) fn hand_over(&self, line: String, descriptor: Arc<OwnedFd>, number: u64) {
        let _ = self.line().send(Pending::handle(line, descriptor, Some(number)));
    }

    /// Sends a user's message. False if more than 128 KiB wait to be written now, each descriptor of a user's counted as 2 KiB:
    /// it is queued all the same, and a wise user waits until they are [`drained`](Self::drained). An error if the channel has
    /// closed, or can't be written to any more, before anything of the message was written.
    ///
    /// What is behind a message with a descriptor waits until that has been received, as in Node, or sent again for a second.
    pub(crate) fn send_user(&self, line: impl Into<Vec<u8>>) -> Result<bool, Unsent> {
        let sent = self.line().send(Pending::user(line.into()));
        sent.map(|()| self.has_room()).map_err(|_| Unsent)
    }

    /// As [`send_user`](Self::send_user), with a descriptor. Given back if the channel has closed before anything of the
    /// message was written.
    pub(crate) fn send_user_with(
        &self,
        line: String,
        descriptor: Arc<OwnedFd>,
    ) -> Result<bool, Option<Arc<OwnedFd>>> {
        let sent = self.line().send(Pending::user_handle(line, descriptor));
        sent.map(|()| self.has_room()).map_err(Pending::into_descriptor)
    }

    fn has_room(&self) -> bool {
        self.queued_bytes() < HIGH_WATER
    }

    /// How much waits to be written, in bytes, each descriptor of a user's counted as 2 KiB.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.line().queued_bytes()
    }

    /// Completes when nothing waits to be written, or when it never will be as the channel has closed. Who waits does not keep
    /// the channel open.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + use<> {
        let line = Arc::clone(self.line());
        async move { line.drained().await }
    }

    /// Whether the channel has closed, whoever closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.line().is_closed()
    }

    /// The process at the other end, if it connected to us and we can see it.
    pub(crate) fn peer(&self) -> Option<u32> {
        self.line().socket().and_then(|socket| peer_of(socket.as_fd()))
    }

    fn line(&self) -> &Arc<Line> {
        &self.0.0
    }
}

/// A message was not sent, as nobody is there any more to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsent;

/// What came of or from the other side.
#[derive(Debug)]
pub(crate) enum Arrival<M> {
    /// A message, and the descriptor that rode on it; one for each message that is to have one, and for no other.
    Message {
        /// Never an acknowledgement.
        message: M,
        /// Close-on-exec.
        descriptor: Option<OwnedFd>,
    },
    /// A message whose descriptor could not be received, for want of room perhaps. The other side has been told, and may
    /// send it again.
    Lost {
        /// What should have come with it.
        message: M,
    },
    /// A descriptor that was sent could not be received, for want of room perhaps.
    Unreceived(Unreceived),
}

/// Why a channel ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side closed it, or died; or all our senders are gone.
    Closed,
    /// The other side wrote what is no message; the channel was closed by us. In words.
    Garbage(String),
    /// The other side does not take in what it is sent; the channel was closed by us. In words.
    Neglect(&'static str),
}

/// Whether messages can be written so, to be asked before anything is started.
///
/// # Errors
///
/// [`Unsupported`](io::ErrorKind::Unsupported), with the reason, for [`Serialization::Advanced`].
pub(crate) fn check(serialization: Serialization) -> io::Result<()> {
    match serialization {
        Serialization::Json => Ok(()),
        Serialization::Advanced => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "serialization \"advanced\" is V8's own format, which only V8 reads safely; use \"json\"",
        )),
    }
}

/// Makes a channel: what to send into, the carrier to be run, and the worker's end.
pub(crate) fn open(serialization: Serialization) -> io::Result<(Sender, Carrier, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (sender, carrier) = from_socket(ours, serialization)?;
    Ok((sender, carrier, theirs))
}

/// Takes one end of a channel that exists. Makes it non-blocking and close-on-exec.
pub(crate) fn from_socket(socket: OwnedFd, serialization: Serialization) -> io::Result<(Sender, Carrier)> {
    check(serialization)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    let socket = Arc::new(Watch::readable(socket)?);
    let line = Arc::new(Line::new(Arc::clone(&socket)));
    let sender = Sender(Arc::new(Open(Arc::clone(&line))));
    Ok((sender, Carrier { socket, line, inbox: Inbox::default(), room: None, pause: None, rest: None }))
}

/// The process that has connected to us by this socket, by the kernel's word; `None` for one whom we can't see.
pub(crate) fn peer_of(socket: impl AsFd) -> Option<u32> {
    let pid = rustix::net::sockopt::socket_peercred(socket).ok()?.pid;
    u32::try_from(pid.as_raw_nonzero().get()).ok()
}

/// Moves messages between the socket and its owner, who asks for the [next](Self::next) until the channel ends.
#[derive(Debug)]
pub(crate) struct Carrier {
    /// Watched for reading alone: for writing it would wake us whenever the other side reads.
    socket: Arc<Watch>,
    line: Arc<Line>,
    inbox: Inbox,
    /// The same socket, watched for writing while it has no room.
    room: Option<Watch>,
    /// While nothing tells when writing is worth another try.
    pause: Option<Pin<Box<Sleep>>>,
    /// Until a descriptor of a user's that was not received is sent again.
    rest: Option<Pin<Box<Sleep>>>,
}

impl Carrier {
    /// Waits for the next arrival; meanwhile writes what was queued.
    ///
    /// # Cancel safety
    ///
    /// Safe: what has been read or queued is kept for the next call.
    pub(crate) async fn next<M: Message>(&mut self) -> Result<Arrival<M>, End> {
        loop {
            if let Some(arrival) = self.next_read()? {
                return Ok(arrival);
            }
            std::future::poll_fn(|context| self.poll_exchange(context)).await?;
        }
    }

    /// Writes what was queued, and reads nothing: for who can't take any more for now. Returns when all senders are
    /// gone and all is written; and with `None`, if that `is_wanted`, when what waits to be written waits for the other side to
    /// acknowledge a descriptor: that is behind what it wrote before, so nothing more goes out until somebody reads.
    ///
    /// # Cancel safety
    ///
    /// Safe, as [`next`](Self::next).
    pub(crate) async fn only_write(&mut self, is_wanted: bool) -> Option<End> {
        std::future::poll_fn(|context| match self.poll_write(context) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending if is_wanted && self.awaits_receipt() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Whether what waits to be written waits for the other side to acknowledge a descriptor.
    pub(crate) fn awaits_receipt(&self) -> bool {
        self.line.awaits_receipt()
    }

    /// Writes what waits, and waits until something has been read.
    fn poll_exchange(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if let Poll::Ready(end) = self.poll_write(context) {
            return Poll::Ready(Err(end));
        }
        if !self.line.is_worth_reading() {
            return Poll::Pending;
        }
        match ready!(self.socket.poll_read_part(context, |socket| self.inbox.read(socket))) {
            Ok(0) | Err(_) => Poll::Ready(Err(End::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
        }
    }

    /// Writes what waits for something that is in its way. Ready only when there will never be anything to write again.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.poll_rest(context);
        while let Some(obstacle) = self.line.watch(context.waker()) {
            if let Some(what) = self.line.neglect() {
                return Poll::Ready(End::Neglect(what));
            }
            match obstacle {
                Obstacle::None | Obstacle::Broken => return Poll::Pending,
                Obstacle::Full => ready!(self.poll_room(context)),
                Obstacle::Congested | Obstacle::Burst => ready!(self.poll_pause(context)),
            }
            if self.line.try_again() != Obstacle::Full {
                self.room = None;
            }
        }
        Poll::Ready(End::Closed)
    }

    /// Has a descriptor of a user's that was not received sent again when it has rested.
    fn poll_rest(&mut self, context: &mut Context<'_>) {
        if let Some(rest) = &mut self.rest
            && rest.as_mut().poll(context).is_ready()
        {
            self.rest = None;
            self.line.end_rest();
        }
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.room.is_none() {
            let copy = self.socket.as_fd().try_clone_to_owned();
            self.room = copy.and_then(Watch::writable).ok();
        }
        match &self.room {
            Some(room) => room.poll_writable(context),
            // No descriptor is left to watch it by.
            None => self.poll_pause(context),
        }
    }

    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
        ready!(pause.as_mut().poll(context));
        self.pause = None;
        Poll::Ready(())
    }

    /// The next arrival, if it has been read already: of what comes together only the first has to be waited for.
    pub(crate) fn next_read<M: Message>(&mut self) -> Result<Option<Arrival<M>>, End> {
        while let Some(message) = self.inbox.next_message::<M>().map_err(End::Garbage)? {
            match message.carriage() {
                Carriage::Plain => return Ok(Some(Arrival::Message { message, descriptor: None })),
                Carriage::Handle => {
                    let descriptor = self.inbox.claim();
                    self.line.acknowledge(descriptor.is_some());
                    return Ok(Some(match descriptor {
                        Some(_) => Arrival::Message { message, descriptor },
                        None => Arrival::Lost { message },
                    }));
                }
                Carriage::Ack => self.line.note_received(),
                Carriage::Nack => match self.line.note_unreceived() {
                    Some(Returned::Lost(lost)) => return Ok(Some(Arrival::Unreceived(lost))),
                    Some(Returned::Again(rest)) => self.rest = Some(Box::pin(tokio::time::sleep(rest))),
                    None => {}
                },
            }
        }
        Ok(None)
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.line.shut();
    }
}

#[cfg(test)]
mod tests;
