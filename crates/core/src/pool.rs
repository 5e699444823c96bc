//! The pool: which workers there should be, which there are, and what to do about the difference.
//!
//! It owns the list of workers and the record of each slot. It is told what happens and what time it is (since the
//! primary's start), and answers with effects. Deliberately knows no process, socket, clock or task: that a worker
//! listens, hangs or has no connection left is seen elsewhere and told to it.

mod crash;
mod effect;
mod input;
mod leave;
mod serve;
mod settings;
mod slot;
#[cfg(test)]
mod tests;
mod view;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use self::crash::Crashes;
pub use self::effect::{Announcement, Effect, Verdict};
pub use self::input::Input;
pub use self::settings::PoolSettings;
use self::slot::{Jitter, SlotState};
pub use self::view::{LastExit, SlotView, WorkerView};
use self::worker::Worker;
use crate::worker::{Slot, WorkerId};

/// The state machine of the worker pool.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use allcores_core::pool::{Effect, Input, Pool, PoolSettings};
///
/// let mut pool = Pool::new(PoolSettings { workers: 2, ..PoolSettings::default() }, 1);
/// let mut effects = Vec::new();
/// pool.handle(Input::Start, Duration::ZERO, &mut effects);
/// assert!(effects.iter().all(|effect| matches!(effect, Effect::Spawn { .. })));
/// assert_eq!(effects.len(), 2);
/// ```
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    phase: Phase,
    jitter: Jitter,
    generation: u32,
    last_id: u32,
    workers: BTreeMap<WorkerId, Worker>,
    /// One for each target slot.
    slots: Vec<SlotState>,
    crashes: Crashes,
    has_ever_been_ready: bool,
}

/// ```text
/// New ──Start──→ Running ──Stop, or hopeless──→ Ending ──no worker left──→ Finished
///  └─────────────────────────Stop─────────────────↗
/// ```
#[derive(Clone, Copy, Debug)]
enum Phase {
    New,
    Running,
    /// No worker is started any more.
    Ending {
        verdict: Verdict,
    },
    Finished,
}

/// One input's answer in the making.
struct Turn<'a> {
    now: Duration,
    effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    fn perform(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn announce(&mut self, announcement: Announcement) {
        self.perform(Effect::Announce(announcement));
    }
}

impl Pool {
    /// Makes a pool without workers; [`Input::Start`] gives it some. The seed spreads its waits.
    pub fn new(settings: PoolSettings, seed: u64) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(usize::from(settings.workers.max(1)), SlotState::default);
        Self {
            settings,
            phase: Phase::New,
            jitter: Jitter::new(seed),
            generation: 1,
            last_id: 0,
            workers: BTreeMap::new(),
            slots,
            crashes: Crashes::None,
            has_ever_been_ready: false,
        }
    }

    /// Takes an input that came at `now`, and appends what is to be done about it.
    pub fn handle(&mut self, input: Input, now: Duration, effects: &mut Vec<Effect>) {
        let turn = &mut Turn { now, effects };
        match input {
            Input::Start => self.start(turn),
            Input::Scale(target) => self.scale(target, turn),
            Input::Stop => self.stop(turn),
            Input::StopNow => self.stop_now(turn),
            Input::Spawned { id, pid } => self.spawned(id, pid, turn),
            Input::SpawnFailed { id } => self.spawn_failed(id, turn),
            Input::Online { id } => self.online(id, turn),
            Input::Listening { id } => self.listening(id, turn),
            Input::NotListening { id } => self.not_listening(id, turn),
            Input::Exited { id, status } => self.exited(id, status, turn),
            Input::Stalled { id } => self.stalled(id, turn),
            Input::Moving { id } => self.moving(id, turn),
            Input::Quiet { id } => self.quiet(id, turn),
            Input::Wake => self.wake(turn),
        }
        if let Phase::Ending { verdict } = self.phase
            && self.workers.is_empty()
        {
            self.phase = Phase::Finished;
            turn.perform(Effect::Finished(verdict));
        }
    }

    /// When [`Input::Wake`] must be delivered next, if nothing else happens. After it, the next one is later.
    pub fn next_deadline(&self) -> Option<Duration> {
        let workers = self.workers.values().filter_map(Worker::deadline);
        let proofs = self.workers.values().filter_map(|worker| self.proven_at(worker));
        let respawns = self.slots.iter().filter_map(|slot| slot.respawn_at);
        workers.chain(proofs).chain(respawns).filter(|at| *at < Duration::MAX).min()
    }

    /// How many workers there should be; at least 1.
    pub fn target(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// No worker will be started any more.
    pub fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. } | Phase::Finished)
    }

    /// Some worker was ready at some time.
    pub fn has_ever_been_ready(&self) -> bool {
        self.has_ever_been_ready
    }

    /// There are as many ready workers as there should be, one in each slot, and no other.
    pub fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Running)
            && self.workers.len() == self.slots.len()
            && self.workers.values().all(Worker::is_ready)
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        if let Phase::New = self.phase {
            self.phase = Phase::Running;
            for slot in 0..self.target() {
                self.spawn(Slot(slot), turn);
            }
        }
    }

    /// A worker that drains is never revived: a slot that is wanted again gets a new one beside it.
    fn scale(&mut self, target: u16, turn: &mut Turn<'_>) {
        let (before, target) = (self.target(), target.max(1));
        if self.is_stopping() {
            return;
        }
        self.slots.resize_with(usize::from(target), SlotState::default);
        if let Phase::New = self.phase {
            return;
        }
        for slot in (target..before).rev().map(Slot) {
            for id in self.ids(|worker| worker.slot == slot) {
                self.drain(id, self.settings.linger, turn);
            }
        }
        for slot in (before..target).map(Slot) {
            self.spawn(slot, turn);
        }
    }

    fn wake(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let is_due = |at: Duration| at <= now && at < Duration::MAX;
        for id in self.ids(|worker| worker.deadline().is_some_and(is_due)) {
            // A timeout of zero has passed as soon as it begins.
            while self.workers.get(&id).and_then(Worker::deadline).is_some_and(is_due) {
                self.advance(id, turn);
            }
        }
        for id in self.ids(|worker| self.proven_at(worker).is_some_and(is_due)) {
            let slot = self.workers[&id].slot;
            self.slots[usize::from(slot.0)].early_exits = 0;
        }
        for slot in (0..self.target()).map(Slot) {
            if self.slots[usize::from(slot.0)].respawn_at.is_some_and(is_due) {
                self.spawn(slot, turn);
            }
        }
    }

    /// When a worker will have started well, and so ends its slot's row of early exits.
    fn proven_at(&self, worker: &Worker) -> Option<Duration> {
        let slot = self.slots.get(usize::from(worker.slot.0))?;
        let is_awaited = slot.early_exits > 0 && worker.pid().is_some() && worker.is_serving();
        is_awaited.then(|| worker.started.saturating_add(self.settings.min_uptime))
    }

    /// The ids of some live workers, fixed for a walk that changes them.
    fn ids(&self, is_meant: impl Fn(&Worker) -> bool) -> Vec<WorkerId> {
        self.workers.values().filter(|worker| is_meant(worker)).map(|worker| worker.id).collect()
    }
}
