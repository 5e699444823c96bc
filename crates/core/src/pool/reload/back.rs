//! A reload that fails: what counts as a fault, and the way back.

use std::time::Duration;

use super::{Course, Fault};
use crate::pool::worker::Worker;
use crate::pool::{Announcement, Pool, Turn};
use crate::worker::{Slot, WorkerId};

impl Pool {
    /// Whether a worker's end by itself, or that it could not be made, is a fault of the reload's. A new one may have served for
    /// as long as it wants: a version that does not last until it is everywhere is no good. So it is with one that somebody
    /// else has killed, who may well be the kernel for want of memory; which of them it was can't be told here. It is not with
    /// one that [has served well](Self::has_served_well) and ends in peace.
    pub(in crate::pool) fn is_at_fault(&self, worker: &Worker, uptime: Duration) -> bool {
        let Some(rollout) = &self.rollout else { return false };
        let Some(slot) = self.slots.get(usize::from(worker.slot.0)) else { return false };
        let is_new = worker.generation == rollout.target && slot.generation == rollout.target;
        let is_early = !worker.has_been_ready() || uptime < self.settings.min_uptime;
        match rollout.course {
            // Most have served all the time. One that has just come is at fault where something else serves that had better
            // be kept.
            Course::Back { .. } => is_new && is_early && self.is_served(worker.slot),
            _ => is_new,
        }
    }

    /// Whether a worker has served for long enough that its end, if that is in peace, is its program's way: there are some
    /// that begin anew after so many requests. One that is watched is not to end at all.
    pub(in crate::pool) fn has_served_well(&self, worker: &Worker, now: Duration) -> bool {
        let served = worker.served_from.map(|from| now.saturating_sub(from));
        served.is_some_and(|served| served >= self.settings.min_uptime) && !self.is_watched(worker.id)
    }

    /// Whether a worker is, on the way back, one that had come no further when the reload began, and was kept: nothing is to be
    /// put back in its slot, and it may be of a program that never listens.
    pub(super) fn is_as_before(&self, worker: &Worker) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| {
            matches!(rollout.course, Course::Back { .. })
                && worker.generation == rollout.target
                && worker.started < rollout.began
                && worker.is_serving()
                && !worker.has_been_ready()
        })
    }

    /// A new worker is no good. No further slot is begun; what was begun is undone.
    pub(in crate::pool) fn fail_reload(
        &mut self,
        id: WorkerId,
        slot: Slot,
        fault: Fault,
        turn: &mut Turn<'_>,
    ) {
        if self.is_rolling_back() {
            return self.give_up_reload(turn);
        }
        let Some(rollout) = &mut self.rollout else { return };
        let failed = std::mem::replace(&mut rollout.target, self.generation);
        rollout.course = Course::Back { id, slot, fault };
        rollout.since = turn.now;
        turn.announce(Announcement::RollingBack { generation: failed, id, slot, fault });
        for slot in self.all_slots() {
            self.revert(slot, failed, turn);
        }
        let target = self.generation;
        let done = self.all_slots().filter(|slot| self.is_done(*slot, target)).collect();
        if let Some(rollout) = &mut self.rollout {
            rollout.done = done;
        }
    }

    /// Gives a slot back to what is still there. Where only the new worker serves, it does so until its turn comes.
    fn revert(&mut self, slot: Slot, failed: u32, turn: &mut Turn<'_>) {
        if self.slots[usize::from(slot.0)].generation != failed {
            return;
        }
        let is_left =
            |worker: &&Worker| worker.slot == slot && worker.generation != failed && !worker.is_leaving();
        let previous =
            self.workers.values().find(is_left).map_or(self.generation, |worker| worker.generation);
        if !self.has_ready(slot, failed) || self.has_ready(slot, previous) {
            self.settle(slot, previous, turn);
        } else if previous == self.generation && self.has_serving(slot, previous) {
            // Both stay until the old one is ready again.
            self.slots[usize::from(slot.0)].generation = previous;
        } else {
            self.settle(slot, failed, turn);
        }
    }

    /// The way back is no good either: each slot keeps what serves it.
    pub(in crate::pool) fn give_up_reload(&mut self, turn: &mut Turn<'_>) {
        let Some(rollout) = self.rollout.take() else { return };
        let Course::Back { id, slot, fault } = rollout.course else { return };
        for slot in self.all_slots() {
            let own = self.slots[usize::from(slot.0)].generation;
            let rank = |worker: &&Worker| (worker.is_ready(), worker.generation == own, worker.id);
            let serving = self.workers.values().filter(|worker| worker.slot == slot && worker.is_serving());
            let kept = serving.max_by_key(rank).map_or(own, |worker| worker.generation);
            self.settle(slot, kept, turn);
        }
        let generation = rollout.generation;
        turn.announce(Announcement::ReloadFailed { generation, id, slot, fault, is_rolled_back: false });
        self.begin_queued(turn);
    }

    /// Makes a slot one of this generation, now.
    fn settle(&mut self, slot: Slot, generation: u32, turn: &mut Turn<'_>) {
        let state = &mut self.slots[usize::from(slot.0)];
        if state.generation != generation {
            state.generation = generation;
            state.respawn_at = None;
        }
        for id in self.ids(|worker| worker.slot == slot && worker.generation != generation) {
            self.dismiss(id, turn);
        }
        let is_awaited = self.slots[usize::from(slot.0)].respawn_at.is_some();
        if !is_awaited && !self.has_serving(slot, generation) {
            self.respawn(slot, turn);
        }
    }
}
