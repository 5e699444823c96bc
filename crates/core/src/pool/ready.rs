//! The gate before traffic: what a worker has to show besides that it listens, and how long it may take.

use std::time::Duration;

use super::worker::{Stage, Worker};
use super::{Announcement, Lack, Pool, Turn};
use crate::worker::WorkerId;

impl Pool {
    pub(super) fn said_ready(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.gate.has_said_so = true;
        self.pass_gate(id, turn);
    }

    /// Lets a worker through that listens and lacks nothing.
    pub(super) fn pass_gate(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get(&id) else { return };
        if matches!(worker.stage(), Some(Stage::Online { .. })) && self.lack(worker).is_none() {
            self.raise(id, turn);
        }
    }

    /// What a worker that is on its way up lacks to be ready; the first thing.
    pub(super) fn lack(&self, worker: &Worker) -> Option<Lack> {
        match worker.stage() {
            Some(Stage::Online { listens, .. }) if listens || worker.gate.has_run => {
                let lacks_word = self.settings.wait_ready && !worker.gate.has_said_so;
                let lacks_health = self.settings.wait_healthy && !worker.gate.is_healthy;
                lacks_word.then_some(Lack::Word).or(lacks_health.then_some(Lack::Health))
            }
            _ => Some(Lack::Listening),
        }
    }

    pub(super) fn has_run(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.gate.has_run = true;
        self.pass_gate(id, turn);
    }

    /// When a worker that need not listen will have shown that it runs, which is all that there is to see of it.
    pub(super) fn runs_from(&self, worker: &Worker) -> Option<Duration> {
        let is_new =
            matches!(worker.stage(), Some(Stage::Online { listens: false, .. })) && !worker.gate.has_run;
        (self.settings.no_listen && is_new).then(|| worker.started.saturating_add(self.settings.min_uptime))
    }

    /// When a worker that is not ready by then has failed. A reload has its own time for that.
    pub(super) fn fails_at(&self, worker: &Worker) -> Option<Duration> {
        let is_new =
            matches!(worker.stage(), Some(Stage::Starting | Stage::Online { has_been_ready: false, .. }));
        let has_limit = self.settings.wait_ready || self.settings.wait_healthy;
        // A timeout of nothing would have passed before it began.
        let limit = self.settings.ready_timeout.max(Duration::from_millis(1));
        let is_meant = is_new && has_limit && self.due_ready(worker).is_none();
        is_meant.then(|| worker.started.saturating_add(limit))
    }

    /// A worker was not ready in time. It goes, and its end counts as an early exit.
    pub(super) fn fail_start(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        let Some(lack) = self.workers.get(&id).and_then(|worker| self.lack(worker)) else { return };
        turn.announce(Announcement::NotReady { id, lack });
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.has_failed = true;
        }
        self.retire(id, turn);
    }
}
