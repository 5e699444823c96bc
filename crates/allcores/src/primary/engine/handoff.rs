//! Handing connections to workers over their channels, and taking in what they answer.
//!
//! Who gets which is the port table's business, be it that the primary accepts or that a worker in a lane is busy. Here
//! a decision becomes a message, and an answer finds the decision that it is about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use allcores_core::handoff::Ticket;
use allcores_core::policy::Policy;
use allcores_core::worker::WorkerId;

use super::Engine;
use crate::ports::{Delivery, LaneId, Listener};
use crate::primary::Event;
use crate::primary::answers::Answer;
use crate::primary::worker::Seen;

/// A connection that a worker was handed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    /// Where it came.
    pub(super) lane: LaneId,
    pub(super) ticket: Ticket,
    pub(super) since: Duration,
    /// It waited for another worker, which was busy.
    pub(super) is_relief: bool,
}

/// What workers were handed and have not answered for, by worker and the number of the message.
#[derive(Debug, Default)]
pub(super) struct Handoffs {
    pub(super) sent: BTreeMap<(WorkerId, u64), Handed>,
    /// When a worker last took a connection that it was handed.
    pub(super) taken_at: BTreeMap<WorkerId, Duration>,
    /// That some programs have no channel was told.
    pub(super) is_lack_told: bool,
    /// Addresses of which it was told that somebody wanted them to be served otherwise.
    pub(super) wishes_told: BTreeSet<String>,
}

impl Engine {
    /// Accepts where the primary does so itself, and hands over what can be.
    pub(super) fn hand_off(&mut self) {
        let now = self.now();
        self.pace.look(now);
        for delivery in self.ports.hand_off(now) {
            self.deliver(delivery, now, false);
        }
        for unread in self.ports.take_unread() {
            let (seen, mut recall) = (self.seen.clone(), self.recaller.recall());
            tokio::spawn(async move {
                let looked = unread.read(recall.called()).await;
                let _ = seen.send(Seen::Looked(looked)).await;
            });
        }
        if let Some((address, error)) = self.ports.take_shortage() {
            let text = format!(
                "connections to {address} wait: the primary can't accept them ({error}); more descriptors for it, \
                 or a smaller --pending, would help"
            );
            (self.observe)(Event::Notice { text: &text });
        }
    }

    /// Says once that connections are not handed over where they were to be.
    pub(super) fn report_no_handoff(&mut self, listener: &Listener) {
        let asked = &self.settings.policy;
        if !asked.is_handoff() || listener.policy.is_handoff() || listener.address.is_udp() {
            return;
        }
        if std::mem::replace(&mut self.handoffs.is_lack_told, true) {
            return;
        }
        let text = format!(
            "--policy {asked} hands connections over a channel, which node programs and those built with the crate \
             have; the programs at {} have none and are served by {} instead",
            listener.address, listener.policy
        );
        (self.observe)(Event::Notice { text: &text });
    }

    /// Says once for each address that a worker wanted it to be served otherwise than it is: whoever asks first decides.
    pub(super) fn report_other_wish(&mut self, id: WorkerId, lane: LaneId, wish: Option<&Policy>) {
        let Some(listener) = self.ports.describe(lane) else { return };
        let Some(wish) = wish.filter(|wish| **wish != Policy::Auto && **wish != listener.policy) else {
            return;
        };
        if !self.handoffs.wishes_told.insert(listener.address.to_string()) {
            return;
        }
        let text = format!(
            "worker {id} asks for {wish} at {}, which is served by {} as the first to ask for it wanted",
            listener.address, listener.policy
        );
        (self.observe)(Event::Notice { text: &text });
    }

    /// Takes connections that wait for busy workers to workers that are free.
    pub(super) fn relieve_busy(&mut self) {
        if !self.has_channels() {
            return;
        }
        let now = self.now();
        for delivery in self.ports.relieve(now) {
            self.deliver(delivery, now, true);
        }
    }

    /// When a worker last took a connection that it was handed.
    pub(super) fn took_at(&self, id: WorkerId) -> Option<Duration> {
        self.handoffs.taken_at.get(&id).copied()
    }

    fn deliver(&mut self, delivery: Delivery, now: Duration, is_relief: bool) {
        let Delivery { lane, ticket, worker: id, connection } = delivery;
        let worker = self.workers.get_mut(&id);
        let number = worker.and_then(|worker| worker.hand_over(lane, connection));
        match number {
            Some(number) => {
                self.handoffs.sent.insert((id, number), Handed { lane, ticket, since: now, is_relief });
            }
            // It has just closed its channel, which will be seen.
            None => self.ports.refused(lane, id, ticket, now),
        }
    }

    /// Whether a connection is on its way to a worker.
    pub(super) fn is_handing_over(&self, id: WorkerId) -> bool {
        self.ports.unanswered(id) > 0
    }

    /// Steers away from workers that were handed a connection a tick ago and have not answered.
    pub(super) fn distrust_silent(&mut self) {
        let now = self.now();
        let limit = self.ports.tick_interval();
        for ((id, _), handed) in &self.handoffs.sent {
            if handed.is_relief && now.saturating_sub(handed.since) >= limit {
                self.ports.distrust(*id, now);
            }
        }
    }

    /// Takes all answers that have come. Says whether there were any.
    pub(super) fn take_answers(&mut self) -> bool {
        let mut answered = std::mem::take(&mut self.answered);
        self.answers.take(&mut answered);
        let has_any = !answered.is_empty();
        self.take_each(answered.drain(..));
        self.answered = answered;
        has_any
    }

    /// Workers said whether they took what they were handed.
    pub(super) fn take_each(&mut self, answers: impl IntoIterator<Item = Answer>) {
        let now = self.now();
        let (mut last, mut is_relieved) = (None, false);
        for Answer { worker: id, ack, is_accepted } in answers {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            worker.has_spoken = true;
            if last.replace(id) != Some(id) {
                self.ports.note_life(id, now);
            }
            is_relieved |= self.take_one(id, ack, is_accepted, now);
        }
        if is_relieved {
            // They are free for others at once; the next tick is far away for those who wait.
            self.relieve_busy();
        }
    }

    /// A worker said whether it took what it was handed. Says whether that had waited for another, which was busy.
    fn take_one(&mut self, id: WorkerId, seq: u64, is_accepted: bool, now: Duration) -> bool {
        // What is not in the list is another's by now.
        let Some(handed) = self.handoffs.sent.remove(&(id, seq)) else {
            let _ = self.take_turn(id, seq) || self.take_word(id, seq, is_accepted);
            return false;
        };
        if !handed.is_relief {
            self.pace.note_answer(now.saturating_sub(handed.since));
        }
        if is_accepted {
            self.handoffs.taken_at.insert(id, now);
            self.ports.accepted(handed.lane, id, handed.ticket, now);
        } else {
            self.ports.refused(handed.lane, id, handed.ticket, now);
        }
        handed.is_relief
    }

    /// A worker could not receive what it was handed, for want of descriptors perhaps: no answer will follow.
    pub(super) fn take_unreceived(&mut self, id: WorkerId, number: u64) {
        self.take_each([Answer { worker: id, ack: number, is_accepted: false }]);
    }

    /// A worker does not listen at a lane any more.
    pub(super) fn take_back(&mut self, id: WorkerId, lane: LaneId) {
        let its = (id, 0)..=(id, u64::MAX);
        self.handoffs
            .sent
            .extract_if(its, |_, handed| self.ports.are_siblings(handed.lane, lane))
            .for_each(drop);
        self.ports.leave(lane, id);
    }

    /// A worker can't answer any more: what it had not said yes to goes to others.
    pub(super) fn take_back_all(&mut self, id: WorkerId) {
        self.handoffs.taken_at.remove(&id);
        self.farewells.forget(id);
        self.handoffs.sent.extract_if((id, 0)..=(id, u64::MAX), |_, _| true).for_each(drop);
        self.ports.leave_all(id);
    }
}

#[cfg(test)]
mod tests;
