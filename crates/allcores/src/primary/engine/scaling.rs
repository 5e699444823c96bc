//! Another number of workers, for who waits until it is reached.

use allcores_core::pool::Input;
use tokio::sync::oneshot;

use super::Engine;
use crate::primary::{AppSnapshot, Event, Refusal};

impl Engine {
    pub(super) fn scale(&mut self, workers: u16, reply: oneshot::Sender<Result<AppSnapshot, Refusal>>) {
        if self.pool.is_stopping() {
            let _ = reply.send(Err(Refusal("the app is stopping".into())));
            return;
        }
        if let Some((other, waiter)) = self.scaling.replace((workers, reply)) {
            let text = format!("scaling to {other} was overtaken by scaling to {workers}");
            let _ = waiter.send(Err(Refusal(text)));
        }
        let (before, target) = (self.pool.target(), workers.max(self.settings.pool.least));
        if target != before {
            (self.observe)(Event::Scaling { before, workers: target });
        }
        self.ports.set_target(target);
        self.tell(Input::Scale(workers));
        self.forget_extras_of_closed_slots();
    }

    /// Answers who waits for a number of workers, once it is reached or can't be.
    pub(super) fn settle_scaling(&mut self) {
        let Some((target, _)) = &self.scaling else { return };
        let failure = if self.pool.is_stopping() {
            Some("the app is stopping".to_owned())
        } else if self.pool.is_short() {
            Some("a worker exited; see its output".to_owned())
        } else {
            let looping = self.pool.slots().find(|slot| slot.is_crash_looping);
            looping.map(|slot| format!("the worker of slot {} keeps exiting; see its output", slot.slot))
        };
        let is_done = self.pool.target() == *target && self.pool.is_settled();
        if !is_done && failure.is_none() {
            return;
        }
        let Some((_, waiter)) = self.scaling.take() else { return };
        let _ = waiter.send(match failure {
            Some(reason) if !is_done => Err(Refusal(reason)),
            _ => Ok(self.picture()),
        });
    }
}
