//! Which connection is handed to which worker, where the primary accepts: round-robin and sticky.
//!
//! Pure: is told what came, who serves and what was answered, and says who gets what. Knows connections as numbers in
//! the order in which they came; whoever owns it keeps the connections themselves, until a worker has said that it
//! took them. One for each address.
//!
//! ```text
//!          ┌───────────── refused, not received, worker gone ─────────────┐
//!          ↓                                                              │
//! arrive ─→ waiting, in the order of arrival ── assign ─→ with a worker ──┴─ accepted ─→ gone
//! ```
//!
//! Who has the fewest unanswered ones gets the next, and nobody has more than a few: one while workers are held up by
//! what they do, so that one of them holds up one client and whoever answers goes on. One that refuses (it has as many connections as it wants)
//! is left alone for a while, which doubles each time: however many refuse, nothing spins.

pub mod head;
mod saved;
mod sticky;
mod taker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::worker::{Slot, WorkerId};

pub use saved::HandoffSaved;
pub use sticky::Key;
use taker::Taker;

/// Names one connection. Numbers grow in the order in which connections came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Who gets the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Whoever has been free for longest gets the one that came first.
    Turns,
    /// Each key has its worker, by rendezvous hashing over the slots of those that serve.
    Sticky,
}

/// How many connections a worker may have that it has not answered for, once it has answered as many in a row and while
/// nobody is held up. With one, as in node:cluster, a worker that answers has nothing to do until our next message has
/// come: on a busy machine that costs up to half of what it could serve.
const WINDOW_OF_TURNS: usize = 4;

/// And how many after one was held up by something: who has been handed a connection then waits with it.
const WINDOW_WHEN_HELD_UP: usize = 1;

/// How long a worker takes to answer that is held up.
pub const HELD_UP: Duration = Duration::from_millis(10);

/// How long that is remembered.
const MEMORY: Duration = Duration::from_secs(1);

/// Where each client has its worker anyway, waiting for an answer before the next is sent would help nobody.
const WINDOW_OF_STICKY: usize = 8;

/// The connections of one address on their way to workers.
#[derive(Debug)]
pub struct Handoff {
    order: Order,
    /// Until when a worker that was held up is remembered.
    held_up_until: Duration,
    bound: usize,
    is_closing: bool,
    next: u64,
    takers: BTreeMap<WorkerId, Taker>,
    /// All takers as they are asked: first those with the fewest connections, of these who has had none for longest.
    ranks: BTreeSet<Rank>,
    last_turn: u64,
    /// When it was last looked whether anybody is held up.
    looked_at: Duration,
    waiting: BTreeMap<Ticket, Key>,
    sent: BTreeMap<Ticket, Sent>,
    /// Of those that wait, who waits for whom: under `Sticky` only.
    queues: BTreeMap<WorkerId, BTreeSet<Ticket>>,
}

/// The fewest connections first, then whose turn came first.
type Rank = (usize, u64, WorkerId);

#[derive(Clone, Copy, Debug)]
struct Sent {
    worker: WorkerId,
    key: Key,
    since: Duration,
}

impl Handoff {
    /// No connections, no workers. About `bound` connections may wait.
    pub fn new(order: Order, bound: usize) -> Self {
        Self {
            order,
            held_up_until: Duration::ZERO,
            bound: bound.max(1),
            is_closing: false,
            next: 0,
            takers: BTreeMap::new(),
            ranks: BTreeSet::new(),
            last_turn: 0,
            looked_at: Duration::ZERO,
            waiting: BTreeMap::new(),
            sent: BTreeMap::new(),
            queues: BTreeMap::new(),
        }
    }

    /// A worker listens here. It gets nothing before it serves.
    pub fn join(&mut self, worker: WorkerId, slot: Slot, is_serving: bool) {
        match self.takers.get_mut(&worker) {
            Some(taker) => taker.is_serving = is_serving,
            None => self.seat(worker, Taker::new(slot, is_serving)),
        }
        self.place_all();
    }

    /// Whether a worker may get connections.
    pub fn serve(&mut self, worker: WorkerId, is_serving: bool) {
        if let Some(taker) = self.takers.get_mut(&worker)
            && std::mem::replace(&mut taker.is_serving, is_serving) != is_serving
        {
            self.place_all();
        }
    }

    /// A worker was asked to go: it gets nothing more, whatever happens, and may still answer for what it has.
    pub fn dismiss(&mut self, worker: WorkerId) {
        if let Some(taker) = self.takers.get_mut(&worker) {
            taker.is_dismissed = true;
            self.place_all();
        }
    }

    /// A worker does not listen here any more, or is gone: what it has not said yes to waits for others, in its old
    /// place.
    pub fn leave(&mut self, worker: WorkerId) {
        let Some(taker) = self.takers.remove(&worker) else { return };
        self.ranks.remove(&taker.rank(worker));
        let is_its = |_: &Ticket, sent: &mut Sent| sent.worker == worker;
        let returned: Vec<_> = self.sent.extract_if(.., is_its).collect();
        self.waiting.extend(returned.into_iter().map(|(ticket, sent)| (ticket, sent.key)));
        self.place_all();
    }

    /// The app stops: who listens gets what has come, though nobody serves any more.
    pub fn close(&mut self) {
        self.is_closing = true;
        self.place_all();
    }

    /// The app goes on after all.
    pub fn reopen(&mut self) {
        self.is_closing = false;
        self.place_all();
    }

    /// How many more connections should be accepted now: none while there is nobody who could get them.
    pub fn room(&self) -> usize {
        if self.is_served() { self.bound.saturating_sub(self.waiting.len()) } else { 0 }
    }

    /// Whether there is anybody who gets connections, be it busy or not.
    pub fn is_served(&self) -> bool {
        self.takers.values().any(|taker| self.may_get(taker))
    }

    /// How many connections could be handed over at this moment, whosever they are. Not counted beyond `most`.
    pub fn capacity(&self, most: usize, now: Duration) -> usize {
        let mut capacity = 0;
        for taker in self.ranks.iter().filter_map(|(_, _, worker)| self.takers.get(worker)) {
            if capacity >= most {
                break;
            }
            capacity += self.capacity_of(taker, now);
        }
        capacity.min(most)
    }

    /// A connection has come.
    pub fn arrive(&mut self, key: Key) -> Ticket {
        let ticket = self.next_ticket();
        self.wait(ticket, key);
        ticket
    }

    /// A connection goes to this worker, whoever's turn it is.
    pub fn give(&mut self, worker: WorkerId, now: Duration) -> Ticket {
        let ticket = self.next_ticket();
        self.send(ticket, Key::default(), worker, now);
        ticket
    }

    /// Picks the next connection to be handed over, and to whom. To be asked until it says `None`.
    pub fn assign(&mut self, now: Duration) -> Option<(Ticket, WorkerId)> {
        if self.waiting.is_empty() {
            return None;
        }
        self.readmit(now);
        self.look(now);
        let is_able = |(_, _, worker): &&Rank| {
            let has_work =
                self.order == Order::Turns || self.queues.get(worker).is_some_and(|queue| !queue.is_empty());
            has_work && self.takers.get(worker).is_some_and(|taker| self.capacity_of(taker, now) > 0)
        };
        let (_, _, worker) = *self.ranks.iter().find(is_able)?;
        let ticket = match self.order {
            Order::Turns => *self.waiting.first_key_value()?.0,
            Order::Sticky => self.queues.get_mut(&worker)?.pop_first()?,
        };
        let key = self.waiting.remove(&ticket)?;
        self.send(ticket, key, worker, now);
        Some((ticket, worker))
    }

    /// A worker took a connection: it is its own now. False if that is no news.
    pub fn accepted(&mut self, ticket: Ticket, now: Duration) -> bool {
        let Some(sent) = self.take_answer(ticket, now) else { return false };
        let was_avoided = self.change(sent.worker, |taker| taker.accept(now));
        if was_avoided == Some(true) {
            self.place_all();
        }
        true
    }

    /// A worker refused a connection, or could not receive it: it is ours again, and waits in its old place. The worker
    /// is left alone for a while.
    pub fn refused(&mut self, ticket: Ticket, now: Duration) {
        let Some(sent) = self.take_answer(ticket, now) else { return };
        let is_newly_avoided = self.change(sent.worker, |taker| taker.refuse(now));
        if is_newly_avoided == Some(true) {
            self.place_all();
        }
        self.wait(ticket, sent.key);
    }

    /// A worker has closed a connection, so that it may want another: it is tried again at once.
    pub fn nudge(&mut self, worker: WorkerId, now: Duration) {
        if let Some(taker) = self.takers.get_mut(&worker) {
            taker.nudge(now);
        }
    }

    /// When, after `now`, [`assign`](Self::assign) may say something else though nothing has happened.
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        let pauses = self.takers.values().filter(|taker| self.may_get(taker)).filter_map(Taker::paused_until);
        pauses.filter(|until| *until > now).min()
    }

    /// Whether a worker has nothing unanswered and has not refused lately.
    pub fn is_free(&self, worker: WorkerId, now: Duration) -> bool {
        let is_free = |taker: &Taker| taker.sent == 0 && self.may_get(taker) && taker.capacity(1, now) > 0;
        self.takers.get(&worker).is_some_and(is_free)
    }

    /// Where a worker stands in the order of turns: lower is sooner.
    pub fn turn_of(&self, worker: WorkerId) -> u64 {
        self.takers.get(&worker).map_or(u64::MAX, |taker| taker.turn)
    }

    /// Whether connections go to this worker at all, be it busy or not.
    pub fn may_take(&self, worker: WorkerId) -> bool {
        self.takers.get(&worker).is_some_and(|taker| self.may_get(taker))
    }

    /// Workers that are left alone because they refused.
    pub fn paused(&self, now: Duration) -> impl Iterator<Item = WorkerId> + '_ {
        let is_paused = move |taker: &Taker| taker.paused_until().is_some_and(|until| until > now);
        self.takers.iter().filter(move |(_, taker)| is_paused(taker)).map(|(worker, _)| *worker)
    }

    /// Connections that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Connections that no worker has said yes to.
    pub fn pending(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    /// Connections that a worker has been handed and not answered for.
    pub fn unanswered(&self, worker: WorkerId) -> usize {
        self.takers.get(&worker).map_or(0, |taker| taker.sent)
    }

    /// Connections that are for this worker: unanswered, or waiting for nobody else.
    pub fn queued(&self, worker: WorkerId) -> usize {
        self.unanswered(worker) + self.queues.get(&worker).map_or(0, BTreeSet::len)
    }

    /// For how long each worker's oldest connection has been unanswered.
    pub fn oldest(&self, now: Duration) -> impl Iterator<Item = (WorkerId, Duration)> + '_ {
        self.sent.values().map(move |sent| (sent.worker, now.saturating_sub(sent.since)))
    }

    /// How many more connections a worker can be handed.
    fn capacity_of(&self, taker: &Taker, now: Duration) -> usize {
        if !self.may_get(taker) {
            return 0;
        }
        let window = match self.order {
            Order::Sticky => WINDOW_OF_STICKY,
            Order::Turns if now < self.held_up_until => WINDOW_WHEN_HELD_UP,
            Order::Turns => WINDOW_OF_TURNS.min(1 + taker.streak(now)),
        };
        taker.capacity(window, now)
    }

    /// Takes in that a worker has answered, whatever it said.
    fn take_answer(&mut self, ticket: Ticket, now: Duration) -> Option<Sent> {
        let sent = self.sent.remove(&ticket)?;
        if now.saturating_sub(sent.since) >= HELD_UP {
            self.held_up_until = now + MEMORY;
        }
        Some(sent)
    }

    fn next_ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Whether a worker gets connections at all, busy or not.
    fn may_get(&self, taker: &Taker) -> bool {
        !taker.is_dismissed && (taker.is_serving || self.is_closing)
    }

    fn wait(&mut self, ticket: Ticket, key: Key) {
        self.waiting.insert(ticket, key);
        self.place(ticket, key);
    }

    fn send(&mut self, ticket: Ticket, key: Key, worker: WorkerId, now: Duration) {
        self.sent.insert(ticket, Sent { worker, key, since: now });
        self.change(worker, |taker| taker.sent += 1);
    }

    /// Takes note if a worker is held up. What was sent does not grow older while nothing but this is asked.
    fn look(&mut self, now: Duration) {
        if std::mem::replace(&mut self.looked_at, now) != now
            && self.sent.values().any(|sent| now.saturating_sub(sent.since) >= HELD_UP)
        {
            self.held_up_until = now + MEMORY;
        }
    }

    /// Changes what is known of a worker, whose turn comes last from now on.
    fn change<R>(&mut self, worker: WorkerId, change: impl FnOnce(&mut Taker) -> R) -> Option<R> {
        let taker = self.takers.get_mut(&worker)?;
        self.ranks.remove(&taker.rank(worker));
        let result = change(taker);
        self.last_turn += 1;
        taker.turn = self.last_turn;
        self.ranks.insert(taker.rank(worker));
        Some(result)
    }

    /// Adds a worker, whose turn comes last.
    fn seat(&mut self, worker: WorkerId, taker: Taker) {
        self.takers.insert(worker, taker);
        self.change(worker, |_| ());
    }
}

#[cfg(test)]
mod tests;
