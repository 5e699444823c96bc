//! Which worker a client has: rendezvous hashing (D. Thaler and C. Ravishankar, 1998) over slots.
//!
//! Each slot has a score for each key; the highest that serves wins. So a worker's replacement inherits its clients,
//! and when the number of workers changes only those clients move whose slot came or went.

use std::net::IpAddr;
use std::time::Duration;

use twox_hash::XxHash3_64;

use super::{Handoff, Order, Taker, Ticket};
use crate::worker::{Slot, WorkerId};

/// What tells one client from another, hashed. The same in each run and version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// A client by where it comes from, without its port. IPv4 is the same whether it comes as such or mapped to IPv6.
    pub fn of_source(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::of_value(&ip.octets()),
            IpAddr::V6(ip) => Self::of_value(&ip.octets()),
        }
    }

    /// A client by what it says.
    pub fn of_value(value: &[u8]) -> Self {
        Self(XxHash3_64::oneshot(value))
    }

    /// As a number, for who keeps it elsewhere.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The key of this number.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }

    fn score(self, slot: Slot) -> u64 {
        XxHash3_64::oneshot_with_seed(self.0, &slot.0.to_le_bytes())
    }
}

impl Handoff {
    /// Finds the worker for a connection that waits.
    ///
    /// A worker that has half of all that may wait in its queue, because it hangs perhaps, keeps its queue, and further
    /// clients of its go to their next choice: one worker can't hold up the others.
    pub(super) fn place(&mut self, ticket: Ticket, key: Key) {
        if self.order != Order::Sticky {
            return;
        }
        let most = (self.bound / 2).max(1);
        let candidates = || self.takers.iter().filter(|(_, taker)| self.may_get(taker));
        let has_room = |worker: &WorkerId, taker: &Taker| {
            !taker.is_avoided() && self.queues.get(worker).is_none_or(|queue| queue.len() < most)
        };
        let score = |(worker, taker): &(&WorkerId, &Taker)| (key.score(taker.slot), **worker);
        let best = candidates().filter(|(worker, taker)| has_room(worker, taker)).max_by_key(score);
        if let Some((worker, _)) = best.or_else(|| candidates().max_by_key(score)) {
            let worker = *worker;
            self.queues.entry(worker).or_default().insert(ticket);
        }
    }

    /// Finds the workers anew, since who serves has changed.
    pub(super) fn place_all(&mut self) {
        if self.order != Order::Sticky {
            return;
        }
        self.queues.clear();
        let waiting: Vec<(Ticket, Key)> = self.waiting.iter().map(|(ticket, key)| (*ticket, *key)).collect();
        for (ticket, key) in waiting {
            self.place(ticket, key);
        }
    }

    /// Gives workers their clients back that refused too often, and have been left alone for long enough.
    pub(super) fn readmit(&mut self, now: Duration) {
        if self.order != Order::Sticky {
            return;
        }
        let mut has_changed = false;
        for taker in self.takers.values_mut() {
            has_changed |= taker.readmit(now);
        }
        if has_changed {
            self.place_all();
        }
    }
}
