//! A worker's way up: from its spawning to its service, and what happens when that stalls.

use super::worker::{Life, Stage, Then, Worker};
use super::{Announcement, Effect, Fault, Pool, Turn};
use crate::worker::{Slot, WorkerId};

impl Pool {
    /// Gives a slot its next worker. A hung worker in it is the one that is replaced.
    pub(super) fn spawn(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        let replaces = self.hung_in(slot).or_else(|| self.unresponsive_in(slot));
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        state.respawn_at = None;
        state.spawned = state.spawned.saturating_add(1);
        if std::mem::take(&mut self.is_refusing) {
            turn.perform(Effect::ResumeAccepting);
        }
        self.last_id += 1;
        let id = WorkerId(self.last_id);
        let worker = Worker::new(id, slot, state.generation, turn.now);
        turn.perform(Effect::Spawn { id, slot, generation: worker.generation, replaces });
        self.workers.insert(id, worker);
    }

    pub(super) fn spawned(&mut self, id: WorkerId, pid: u32, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Life::Spawning { then } = worker.life else { return };
        worker.live(Life::Running { pid, stage: Stage::Starting }, turn.now);
        worker.started = turn.now;
        if let Some(lifetime) = self.settings.max_lifetime {
            worker.expires = turn.now.saturating_add(self.jitter.vary(lifetime));
        }
        turn.announce(Announcement::Forked { id });
        match then {
            Then::Serve => {}
            Then::Retire => self.retire(id, turn),
            Then::Kill => self.kill(id, turn),
        }
    }

    pub(super) fn online(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.stage() == Some(Stage::Starting) {
            worker.enter(Stage::Online { has_been_ready: false, listens: false }, turn.now);
            turn.announce(Announcement::Online { id });
        }
    }

    pub(super) fn listening(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let has_been_ready = match worker.stage() {
            Some(Stage::Starting) => false,
            Some(Stage::Online { has_been_ready, .. }) => has_been_ready,
            _ => return,
        };
        worker.enter(Stage::Online { has_been_ready, listens: true }, turn.now);
        self.pass_gate(id, turn);
    }

    /// Sends a worker connections from now on. What it was to replace goes.
    pub(super) fn raise(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.enter(Stage::Ready, turn.now);
        worker.served_from.get_or_insert(turn.now);
        let slot = worker.slot;
        self.has_ever_been_ready = true;
        turn.perform(Effect::Steer { id, on: true });
        turn.announce(Announcement::Ready { id });
        if let Some(hung) = self.hung_in(slot) {
            self.kill(hung, turn);
        }
        self.finish_renewal(id, slot, turn);
    }

    /// A ready worker is trusted to listen again. A hung one is not where another takes over.
    pub(super) fn not_listening(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let is_watched = self.is_watched(id);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let slot = worker.slot;
        match worker.stage() {
            Some(Stage::Online { has_been_ready, listens: true }) => {
                worker.enter(Stage::Online { has_been_ready, listens: false }, turn.now);
            }
            // It serves otherwise than by listening.
            Some(Stage::Ready) if self.settings.no_listen => {}
            Some(Stage::Ready) => {
                worker.enter(Stage::Online { has_been_ready: true, listens: false }, turn.now);
                turn.perform(Effect::Steer { id, on: false });
                if is_watched {
                    self.fail_reload(id, slot, Fault::NotListening, turn);
                }
            }
            Some(Stage::Hung) if self.settings.keep => self.drain(id, self.settings.linger, turn),
            Some(Stage::Hung) => {
                worker.enter(Stage::Online { has_been_ready: true, listens: false }, turn.now);
            }
            _ => {}
        }
    }

    pub(super) fn stalled(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !worker.is_ready() {
            return;
        }
        worker.enter(Stage::Hung, turn.now);
        // It is replaced for that now.
        worker.renewal = None;
        let slot = worker.slot;
        turn.perform(Effect::Steer { id, on: false });
        turn.announce(Announcement::Hung { id });
        if self.is_watched(id) {
            self.fail_reload(id, slot, Fault::Hung, turn);
        } else if self.settings.keep && !self.is_served(slot) {
            self.renew(slot);
            self.spawn(slot, turn);
        }
    }

    /// The hung worker has its connections and a queue, the replacement nothing yet: the replacement goes.
    pub(super) fn moving(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !worker.is_hung() {
            return;
        }
        worker.enter(Stage::Ready, turn.now);
        self.recall(id, turn);
        turn.perform(Effect::Steer { id, on: true });
        turn.announce(Announcement::Ready { id });
    }

    /// A worker that was to be replaced is not: what was to take its place goes, or does not come.
    pub(super) fn recall(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (slot, generation) = (worker.slot, worker.generation);
        if let Some(state) = self.slots.get_mut(usize::from(slot.0))
            && state.generation == generation
        {
            state.respawn_at = None;
        }
        // One of another generation is there to replace the slot's worker in any case.
        let is_replacement = |other: &&Worker| {
            other.slot == slot && other.generation == generation && other.id != id && other.is_serving()
        };
        let replacement = self.workers.values().find(is_replacement);
        if let Some(replacement) = replacement.map(|worker| worker.id) {
            self.drain(replacement, self.settings.linger, turn);
        }
    }

    /// The hung worker of a slot: there is one at most.
    pub(super) fn hung_in(&self, slot: Slot) -> Option<WorkerId> {
        self.workers.values().find(|worker| worker.slot == slot && worker.is_hung()).map(|worker| worker.id)
    }

    /// Some worker of the slot that is to stay serves or is on its way there.
    pub(super) fn is_served(&self, slot: Slot) -> bool {
        let is_staying = |worker: &Worker| worker.is_serving() && !worker.is_outgoing();
        self.workers.values().any(|worker| worker.slot == slot && is_staying(worker))
    }
}
