//! Workers that have more memory than they may. It is measured beside the engine, at a pace of its own.

use std::time::Duration;

use allcores_core::pool::{Input, Reason};
use allcores_core::worker::{State, WorkerId};

use super::Engine;
use crate::primary::usage;
use crate::primary::worker::Seen;
use crate::proc::Usage;

/// How long after the workers' memory was measured it is again.
const INTERVAL: Duration = Duration::from_secs(1);

/// When the workers' memory is measured next; `None` while it is.
#[derive(Debug)]
pub(super) struct Measuring(Option<Duration>);

impl Default for Measuring {
    fn default() -> Self {
        Self(Some(INTERVAL))
    }
}

impl Engine {
    /// When it is to be measured.
    pub(super) fn next_measuring(&self) -> Option<Duration> {
        self.measuring.0.filter(|_| self.settings.upkeep.max_memory.is_some())
    }

    /// Has it measured if it is time to.
    pub(super) fn look_at_memory(&mut self) {
        let now = self.now();
        if self.next_measuring().is_none_or(|next| now < next) {
            return;
        }
        self.measuring.0 = None;
        let seen = self.seen.clone();
        tokio::spawn(async move {
            let _ = seen.send(Seen::Measured(usage::measure().await)).await;
        });
    }

    /// Finds workers that have more memory than they may.
    pub(super) fn take_usage(&mut self, usage: &Usage) {
        self.measuring.0 = Some(self.now() + INTERVAL);
        let Some(limit) = self.settings.upkeep.max_memory else { return };
        let ready = self.pool.workers().filter(|view| view.state == State::Ready);
        let used = ready.filter_map(|view| Some((view.id, usage.get(&view.pid?)?.0)));
        let over: Vec<(WorkerId, u64)> = used.filter(|(_, bytes)| *bytes > limit).collect();
        for (id, bytes) in over {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.excess = Some((bytes, limit));
            }
            self.tell(Input::Renew { id, reason: Reason::Memory });
        }
    }
}

#[cfg(test)]
mod tests;
