//! Replacing a worker that serves, by one beside it: because it is unhealthy, has grown too large or too old.
//!
//! One at a time: while all of them are unhealthy, which is rather the fault of what they rely on, the pool is not
//! started anew all at once. The old worker gets connections until its successor is ready, and then finishes those that
//! it has.

use std::time::Duration;

use super::worker::{Renewal, Worker};
use super::{Announcement, Fault, Phase, Pool, Reason, Turn};
use crate::worker::{Slot, WorkerId};

impl Pool {
    pub(super) fn healthy(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.gate.is_healthy = true;
        let is_ill = worker.renewal.is_some_and(|renewal| renewal.reason.is_of_health());
        if is_ill && !worker.is_leaving() {
            self.abandon_renewal(id, turn);
        }
        self.pass_gate(id, turn);
    }

    pub(super) fn unhealthy(&mut self, id: WorkerId, is_silent: bool, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get(&id).filter(|worker| worker.is_ready()) else { return };
        if worker.renewal.is_some_and(|renewal| renewal.reason.is_of_health()) {
            return;
        }
        let slot = worker.slot;
        turn.announce(Announcement::Unhealthy { id });
        if self.is_watched(id) {
            self.fail_reload(id, slot, Fault::Unhealthy, turn);
        } else {
            self.want(id, if is_silent { Reason::Unresponsive } else { Reason::Unhealthy });
        }
    }

    /// A worker that has only begun is spared: if it is too large by then, the next one would be so as well.
    pub(super) fn renew_worker(&mut self, id: WorkerId, reason: Reason, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get(&id).filter(|worker| worker.is_ready()) else { return };
        if turn.now.saturating_sub(worker.started) >= self.settings.min_uptime || reason == Reason::Lifetime {
            self.want(id, reason);
        }
    }

    fn want(&mut self, id: WorkerId, reason: Reason) {
        if let Some(worker) = self.workers.get_mut(&id) {
            let renewal = worker.renewal.get_or_insert(Renewal { reason, has_begun: false });
            if !renewal.has_begun {
                renewal.reason = renewal.reason.min(reason);
            }
        }
    }

    /// Begins the next renewal, if it is its turn; to be called after everything that happens.
    pub(super) fn begin_renewals(&mut self, turn: &mut Turn<'_>) {
        self.reconsider_renewals();
        if !matches!(self.phase, Phase::Running) || self.rollout.is_some() || !self.settings.keep {
            return;
        }
        let is_wanted =
            |worker: &&Worker| worker.is_ready() && worker.renewal.is_some_and(|renewal| !renewal.has_begun);
        let wanted = self.workers.values().filter(is_wanted);
        let first = wanted.filter_map(|worker| Some((worker.renewal?.reason, worker.slot, worker.id))).min();
        let Some((reason, slot, id)) = first else { return };
        let has_begun = |worker: &Worker| worker.renewal.is_some_and(|renewal| renewal.has_begun);
        // One that is not well does not wait for another to have finished its last connection.
        let is_in_turn = |worker: &Worker| !has_begun(worker) || reason.is_of_health() && worker.is_leaving();
        if !self.workers.values().all(is_in_turn) {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.renewal = Some(Renewal { reason, has_begun: true });
        }
        turn.announce(Announcement::Renewing { id, reason });
        self.spawn(slot, turn);
    }

    /// A worker that gets no successor after all waits for another turn.
    fn reconsider_renewals(&mut self) {
        for id in self.ids(Worker::is_outgoing) {
            let slot = self.workers[&id].slot;
            let is_awaited =
                self.slots.get(usize::from(slot.0)).is_some_and(|slot| slot.respawn_at.is_some());
            // The end of one that has failed is answered when it comes.
            let is_failing = self.workers.values().any(|worker| worker.slot == slot && worker.has_failed);
            if !is_awaited
                && !is_failing
                && !self.is_served(slot)
                && let Some(Renewal { has_begun, .. }) =
                    self.workers.get_mut(&id).and_then(|worker| worker.renewal.as_mut())
            {
                *has_begun = false;
            }
        }
    }

    /// A worker is ready: if it was to succeed another, that one goes.
    pub(super) fn finish_renewal(&mut self, id: WorkerId, slot: Slot, turn: &mut Turn<'_>) {
        if self.workers.get(&id).is_some_and(Worker::is_outgoing) {
            return;
        }
        for outgoing in self.outgoing_in(slot) {
            self.drain(outgoing, self.settings.linger, turn);
        }
    }

    /// Nobody gets a successor: a reload replaces them all.
    pub(super) fn abandon_renewals(&mut self, turn: &mut Turn<'_>) {
        for id in self.ids(Worker::is_outgoing) {
            let renewal = self.workers.get(&id).and_then(|worker| worker.renewal);
            self.abandon_renewal(id, turn);
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.renewal = renewal.map(|renewal| Renewal { has_begun: false, ..renewal });
            }
        }
    }

    fn abandon_renewal(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.renewal.take().is_some_and(|renewal| renewal.has_begun) {
            self.recall(id, turn);
        }
    }

    fn outgoing_in(&self, slot: Slot) -> Vec<WorkerId> {
        self.ids(|worker| worker.slot == slot && worker.is_outgoing())
    }

    /// The worker of a slot that gets a successor because it does not answer.
    pub(super) fn unresponsive_in(&self, slot: Slot) -> Option<WorkerId> {
        let is_unresponsive = |worker: &&Worker| {
            let reason = worker.renewal.map(|renewal| renewal.reason);
            worker.slot == slot && worker.is_outgoing() && reason == Some(Reason::Unresponsive)
        };
        self.workers.values().find(is_unresponsive).map(|worker| worker.id)
    }

    /// The worker whose place another is to take.
    pub(super) fn replaced_by(&self, worker: &Worker) -> Option<WorkerId> {
        if !worker.is_serving() || worker.is_outgoing() {
            return None;
        }
        self.hung_in(worker.slot).or_else(|| self.outgoing_in(worker.slot).first().copied())
    }
}

impl Worker {
    /// When it will have served for long enough.
    pub(super) fn expires_at(&self) -> Option<Duration> {
        (self.is_ready() && self.renewal.is_none()).then_some(self.expires)
    }
}
