//! What follows when a worker is gone: nothing if it was to go; else another one, sooner or later, or the end.

use std::time::Duration;

use super::{Announcement, Effect, Fault, LastExit, Phase, Pool, Turn, Verdict, Worker};
use crate::exit::ExitStatus;
use crate::worker::{Slot, WorkerId};

/// How the workers that crashed ended.
///
/// ```text
/// None ──code 0──→ Clean ──else──→ Unclean
///   └──else────────────────────────↗
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) enum Crashes {
    None,
    /// All with exit code 0.
    Clean,
    /// At least one otherwise.
    Unclean {
        last: ExitStatus,
    },
}

impl Crashes {
    fn count(self, status: ExitStatus) -> Self {
        match self {
            Self::None | Self::Clean if status.is_success() => Self::Clean,
            _ => Self::Unclean { last: status },
        }
    }

    /// The verdict on a pool of which no worker was ever ready.
    fn verdict(self) -> Verdict {
        match self {
            Self::None => Verdict::NeverSpawned,
            Self::Clean => Verdict::NotAServer,
            Self::Unclean { last } => Verdict::NeverReady { status: last },
        }
    }
}

impl Pool {
    pub(super) fn exited(&mut self, id: WorkerId, status: ExitStatus, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.remove(&id) else { return };
        let uptime = turn.now.saturating_sub(worker.started);
        let has_failed = worker.has_failed && !self.is_stopping();
        let is_expected = worker.is_leaving() && !has_failed;
        if let Some(slot) = self.slots.get_mut(usize::from(worker.slot.0)) {
            slot.last_exit = Some(LastExit { status, at: turn.now });
        }
        if !is_expected {
            turn.perform(Effect::Steer { id, on: false });
        }
        turn.announce(Announcement::Exited { id, status, is_expected, uptime });
        if !is_expected {
            let has_done = status.is_success() && self.has_served_well(&worker, turn.now);
            if !has_done && self.is_at_fault(&worker, uptime) {
                return self.fail_reload(id, worker.slot, Fault::Exited { status }, turn);
            }
            self.crashes = self.crashes.count(status);
            let is_early = has_failed || self.has_begun_badly(&worker, status, uptime);
            self.replace(worker.slot, is_early, turn);
        }
    }

    /// Whether it was no start at all. Programs load for seconds before they find that they can't serve; one that never
    /// listens, on the other hand, and fails after a while may have done its work until then.
    fn has_begun_badly(&self, worker: &Worker, status: ExitStatus, uptime: Duration) -> bool {
        let has_never_served = worker.served_from.is_none() && !status.is_success();
        uptime < self.settings.min_uptime || has_never_served && uptime < self.settings.ready_timeout
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.pid().is_some() {
            return;
        }
        let Some(worker) = self.workers.remove(&id).filter(|worker| !worker.is_leaving()) else { return };
        if self.is_at_fault(&worker, Duration::ZERO) {
            self.fail_reload(id, worker.slot, Fault::NotSpawned, turn);
        } else {
            self.replace(worker.slot, true, turn);
        }
    }

    /// Answers a crash in a slot, unless the hung worker's replacement is there already.
    fn replace(&mut self, slot: Slot, is_early: bool, turn: &mut Turn<'_>) {
        if !self.settings.keep {
            return;
        }
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        state.count_exit(is_early);
        if let Some(last) = state.last_exit
            && state.is_crash_loop_news(self.settings.max_restarts)
        {
            let (exits, status) = (state.early_exits, last.status);
            turn.announce(Announcement::CrashLoop { slot, exits, status });
        }
        if self.is_hopeless() {
            self.end(self.crashes.verdict(), turn);
            self.kill_all(turn);
        } else if !self.is_served(slot) {
            self.renew(slot);
            self.respawn(slot, turn);
        }
        if self.is_rolling_back()
            && self.slots[usize::from(slot.0)].is_crash_looping(self.settings.max_restarts)
        {
            self.give_up_reload(turn);
        }
    }

    /// On the way back no slot gets another worker of the generation that was no good.
    pub(super) fn renew(&mut self, slot: Slot) {
        if self.is_rolling_back() {
            let generation = self.wanted_generation();
            if let Some(state) = self.slots.get_mut(usize::from(slot.0)) {
                state.generation = generation;
            }
        }
    }

    pub(super) fn respawn(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        let delay = state.delay(&self.settings, &mut self.jitter);
        state.respawn_at = Some(turn.now.saturating_add(delay));
        turn.announce(Announcement::Respawning { slot, delay });
        if delay.is_zero() {
            self.spawn(slot, turn);
        }
    }

    fn is_hopeless(&self) -> bool {
        let is_looping = |max| self.slots.iter().all(|slot| slot.is_crash_looping(max));
        matches!(self.phase, Phase::Running)
            && self.rollout.is_none()
            && !self.has_ever_been_ready
            && is_looping(self.settings.max_restarts)
    }
}
