//! Connections that were handed to workers over their channels, until they have said that they took them.
//!
//! Our copy of a connection is kept until then: a worker that dies, or refuses, costs its client nothing.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use allcores_core::channel::Speaker;
use allcores_core::worker::{State, WorkerId};

use super::Engine;
use crate::ports::LaneId;
use crate::primary::Event;
use crate::primary::worker::Worker;

/// A connection that nobody has said yes to so far.
#[derive(Debug)]
struct Pending {
    connection: OwnedFd,
    /// Where it came from.
    lane: LaneId,
    /// When it was handed over last.
    since: Duration,
}

/// Connections between workers.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    /// Handed over, by worker and sequence number.
    sent: BTreeMap<(WorkerId, u64), Pending>,
    /// Came back, and wait for another worker.
    returned: Vec<Pending>,
}

impl Handovers {
    fn is_waiting_for(&self, worker: WorkerId) -> bool {
        self.sent.range((worker, 0)..=(worker, u64::MAX)).next().is_some()
    }
}

impl<O: FnMut(Event<'_>)> Engine<O> {
    /// Takes connections that wait for busy workers to workers that are free.
    pub(super) fn relieve_busy(&mut self) {
        if !self.launcher.has_channel() {
            return;
        }
        self.place_returned();
        let now = self.now();
        let (workers, handovers) = (&self.workers, &self.handovers);
        let can_take = |id: WorkerId| {
            let has_channel =
                workers.get(&id).is_some_and(|worker| worker.channel.is_some() && !worker.is_retired);
            has_channel && !handovers.is_waiting_for(id)
        };
        for relief in self.ports.relieve(now, can_take) {
            let pending = Pending { connection: relief.connection, lane: relief.lane, since: now };
            self.hand_over(relief.taker, pending);
        }
    }

    /// Whether a connection is on its way to a worker, or waits to be given to any while the pool stops.
    pub(super) fn is_handing_over(&self, id: WorkerId) -> bool {
        let is_owed = self.pool.is_stopping() && !self.handovers.returned.is_empty();
        self.handovers.is_waiting_for(id) || is_owed
    }

    /// Steers away from workers that were handed a connection a tick ago and have not answered.
    pub(super) fn distrust_silent(&mut self) {
        let now = self.now();
        let limit = self.ports.tick_interval();
        for ((id, _), pending) in &self.handovers.sent {
            if now.saturating_sub(pending.since) >= limit {
                self.ports.distrust(*id, now);
            }
        }
    }

    fn hand_over(&mut self, id: WorkerId, mut pending: Pending) {
        pending.since = self.now();
        let key = self.workers.get(&id).and_then(|worker| self.key_beside(worker, pending.lane));
        let copy = pending.connection.as_fd().try_clone_to_owned();
        let (Some(key), Ok(copy), Some(worker)) = (key, copy, self.workers.get_mut(&id)) else {
            self.handovers.returned.push(pending);
            return;
        };
        let mut number = 0;
        let newconn = |speaker: &mut Speaker| {
            let (seq, line) = speaker.hand_over(&key);
            number = seq;
            line
        };
        worker.say(newconn, Some(copy));
        self.handovers.sent.insert((id, number), pending);
    }

    /// The key by which a worker knows its listener on the address of `lane`.
    fn key_beside(&self, worker: &Worker, lane: LaneId) -> Option<String> {
        let mut keys = worker.keys.iter();
        keys.find(|(_, own)| self.ports.are_siblings(**own, lane)).map(|(key, _)| key.clone())
    }

    /// A worker said whether it took what it was handed.
    pub(super) fn take_accepted(&mut self, id: WorkerId, seq: u64, is_accepted: bool) {
        let now = self.now();
        self.ports.note_life(id, now);
        if let Some(pending) = self.handovers.sent.remove(&(id, seq))
            && !is_accepted
        {
            self.handovers.returned.push(pending);
        }
        // It is free for another at once; the next tick is far away for those who wait.
        self.relieve_busy();
    }

    /// A worker could not receive what it was handed, for want of descriptors perhaps: no answer will follow.
    pub(super) fn take_unreceived(&mut self, id: WorkerId) {
        let numbers: Vec<_> =
            self.handovers.sent.range((id, 0)..=(id, u64::MAX)).map(|(number, _)| *number).collect();
        let pending = numbers.into_iter().filter_map(|number| self.handovers.sent.remove(&number));
        self.handovers.returned.extend(pending);
    }

    /// A worker can't answer any more: what it had not said yes to goes to others at once.
    pub(super) fn take_back(&mut self, id: WorkerId) {
        self.take_unreceived(id);
        self.place_returned();
    }

    /// Gives connections that came back to workers that serve.
    fn place_returned(&mut self) {
        // Once the pool stops nobody is ready, and those that have come are still to be served.
        let is_stopping = self.pool.is_stopping();
        for pending in std::mem::take(&mut self.handovers.returned) {
            let is_able = |worker: &&Worker| {
                worker.channel.is_some()
                    && !self.handovers.is_waiting_for(worker.about.id)
                    && !worker.is_retired
                    && (is_stopping || self.state_of(worker.about.id) == Some(State::Ready))
                    && self.key_beside(worker, pending.lane).is_some()
            };
            match self.workers.values().find(is_able).map(|worker| worker.about.id) {
                Some(id) => self.hand_over(id, pending),
                None => self.handovers.returned.push(pending),
            }
        }
    }
}
