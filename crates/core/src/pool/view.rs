//! What can be seen of the pool.

use std::time::Duration;

use super::Pool;
use super::worker::Worker;
use crate::exit::ExitStatus;
use crate::worker::{Slot, State, WorkerId};

/// One live worker as it is now. Times are since the primary's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Never reused.
    pub id: WorkerId,
    /// Its place. May be beyond the target while it drains.
    pub slot: Slot,
    /// The generation that it belongs to.
    pub generation: u32,
    /// `None` until its process exists.
    pub pid: Option<u32>,
    /// How far it has come. One that was killed and is not gone yet drains.
    pub state: State,
    /// When it reached this state.
    pub since: Duration,
    /// When its process was made, or asked for while there is none.
    pub started: Duration,
    /// The worker whose place it is to take: one that is hung, or gets a successor.
    pub is_replacing: Option<WorkerId>,
    /// It serves until its successor is ready, which is on its way.
    pub is_outgoing: bool,
    /// It was not ready in time, and goes as one that has failed.
    pub has_failed: bool,
}

/// One target slot as it is now. Times are since the primary's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Which.
    pub slot: Slot,
    /// The generation that its next worker belongs to.
    pub generation: u32,
    /// How many workers it got beyond the first.
    pub restarts: u32,
    /// How its previous worker ended.
    pub last_exit: Option<LastExit>,
    /// When it gets its next worker, while it waits for one.
    pub waiting_until: Option<Duration>,
    /// Early exits in a row.
    pub early_exits: u32,
    /// They are more than `max_restarts`.
    pub is_crash_looping: bool,
}

/// How a slot's previous worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastExit {
    /// Code or signal.
    pub status: ExitStatus,
    /// When, since the primary's start.
    pub at: Duration,
}

impl Pool {
    /// Lists the live workers, draining ones too, in the order of their slots, then ids.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> {
        // Mostly nobody leaves, and then nobody need be asked whose place it takes.
        let is_leaving = |worker: &Worker| worker.is_hung() || worker.is_outgoing();
        let is_anybody = self.workers.values().any(is_leaving);
        let view = |worker| {
            let replaced = if is_anybody { self.replaced_by(worker) } else { None };
            Self::view(worker, replaced)
        };
        let mut views: Vec<_> = self.workers.values().map(view).collect();
        views.sort_by_key(|view| (view.slot, view.id));
        views.into_iter()
    }

    /// Looks at one live worker.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerView> {
        self.workers.get(&id).map(|worker| Self::view(worker, self.replaced_by(worker)))
    }

    /// Lists the target slots.
    pub fn slots(&self) -> impl Iterator<Item = SlotView> {
        (0..).zip(&self.slots).map(|(number, slot)| SlotView {
            slot: Slot(number),
            generation: slot.generation,
            restarts: slot.restarts(),
            last_exit: slot.last_exit,
            waiting_until: slot.respawn_at,
            early_exits: slot.early_exits,
            is_crash_looping: slot.is_crash_looping(self.settings.max_restarts),
        })
    }

    fn view(worker: &Worker, is_replacing: Option<WorkerId>) -> WorkerView {
        WorkerView {
            id: worker.id,
            slot: worker.slot,
            generation: worker.generation,
            pid: worker.pid(),
            state: worker.state(),
            since: worker.since,
            started: worker.started,
            is_replacing,
            is_outgoing: worker.is_outgoing(),
            has_failed: worker.has_failed,
        }
    }
}
