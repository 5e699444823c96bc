//! A worker's way down: linger, drain, retire, kill. And the way down of the pool.

use std::time::Duration;

use super::worker::{Life, Stage, Then, Worker};
use super::{Announcement, Effect, Phase, Pool, Turn, Verdict};
use crate::worker::WorkerId;

/// How long workers go on accepting when the pool stops. New connections are refused by then, so that only the
/// handshakes that were under way have to land: one round trip, even across an ocean, and not another second.
const STOP_LINGER: Duration = Duration::from_millis(100);

impl Pool {
    pub(super) fn stop(&mut self, turn: &mut Turn<'_>) {
        if !self.begin_stop(turn) {
            return;
        }
        let linger = self.settings.linger.min(STOP_LINGER);
        for id in self.ids(|_| true) {
            if self.workers.get(&id).is_some_and(Worker::is_hung) {
                // It takes nothing: waiting for its queue would be in vain.
                self.retire(id, turn);
            } else {
                self.drain(id, linger, turn);
            }
        }
    }

    pub(super) fn stop_now(&mut self, turn: &mut Turn<'_>) {
        self.begin_stop(turn);
        self.kill_all(turn);
    }

    /// False if it is stopping already.
    fn begin_stop(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.is_stopping() {
            return false;
        }
        self.end(Verdict::Stopped);
        turn.announce(Announcement::Stopping);
        turn.perform(Effect::StopAccepting);
        true
    }

    /// Starts no worker from now on.
    pub(super) fn end(&mut self, verdict: Verdict) {
        self.phase = Phase::Ending { verdict };
        for slot in &mut self.slots {
            slot.respawn_at = None;
        }
    }

    /// Sends a worker down, by the shortest way that loses no connection. One that never was ready has none.
    pub(super) fn drain(&mut self, id: WorkerId, linger: Duration, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let end = turn.now.saturating_add(linger);
        match worker.life {
            Life::Spawning { then: Then::Serve } => {
                worker.live(Life::Spawning { then: Then::Retire }, turn.now);
            }
            Life::Spawning { .. } => {}
            Life::Running { stage, .. } => match stage {
                Stage::Starting | Stage::Online { has_been_ready: false } => self.retire(id, turn),
                Stage::Online { has_been_ready: true } | Stage::Ready | Stage::Hung => {
                    leave(worker, Stage::Lingering { until: end }, turn);
                }
                Stage::Lingering { until } => {
                    worker.enter(Stage::Lingering { until: until.min(end) }, turn.now);
                }
                Stage::Emptying { .. } | Stage::Retiring { .. } | Stage::Killed => {}
            },
        }
    }

    /// Goes on with a worker whose deadline has come.
    pub(super) fn advance(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.stage() {
            Some(Stage::Lingering { .. }) => {
                let until = turn.now.saturating_add(self.settings.drain_timeout);
                worker.enter(Stage::Emptying { until }, turn.now);
                turn.perform(Effect::Drain { id });
            }
            Some(Stage::Emptying { .. }) => self.retire(id, turn),
            Some(Stage::Retiring { .. }) => self.kill(id, turn),
            _ => {}
        }
    }

    pub(super) fn quiet(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        if let Some(Stage::Emptying { .. }) = self.workers.get(&id).and_then(Worker::stage) {
            self.retire(id, turn);
        }
    }

    pub(super) fn retire(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let until = turn.now.saturating_add(self.settings.kill_timeout);
        leave(worker, Stage::Retiring { until }, turn);
        turn.perform(Effect::Retire { id });
    }

    pub(super) fn kill(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.life {
            Life::Spawning { .. } => worker.live(Life::Spawning { then: Then::Kill }, turn.now),
            Life::Running { stage: Stage::Killed, .. } => {}
            Life::Running { stage, .. } => {
                worker.enter(Stage::Killed, turn.now);
                if stage == Stage::Ready {
                    turn.perform(Effect::Steer { id, on: false });
                }
                turn.perform(Effect::Kill { id });
            }
        }
    }

    pub(super) fn kill_all(&mut self, turn: &mut Turn<'_>) {
        for id in self.ids(|_| true) {
            self.kill(id, turn);
        }
    }
}

/// Moves a worker on along its way down, and tells if that has just begun.
fn leave(worker: &mut Worker, stage: Stage, turn: &mut Turn<'_>) {
    let (was_ready, was_leaving) = (worker.is_ready(), worker.is_leaving());
    worker.enter(stage, turn.now);
    if was_ready {
        turn.perform(Effect::Steer { id: worker.id, on: false });
    }
    if !was_leaving {
        turn.announce(Announcement::Draining { id: worker.id });
    }
}
