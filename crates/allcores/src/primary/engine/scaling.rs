//! Another number of workers, for those who wait until it is reached.

use std::ops::RangeInclusive;

use allcores_core::pool::Input;
use tokio::sync::oneshot;

use super::Engine;
use crate::primary::{AppSnapshot, Event, Refusal};

/// How many workers there are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    To(u16),
    /// So many more or fewer than there are to be when it is heard, if that is within a range.
    By(i16, RangeInclusive<u16>),
}

type Waiter = oneshot::Sender<Result<AppSnapshot, Refusal>>;

/// A number of workers that is not reached yet.
#[derive(Debug)]
pub(super) struct Scaling {
    pub(super) target: u16,
    waiters: Vec<Waiter>,
}

impl Scaling {
    pub(super) fn refuse(self, reason: &str) {
        for waiter in self.waiters {
            let _ = waiter.send(Err(Refusal(reason.to_owned())));
        }
    }
}

impl Engine {
    pub(super) fn scale(&mut self, size: &Size, waiter: Waiter) {
        if self.pool.is_stopping() {
            let _ = waiter.send(Err(Refusal("the app is stopping".into())));
            return;
        }
        let before = self.pool.target();
        let workers = match size {
            Size::To(workers) => *workers,
            Size::By(difference, range) => {
                let sum = before.checked_add_signed(*difference).filter(|sum| range.contains(sum));
                let Some(workers) = sum else {
                    let (least, most) = (range.start(), range.end());
                    let text = format!(
                        "there are to be {before} workers, and by {difference:+} not from {least} to {most}"
                    );
                    let _ = waiter.send(Err(Refusal(text)));
                    return;
                };
                workers
            }
        };
        let mut waiters = vec![waiter];
        if let Some(scaling) = self.scaling.take() {
            // What is asked for as a difference comes on top of what was asked for before; and the same twice is one wish.
            if matches!(size, Size::By(..)) || scaling.target == workers {
                waiters.extend(scaling.waiters);
            } else {
                let text = format!("scaling to {} was overtaken by scaling to {workers}", scaling.target);
                scaling.refuse(&text);
            }
        }
        self.scaling = Some(Scaling { target: workers, waiters });
        let target = workers.max(self.settings.pool.least);
        if target != before {
            (self.observe)(Event::Scaling { before, workers: target });
        }
        self.ports.set_target(target);
        self.tell(Input::Scale(workers));
        self.forget_extras_of_closed_slots();
    }

    /// Answers those who wait for a number of workers, once it is reached or can't be.
    pub(super) fn settle_scaling(&mut self) {
        let Some(Scaling { target, .. }) = &self.scaling else { return };
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
        let Some(scaling) = self.scaling.take() else { return };
        match failure {
            Some(reason) if !is_done => scaling.refuse(&reason),
            _ => {
                for waiter in scaling.waiters {
                    let _ = waiter.send(Ok(self.picture()));
                }
            }
        }
    }
}
