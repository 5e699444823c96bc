//! A worker's way down: linger, drain, retire, kill. And the way down of the pool.

use std::time::Duration;

use super::worker::{Life, Stage, Then, Worker};
use super::{Announcement, Effect, Phase, Pool, Turn, Verdict};
use crate::worker::WorkerId;

/// How long workers go on accepting when the pool stops. New connections are refused by then, so that only the
/// handshakes that were under way have to land: one round trip, even across an ocean, and not another second.
const STOP_LINGER: Duration = Duration::from_millis(100);

/// How long a worker that was disconnected may have something on its way to it. Handshakes land within a round trip; what
/// is in its queue by then and untaken waits for the next worker. Where there is to be none, it has the time to drain.
const LANDING: Duration = Duration::from_secs(1);

impl Pool {
    pub(super) fn disconnect_all(&mut self, turn: &mut Turn<'_>) {
        if self.is_stopping() {
            return;
        }
        self.stop_reload(turn);
        self.slots.clear();
        if self.workers.is_empty() {
            return;
        }
        // Nobody comes after them: who waits already is served first, and nobody else is let in to wait.
        self.is_refusing = true;
        turn.perform(Effect::StopAccepting);
        let until = turn.now.saturating_add(self.settings.drain_timeout.max(LANDING));
        for id in self.ids(|_| true) {
            self.disconnect(id, turn);
            if let Some(worker) = self.workers.get_mut(&id)
                && matches!(worker.stage(), Some(Stage::Landing { .. }))
            {
                worker.enter(Stage::Landing { until }, turn.now);
            }
        }
    }

    /// Sends a worker away in node:cluster's manner: it is asked to go as soon as no new connection can reach it, and
    /// finishes what it has by itself.
    pub(super) fn disconnect(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.is_leaving() {
            return;
        }
        worker.is_disconnected = true;
        let slot = worker.slot;
        match worker.life {
            Life::Spawning { .. } => worker.live(Life::Spawning { then: Then::Retire }, turn.now),
            Life::Running { stage: Stage::Online { has_been_ready: true, .. } | Stage::Ready, .. } => {
                leave(worker, Stage::Landing { until: turn.now.saturating_add(LANDING) }, turn);
                turn.perform(Effect::Land { id });
            }
            Life::Running { .. } => self.retire(id, turn),
        }
        if self.settings.keep && !self.is_stopping() && self.is_deserted(slot) {
            self.renew(slot);
            self.spawn(slot, turn);
        }
    }

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
        self.end(Verdict::Stopped, turn);
        turn.announce(Announcement::Stopping);
        turn.perform(Effect::StopAccepting);
        true
    }

    /// Starts no worker from now on.
    pub(super) fn end(&mut self, verdict: Verdict, turn: &mut Turn<'_>) {
        self.phase = Phase::Ending { verdict };
        self.stop_reload(turn);
        for slot in &mut self.slots {
            slot.respawn_at = None;
        }
    }

    /// Sends a worker down, by the shortest way that loses no connection. One that never was ready has none.
    pub(super) fn drain(&mut self, id: WorkerId, linger: Duration, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let end = turn.now.saturating_add(linger);
        // If it was to have all the time it wanted, there is a limit now.
        let was_disconnected = std::mem::take(&mut worker.is_disconnected);
        match worker.life {
            Life::Spawning { then: Then::Serve } => {
                worker.live(Life::Spawning { then: Then::Retire }, turn.now);
            }
            Life::Spawning { .. } => {}
            Life::Running { stage, .. } => match stage {
                Stage::Starting | Stage::Online { has_been_ready: false, .. } => self.retire(id, turn),
                Stage::Online { has_been_ready: true, .. } | Stage::Ready | Stage::Hung => {
                    leave(worker, Stage::Lingering { until: end }, turn);
                }
                Stage::Lingering { until } => {
                    worker.enter(Stage::Lingering { until: until.min(end) }, turn.now);
                }
                Stage::Retiring { until, .. } if was_disconnected => {
                    // As much as any other has: to finish what it has, and then to go.
                    let limit = self.settings.kill_timeout;
                    let drained = turn.now.saturating_add(self.settings.drain_timeout);
                    let latest = if until < Duration::MAX { until.saturating_sub(limit) } else { until };
                    let from = drained.min(latest).max(turn.now);
                    worker.enter(retiring(from, limit.min(until.saturating_sub(from))), turn.now);
                }
                Stage::Landing { until } => {
                    // It was to be asked to go with what it has, in its own time: that is waited for now.
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
            Some(Stage::Emptying { .. } | Stage::Landing { .. }) => self.retire(id, turn),
            Some(Stage::Retiring { urged_at, hung_up_at, until }) if urged_at.min(hung_up_at) < until => {
                let is_last = hung_up_at <= turn.now;
                let hung_up_at = if is_last { Duration::MAX } else { hung_up_at };
                worker.enter(Stage::Retiring { urged_at: Duration::MAX, hung_up_at, until }, turn.now);
                turn.perform(if is_last { Effect::HangUp { id } } else { Effect::Urge { id } });
            }
            Some(Stage::Retiring { .. }) => self.kill(id, turn),
            _ => {}
        }
    }

    pub(super) fn quiet(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        if let Some(Stage::Emptying { .. } | Stage::Landing { .. }) =
            self.workers.get(&id).and_then(Worker::stage)
        {
            self.retire(id, turn);
        }
    }

    pub(super) fn retire(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let stage = if worker.is_disconnected {
            // All of that is for its connections.
            let until = turn.now.saturating_add(self.settings.disconnect_timeout);
            Stage::Retiring { urged_at: Duration::MAX, hung_up_at: Duration::MAX, until }
        } else {
            retiring(turn.now, self.settings.kill_timeout)
        };
        leave(worker, stage, turn);
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

/// The time until a worker is killed that was asked to go, or has been, and could have: so much from then on.
fn retiring(from: Duration, limit: Duration) -> Stage {
    let [urged_at, hung_up_at, until] =
        [limit / 2, limit.saturating_sub(last_words(limit)), limit].map(|after| from.saturating_add(after));
    Stage::Retiring { urged_at, hung_up_at, until }
}

/// Of the time until it is killed, how much a worker has for its last answers once it sees that its clients send no more.
fn last_words(limit: Duration) -> Duration {
    (limit / 4).min(Duration::from_millis(500))
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
