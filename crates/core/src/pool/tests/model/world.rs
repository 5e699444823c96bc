//! Processes as the engine would see them, and what must hold between them and the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Deed, Step};
use crate::exit::ExitStatus;
use crate::pool::tests::{KILLED, ms};
use crate::pool::{
    Announcement, Effect, Input, Pool, PoolSaved, PoolSettings, ReloadPlan, ReloadView, Verdict, WorkerView,
};
use crate::worker::{Slot, State, WorkerId};

/// A process that the pool asked for and that is not gone.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each remembers one thing that has happened")]
struct Process {
    exists: bool,
    obeys: bool,
    asked_at: Option<Duration>,
    urged_at: Option<Duration>,
    is_hung_up: bool,
    is_killed: bool,
    /// It may take its own time.
    is_disconnected: bool,
    /// And nobody waits for it.
    is_let_go: bool,
}

/// A pool, its clock and its processes.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each remembers one thing that has happened, in any combination"
)]
pub(super) struct World {
    pub(super) pool: Pool,
    /// One that was saved at some time and restored.
    twin: Option<Pool>,
    settings: PoolSettings,
    now: Duration,
    processes: BTreeMap<WorkerId, Process>,
    last_id: u32,
    steered: BTreeSet<WorkerId>,
    /// When each worker was ready first.
    ready_at: BTreeMap<WorkerId, Duration>,
    /// The worker that was watched last.
    watched: Option<WorkerId>,
    was_ready: bool,
    is_stopped: bool,
    is_refusing: bool,
    /// Before the input at hand.
    was_stopping: bool,
    /// The plan that was given last.
    plan: ReloadPlan,
    /// The reload under way, and how many slots it may have under replacement.
    reload: Option<(u32, u16)>,
    /// The last generation that a reload was to bring.
    last_generation: u32,
    /// What every slot has when no reload is under way; `None` since one could not be taken back.
    generation: Option<u32>,
    verdict: Option<Verdict>,
}

impl World {
    pub(super) fn new(settings: PoolSettings, seed: u64) -> Self {
        Self {
            pool: Pool::new(settings.clone(), seed),
            settings,
            twin: None,
            now: Duration::ZERO,
            processes: BTreeMap::new(),
            last_id: 0,
            steered: BTreeSet::new(),
            ready_at: BTreeMap::new(),
            watched: None,
            was_ready: false,
            is_stopped: false,
            is_refusing: false,
            was_stopping: false,
            plan: ReloadPlan::default(),
            reload: None,
            last_generation: 1,
            generation: Some(1),
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
            Step::Fork => self.give(Input::Fork),
            Step::Disconnect(pick) => {
                if let Some(id) = self.pick(pick, |_| true) {
                    self.give(Input::Disconnect { id });
                }
            }
            Step::DisconnectAll => self.give(Input::DisconnectAll),
            Step::Reload(plan) => self.give(Input::Reload(plan)),
            Step::Save => self.save(),
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
                    assert_eq!(self.tell(deed.input(id)), []);
                }
            }
        }
    }

    /// Lets all processes behave until there is nothing more to do.
    pub(super) fn calm(&mut self) {
        for _ in 0..500 {
            // Who was killed goes before the next one's time is over.
            self.pass(ms(0));
            if self.is_finished() || self.is_calm() {
                return;
            }
            for id in self.processes.keys().copied().collect::<Vec<_>>() {
                if self.processes.get(&id).is_some_and(|process| !process.exists) {
                    self.spawn(id, true, true);
                }
                for deed in [Deed::Listen, Deed::SayReady, Deed::Pass, Deed::Quiet] {
                    self.act(id, deed);
                }
            }
            let next = self.pool.next_deadline();
            self.pass(next.unwrap_or(self.now).saturating_sub(self.now));
            let is_endless = self.settings.disconnect_timeout == Duration::MAX;
            if is_endless && self.pool.reloading().is_none() && !self.pool.is_stopping() {
                self.let_go();
            }
        }
    }

    /// Who may take for ever goes in the end; no reload and no stop has waited for that.
    fn let_go(&mut self) {
        let goes = |process: &Process| process.is_disconnected && process.asked_at.is_some();
        while let Some(id) = self.pick(0, goes) {
            self.act(id, Deed::Exit(ExitStatus::Code(0)));
        }
    }

    /// Nothing is left to be done: every worker serves, or hangs and is left to, and where they are kept there are enough.
    pub(super) fn is_calm(&self) -> bool {
        let is_all_up = self.pool.workers().all(|view| matches!(view.state, State::Ready | State::Hung));
        if self.settings.keep { self.pool.is_settled() } else { is_all_up }
    }

    fn pick(&self, pick: usize, is_meant: impl Fn(&Process) -> bool) -> Option<WorkerId> {
        let ids: Vec<_> = self.processes.iter().filter(|(_, process)| is_meant(process)).collect();
        ids.get(pick.checked_rem(ids.len())?).map(|(id, _)| **id)
    }

    fn spawn(&mut self, id: WorkerId, succeeds: bool, obeys: bool) {
        if succeeds {
            let process = self.processes.entry(id).or_default();
            (process.exists, process.obeys) = (true, obeys);
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
        assert_eq!(self.tell(Input::Wake), [], "woken before the deadline");
    }

    /// Tells the pool, and its twin, which does the same.
    fn tell(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.pool.handle(input, self.now, &mut effects);
        if let Some(twin) = &mut self.twin {
            let mut its_effects = Vec::new();
            twin.handle(input, self.now, &mut its_effects);
            assert_eq!(its_effects, effects, "the restored pool goes another way");
            assert_eq!(twin.next_deadline(), self.pool.next_deadline());
        }
        effects
    }

    fn save(&mut self) {
        let text = serde_json::to_string(&self.pool.save()).unwrap();
        let saved: PoolSaved = serde_json::from_str(&text).unwrap();
        assert_eq!(saved, self.pool.save());
        assert!(self.twin.as_ref().is_none_or(|twin| twin.save() == saved));
        self.twin = Some(Pool::restore(self.settings.clone(), saved).unwrap());
    }

    /// Tells the pool, performs what it wants, and checks everything.
    pub(super) fn give(&mut self, input: Input) {
        let before: BTreeMap<_, _> = self.pool.workers().map(|view| (view.id, view)).collect();
        let (was_finished, was_reloading) = (self.is_finished(), self.pool.reloading());
        let target = self.pool.target();
        self.was_stopping = self.pool.is_stopping();
        let effects = self.tell(input);
        if let Some(reload) = was_reloading.filter(|reload| !reload.is_rolling_back) {
            self.check_end(input, reload, &before, &effects);
        }
        assert!(!was_finished || effects.is_empty(), "{effects:?} after the end");
        self.is_stopped |= matches!(input, Input::Stop | Input::StopNow);
        for (id, process) in &mut self.processes {
            let is_meant = input == Input::Disconnect { id: *id } || input == Input::DisconnectAll;
            let Some(view) = before.get(id) else { continue };
            let is_news = is_meant && view.state != State::Draining;
            process.is_disconnected |= is_news;
            // One whose slot goes is sent away as any other.
            let goes =
                matches!(input, Input::Scale(_)) && (self.pool.target()..target).contains(&view.slot.0);
            process.is_let_go = (process.is_let_go || is_news) && !goes;
        }
        if let Input::Reload(plan) = input {
            self.plan = plan;
        }
        for effect in effects {
            self.perform(effect, input, &before);
        }
        self.check_slots();
        self.check_workers();
        self.check_service(input, &before);
        self.check_reload();
    }

    fn perform(&mut self, effect: Effect, cause: Input, before: &BTreeMap<WorkerId, WorkerView>) {
        assert!(!self.is_finished(), "{effect:?} after the end");
        match effect {
            Effect::Spawn { id, slot, replaces, generation } => {
                self.last_id += 1;
                assert_eq!(id.0, self.last_id, "ids are never reused");
                assert!(slot.0 < self.pool.target());
                assert!(!self.is_stopped, "a spawn after stop");
                assert!(!self.is_refusing, "nobody could reach it");
                let mut others = self.pool.workers().filter(|view| view.slot == slot);
                let replaced = others.find(|view| Some(view.id) == replaces);
                assert_eq!(replaced.map(|view| view.id), replaces);
                assert!(replaced.is_none_or(|view| view.state == State::Hung || view.is_outgoing));
                let known = self.generation.unwrap_or(generation);
                assert!(generation == known || self.reload.is_some_and(|(new, _)| generation == new));
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
            Effect::StopAccepting => {
                assert!(matches!(cause, Input::Stop | Input::StopNow | Input::DisconnectAll));
                self.is_refusing = true;
            }
            Effect::ResumeAccepting => {
                assert!(std::mem::take(&mut self.is_refusing) && !self.pool.is_stopping());
            }
            Effect::Drain { id } | Effect::Land { id } => {
                assert_eq!(self.pool.worker(id).unwrap().state, State::Draining);
            }
            Effect::Retire { id } => {
                let process = self.processes.get_mut(&id).unwrap();
                assert!(process.exists && !process.is_killed);
                assert_eq!(process.asked_at.replace(self.now), None, "asked twice");
            }
            Effect::Urge { id } => {
                let process = self.processes.get_mut(&id).unwrap();
                assert!(process.exists && !process.is_killed && process.asked_at.is_some());
                assert_eq!(process.urged_at.replace(self.now), None, "urged twice");
            }
            Effect::HangUp { id } => {
                let process = self.processes.get_mut(&id).unwrap();
                assert!(process.exists && !process.is_killed && process.asked_at.is_some());
                assert!(!std::mem::replace(&mut process.is_hung_up, true), "hung up twice");
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
        let is_overdue = process.asked_at.is_some_and(|at| self.now >= at.saturating_add(self.shorter()));
        let is_replaced = before.get(&id).is_some_and(|view| view.state == State::Hung)
            && matches!(cause, Input::Listening { id } | Input::SaidReady { id } | Input::Healthy { id }
                if self.steered.contains(&id));
        let is_given_up = self.pool.is_stopping() && !self.is_stopped && !self.was_ready;
        let is_commanded =
            cause == Input::StopNow || matches!(cause, Input::Spawned { .. }) && self.is_stopped;
        assert!(is_overdue || is_replaced || is_given_up || is_commanded, "{id} killed by {cause:?}");
    }

    fn announce(&mut self, told: Announcement, cause: Input, before: &BTreeMap<WorkerId, WorkerView>) {
        let state = |id| self.pool.worker(id).map(|view| view.state);
        match told {
            Announcement::Online { id } => assert_eq!(state(id), Some(State::Online)),
            Announcement::Ready { id } => {
                assert_eq!(state(id), Some(State::Ready));
                self.ready_at.entry(id).or_insert(self.now);
            }
            Announcement::Hung { id } => {
                // One on trial is sent away at once.
                let is_at_fault = self.reload.is_some() && state(id) == Some(State::Draining);
                assert!(state(id) == Some(State::Hung) || is_at_fault);
            }
            Announcement::Draining { id } => {
                assert_eq!(state(id), Some(State::Draining));
                if before.get(&id).is_some_and(|view| view.state == State::Ready) {
                    let slot = before[&id].slot;
                    let is_replaced = self.reload.is_some()
                        && self.steered.iter().any(|other| self.pool.worker(*other).unwrap().slot == slot);
                    let is_succeeded = before[&id].is_outgoing
                        && self.pool.workers().any(|view| view.slot == slot && view.state == State::Ready);
                    let is_commanded = matches!(
                        cause,
                        Input::Scale(_) | Input::Stop | Input::Disconnect { .. } | Input::DisconnectAll
                    );
                    let is_at_fault = cause == Input::NotListening { id }
                        || cause == Input::Stalled { id }
                        || matches!(cause, Input::Unhealthy { id: ill, .. } if ill == id);
                    let is_right = is_commanded || is_replaced || is_succeeded || is_at_fault;
                    assert!(is_right, "{id} drained by {cause:?}");
                }
            }
            Announcement::Exited { id, is_expected, .. } => {
                assert_eq!(state(id), None);
                let has_failed = before[&id].has_failed && !self.was_stopping;
                assert_eq!(is_expected, before[&id].state == State::Draining && !has_failed);
            }
            Announcement::Respawning { slot, .. } | Announcement::CrashLoop { slot, .. } => {
                assert!(slot.0 < self.pool.target());
            }
            Announcement::NotReady { id, .. } => {
                assert!(before[&id].state != State::Ready && cause == Input::Wake);
                assert!(self.settings.wait_ready || self.settings.wait_healthy);
            }
            Announcement::Unhealthy { id } => assert_eq!(before[&id].state, State::Ready),
            Announcement::Renewing { id, .. } => {
                assert!(self.steered.contains(&id) && self.reload.is_none());
                assert!(self.pool.workers().filter(|view| view.is_outgoing).count() == 1, "one at a time");
            }
            Announcement::Forked { id } => assert!(self.processes[&id].exists),
            Announcement::Reloading { generation } => {
                assert_eq!(generation, self.last_generation + 1, "generations are never reused");
                self.last_generation = generation;
                assert_eq!(self.reload.replace((generation, self.plan.surge.max(1))), None, "one at a time");
            }
            Announcement::Watching { id, .. } => {
                assert!(self.steered.contains(&id));
                self.watched = Some(id);
            }
            Announcement::Replaced { slot, done } => {
                assert!(slot.0 < self.pool.target() && done >= 1 && done <= self.pool.target());
            }
            Announcement::RollingBack { generation, id, slot, .. } => {
                assert_eq!(self.reload.map(|(new, _)| new), Some(generation));
                assert_eq!(before[&id].generation, generation);
                assert_eq!(before[&id].slot, slot);
            }
            Announcement::Reloaded { generation, .. } => {
                assert_eq!(self.reload.take().map(|(new, _)| new), Some(generation));
                let is_right = |view: &WorkerView| {
                    view.generation == generation || view.pid.is_none() || self.is_let_go(view.id)
                };
                assert!(self.pool.workers().all(|view| is_right(&view)));
                self.generation = Some(generation);
            }
            Announcement::ReloadFailed { generation, is_rolled_back, .. } => {
                assert_eq!(self.reload.take().map(|(new, _)| new), Some(generation));
                self.generation = self.generation.filter(|_| is_rolled_back);
                if is_rolled_back {
                    self.generation = Some(self.pool.generation());
                }
            }
            Announcement::ReloadStopped { generation } => {
                assert_eq!(self.reload.take().map(|(new, _)| new), Some(generation));
                assert!(self.pool.is_stopping() || cause == Input::DisconnectAll);
            }
            Announcement::Stopping => assert!(self.pool.is_stopping()),
        }
    }

    fn shorter(&self) -> Duration {
        self.settings.kill_timeout.min(self.settings.disconnect_timeout)
    }

    fn longer(&self) -> Duration {
        self.settings.kill_timeout.max(self.settings.disconnect_timeout)
    }

    /// Each target slot has one worker that serves and is to stay, or is rid of one that failed, or has a time for the
    /// next one: never two, and where workers are kept never none of these.
    fn check_slots(&self) {
        let is_running = !self.pool.is_stopping();
        for slot in self.pool.slots() {
            let staying: Vec<_> = self
                .pool
                .workers()
                .filter(|view| view.slot == slot.slot && view.state != State::Draining && !view.is_outgoing)
                .collect();
            let is_reloading = self.pool.reloading().is_some();
            let (own, others): (Vec<&WorkerView>, Vec<&WorkerView>) =
                staying.iter().partition(|view| view.generation == slot.generation);
            let serving =
                |views: &[&WorkerView]| views.iter().filter(|view| view.state != State::Hung).count();
            let hung = |views: &[&WorkerView]| views.iter().filter(|view| view.state == State::Hung).count();
            let failed = self.pool.workers().filter(|view| view.slot == slot.slot && view.has_failed).count();
            let needed = serving(&own) + usize::from(slot.waiting_until.is_some());
            let may_be_empty = !is_running || !self.settings.keep;
            assert!(hung(&own) <= 1 && hung(&others) <= 1);
            let is_being_rid = needed == 0 && failed > 0 && is_running;
            assert!(needed <= usize::from(is_running), "{slot:?} {staying:?}");
            assert!(needed == 1 || may_be_empty || is_being_rid, "{slot:?} {staying:?}");
            // Others only while a reload is on its way through the slot, or for what hung before it came.
            assert!(serving(&others) <= 1 && (serving(&others) == 0 || is_reloading), "{slot:?} {staying:?}");
        }
    }

    /// A slot that is served is served still, unless its own worker was at fault, or it is to go.
    fn check_service(&self, cause: Input, before: &BTreeMap<WorkerId, WorkerView>) {
        let about = match cause {
            Input::Exited { id, .. }
            | Input::NotListening { id }
            | Input::Stalled { id }
            | Input::Unhealthy { id, .. }
            | Input::Disconnect { id } => before.get(&id),
            Input::Scale(_) | Input::Stop | Input::StopNow | Input::DisconnectAll => return,
            _ => None,
        };
        let was_ready = before.values().filter(|view| view.state == State::Ready);
        let slots: BTreeSet<Slot> = was_ready.map(|view| view.slot).collect();
        for slot in slots {
            let is_ready = self.pool.workers().any(|view| view.slot == slot && view.state == State::Ready);
            assert!(is_ready || about.is_some_and(|view| view.slot == slot), "{slot} lost by {cause:?}");
        }
    }

    fn check_reload(&self) {
        let view = self.pool.reloading();
        assert_eq!(view.map(|view| view.generation), self.reload.map(|(generation, _)| generation));
        assert!(self.reload.is_none() || !self.pool.is_stopping());
        let staying = self
            .pool
            .workers()
            .filter(|view| !matches!(view.state, State::Draining | State::Hung) && !view.is_outgoing);
        assert!(self.pool.workers().filter(|view| view.is_outgoing).count() <= 1, "one at a time");
        let surge = self.reload.map_or(0, |(_, surge)| usize::from(surge));
        assert!(staying.count() <= usize::from(self.pool.target()) + surge, "more than the surge allows");
        if let (true, Some(generation)) = (self.pool.is_settled(), self.generation) {
            assert_eq!(self.pool.generation(), generation);
            let is_right = |view: &WorkerView| view.generation == generation || self.is_let_go(view.id);
            assert!(self.pool.workers().all(|view| is_right(&view)), "mixed");
        }
    }

    fn is_let_go(&self, id: WorkerId) -> bool {
        self.processes.get(&id).is_some_and(|process| process.is_let_go)
    }

    fn check_workers(&self) {
        let views: Vec<_> = self.pool.workers().collect();
        assert!(views.is_sorted_by_key(|view| (view.slot, view.id)));
        let ids: BTreeSet<_> = views.iter().map(|view| view.id).collect();
        assert!(ids.iter().eq(self.processes.keys()));
        let ready = views.iter().filter(|view| view.state == State::Ready).map(|view| view.id);
        assert_eq!(ready.clone().collect::<BTreeSet<_>>(), self.steered, "steered to ready workers, to all");
        let up =
            views.iter().filter(|view| matches!(view.state, State::Online | State::Listening | State::Ready));
        let counted = views.iter().filter(|view| !self.is_let_go(view.id)).count();
        let is_settled = !self.pool.is_stopping()
            && counted == usize::from(self.pool.target())
            && counted == if self.settings.keep { ready.count() } else { up.count() }
            && self.reload.is_none();
        assert_eq!(self.pool.is_settled(), is_settled);
        assert_eq!(self.pool.has_ever_been_ready(), self.was_ready);
        assert_eq!(self.is_finished(), self.pool.is_stopping() && views.is_empty());
        for view in views {
            let is_beyond = view.slot.0 >= self.pool.target() || self.pool.is_stopping();
            assert!(!is_beyond || view.state == State::Draining);
            let process = &self.processes[&view.id];
            assert_eq!(view.pid.is_some(), process.exists);
            if let (Some(asked_at), false) = (process.asked_at, process.is_killed) {
                let limit = if process.is_disconnected { self.longer() } else { self.settings.kill_timeout };
                let due = asked_at.saturating_add(limit);
                let is_awaited = self.pool.next_deadline().is_some_and(|at| at <= due);
                assert!(is_awaited || due == Duration::MAX, "nobody will kill it");
            }
        }
    }

    /// The end of a worker fails the reload that brought it, whatever its age, and no other's end does; nor does one that was
    /// brought about, or is in peace after it has served well.
    fn check_end(
        &self,
        input: Input,
        reload: ReloadView,
        before: &BTreeMap<WorkerId, WorkerView>,
        effects: &[Effect],
    ) {
        let (Input::Exited { id, .. } | Input::SpawnFailed { id }) = input else { return };
        let view = &before[&id];
        if view.pid.is_some() && input == (Input::SpawnFailed { id }) {
            // It exists: that can't be.
            return;
        }
        let is_watched = reload.watched_until.is_some() && self.watched == Some(id);
        let served = self.ready_at.get(&id).map(|at| self.now.saturating_sub(*at));
        let is_in_peace = input == (Input::Exited { id, status: ExitStatus::Code(0) })
            && served.is_some_and(|served| served >= self.settings.min_uptime)
            && !is_watched;
        let is_at_fault =
            view.generation == reload.generation && view.state != State::Draining && !is_in_peace;
        let is_failed = |effect: &Effect| matches!(effect, Effect::Announce(Announcement::RollingBack { id: other, .. }) if *other == id);
        assert_eq!(effects.iter().any(is_failed), is_at_fault, "{input:?} {reload:?} {view:?}");
    }
}
