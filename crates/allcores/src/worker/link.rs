//! What a worker's handles, its listeners and its channel's thread have in common.
//!
//! One lock over everything that is said and owed, so that what goes out is in the order of its numbers. Knows
//! nothing of how listeners accept: they are intakes here.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allcores_core::channel::{Ask, SocketMessage, WorkerSpeaker};
use allcores_core::worker::{Slot, WorkerId};
use tokio::sync::{Notify, oneshot, watch};

use super::inbox::Inbox;
use super::intake::{Handed, Intake};
use super::places::{Places, Reservation};
use super::shutdown::Calls;
use crate::channel::Sender;

/// How far a worker's life has come. Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// It is to go: nothing new is taken.
    Leaving,
    /// Its channel is closed.
    Gone,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: WorkerId,
    pub(super) slot: Slot,
    pub(super) inbox: Inbox,
    pub(super) places: Places,
    phase: watch::Sender<Phase>,
    pub(super) calls: Calls,
    wire: Mutex<Wire>,
    /// Something has happened that the channel's thread may wait for.
    stir: Notify,
    /// UDP sockets that the program has, by inode: it need not say when it closes them.
    datagram_sockets: Mutex<Vec<(u64, Grant, Reservation)>>,
}

#[derive(Debug, Default)]
struct Wire {
    /// None without a channel, or when it has closed.
    sender: Option<Sender>,
    speaker: WorkerSpeaker,
    queries: HashMap<u64, Asked>,
    /// What the acknowledgement will name that lets us go.
    leave: Option<u64>,
    listeners: HashMap<String, Arc<Intake>>,
    /// Names listeners that no primary has named.
    next_key: u64,
    is_voluntary: Option<bool>,
    /// It was the primary that told it to go.
    was_told: bool,
    /// Nothing is to be accepted any more, by any way.
    has_left: bool,
}

/// A wish to listen that has not been answered.
#[derive(Debug)]
struct Asked {
    reply: oneshot::Sender<io::Result<Granted>>,
    place: Reservation,
}

/// A primary's answer to a wish to listen. Dropped, the listener is given back, and then its place.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) grant: Grant,
    /// The listener, where connections are not only handed over.
    pub(super) socket: Option<OwnedFd>,
    pub(super) sockname: Option<SocketAddr>,
    pub(super) place: Reservation,
}

/// The right to listen; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) link: Arc<Link>,
    pub(super) intake: Arc<Intake>,
    key: String,
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.link.close_listener(&self.key, &self.intake);
    }
}

impl Link {
    pub(super) fn new(id: WorkerId, slot: Slot, sender: Option<Sender>) -> Arc<Self> {
        Arc::new(Self {
            id,
            slot,
            inbox: Inbox::default(),
            places: Places::default(),
            phase: watch::Sender::new(Phase::Serving),
            calls: Calls::default(),
            wire: Mutex::new(Wire { sender, ..Wire::default() }),
            stir: Notify::new(),
            datagram_sockets: Mutex::new(Vec::new()),
        })
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.wire().sender.is_some()
    }

    pub(super) fn sender(&self) -> Option<Sender> {
        self.wire().sender.clone()
    }

    /// Whether it went of its own will, or because it was told to; `None` while it has not gone.
    pub(super) fn is_voluntary(&self) -> Option<bool> {
        self.wire().is_voluntary
    }

    /// Whether any answer of the primary's is waited for.
    pub(super) fn awaits_answer(&self) -> bool {
        let wire = self.wire();
        !wire.queries.is_empty() || wire.leave.is_some()
    }

    /// Says something, if there is anyone to hear it.
    pub(super) fn say(&self, line: impl FnOnce(&mut WorkerSpeaker) -> String) -> bool {
        self.wire().say(line)
    }

    /// Asks the primary for a listener.
    ///
    /// `place`: its own among this worker's, until the primary has answered and what it gave has been given back, also
    /// if nobody waits for the answer any more. A primary of Node's would die of being asked for it twice.
    pub(super) async fn ask(&self, ask: &Ask, place: Reservation) -> io::Result<Granted> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the worker is leaving its primary");
        let answer = {
            let mut wire = self.wire();
            if *self.phase.borrow() != Phase::Serving {
                // It would never be answered.
                return Err(gone());
            }
            let (reply, answer) = oneshot::channel();
            let mut number = 0;
            let is_said = wire.say(|speaker| {
                let (seq, line) = speaker.query(ask);
                number = seq;
                line
            });
            if !is_said {
                // The channel has just ended, and with it all queries that there were.
                return Err(gone());
            }
            wire.queries.insert(number, Asked { reply, place });
            answer
        };
        self.stir();
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Registers a listener that no primary knows of.
    pub(super) fn grant_alone(self: &Arc<Self>) -> io::Result<Grant> {
        let key = {
            let mut wire = self.wire();
            wire.next_key += 1;
            format!("own:{}", wire.next_key)
        };
        self.grant(key)
    }

    fn grant(self: &Arc<Self>, key: String) -> io::Result<Grant> {
        let intake = Arc::new(Intake::default());
        let mut wire = self.wire();
        if *self.phase.borrow() != Phase::Serving {
            wire.say(|speaker| speaker.close(&key));
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the worker is leaving"));
        }
        wire.listeners.insert(key.clone(), Arc::clone(&intake));
        drop(wire);
        Ok(Grant { link: Arc::clone(self), intake, key })
    }

    /// The primary has answered a query. The listener is known from here on: connections may follow at once.
    pub(super) fn answered(
        self: &Arc<Self>,
        ack: u64,
        errno: i32,
        key: String,
        socket: Option<OwnedFd>,
        sockname: Option<SocketAddr>,
    ) {
        let asked = self.wire().queries.remove(&ack);
        let granted = match errno {
            0 => self.grant(key),
            errno => Err(io::Error::from_raw_os_error(errno.saturating_abs())),
        };
        let Some(Asked { reply, place }) = asked else { return };
        // Whoever asked may have lost interest: then the grant is dropped, and with it given back.
        let _ = reply.send(granted.map(|grant| Granted { grant, socket, sockname, place }));
    }

    /// The primary has answered a query with a listener that we have no room for.
    pub(super) fn answer_lost(&self, ack: u64, key: &str) {
        let mut wire = self.wire();
        if let Some(Asked { reply, place }) = wire.queries.remove(&ack) {
            wire.say(|speaker| speaker.close(key));
            // Who is woken may ask for the same again at once, on another thread.
            drop(place);
            let _ = reply.send(Err(io::Error::from_raw_os_error(libc::EMFILE)));
        }
    }

    /// The primary hands over a connection.
    pub(super) fn handed(&self, seq: u64, key: &str, connection: OwnedFd) {
        let intake = self.wire().listeners.get(key).map(Arc::clone);
        let is_taken = intake.is_some_and(|intake| intake.push(Handed { seq, connection }).is_ok());
        if !is_taken {
            self.refuse(seq);
        }
    }

    /// Tells the primary that a connection which it has handed over is served here. False if it does not hear that, or if the
    /// listener has been closed since, by another thread: then it gives the connection to another, and we must not have it.
    pub(super) fn accept(&self, grant: &Grant, seq: u64) -> bool {
        let mut wire = self.wire();
        let known = wire.listeners.get(&grant.key);
        let is_open = known.is_some_and(|intake| Arc::ptr_eq(intake, &grant.intake));
        wire.say(|speaker| speaker.accepted(seq, is_open)) && is_open
    }

    /// Tells the primary that a connection which it has handed over is not served here.
    pub(super) fn refuse(&self, seq: u64) {
        self.say(|speaker| speaker.accepted(seq, false));
    }

    /// Whether nothing is to be accepted any more, by any way.
    pub(super) fn has_left(&self) -> bool {
        // Asked for each connection: while it serves, the wire need not be waited for.
        *self.phase.borrow() != Phase::Serving && self.wire().has_left
    }

    fn close_listener(&self, key: &str, intake: &Intake) {
        let mut wire = self.wire();
        // First the key: a primary that hears of a refusal gives the connection to one that it takes for open.
        if wire.listeners.remove(key).is_some() {
            wire.say(|speaker| speaker.close(key));
        }
        for handed in intake.close() {
            wire.say(|speaker| speaker.accepted(handed.seq, false));
        }
    }

    /// The primary has told this worker to go.
    pub(super) fn told_to_go(&self) {
        self.wire().was_told = true;
        self.leave();
    }

    /// Leaves, and lets the channel close: at once, if it was the primary that told this worker to go; otherwise when it has
    /// heard, once, that the worker goes of its own will.
    pub(super) fn disconnect(&self) {
        self.leave();
        let mut wire = self.wire();
        if wire.leave.is_some() {
            return;
        }
        if wire.was_told {
            wire.sender = None;
            return;
        }
        if wire.sender.is_none() {
            drop(wire);
            self.end();
            return;
        }
        let mut number = 0;
        // If nobody hears it, the channel's thread is about to find that out, when it has read what came before.
        wire.say(|speaker| {
            let (seq, line) = speaker.leave();
            number = seq;
            line
        });
        wire.leave = Some(number);
        drop(wire);
        self.stir();
    }

    /// Stops listening, on everything.
    pub(super) fn leave(&self) {
        let listeners = {
            let mut wire = self.wire();
            wire.has_left = true;
            if *self.phase.borrow() != Phase::Gone {
                wire.is_voluntary = Some(true);
                self.advance(Phase::Leaving);
                // A primary does not answer who it told to go.
                wire.queries.clear();
            }
            wire.listeners.clone()
        };
        for (key, intake) in listeners {
            self.close_listener(&key, &intake);
        }
    }

    /// The primary has heard that we leave: the channel closes when all that was said has been written.
    pub(super) fn acknowledged(&self, ack: u64) {
        let mut wire = self.wire();
        if wire.leave == Some(ack) {
            wire.sender = None;
        }
    }

    /// Waits until the channel is closed.
    pub(super) async fn gone(&self) {
        let _ = self.phase().wait_for(|phase| *phase == Phase::Gone).await;
    }

    /// Lets the channel's thread look again at what it waits for.
    pub(super) fn stir(&self) {
        self.stir.notify_one();
    }

    pub(super) async fn stirred(&self) {
        self.stir.notified().await;
    }

    /// Keeps what belongs to a UDP socket that the program has.
    pub(super) fn keep_datagram_socket(&self, inode: u64, grant: Grant, place: Reservation) {
        self.datagram_sockets().push((inode, grant, place));
    }

    /// Gives back the grants of those that it has closed; of none where it can't be seen which those are: no descriptor may be
    /// left to look by, or no `/proc` be there.
    pub(super) fn forget_closed_datagram_sockets(&self) {
        let mut sockets = self.datagram_sockets();
        if !sockets.is_empty()
            && let Ok(open) = crate::proc::our_sockets()
        {
            sockets.retain(|(inode, ..)| open.contains(inode));
        }
    }

    fn datagram_sockets(&self) -> MutexGuard<'_, Vec<(u64, Grant, Reservation)>> {
        self.datagram_sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what the primary asks of connections that it sent with messages. They belong to the program by now and
    /// can't be counted, so none is said to be open.
    pub(super) fn answer_about(&self, message: SocketMessage) {
        let answer = match message {
            SocketMessage::NotifyClose { key } => SocketMessage::AllClosed { key },
            SocketMessage::GetCount { key } => SocketMessage::Count { key, count: 0 },
            SocketMessage::AllClosed { .. } | SocketMessage::Count { .. } => return,
        };
        if let Some(sender) = self.sender() {
            sender.send(answer.line(), None);
        }
    }

    /// The channel has ended, or there was none.
    pub(super) fn end(&self) {
        let mut wire = self.wire();
        wire.sender = None;
        wire.leave = None;
        wire.is_voluntary.get_or_insert(false);
        wire.queries.clear();
        for intake in wire.listeners.values() {
            // The primary has a copy of each, and gives it to another: ours must not be served.
            drop(intake.close());
        }
        drop(wire);
        let sockets = std::mem::take(&mut *self.datagram_sockets());
        drop(sockets);
        self.inbox.close();
        self.advance(Phase::Gone);
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_news = to > *phase;
            *phase = to.max(*phase);
            is_news
        });
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    fn say(&mut self, line: impl FnOnce(&mut WorkerSpeaker) -> String) -> bool {
        let Some(sender) = &self.sender else { return false };
        sender.send(line(&mut self.speaker), None)
    }
}
