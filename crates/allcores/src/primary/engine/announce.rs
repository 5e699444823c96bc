//! Telling what the pool has announced, and how it ended.

use std::time::Duration;

use allcores_core::exit::ExitStatus;
use allcores_core::pool::{Announcement, Verdict};
use allcores_core::worker::{State, WorkerId};

use super::Engine;
use crate::primary::{Event, Outcome, Reason, WorkerRef};

impl Engine {
    pub(super) fn announce(&mut self, announcement: Announcement) {
        match announcement {
            Announcement::Forked { id } => {
                self.observe_worker(id, |worker| Event::Forked { worker });
                self.report_progress(id, State::Starting);
            }
            Announcement::Online { id } => self.observe_worker(id, |worker| Event::Online { worker }),
            Announcement::Ready { id } => {
                self.observe_worker(id, |worker| Event::Ready { worker });
                self.note_unused();
                self.report_progress(id, State::Ready);
                self.forget_start();
            }
            Announcement::Draining { id } => {
                self.observe_worker(id, |worker| Event::Draining { worker });
                self.report_progress(id, State::Draining);
            }
            Announcement::Hung { id } => {
                let stalled = self.settings.pool.hang_timeout.unwrap_or_default();
                self.observe_worker(id, |worker| Event::Hung { worker, stalled });
            }
            Announcement::Exited { id, status, is_expected, uptime } => {
                let is_oom =
                    status == ExitStatus::Signal(libc::SIGKILL) && !is_expected && self.was_out_of_memory(id);
                if is_oom {
                    self.oom_exits.insert(self.turn);
                }
                let cpu = self.workers.get(&id).map_or(Duration::ZERO, |worker| worker.cpu);
                self.observe_worker(id, |worker| Event::Exited {
                    worker,
                    status,
                    is_oom,
                    is_expected,
                    uptime,
                    cpu,
                });
                self.report_progress(id, State::Exited);
            }
            Announcement::Respawning { slot, delay } => (self.observe)(Event::Respawning { slot, delay }),
            Announcement::CrashLoop { slot, exits, status } => {
                let has_served = self.pool.has_ever_been_ready();
                let last_output = &self.last_tail;
                (self.observe)(Event::CrashLoop { slot, exits, status, last_output, has_served });
            }
            Announcement::NotReady { id, lack } => {
                let limit = self.settings.pool.ready_timeout;
                let lack = self.lack_in_truth(id, lack);
                self.observe_worker(id, |worker| Event::NotReady { worker, lack, limit });
            }
            Announcement::Unhealthy { id } => {
                let reason = self.complaint(id);
                self.observe_worker(id, |worker| Event::Unhealthy { worker, reason: &reason });
            }
            Announcement::Renewing { id, reason } => {
                let excess = self.workers.get(&id).and_then(|worker| worker.excess);
                let memory = excess.filter(|_| reason == Reason::Memory);
                self.observe_worker(id, |worker| Event::Renewing { worker, reason, memory });
            }
            Announcement::Stopping => (self.observe)(Event::Stopping),
            _ => self.announce_reload(announcement),
        }
    }

    fn observe_worker<'a>(&mut self, id: WorkerId, event: impl FnOnce(WorkerRef) -> Event<'a>) {
        if let Some(worker) = self.workers.get(&id) {
            (self.observe)(event(worker.about));
        }
    }

    fn was_out_of_memory(&mut self, id: WorkerId) -> bool {
        let own = self.workers.get(&id).and_then(|worker| worker.cgroup.as_ref()?.was_out_of_memory());
        if let Some(own) = own {
            return own;
        }
        let kills = crate::proc::out_of_memory_kills();
        let before = std::mem::replace(&mut self.out_of_memory_kills, kills);
        matches!((before, kills), (Some(before), Some(now)) if now > before)
    }

    pub(super) fn finish(&mut self, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Stopped => Outcome::Stopped,
            Verdict::NeverReady { status } => {
                Outcome::NeverReady { status, last_output: std::mem::take(&mut self.last_tail) }
            }
            Verdict::NotAServer => Outcome::NotAServer,
            Verdict::NeverSpawned => {
                Outcome::NeverStarted { reason: std::mem::take(&mut self.last_spawn_failure) }
            }
        };
        let outcome = self.unavailable.take().filter(|_| !self.pool.has_ever_been_ready()).unwrap_or(outcome);
        self.outcome.get_or_insert(outcome);
        if let Some(scaling) = self.scaling.take() {
            scaling.refuse("the app has stopped");
        }
    }
}

#[cfg(test)]
mod tests;
