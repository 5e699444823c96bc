//! One worker that connections are handed to: how many it has not answered for, and whether it refuses.

use std::time::Duration;

use super::Rank;
use super::saved::TakerSaved;
use crate::worker::{Slot, WorkerId};

/// How long a worker is left alone after its first refusal in a row; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// And how long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Refusals in a row after which its clients go to others while it is left alone.
const TOO_MANY: u32 = 4;

/// How long a worker's last answer says something about it.
const LATELY: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
pub(super) struct Taker {
    pub(super) slot: Slot,
    pub(super) is_serving: bool,
    /// It gets nothing more.
    pub(super) is_dismissed: bool,
    /// Connections that it has not answered for.
    pub(super) sent: usize,
    /// The higher, the later it was handed one or answered.
    pub(super) turn: u64,
    refusals: u32,
    paused_until: Option<Duration>,
    is_avoided: bool,
    /// When it last took one, and how many in a row without a rest.
    answered_at: Duration,
    streak: usize,
}

impl Taker {
    pub(super) fn new(slot: Slot, is_serving: bool) -> Self {
        Self {
            slot,
            is_serving,
            is_dismissed: false,
            sent: 0,
            turn: 0,
            refusals: 0,
            paused_until: None,
            is_avoided: false,
            answered_at: Duration::ZERO,
            streak: 0,
        }
    }

    pub(super) fn rank(&self, worker: WorkerId) -> Rank {
        (self.sent, self.turn, worker)
    }

    /// How many connections it has taken lately: of who has said nothing for a while nobody knows what it is doing.
    pub(super) fn streak(&self, now: Duration) -> usize {
        if now <= self.answered_at.saturating_add(LATELY) { self.streak } else { 0 }
    }

    /// How many more it can be handed. Who refused is tried with a single one.
    pub(super) fn capacity(&self, window: usize, now: Duration) -> usize {
        let window = if self.refusals == 0 { window } else { 1 };
        let is_paused = self.paused_until.is_some_and(|until| until > now);
        if is_paused { 0 } else { window.saturating_sub(self.sent) }
    }

    /// It took one. Says whether its clients, who went to others, come back to it.
    pub(super) fn accept(&mut self, now: Duration) -> bool {
        let has_rested = now > self.answered_at.saturating_add(LATELY);
        self.streak = if has_rested { 1 } else { self.streak.saturating_add(1) };
        self.answered_at = now;
        self.sent = self.sent.saturating_sub(1);
        self.refusals = 0;
        self.paused_until = None;
        std::mem::take(&mut self.is_avoided)
    }

    /// It refused one. Says whether its clients go to others from now on.
    pub(super) fn refuse(&mut self, now: Duration) -> bool {
        self.sent = self.sent.saturating_sub(1);
        if self.paused_until.is_some_and(|until| until > now) {
            // Sent before the pause began: no news.
            return false;
        }
        self.refusals = self.refusals.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.refusals - 1).min(10)).min(LONGEST_PAUSE);
        self.paused_until = Some(now.saturating_add(pause));
        !std::mem::replace(&mut self.is_avoided, self.refusals >= TOO_MANY) && self.is_avoided
    }

    pub(super) fn nudge(&mut self, now: Duration) {
        self.paused_until = self.paused_until.map(|until| until.min(now));
    }

    /// Whether its clients go to others; until when it says so by `paused_until`.
    pub(super) fn is_avoided(&self) -> bool {
        self.is_avoided
    }

    /// Ends its being avoided, if its pause is over. Says whether it did.
    pub(super) fn readmit(&mut self, now: Duration) -> bool {
        let is_over = self.paused_until.is_none_or(|until| until <= now);
        is_over && std::mem::take(&mut self.is_avoided)
    }

    /// Until when it is left alone, or was.
    pub(super) fn paused_until(&self) -> Option<Duration> {
        self.paused_until
    }

    /// As data; what it was sent is counted anew.
    pub(super) fn save(&self, worker: WorkerId) -> TakerSaved {
        TakerSaved {
            worker: worker.0,
            slot: self.slot.0,
            is_serving: self.is_serving,
            is_dismissed: self.is_dismissed,
            refusals: self.refusals,
            paused_until: self.paused_until,
            is_avoided: self.is_avoided,
            answered_at: self.answered_at,
            streak: self.streak,
        }
    }

    pub(super) fn restore(saved: &TakerSaved) -> Self {
        Self {
            slot: Slot(saved.slot),
            is_serving: saved.is_serving,
            is_dismissed: saved.is_dismissed,
            sent: 0,
            turn: 0,
            refusals: saved.refusals,
            paused_until: saved.paused_until,
            is_avoided: saved.is_avoided,
            answered_at: saved.answered_at,
            streak: saved.streak,
        }
    }
}
