//! Hand-offs under way as data, to go on in another process. What comes from outside is looked at before it is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Handoff, Key, Order, Sent, Taker, Ticket};
use crate::pool::{Unsound, ensure};
use crate::worker::WorkerId;

/// Hand-offs under way as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoffSaved {
    held_up_until: Duration,
    is_closing: bool,
    next: u64,
    takers: Vec<TakerSaved>,
    /// Who has been free for longest comes first.
    turns: Vec<u32>,
    /// Connections that wait, with what tells their clients apart.
    waiting: Vec<(u64, u64)>,
    sent: Vec<SentSaved>,
    /// Which of those that wait, wait for whom.
    queues: Vec<(u32, Vec<u64>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SentSaved {
    ticket: u64,
    worker: u32,
    key: u64,
    since: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TakerSaved {
    pub(super) worker: u32,
    pub(super) slot: u16,
    pub(super) is_serving: bool,
    pub(super) is_dismissed: bool,
    pub(super) refusals: u32,
    #[serde(default)]
    pub(super) paused_until: Option<Duration>,
    pub(super) is_avoided: bool,
    pub(super) answered_at: Duration,
    pub(super) streak: usize,
}

impl Ticket {
    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The ticket of this number.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }
}

impl Handoff {
    /// Takes down all that it is, but for the order and the bound.
    pub fn save(&self) -> HandoffSaved {
        let sent = self.sent.iter().map(|(ticket, sent)| SentSaved {
            ticket: ticket.0,
            worker: sent.worker.0,
            key: sent.key.number(),
            since: sent.since,
        });
        let queues = self.queues.iter().filter(|(_, queue)| !queue.is_empty());
        let mut turns: Vec<(u64, u32)> =
            self.takers.iter().map(|(worker, taker)| (taker.turn, worker.0)).collect();
        turns.sort_unstable();
        HandoffSaved {
            held_up_until: self.held_up_until,
            is_closing: self.is_closing,
            next: self.next,
            takers: self.takers.iter().map(|(worker, taker)| taker.save(*worker)).collect(),
            turns: turns.into_iter().map(|(_, worker)| worker).collect(),
            waiting: self.waiting.iter().map(|(ticket, key)| (ticket.0, key.number())).collect(),
            sent: sent.collect(),
            queues: queues
                .map(|(worker, queue)| (worker.0, queue.iter().map(|ticket| ticket.0).collect()))
                .collect(),
        }
    }

    /// Makes the same again.
    ///
    /// # Errors
    ///
    /// If it contradicts itself.
    pub fn restore(order: Order, bound: usize, saved: HandoffSaved) -> Result<Self, Unsound> {
        saved.check()?;
        let mut takers: BTreeMap<WorkerId, Taker> =
            saved.takers.iter().map(|taker| (WorkerId(taker.worker), Taker::restore(taker))).collect();
        for sent in &saved.sent {
            // One that was told to be gone by a worker that is not there any more is in nobody's count.
            if let Some(taker) = takers.get_mut(&WorkerId(sent.worker)) {
                taker.sent += 1;
            }
        }
        let sent = |sent: &SentSaved| {
            let SentSaved { ticket, worker, key, since } = *sent;
            (Ticket(ticket), Sent { worker: WorkerId(worker), key: Key::of_number(key), since })
        };
        let tickets = |queue: Vec<u64>| queue.into_iter().map(Ticket).collect();
        let mut handoff = Self {
            held_up_until: saved.held_up_until,
            is_closing: saved.is_closing,
            next: saved.next,
            waiting: saved
                .waiting
                .into_iter()
                .map(|(ticket, key)| (Ticket(ticket), Key::of_number(key)))
                .collect(),
            sent: saved.sent.iter().map(sent).collect(),
            queues: BTreeMap::new(),
            ..Self::new(order, bound)
        };
        for worker in saved.turns.into_iter().map(WorkerId) {
            if let Some(taker) = takers.remove(&worker) {
                handoff.seat(worker, taker);
            }
        }
        if order == Order::Sticky {
            handoff.queues =
                saved.queues.into_iter().map(|(worker, queue)| (WorkerId(worker), tickets(queue))).collect();
        }
        Ok(handoff)
    }
}

impl Handoff {
    /// For so long nobody could hear what workers answered: that was not theirs.
    pub fn excuse(&mut self, time: Duration) {
        for sent in self.sent.values_mut() {
            sent.since = sent.since.saturating_add(time);
        }
    }
}

impl HandoffSaved {
    /// Every connection that no worker has said yes to.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> + '_ {
        let waiting = self.waiting.iter().map(|(ticket, _)| *ticket);
        waiting.chain(self.sent.iter().map(|sent| sent.ticket)).map(Ticket)
    }

    fn check(&self) -> Result<(), Unsound> {
        let workers: BTreeSet<u32> = self.takers.iter().map(|taker| taker.worker).collect();
        ensure(workers.len() == self.takers.len(), "a worker takes connections twice")?;
        let turns: BTreeSet<u32> = self.turns.iter().copied().collect();
        let is_same = turns == workers && turns.len() == self.turns.len();
        ensure(is_same, "those who take turns are not those who take connections")?;
        let tickets: BTreeSet<Ticket> = self.tickets().collect();
        let count = self.waiting.len() + self.sent.len();
        ensure(tickets.len() == count, "two connections have one number")?;
        ensure(tickets.last().is_none_or(|last| last.0 <= self.next), "a connection has not come yet")?;
        ensure(self.next <= u64::MAX / 2, "a count is beyond all measure")?;
        let waiting: BTreeSet<u64> = self.waiting.iter().map(|(ticket, _)| *ticket).collect();
        let queued: Vec<u64> = self.queues.iter().flat_map(|(_, queue)| queue).copied().collect();
        let distinct: BTreeSet<u64> = queued.iter().copied().collect();
        let is_sound = distinct.len() == queued.len() && distinct.is_subset(&waiting);
        ensure(is_sound, "a connection waits for a worker, and does not wait")?;
        let of_takers = self.queues.iter().all(|(worker, _)| workers.contains(worker));
        ensure(of_takers, "a connection waits for a worker that takes none")
    }
}
