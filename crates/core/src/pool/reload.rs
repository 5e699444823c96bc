//! A reload: every slot gets a worker of a new generation, a few at a time, and nothing that serves is taken away before
//! what takes its place does.
//!
//! What a slot's workers are to one another follows from their generations: those of the slot's own generation are to
//! stay, others go once one of those is ready. So there is little to remember here: where the reload is bound for, and
//! how far it may be trusted.

mod back;
mod saved;

use std::collections::BTreeSet;
use std::time::Duration;

pub(super) use self::saved::RolloutSaved;
use super::worker::{Stage, Worker};
use super::{Announcement, Lack, Phase, Pool, Turn};
use crate::exit::ExitStatus;
use crate::worker::{Slot, WorkerId};

/// How a reload is to go about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadPlan {
    /// How many slots may be under replacement at a time; zero counts as one.
    pub surge: u16,
    /// For how long the first new worker must stay ready beside the old one before anything is taken away.
    pub canary: Duration,
    /// How long a new worker may take to be ready; `Duration::MAX` is for ever.
    pub ready_timeout: Duration,
}

impl Default for ReloadPlan {
    fn default() -> Self {
        Self { surge: 1, canary: Duration::ZERO, ready_timeout: Duration::from_mins(1) }
    }
}

/// What was wrong with a worker of the new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its process could not be made.
    NotSpawned,
    /// It ended by itself, or was killed by somebody else, before the reload was over; and not with exit code 0 after it had
    /// served well.
    Exited {
        /// How.
        status: ExitStatus,
    },
    /// It was not ready in time.
    NotReady {
        /// What was missing.
        lack: Lack,
    },
    /// It stalled in the canary time.
    Hung,
    /// It closed its listeners in the canary time.
    NotListening,
    /// It became unhealthy in the canary time.
    Unhealthy,
}

/// A reload under way, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadView {
    /// What it is to bring.
    pub generation: u32,
    /// It has failed, and what it brought is being taken back.
    pub is_rolling_back: bool,
    /// How many slots have what they are to have, and nothing else.
    pub done: u16,
    /// Until when the first new worker is watched, since the primary's start.
    pub watched_until: Option<Duration>,
    /// Another one follows.
    pub is_queued: bool,
}

/// A reload under way.
#[derive(Debug)]
pub(super) struct Rollout {
    plan: ReloadPlan,
    /// What it was to bring: its name.
    generation: u32,
    /// What every slot is to have: the same, until it is rolled back.
    pub(super) target: u32,
    course: Course,
    began: Duration,
    /// When it began, or turned back.
    since: Duration,
    /// Slots that were told to be done.
    done: BTreeSet<Slot>,
}

/// ```text
///          ┌──────────────no canary time───────────────┐
/// Reload ──┴→ Trial ──first is ready──→ Watch ──time──→ Forth ──every slot done──→ Reloaded
///               │ fault                   │ fault         │ fault
///               └────────────┬────────────┴───────────────┘
///                            ↓
///                           Back ──every slot done──→ ReloadFailed, rolled back
///                            └──fault───────────────→ ReloadFailed, what serves stays
/// ```
///
/// And from everywhere to `ReloadStopped` when the pool ends.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// The first new worker is on its way up, and nothing else is begun.
    Trial,
    /// It is ready, beside the old one, and has to stay so.
    Watch { id: WorkerId, until: Duration },
    /// Slot by slot.
    Forth,
    /// Slot by slot to what there was before, because of this.
    Back { id: WorkerId, slot: Slot, fault: Fault },
}

/// The slot whose new worker comes first.
const FIRST: Slot = Slot(0);

impl Pool {
    /// Begins a reload, or remembers the wish while one is under way: those that come meanwhile become one.
    pub(super) fn reload(&mut self, plan: ReloadPlan, turn: &mut Turn<'_>) {
        match (self.phase, &self.rollout) {
            // Nothing is replaced that is not kept.
            (Phase::Running, _) if !self.settings.keep => {}
            (Phase::Running, None) => self.begin_reload(plan, turn),
            (Phase::Running, Some(_)) => self.queued = Some(plan),
            _ => {}
        }
    }

    /// The reload that is under way.
    pub fn reloading(&self) -> Option<ReloadView> {
        let rollout = self.rollout.as_ref()?;
        let done = self.all_slots().filter(|slot| self.is_done(*slot, rollout.target)).count();
        Some(ReloadView {
            generation: rollout.generation,
            is_rolling_back: matches!(rollout.course, Course::Back { .. }),
            done: u16::try_from(done).unwrap_or(u16::MAX),
            watched_until: match rollout.course {
                Course::Watch { until, .. } => Some(until),
                _ => None,
            },
            is_queued: self.queued.is_some(),
        })
    }

    /// Whether a reload under way is to bring this generation, or was to, and takes it back.
    pub fn is_on_trial(&self, generation: u32) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.generation == generation)
    }

    /// What a slot that is new is to have.
    pub(super) fn wanted_generation(&self) -> u32 {
        self.rollout.as_ref().map_or(self.generation, |rollout| rollout.target)
    }

    fn begin_reload(&mut self, plan: ReloadPlan, turn: &mut Turn<'_>) {
        self.last_generation += 1;
        let generation = self.last_generation;
        // A timeout of nothing would have passed before it began.
        let ready_timeout = plan.ready_timeout.max(Duration::from_millis(1));
        let plan = ReloadPlan { surge: plan.surge.max(1), ready_timeout, ..plan };
        let course =
            if plan.canary.is_zero() || self.slots.is_empty() { Course::Forth } else { Course::Trial };
        self.abandon_renewals(turn);
        self.rollout = Some(Rollout {
            plan,
            generation,
            target: generation,
            course,
            began: turn.now,
            since: turn.now,
            done: BTreeSet::new(),
        });
        turn.announce(Announcement::Reloading { generation });
        if let Course::Trial = course {
            self.begin_slot(FIRST, turn);
        }
    }

    /// Takes a reload as far as it can go by now; to be called after everything that happens.
    pub(super) fn roll(&mut self, turn: &mut Turn<'_>) {
        while let (Phase::Running, Some(_)) = (self.phase, &self.rollout) {
            self.watch_first(turn);
            self.promote(turn);
            self.begin_slots(turn);
            self.tell_done(turn);
            if !self.is_rolled_out() {
                return;
            }
            self.finish_reload(turn);
        }
    }

    /// Goes from trial to watch, and on when the time is over.
    fn watch_first(&mut self, turn: &mut Turn<'_>) {
        let Some(rollout) = &mut self.rollout else { return };
        let is_first = |worker: &&Worker| {
            worker.slot == FIRST && worker.generation == rollout.target && worker.is_ready()
        };
        match rollout.course {
            // Scaled to nothing meanwhile: there is nobody to be tried.
            Course::Trial if self.slots.is_empty() => rollout.course = Course::Forth,
            Course::Trial => {
                if let Some(first) = self.workers.values().find(is_first) {
                    let (id, until) = (first.id, turn.now.saturating_add(rollout.plan.canary));
                    rollout.course = Course::Watch { id, until };
                    turn.announce(Announcement::Watching { id, time: rollout.plan.canary });
                }
            }
            Course::Watch { until, .. } if until <= turn.now => rollout.course = Course::Forth,
            _ => {}
        }
    }

    /// Sends away what is not of its slot's generation, where that serves.
    fn promote(&mut self, turn: &mut Turn<'_>) {
        let Some(Rollout { target, course, .. }) = self.rollout else { return };
        let is_watched = matches!(course, Course::Watch { .. });
        for slot in self.all_slots() {
            let is_up = self.has_ready(slot, target) && self.slots[usize::from(slot.0)].generation == target;
            if is_up && !(is_watched && slot == FIRST) {
                for id in self.ids(|worker| worker.slot == slot && worker.generation != target) {
                    self.dismiss(id, turn);
                }
            }
        }
    }

    fn begin_slots(&mut self, turn: &mut Turn<'_>) {
        let Some(Rollout { target, plan, course: Course::Forth | Course::Back { .. }, .. }) = self.rollout
        else {
            return;
        };
        loop {
            let (mine, others): (Vec<Slot>, Vec<Slot>) =
                self.all_slots().partition(|slot| self.slots[usize::from(slot.0)].generation == target);
            let under_way = mine.into_iter().filter(|slot| !self.is_done(*slot, target)).count();
            match others.first() {
                Some(slot) if under_way < usize::from(plan.surge) => self.begin_slot(*slot, turn),
                _ => return,
            }
        }
    }

    /// Gives a slot its new worker. What is in it goes on until that one is ready.
    fn begin_slot(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        let target = self.wanted_generation();
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        state.generation = target;
        state.respawn_at = None;
        if !self.has_serving(slot, target) {
            self.spawn(slot, turn);
        }
    }

    /// A slot has what it is to have, and nothing else that is waited for.
    fn is_done(&self, slot: Slot, target: u32) -> bool {
        let is_alone = |worker: &Worker| worker.slot != slot || !worker.is_in_the_way(target);
        let is_as_before = |worker: &Worker| worker.slot == slot && self.is_as_before(worker);
        self.slots[usize::from(slot.0)].generation == target
            && (self.has_ready(slot, target) || self.workers.values().any(is_as_before))
            && self.workers.values().all(is_alone)
    }

    fn tell_done(&mut self, turn: &mut Turn<'_>) {
        let Some(rollout) = &self.rollout else { return };
        let target = rollout.target;
        let done: BTreeSet<Slot> = self.all_slots().filter(|slot| self.is_done(*slot, target)).collect();
        let Some(rollout) = &mut self.rollout else { return };
        for slot in &done {
            if rollout.done.insert(*slot) {
                let done = u16::try_from(done.len()).unwrap_or(u16::MAX);
                turn.announce(Announcement::Replaced { slot: *slot, done });
            }
        }
    }

    fn is_rolled_out(&self) -> bool {
        let Some(Rollout { target, course: Course::Forth | Course::Back { .. }, .. }) = self.rollout else {
            return false;
        };
        self.all_slots().all(|slot| self.is_done(slot, target))
            && !self.workers.values().any(|worker| worker.is_in_the_way(target))
    }

    fn finish_reload(&mut self, turn: &mut Turn<'_>) {
        let Some(rollout) = self.rollout.take() else { return };
        self.generation = rollout.target;
        turn.announce(match rollout.course {
            Course::Back { id, slot, fault } => Announcement::ReloadFailed {
                generation: rollout.generation,
                id,
                slot,
                fault,
                is_rolled_back: true,
            },
            _ => Announcement::Reloaded {
                generation: rollout.generation,
                took: turn.now.saturating_sub(rollout.began),
            },
        });
        self.begin_queued(turn);
    }

    fn begin_queued(&mut self, turn: &mut Turn<'_>) {
        if let Some(plan) = self.queued.take() {
            self.begin_reload(plan, turn);
        }
    }

    /// The pool ends, or all its workers are sent away, and the reload with them.
    pub(super) fn stop_reload(&mut self, turn: &mut Turn<'_>) {
        self.queued = None;
        if let Some(rollout) = self.rollout.take() {
            turn.announce(Announcement::ReloadStopped { generation: rollout.generation });
        }
    }

    /// The worker that is watched.
    pub(super) fn is_watched(&self, id: WorkerId) -> bool {
        let course = self.rollout.as_ref().map(|rollout| rollout.course);
        matches!(course, Some(Course::Watch { id: watched, .. }) if watched == id)
    }

    pub(super) fn is_rolling_back(&self) -> bool {
        matches!(self.rollout, Some(Rollout { course: Course::Back { .. }, .. }))
    }

    /// By when a worker has to be ready, if it is of those that a reload waits for.
    pub(super) fn due_ready(&self, worker: &Worker) -> Option<Duration> {
        let rollout = self.rollout.as_ref()?;
        let slot = self.slots.get(usize::from(worker.slot.0))?;
        let is_awaited = worker.generation == rollout.target
            && slot.generation == rollout.target
            && worker.is_serving()
            && !worker.is_ready()
            && !self.is_as_before(worker);
        let from = if worker.has_been_ready() { worker.since } else { worker.started };
        is_awaited.then(|| from.max(rollout.since).saturating_add(rollout.plan.ready_timeout))
    }

    /// Until when the first new worker is watched.
    pub(super) fn watched_until(&self) -> Option<Duration> {
        match self.rollout.as_ref()?.course {
            Course::Watch { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Sends a worker away that another has taken the place of.
    fn dismiss(&mut self, id: WorkerId, turn: &mut Turn<'_>) {
        match self.workers.get(&id).map(|worker| (worker.is_hung(), worker.is_leaving())) {
            // It takes nothing: waiting for its queue would be in vain.
            Some((true, _)) => self.retire(id, turn),
            Some((false, false)) => self.drain(id, self.settings.linger, turn),
            _ => {}
        }
    }

    fn has_ready(&self, slot: Slot, generation: u32) -> bool {
        let is_meant = |worker: &Worker| worker.slot == slot && worker.generation == generation;
        self.workers.values().any(|worker| is_meant(worker) && worker.is_ready())
    }

    fn has_serving(&self, slot: Slot, generation: u32) -> bool {
        let is_meant = |worker: &Worker| worker.slot == slot && worker.generation == generation;
        self.workers.values().any(|worker| is_meant(worker) && worker.is_serving())
    }

    /// A slot that is to have a worker has none of its own, and none is on its way.
    pub(super) fn is_deserted(&self, slot: Slot) -> bool {
        let state = self.slots.get(usize::from(slot.0));
        state.is_some_and(|state| state.respawn_at.is_none() && !self.has_serving(slot, state.generation))
    }

    pub(super) fn all_slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.target()).map(Slot)
    }
}

impl Worker {
    /// It is to be gone before its slot is done.
    fn is_in_the_way(&self, target: u32) -> bool {
        self.generation != target && !self.is_let_go()
    }

    /// It got connections at some time, as far as its stage tells.
    pub(super) fn has_been_ready(&self) -> bool {
        let is_back = matches!(self.stage(), Some(Stage::Online { has_been_ready: true, .. }));
        is_back || self.is_ready() || self.is_hung()
    }
}
