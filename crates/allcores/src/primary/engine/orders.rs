//! What an operator tells single workers: signals, and messages over their channels.

use allcores_core::worker::{Slot, WorkerId};

use super::Engine;
use crate::Signal;
use crate::primary::{Refusal, WorkerRef};

/// Whom an order reached.
pub(super) type Done = Result<Vec<WorkerRef>, Refusal>;

impl Engine {
    /// Sends a signal to each worker of a slot, or of all.
    pub(super) fn signal_workers(&mut self, slot: Option<Slot>, signal: Signal) -> Done {
        let raw = signal.raw().ok_or_else(|| Refusal(format!("{signal} can't be sent here")))?;
        let there = self.workers_in(slot)?;
        for (id, _) in &there {
            self.signal(*id, raw);
        }
        Ok(there.into_iter().map(|(_, about)| about).collect())
    }

    /// Sends a message to each worker of a slot, or of all, that has a channel.
    pub(super) fn send_to_workers(&mut self, slot: Option<Slot>, message: &str) -> Done {
        let mut reached = Vec::new();
        for (id, about) in self.workers_in(slot)? {
            let channel = self.workers.get(&id).and_then(|worker| worker.channel.as_ref());
            if channel.is_some_and(|channel| channel.send_user(message.to_owned()).is_ok()) {
                reached.push(about);
            }
        }
        if reached.is_empty() {
            let text = "no worker there has a channel for messages: node programs that allcores starts as `node FILE` have \
                        one, and programs that use the crate";
            return Err(Refusal(text.into()));
        }
        Ok(reached)
    }

    /// The workers of a slot, or all, by slot: an old one and the new one beside it, too.
    fn workers_in(&self, slot: Option<Slot>) -> Result<Vec<(WorkerId, WorkerRef)>, Refusal> {
        let is_meant = |about: &WorkerRef| slot.is_none_or(|slot| about.slot == slot);
        let mut there: Vec<_> = self.workers.iter().map(|(id, worker)| (*id, worker.about)).collect();
        there.retain(|(_, about)| is_meant(about));
        there.sort_by_key(|(id, about)| (about.slot, *id));
        match (there.is_empty(), slot) {
            (false, _) => Ok(there),
            (true, None) => Err(Refusal("no worker runs now".into())),
            (true, Some(slot)) => Err(Refusal(format!(
                "no worker runs in slot {slot}: there are slots from 0 to {}",
                self.pool.target().saturating_sub(1)
            ))),
        }
    }
}
