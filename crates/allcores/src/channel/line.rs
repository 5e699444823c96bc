//! What may be sent, between those who send and the carrier.
//!
//! Whoever has something to send writes it at once, where nothing is in the way: nobody has to be woken for it, and what
//! waits is for the carrier to write later. Of a user who has very much to say the messages are collected, as a system call
//! for each would be most of their cost, for both sides: until there are many, or who says them pauses, which is known from its
//! runtime, or for a millisecond. The outbox decides the order; here is when something is written.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

use super::outbox::{Outbox, OutboxSaved, Pending, Returned};
use crate::carry::Manifest;
use crate::sys::Watch;

/// So many messages of a user's are written at once, each by itself, between two looks of the carrier's. It looks when
/// anything happens on the channel, so only who says a lot without a pause comes so far.
const SINGLE: u32 = 4;

/// When so many bytes have been collected they are written by who sends.
const COLLECTED: usize = 32 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    way: Mutex<Way>,
    meter: Meter,
}

/// What lies between a message and the socket.
#[derive(Debug)]
struct Way {
    outbox: Outbox,
    /// `None` when the channel has closed.
    socket: Option<Arc<Watch>>,
    obstacle: Obstacle,
    /// All senders are gone.
    is_closing: bool,
    carrier: Option<Waker>,
    /// How many messages of a user's were written since the carrier looked.
    single: u32,
    /// What is collected will be written as soon as the task that sends yields.
    is_yield_awaited: bool,
}

/// Why nothing can be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// It can.
    None,
    /// It can, but so much is said that it is collected first. Over after [`PAUSE`](super::PAUSE).
    Burst,
    /// The socket has no room. Told by the socket when it has.
    Full,
    /// The kernel has too many descriptors on their way, or no memory. It does not tell when that is over.
    Congested,
    /// Nothing can be written any more. What the other side wrote before is still read.
    Broken,
}

/// What waits to be written. A user's descriptors count as bytes too.
#[derive(Debug, Default)]
struct Meter {
    bytes: AtomicUsize,
    is_empty: Notify,
}

impl Meter {
    fn note_written(&self, bytes: usize) {
        if bytes > 0 && self.bytes.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.is_empty.notify_waiters();
        }
    }
}

impl Line {
    pub(super) fn new(socket: Arc<Watch>) -> Self {
        let way = Way {
            outbox: Outbox::default(),
            socket: Some(socket),
            obstacle: Obstacle::None,
            is_closing: false,
            carrier: None,
            single: 0,
            is_yield_awaited: false,
        };
        Self { way: Mutex::new(way), meter: Meter::default() }
    }

    /// One that goes on with what waits. That it can be written is found out by the carrier.
    pub(super) fn restore(socket: Arc<Watch>, outbox: Outbox, is_broken: bool) -> Self {
        let line = Self::new(socket);
        line.meter.bytes.store(outbox.metered(), Ordering::Relaxed);
        let mut way = line.way();
        way.obstacle = match (is_broken, outbox.is_empty()) {
            (true, _) => Obstacle::Broken,
            (false, true) => Obstacle::None,
            (false, false) => Obstacle::Full,
        };
        way.outbox = outbox;
        drop(way);
        line
    }

    /// What waits, and whether it can't be written any more.
    pub(super) fn save(&self, manifest: &mut Manifest) -> (OutboxSaved, bool) {
        let mut way = self.way();
        // Of what is collected nothing may be written later.
        self.flush(&mut way);
        (way.outbox.save(manifest), way.obstacle == Obstacle::Broken)
    }

    /// Sends a message, now or when its turn comes. It is given back if nothing can be written any more and nothing of it was,
    /// be it together with others that had waited.
    pub(super) fn send(self: &Arc<Self>, pending: Pending) -> Result<(), Pending> {
        let weight = pending.weight();
        self.meter.bytes.fetch_add(weight, Ordering::Relaxed);
        let mut way = self.way();
        if way.socket.is_none() || way.obstacle == Obstacle::Broken {
            drop(way);
            self.meter.note_written(weight);
            return Err(pending);
        }
        let may_wait = pending.may_wait();
        way.outbox.push(pending);
        if !may_wait || !way.is_burst() || self.queued_bytes() >= COLLECTED {
            // Nothing has come behind it since.
            return self.flush_or_wake(way).map_or(Ok(()), Err);
        }
        let before = std::mem::replace(&mut way.obstacle, Obstacle::Burst);
        let is_awaited = std::mem::replace(&mut way.is_yield_awaited, true);
        if before == Obstacle::None {
            wake(way);
        } else {
            drop(way);
        }
        if !is_awaited {
            self.flush_on_yield();
        }
        Ok(())
    }

    /// Has what is collected written when the task that sends yields: whatever is spawned in its runtime now comes next.
    fn flush_on_yield(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let line = Arc::clone(self);
        runtime.spawn(async move {
            let mut way = line.way();
            way.is_yield_awaited = false;
            line.flush_or_wake(way);
        });
    }

    /// What the other side has not taken in, beyond reason.
    pub(super) fn neglect(&self) -> Option<&'static str> {
        let way = self.way();
        way.outbox.neglect().filter(|_| way.obstacle != Obstacle::Broken)
    }

    /// How much waits to be written.
    pub(super) fn queued_bytes(&self) -> usize {
        self.meter.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn socket(&self) -> Option<Arc<Watch>> {
        self.way().socket.clone()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.way().socket.is_none()
    }

    /// Completes when nothing waits to be written, or when it never will be.
    pub(super) async fn drained(&self) {
        loop {
            let mut is_empty = std::pin::pin!(self.meter.is_empty.notified());
            is_empty.as_mut().enable();
            if self.queued_bytes() == 0 || self.is_closed() {
                return;
            }
            is_empty.await;
        }
    }

    /// All senders are gone.
    pub(super) fn close(&self) {
        let mut way = self.way();
        way.is_closing = true;
        wake(way);
    }

    /// The carrier is gone: closes our side, as soon as it has no hold of the socket either.
    pub(super) fn shut(&self) {
        let mut way = self.way();
        way.socket = None;
        way.carrier = None;
        let (dropped, _) = way.outbox.clear();
        drop(way);
        self.meter.note_written(dropped);
        self.meter.is_empty.notify_waiters();
    }

    /// Writes what was collected, and says what is in the way of what waits; the carrier is woken when that changes. `None`
    /// when there is nothing left to be done: all senders are gone, and all is written that can be.
    pub(super) fn watch(&self, carrier: &Waker) -> Option<Obstacle> {
        let mut way = self.way();
        way.single = 0;
        self.flush(&mut way);
        if way.is_closing && (way.outbox.is_empty() || way.obstacle == Obstacle::Broken) {
            return None;
        }
        if way.carrier.as_ref().is_none_or(|known| !known.will_wake(carrier)) {
            way.carrier = Some(carrier.clone());
        }
        Some(way.obstacle)
    }

    /// What was in the way may be gone: writes what can be written, and says what is in the way now.
    pub(super) fn try_again(&self) -> Obstacle {
        let mut way = self.way();
        if way.obstacle != Obstacle::Broken {
            way.obstacle = Obstacle::None;
            // By now it has yielded, or its runtime is gone.
            way.is_yield_awaited = false;
            self.flush(&mut way);
        }
        way.obstacle
    }

    /// Says that a message with a descriptor has come, or that its descriptor has not.
    pub(super) fn acknowledge(&self, is_received: bool) {
        let mut way = self.way();
        way.outbox.acknowledge(is_received);
        self.flush(&mut way);
    }

    /// The first of the descriptors that were not acknowledged has arrived.
    pub(super) fn note_received(&self) {
        let mut way = self.way();
        way.outbox.note_received();
        self.flush(&mut way);
    }

    /// It has not; returns what becomes of it.
    pub(super) fn note_unreceived(&self) -> Option<Returned> {
        let mut way = self.way();
        let returned = way.outbox.note_unreceived();
        self.flush(&mut way);
        returned
    }

    /// What was to be sent again later is sent again now.
    pub(super) fn end_rest(&self) {
        let mut way = self.way();
        way.outbox.end_rest();
        self.flush(&mut way);
    }

    /// Whether the other side may be listened to: who does not take its acknowledgements is not.
    pub(super) fn is_worth_reading(&self) -> bool {
        let way = self.way();
        way.obstacle == Obstacle::Broken || !way.outbox.owes_much()
    }

    /// Whether what waits to be written waits for the other side to acknowledge a descriptor.
    pub(super) fn awaits_receipt(&self) -> bool {
        self.way().outbox.awaits_receipt()
    }

    /// Writes what can be written, and lets the carrier know if that changes what it has to wait for. Returns what
    /// [`flush`](Self::flush) does.
    fn flush_or_wake(&self, mut way: MutexGuard<'_, Way>) -> Option<Pending> {
        let before = (way.obstacle, way.outbox.awaits_receipt());
        let last = self.flush(&mut way);
        if (way.obstacle, way.outbox.awaits_receipt()) != before || way.outbox.neglect().is_some() {
            wake(way);
        }
        last
    }

    /// Writes until all is written or something is in the way. If nothing can be written any more, what waited is dropped;
    /// returns the last of it, if nothing of that was written.
    fn flush(&self, way: &mut Way) -> Option<Pending> {
        let socket = way.socket.as_ref()?;
        let mut last = None;
        let mut written = 0;
        while way.obstacle.is_clear() && way.outbox.is_ready() {
            match way.outbox.write(socket.as_fd()) {
                Ok(count) => written += way.outbox.note_written(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    way.obstacle = Obstacle::of(&error);
                    if way.obstacle == Obstacle::Broken {
                        let (metered, unsent) = way.outbox.clear();
                        written += metered;
                        last = unsent;
                    }
                }
            }
        }
        self.meter.note_written(written);
        last
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    /// Counts one more message of a user's. Whether it could be written, but is one of so many that more can be expected.
    fn is_burst(&mut self) -> bool {
        self.single = self.single.saturating_add(1);
        self.obstacle == Obstacle::Burst || (self.obstacle == Obstacle::None && self.single > SINGLE)
    }
}

impl Obstacle {
    /// Whether something can be written.
    fn is_clear(self) -> bool {
        matches!(self, Self::None | Self::Burst)
    }

    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Full,
            // More descriptors of this user are on their way than the kernel allows, or it lacks memory: the receivers
            // have to catch up.
            Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM) => Self::Congested,
            _ => Self::Broken,
        }
    }
}

/// Lets the carrier look again, which may happen on this very thread: not while we hold its lock.
fn wake(way: MutexGuard<'_, Way>) {
    let carrier = way.carrier.clone();
    drop(way);
    carrier.into_iter().for_each(Waker::wake);
}
