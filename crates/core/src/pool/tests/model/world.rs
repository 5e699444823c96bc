//! Processes as the engine would see them, and what must hold between them and the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Deed, Step};
use crate::pool::tests::{KILLED, ms};
use crate::pool::{Announcement, Effect, Input, Pool, PoolSettings, Verdict, WorkerView};
use crate::worker::{State, WorkerId};

/// A process that the pool asked for and that is not gone.
#[derive(Debug, Default)]
struct Process {
    exists: bool,
    obeys: bool,
    asked_at: Option<Duration>,
    is_killed: bool,
}

/// A pool, its clock and its processes.
pub(super) struct World {
    pub(super) pool: Pool,
    settings: PoolSettings,
    now: Duration,
    processes: BTreeMap<WorkerId, Process>,
    last_id: u32,
    steered: BTreeSet<WorkerId>,
    was_ready: bool,
    is_stopped: bool,
    verdict: Option<Verdict>,
}

impl World {
    pub(super) fn new(settings: PoolSettings, seed: u64) -> Self {
        Self {
            pool: Pool::new(settings.clone(), seed),
            settings,
            now: Duration::ZERO,
            processes: BTreeMap::new(),
            last_id: 0,
            steered: BTreeSet::new(),
            was_ready: false,
            is_stopped: false,
            verdict: None,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.verdict.is_some()
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Pass(millis) => self.pass(ms(millis)),
            Step::Scale(target) => self.give(Input::Scale(target)),
            Step::Stop => self.give(Input::Stop),
            Step::StopNow => self.give(Input::StopNow),
            Step::Spawn { pick, succeeds, obeys } => {
                if let Some(id) = self.pick(pick, |process| !process.exists) {
                    self.spawn(id, succeeds, obeys);
                }
            }
            Step::Do(pick, deed) => {
                if let Some(id) = self.pick(pick, |process| process.exists) {
                    self.act(id, deed);
                }
            }
            Step::Ghost(id, deed) => {
                let id = WorkerId(id);
                if !self.processes.contains_key(&id) {
                    let mut effects = Vec::new();
                    self.pool.handle(deed.input(id), self.now, &mut effects);
                    assert_eq!(effects, []);
                }
            }
        }
    }

    /// Lets all processes behave until there is nothing more to do.
    pub(super) fn calm(&mut self) {
        for _ in 0..100 {
            if self.is_finished() || self.pool.is_settled() {
                return;
            }
            for id in self.processes.keys().copied().collect::<Vec<_>>() {
                if self.processes.get(&id).is_some_and(|process| !process.exists) {
                    self.spawn(id, true, true);
                }
                self.act(id, Deed::Listen);
                self.act(id, Deed::Quiet);
            }
            let next = self.pool.next_deadline().unwrap_or(self.now);
            self.pass(next.saturating_sub(self.now));
        }
    }

    fn pick(&self, pick: usize, is_meant: impl Fn(&Process) -> bool) -> Option<WorkerId> {
        let ids: Vec<_> = self.processes.iter().filter(|(_, process)| is_meant(process)).collect();
        ids.get(pick.checked_rem(ids.len())?).map(|(id, _)| **id)
    }

    fn spawn(&mut self, id: WorkerId, succeeds: bool, obeys: bool) {
        if succeeds {
            self.processes.insert(id, Process { exists: true, obeys, ..Process::default() });
            self.give(Deed::Spawn.input(id));
        } else {
            self.processes.remove(&id);
            self.give(Deed::Fail.input(id));
        }
    }

    fn act(&mut self, id: WorkerId, deed: Deed) {
        if let Deed::Exit(_) = deed {
            self.processes.remove(&id);
        }
        self.give(deed.input(id));
    }

    /// Those that were killed, or asked and obey, go first. Then the pool is woken whenever it wants to be.
    fn pass(&mut self, time: Duration) {
        let goes = |process: &Process| process.is_killed || process.obeys && process.asked_at.is_some();
        while let Some(id) = self.pick(0, goes) {
            self.act(id, Deed::Exit(KILLED));
        }
        let end = self.now + time;
        while let Some(at) = self.pool.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.give(Input::Wake);
            assert!(self.pool.next_deadline().is_none_or(|next| next > self.now), "wakes again and again");
        }
        self.now = end;
        let mut effects = Vec::new();
        self.pool.handle(Input::Wake, self.now, &mut effects);
        assert_eq!(effects, [], "woken before the deadline");
    }

    /// Tells the pool, performs what it wants, and checks everything.
    pub(super) fn give(&mut self, input: Input) {
        let before: BTreeMap<_, _> = self.pool.workers().map(|view| (view.id, view)).collect();
        let was_finished = self.is_finished();
        let mut effects = Vec::new();
        self.pool.handle(input, self.now, &mut effects);
        assert!(!was_finished || effects.is_empty(), "{effects:?} after the end");
        self.is_stopped |= matches!(input, Input::Stop | Input::StopNow);
        for effect in effects {
            self.perform(effect, input, &before);
        }
        self.check_slots();
        self.check_workers();
    }

    fn perform(&mut self, effect: Effect, cause: Input, before: &BTreeMap<WorkerId, WorkerView>) {
        assert!(!self.is_finished(), "{effect:?} after the end");
        match effect {
            Effect::Spawn { id, slot, replaces, .. } => {
                self.last_id += 1;
                assert_eq!(id.0, self.last_id, "ids are never reused");
                assert!(slot.0 < self.pool.target());
                assert!(!self.is_stopped, "a spawn after stop");
                let mut others = self.pool.workers().filter(|view| view.slot == slot);
                let hung = others.find(|view| view.state == State::Hung).map(|view| view.id);
                assert_eq!(replaces, hung);
                self.processes.insert(id, Process::default());
            }
            Effect::Steer { id, on: true } => {
                assert_eq!(self.pool.worker(id).unwrap().state, State::Ready);
                assert!(self.steered.insert(id));
                self.was_ready = true;
            }
            Effect::Steer { id, on: false } => {
                self.steered.remove(&id);
            }
            Effect::StopAccepting => assert!(matches!(cause, Input::Stop | Input::StopNow)),
            Effect::Drain { id } => assert_eq!(self.pool.worker(id).unwrap().state, State::Draining),
            Effect::Retire { id } => {
                let process = self.processes.get_mut(&id).unwrap();
                assert!(process.exists && !process.is_killed);
                assert_eq!(process.asked_at.replace(self.now), None, "asked twice");
            }
            Effect::Kill { id } => self.kill(id, cause, before),
            Effect::Announce(announcement) => self.announce(announcement, cause, before),
            Effect::Finished(verdict) => {
                assert!(self.processes.is_empty() && self.pool.workers().next().is_none());
                assert!(self.is_stopped || verdict != Verdict::Stopped);
                assert!(!self.was_ready || verdict == Verdict::Stopped);
                self.verdict = Some(verdict);
            }
        }
    }

    /// Nothing is killed but what ignored its `Retire`, or on command, or to be replaced, or as the pool gives up.
    fn kill(&mut self, id: WorkerId, cause: Input, before: &BTreeMap<WorkerId, WorkerView>) {
        let process = self.processes.get_mut(&id).unwrap();
        assert!(process.exists && !process.is_killed);
        process.is_killed = true;
        let is_overdue = process.asked_at.is_some_and(|at| self.now >= at + self.settings.kill_timeout);
        let is_replaced = before.get(&id).is_some_and(|view| view.state == State::Hung)
            && matches!(cause, Input::Listening { id } if self.steered.contains(&id));
        let is_given_up = self.pool.is_stopping() && !self.is_stopped && !self.was_ready;
        let is_commanded =
            cause == Input::StopNow || matches!(cause, Input::Spawned { .. }) && self.is_stopped;
        assert!(is_overdue || is_replaced || is_given_up || is_commanded, "{id} killed by {cause:?}");
    }

    fn announce(&self, told: Announcement, cause: Input, before: &BTreeMap<WorkerId, WorkerView>) {
        let state = |id| self.pool.worker(id).map(|view| view.state);
        match told {
            Announcement::Online { id } => assert_eq!(state(id), Some(State::Online)),
            Announcement::Ready { id } => assert_eq!(state(id), Some(State::Ready)),
            Announcement::Hung { id } => assert_eq!(state(id), Some(State::Hung)),
            Announcement::Draining { id } => {
                assert_eq!(state(id), Some(State::Draining));
                if before.get(&id).is_some_and(|view| view.state == State::Ready) {
                    assert!(matches!(cause, Input::Scale(_) | Input::Stop), "drained by {cause:?}");
                }
            }
            Announcement::Exited { id, is_expected, .. } => {
                assert_eq!(state(id), None);
                assert_eq!(is_expected, before[&id].state == State::Draining);
            }
            Announcement::Respawning { slot, .. } | Announcement::CrashLoop { slot, .. } => {
                assert!(slot.0 < self.pool.target());
            }
            Announcement::Forked { id } => assert!(self.processes[&id].exists),
            Announcement::Stopping => assert!(self.pool.is_stopping()),
        }
    }

    /// Each target slot has one worker that serves, or a time for the next one: never neither, never both.
    fn check_slots(&self) {
        assert!(self.pool.target() >= 1);
        let is_running = !self.pool.is_stopping();
        for slot in self.pool.slots() {
            let staying: Vec<_> = self
                .pool
                .workers()
                .filter(|view| view.slot == slot.slot && view.state != State::Draining)
                .collect();
            let hung = staying.iter().filter(|view| view.state == State::Hung).count();
            let needed = staying.len() - hung + usize::from(slot.waiting_until.is_some());
            assert!(hung <= 1);
            assert_eq!(needed, usize::from(is_running), "{slot:?} {staying:?}");
        }
    }

    fn check_workers(&self) {
        let views: Vec<_> = self.pool.workers().collect();
        assert!(views.is_sorted_by_key(|view| (view.slot, view.id)));
        let ids: BTreeSet<_> = views.iter().map(|view| view.id).collect();
        assert!(ids.iter().eq(self.processes.keys()));
        let ready = views.iter().filter(|view| view.state == State::Ready).map(|view| view.id);
        assert_eq!(ready.clone().collect::<BTreeSet<_>>(), self.steered, "steered to ready workers, to all");
        let is_settled = !self.pool.is_stopping()
            && views.len() == usize::from(self.pool.target())
            && views.len() == ready.count();
        assert_eq!(self.pool.is_settled(), is_settled);
        assert_eq!(self.pool.has_ever_been_ready(), self.was_ready);
        assert_eq!(self.is_finished(), self.pool.is_stopping() && views.is_empty());
        for view in views {
            let is_beyond = view.slot.0 >= self.pool.target() || self.pool.is_stopping();
            assert!(!is_beyond || view.state == State::Draining);
            let process = &self.processes[&view.id];
            assert_eq!(view.pid.is_some(), process.exists);
            if let (Some(asked_at), false) = (process.asked_at, process.is_killed) {
                let due = asked_at + self.settings.kill_timeout;
                assert!(self.pool.next_deadline().is_some_and(|at| at <= due), "nobody will kill it");
            }
        }
    }
}
