//! A worker's way up: from its spawning to its service, and what happens when that stalls.

use super::worker::{Life, Stage, Then, Worker};
use super::{Announcement, Effect, Pool, Turn};
use crate::worker::{Slot, WorkerId};

impl Pool {
    /// Gives a slot its next worker. A hung worker in it is the one that is replaced.
    pub(super) fn spawn(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        let replaces = self.hung_in(slot);
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        state.respawn_at = None;
        state.spawned = state.spawned.saturating_add(1);
        self.last_id += 1;
        let id = WorkerId(self.last_id);
        let worker = Worker::new(id, slot, self.generation, turn.now);
        turn.perform(Effect::Spawn { id, slot, generation: worker.generation, replaces });
        self.workers.insert(id, worker);
    }

    pub(super) fn spawned(&mut self, id: WorkerId, pid: u32, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Life::Spawning { then } = worker.life else { return };
        worker.live(Life::Running { pid, stage: Stage::Starting }, turn.now);
        worker.started = turn.now;
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
            worker.enter(Stage::Online { has_been_ready: false }, turn.now);
            turn.announce(Announcement::Online { id });
        }
    }

    pub(super) fn listening(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !matches!(worker.stage(), Some(Stage::Starting | Stage::Online { .. })) {
            return;
        }
        worker.enter(Stage::Ready, turn.now);
        let slot = worker.slot;
        self.has_ever_been_ready = true;
        turn.perform(Effect::Steer { id, on: true });
        turn.announce(Announcement::Ready { id });
        if let Some(hung) = self.hung_in(slot) {
            self.kill(hung, turn);
        }
    }

    /// A ready worker is trusted to listen again. A hung one is not: its replacement takes over.
    pub(super) fn not_listening(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.stage() {
            Some(Stage::Ready) => {
                worker.enter(Stage::Online { has_been_ready: true }, turn.now);
                turn.perform(Effect::Steer { id, on: false });
            }
            Some(Stage::Hung) => self.drain(id, self.settings.linger, turn),
            _ => {}
        }
    }

    pub(super) fn stalled(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !worker.is_ready() {
            return;
        }
        worker.enter(Stage::Hung, turn.now);
        let slot = worker.slot;
        turn.perform(Effect::Steer { id, on: false });
        turn.announce(Announcement::Hung { id });
        self.spawn(slot, turn);
    }

    /// The hung worker has its connections and a queue, the replacement nothing yet: the replacement goes.
    pub(super) fn moving(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !worker.is_hung() {
            return;
        }
        worker.enter(Stage::Ready, turn.now);
        let slot = worker.slot;
        if let Some(state) = self.slots.get_mut(usize::from(slot.0)) {
            state.respawn_at = None;
        }
        let replacement =
            self.workers.values().find(|other| other.slot == slot && other.id != id && other.is_serving());
        if let Some(replacement) = replacement.map(|worker| worker.id) {
            self.drain(replacement, self.settings.linger, turn);
        }
        turn.perform(Effect::Steer { id, on: true });
        turn.announce(Announcement::Ready { id });
    }

    /// The hung worker of a slot: there is one at most.
    pub(super) fn hung_in(&self, slot: Slot) -> Option<WorkerId> {
        self.workers.values().find(|worker| worker.slot == slot && worker.is_hung()).map(|worker| worker.id)
    }

    /// Some worker of the slot serves or is on its way there.
    pub(super) fn is_served(&self, slot: Slot) -> bool {
        self.workers.values().any(|worker| worker.slot == slot && worker.is_serving())
    }
}
