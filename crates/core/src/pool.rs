//! The pool: which workers there should be, which there are, and what to do about the difference.
//!
//! It owns the list of workers and the record of each slot. It is told what happens and what time it is (since the
//! primary's start), and answers with effects. Deliberately knows no process, socket, clock or task: that a worker
//! listens, hangs or has no connection left is seen elsewhere and told to it.

mod crash;
mod effect;
mod input;
mod leave;
mod ready;
mod reload;
mod renew;
mod saved;
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
pub use self::effect::{Announcement, Effect, Lack, Verdict};
pub use self::input::{Input, Reason};
use self::reload::Rollout;
pub use self::reload::{Fault, ReloadPlan, ReloadView};
pub(crate) use self::saved::ensure;
pub use self::saved::{ExitSaved, PoolSaved, Unsound};
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
    /// What every slot has, unless a reload is under way or could not be taken back.
    generation: u32,
    last_generation: u32,
    rollout: Option<Rollout>,
    /// What is to follow.
    queued: Option<ReloadPlan>,
    last_id: u32,
    workers: BTreeMap<WorkerId, Worker>,
    /// One for each target slot.
    slots: Vec<SlotState>,
    crashes: Crashes,
    has_ever_been_ready: bool,
    /// All workers were sent away, and none has been wanted since.
    is_refusing: bool,
    /// Found out once for each input: it is asked for all the time.
    next_deadline: Option<Duration>,
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
        slots.resize_with(usize::from(settings.workers.max(settings.least)), || SlotState::new(1));
        Self {
            settings,
            phase: Phase::New,
            jitter: Jitter::new(seed),
            generation: 1,
            last_generation: 1,
            rollout: None,
            queued: None,
            last_id: 0,
            workers: BTreeMap::new(),
            slots,
            crashes: Crashes::None,
            has_ever_been_ready: false,
            is_refusing: false,
            next_deadline: None,
        }
    }

    /// Takes an input that came at `now`, and appends what is to be done about it.
    pub fn handle(&mut self, input: Input, now: Duration, effects: &mut Vec<Effect>) {
        let turn = &mut Turn { now, effects };
        match input {
            Input::Start => self.start(turn),
            Input::Scale(target) => self.scale(target, turn),
            Input::Fork => self.fork(turn),
            Input::Disconnect { id } => self.disconnect(id, turn),
            Input::DisconnectAll => self.disconnect_all(turn),
            Input::Reload(plan) => self.reload(plan, turn),
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
            Input::SaidReady { id } => self.said_ready(id, turn),
            Input::Healthy { id } => self.healthy(id, turn),
            Input::Unhealthy { id, is_silent } => self.unhealthy(id, is_silent, turn),
            Input::Renew { id, reason } => self.renew_worker(id, reason, turn),
            Input::Wake => self.wake(turn),
        }
        self.roll(turn);
        self.begin_renewals(turn);
        if let Phase::Ending { verdict } = self.phase
            && self.workers.is_empty()
        {
            self.phase = Phase::Finished;
            turn.perform(Effect::Finished(verdict));
        }
        self.next_deadline = self.find_next_deadline();
    }

    /// When [`Input::Wake`] must be delivered next, if nothing else happens. After it, the next one is later.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.next_deadline
    }

    fn find_next_deadline(&self) -> Option<Duration> {
        let workers = self.workers.values().filter_map(Worker::deadline);
        let proofs = self.workers.values().filter_map(|worker| self.proven_at(worker));
        let respawns = self.slots.iter().filter_map(|slot| slot.respawn_at);
        let ready =
            self.workers.values().filter_map(|worker| self.due_ready(worker).or(self.fails_at(worker)));
        let runs = self.workers.values().filter_map(|worker| self.runs_from(worker));
        let ends = self.workers.values().filter_map(Worker::expires_at);
        let all = workers.chain(proofs).chain(respawns).chain(ready).chain(runs).chain(ends);
        let all = all.chain(self.watched_until());
        all.filter(|at| *at < Duration::MAX).min()
    }

    /// How many workers there should be.
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

    /// The generation of what every slot has: while a reload is under way, what it had before.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// There are as many ready workers as there should be, one in each slot, and no other but those that were let go, and no
    /// reload is under way. Where workers are not kept it is enough that they run their programs: those may have nothing to
    /// listen on.
    pub fn is_settled(&self) -> bool {
        let is_there = if self.settings.keep { Worker::is_ready } else { Worker::is_up };
        let counted = || self.workers.values().filter(|worker| !worker.is_let_go());
        matches!(self.phase, Phase::Running)
            && counted().count() == self.slots.len()
            && counted().all(is_there)
            && self.rollout.is_none()
    }

    /// Whether a slot has a worker that stays, or will have the next one after who was there last.
    pub fn is_continued(&self, slot: Slot) -> bool {
        let is_there = usize::from(slot.0) < self.slots.len();
        is_there && (self.settings.keep || self.rollout.is_some() || self.is_served(slot))
    }

    /// A slot that should have a worker has none, and none is on its way.
    pub fn is_short(&self) -> bool {
        self.all_slots().any(|slot| {
            let is_waiting = self.slots[usize::from(slot.0)].respawn_at.is_some();
            !is_waiting && !self.is_served(slot) && self.hung_in(slot).is_none()
        })
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
        let (before, target) = (self.target(), target.max(self.settings.least));
        if self.is_stopping() {
            return;
        }
        let generation = self.wanted_generation();
        self.slots.resize_with(usize::from(target), || SlotState::new(generation));
        if let Phase::New = self.phase {
            return;
        }
        for slot in (target..before).rev().map(Slot) {
            for id in self.ids(|worker| worker.slot == slot) {
                self.drain(id, self.settings.linger, turn);
            }
        }
        // Where workers are not kept, slots may have been left empty.
        let first = if self.settings.keep { before } else { 0 };
        for slot in (first..target).map(Slot) {
            let is_empty = !self.is_served(slot) && self.hung_in(slot).is_none();
            if slot.0 >= before || is_empty {
                self.spawn(slot, turn);
            }
        }
    }

    fn fork(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        // Where workers are kept, each slot has one or waits for one.
        let first = if self.settings.keep { self.target() } else { 0 };
        let is_free =
            |slot: &u16| self.settings.keep || !self.workers.values().any(|worker| worker.slot.0 == *slot);
        if let Some(slot) = (first..u16::MAX).find(is_free) {
            let len = self.slots.len().max(usize::from(slot) + 1);
            let generation = self.wanted_generation();
            self.slots.resize_with(len, || SlotState::new(generation));
            self.spawn(Slot(slot), turn);
        }
    }

    fn wake(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let is_due = |at: Duration| at <= now && at < Duration::MAX;
        for id in self.ids(|worker| self.runs_from(worker).is_some_and(is_due)) {
            self.has_run(id, turn);
        }
        let is_late = |worker: &Worker| self.due_ready(worker).is_some_and(is_due);
        for id in self.ids(is_late) {
            // The first one may have turned the reload back.
            if let Some(late) = self.workers.get(&id)
                && self.due_ready(late).is_some_and(is_due)
            {
                let lack = self.lack(late).unwrap_or(Lack::Listening);
                self.fail_reload(id, late.slot, Fault::NotReady { lack }, turn);
            }
        }
        for id in self.ids(|worker| self.fails_at(worker).is_some_and(is_due)) {
            self.fail_start(id, turn);
        }
        // Before the rest, since it sends workers on their way down.
        self.roll(turn);
        for id in self.ids(|worker| worker.expires_at().is_some_and(is_due)) {
            self.renew_worker(id, Reason::Lifetime, turn);
        }
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
        for slot in self.all_slots() {
            if self.slots[usize::from(slot.0)].respawn_at.is_some_and(is_due) {
                self.spawn(slot, turn);
            }
        }
    }

    /// When a worker will have started well, and so ends its slot's row of early exits.
    fn proven_at(&self, worker: &Worker) -> Option<Duration> {
        let slot = self.slots.get(usize::from(worker.slot.0))?;
        let is_staying = worker.pid().is_some() && worker.is_serving() && !worker.is_outgoing();
        let is_staying = is_staying && self.fails_at(worker).is_none();
        let is_awaited = slot.early_exits > 0 && is_staying;
        is_awaited.then(|| worker.started.saturating_add(self.settings.min_uptime))
    }

    /// The ids of some live workers, fixed for a walk that changes them.
    fn ids(&self, is_meant: impl Fn(&Worker) -> bool) -> Vec<WorkerId> {
        self.workers.values().filter(|worker| is_meant(worker)).map(|worker| worker.id).collect()
    }
}
