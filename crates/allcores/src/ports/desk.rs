//! The connections of one address that the primary has and no worker has taken, and the accepting of more.
//!
//! While all workers are busy nothing is accepted at once: those who come wait in the kernel's queue, in their order, and
//! the primary sleeps. When a worker is free it accepts the next itself; and now and then all that have come, up to a
//! limit, so that the kernel's queue does not overflow.

mod saved;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use allcores_core::handoff::head::Found;
use allcores_core::handoff::{Handoff, Key, Order, Ticket};
use allcores_core::policy::{Policy, StickyBy};
use allcores_core::worker::{Slot, WorkerId};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags};

use super::LaneId;
use super::handoff::Delivery;
use super::heads::{self, Heads, Read, Unread};
use super::lane::Lane;

pub(super) use saved::DeskSaved;

/// How many connections are accepted before others have their turn.
const AT_ONCE: usize = 64;

/// How long connections wait in the kernel's queue while all workers are busy. At 20,000 in a second they are a fifth of
/// the shortest queue that node asks for.
const COLLECTING: Duration = Duration::from_millis(5);

/// How long nothing is accepted after the kernel said that it has no descriptor or no memory for another.
const SHORTAGE: Duration = Duration::from_millis(100);

/// The connections of one address that no worker has taken.
#[derive(Debug)]
pub(super) struct Desk {
    core: Handoff,
    connections: BTreeMap<Ticket, Arc<OwnedFd>>,
    /// What clients are told apart by, if they are.
    by: Option<StickyBy>,
    heads: Heads,
    /// How many have been accepted.
    came: u64,
    unread: Vec<Unread>,
    /// Connections wait in the kernel's queue, as far as is known. Until that is empty the kernel does not tell of more.
    is_ready: bool,
    /// Since when they wait, or when all that had come were accepted last though nobody was free.
    collected_at: Option<Duration>,
    /// The app stops.
    is_closing: bool,
    /// Until when nothing is accepted.
    short_until: Option<Duration>,
    /// Why nothing was accepted, to be told once.
    shortage: Option<io::Error>,
    is_shortage_told: bool,
}

impl Desk {
    /// Nothing has come, nobody is there.
    pub(super) fn new(policy: &Policy, pending: usize) -> Self {
        let (order, by) = match policy {
            Policy::Sticky(by) => (Order::Sticky, Some(by.clone())),
            _ => (Order::Turns, None),
        };
        Self {
            core: Handoff::new(order, pending),
            connections: BTreeMap::new(),
            by,
            heads: Heads::default(),
            came: 0,
            unread: Vec::new(),
            is_ready: false,
            collected_at: None,
            is_closing: false,
            short_until: None,
            shortage: None,
            is_shortage_told: false,
        }
    }

    pub(super) fn core(&self) -> &Handoff {
        &self.core
    }

    pub(super) fn serve(&mut self, worker: WorkerId, is_serving: bool) {
        self.core.serve(worker, is_serving);
    }

    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.core.leave(worker);
    }

    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.core.close();
    }

    pub(super) fn reopen(&mut self) {
        self.is_closing = false;
        self.core.reopen();
    }

    /// Connections may wait in the kernel's queue.
    pub(super) fn note_ready(&mut self) {
        self.is_ready = true;
    }

    /// A worker listens here.
    pub(super) fn join(&mut self, worker: WorkerId, slot: Slot, is_serving: bool) {
        self.core.join(worker, slot, is_serving);
    }

    pub(super) fn dismiss(&mut self, worker: WorkerId) {
        self.core.dismiss(worker);
    }

    /// A worker refused a connection, or could not receive it.
    pub(super) fn refused(&mut self, ticket: Ticket, now: Duration) {
        self.core.refused(ticket, now);
    }

    /// A worker that refused may want another.
    pub(super) fn nudge(&mut self, worker: WorkerId, now: Duration) {
        self.core.nudge(worker, now);
    }

    /// Whether connections wait in the kernel's queue, as far as is known.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether nothing can be done here before something happens.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_ready && self.core.waiting() == 0 && self.unread.is_empty()
    }

    /// Connections whose heads are to be read.
    pub(super) fn take_unread(&mut self) -> Vec<Unread> {
        std::mem::take(&mut self.unread)
    }

    /// A connection's head has been read.
    pub(super) fn take_read(&mut self, read: Read) {
        self.heads.forget(read.number);
        self.arrive(read.connection, read.key);
    }

    /// Why nothing can be accepted, where that has not been said.
    pub(super) fn take_shortage(&mut self) -> Option<io::Error> {
        self.shortage.take()
    }

    /// Hands a connection to a worker, whoever's turn it is.
    pub(super) fn give(
        &mut self,
        lane: LaneId,
        connection: OwnedFd,
        worker: WorkerId,
        now: Duration,
    ) -> Delivery {
        let ticket = self.core.give(worker, now);
        let connection = Arc::new(connection);
        self.connections.insert(ticket, Arc::clone(&connection));
        Delivery { lane, ticket, worker, connection }
    }

    /// A connection that no worker has said yes to.
    pub(super) fn connection(&self, ticket: Ticket) -> Option<&OwnedFd> {
        self.connections.get(&ticket).map(Arc::as_ref)
    }

    /// A worker took a connection.
    pub(super) fn accepted(&mut self, ticket: Ticket, now: Duration) {
        if self.core.accepted(ticket, now) {
            self.connections.remove(&ticket);
        }
    }

    /// Connections that have come and that no worker has said yes to.
    pub(super) fn pending(&self) -> usize {
        self.core.pending() + self.heads.len()
    }

    fn room(&self) -> usize {
        self.core.room().saturating_sub(self.heads.len())
    }

    /// How many connections to accept now.
    fn wanted(&self, now: Duration) -> usize {
        let is_short = self.short_until.is_some_and(|until| until > now);
        if !self.is_ready || is_short {
            return 0;
        }
        let most = self.core.waiting() + AT_ONCE;
        let wanted = match (self.core.capacity(most, now), &self.by) {
            (0, _) if now < self.collect_at(now) => 0,
            // Whose they are is seen when they have been accepted.
            (0, _) | (_, Some(_)) => self.room(),
            (capacity, None) => capacity.saturating_sub(self.core.waiting()).min(self.room()),
        };
        wanted.min(AT_ONCE)
    }

    /// When all that have come are accepted though nobody is free.
    fn collect_at(&self, now: Duration) -> Duration {
        self.collected_at.unwrap_or(now) + COLLECTING
    }

    /// Accepts what has come, as far as it is wanted. Says whether the kernel's queue was found empty, and is to be
    /// watched again.
    pub(super) fn accept(&mut self, lane: &Lane, now: Duration) -> bool {
        if !self.is_ready {
            return false;
        }
        self.collected_at.get_or_insert(now);
        let wanted = self.wanted(now);
        if wanted > 0 && self.core.capacity(1, now) == 0 {
            self.collected_at = Some(now);
        }
        for _ in 0..wanted {
            match self.accept_one(lane) {
                Ok((connection, source)) => self.take_in(lane.id, connection, source),
                Err(Errno::AGAIN) => {
                    self.is_ready = false;
                    self.collected_at = None;
                    return true;
                }
                // A Unix socket that was shut down, as the app stops: nobody will come any more.
                Err(Errno::INVAL) if self.is_closing => {
                    self.is_ready = false;
                    return false;
                }
                // Something about that one connection, which is gone; or a signal.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Err(error) if is_of_the_network(error) => {}
                Err(error) => {
                    self.fall_short(error, now);
                    return false;
                }
            }
            self.short_until = None;
        }
        if self.room() == 0 && self.core.room() > 0 {
            self.heads.hurry();
        }
        false
    }

    /// The next connection, and from where it came if that is asked for.
    fn accept_one(&self, lane: &Lane) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match self.by {
            None => rustix::net::accept_with(&lane.socket, flags).map(|connection| (connection, None)),
            Some(_) => rustix::net::acceptfrom_with(&lane.socket, flags),
        }
    }

    fn take_in(&mut self, lane: LaneId, connection: OwnedFd, source: Option<SocketAddrAny>) {
        self.came += 1;
        let Some(by) = &self.by else { return self.arrive(connection, Key::default()) };
        let source = source.and_then(|source| SocketAddr::try_from(source).ok());
        let source = match source {
            Some(source) => Key::of_source(source.ip()),
            // Over a Unix socket nobody has an address.
            None => Key::of_value(&self.came.to_le_bytes()),
        };
        let found = if *by == StickyBy::Source { Found::Nothing } else { heads::look(&connection, by) };
        match found {
            Found::Client(key) => self.arrive(connection, key),
            Found::Nothing => self.arrive(connection, source),
            Found::Incomplete => self.unread.push(self.heads.wait(lane, connection, source, by)),
        }
    }

    fn arrive(&mut self, connection: OwnedFd, key: Key) {
        let ticket = self.core.arrive(key);
        self.connections.insert(ticket, Arc::new(connection));
    }

    /// There are no descriptors left, or no memory.
    fn fall_short(&mut self, error: Errno, now: Duration) {
        self.short_until = Some(now + SHORTAGE);
        if !std::mem::replace(&mut self.is_shortage_told, true) {
            self.shortage = Some(error.into());
        }
    }

    /// Picks who gets what.
    pub(super) fn assign(&mut self, lane: LaneId, now: Duration, deliveries: &mut Vec<Delivery>) {
        while let Some((ticket, worker)) = self.core.assign(now) {
            if let Some(connection) = self.connections.get(&ticket) {
                deliveries.push(Delivery { lane, ticket, worker, connection: Arc::clone(connection) });
            }
        }
    }

    /// When that and the accepting is to be done again, if nothing happens until then.
    pub(super) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        if self.wanted(now) > 0 {
            return Some(now);
        }
        let can_accept = self.is_ready && self.room() > 0;
        let next = self.short_until.filter(|until| *until > now).unwrap_or(self.collect_at(now));
        [self.core.next_deadline(now), can_accept.then_some(next)].into_iter().flatten().min()
    }
}

/// accept(2): on Linux, an error of the network that is already pending on the new socket is given by `accept`.
fn is_of_the_network(error: Errno) -> bool {
    [
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
    ]
    .contains(&error)
}
