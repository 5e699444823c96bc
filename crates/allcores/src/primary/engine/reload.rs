//! Reloads: what they were asked for with, by whom, and what is told of them.

use std::collections::BTreeSet;

use allcores_core::pool::{Announcement, Fault, Input, Lack, Pool, ReloadView};
use allcores_core::worker::{Rung, Slot, State, WorkerId};
use tokio::sync::mpsc;

use super::Engine;
use crate::ports::LaneId;
use crate::primary::worker::Worker;
use crate::primary::{Event, Reload, ReloadFailure, ReloadNews, ReloadOutcome};

/// Who wants to know.
type Listener = mpsc::UnboundedSender<ReloadNews>;

/// The reload under way, and the one that follows.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    current: Option<Current>,
    next: Option<(Reload, Vec<Listener>)>,
}

#[derive(Debug)]
struct Current {
    wish: Reload,
    listeners: Vec<Listener>,
    failure: Option<ReloadFailure>,
}

impl Reloads {
    /// Whether new workers may listen elsewhere than old ones.
    pub(super) fn may_move(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.wish.may_move)
    }

    fn tell(&mut self, news: &ReloadNews) {
        if let Some(current) = &mut self.current {
            current.listeners.retain(|listener| listener.send(news.clone()).is_ok());
        }
    }

    fn end(&mut self, outcome: ReloadOutcome) {
        self.tell(&ReloadNews::Ended(outcome));
        self.current = None;
    }

    /// Nothing comes of the one under way, nor of the one that was to follow: the pool has forgotten both.
    fn stop(&mut self, outcome: &ReloadOutcome) {
        self.end(outcome.clone());
        for listener in self.next.take().into_iter().flat_map(|(_, listeners)| listeners) {
            let _ = listener.send(ReloadNews::Ended(outcome.clone()));
        }
    }
}

impl Engine {
    /// Takes a wish. Those that come while a reload is under way are fulfilled together, after it.
    pub(super) fn reload(&mut self, wish: Reload, listener: Listener) {
        if self.pool.is_stopping() {
            let _ = listener.send(ReloadNews::Ended(ReloadOutcome::Stopped));
            return;
        }
        if let Some(view) = self.pool.reloading() {
            let _ = listener.send(ReloadNews::Queued { behind: view.generation });
        }
        let next = self.reloads.next.take();
        let (joined, listeners) = match next {
            Some((mut earlier, mut listeners)) => {
                earlier.join(wish);
                listeners.push(listener);
                (earlier, listeners)
            }
            None => (wish, vec![listener]),
        };
        let plan = joined.plan(self.settings.pool.ready_timeout);
        self.reloads.next = Some((joined, listeners));
        self.tell(Input::Reload(plan));
    }

    /// Passes on what the pool announces of a reload.
    pub(super) fn announce_reload(&mut self, announcement: Announcement) {
        let slots = self.pool.target();
        match announcement {
            Announcement::Reloading { generation } => self.begin_reload(generation),
            Announcement::Watching { id, time } => {
                let Some(worker) = self.workers.get(&id).map(|worker| worker.about) else { return };
                (self.observe)(Event::Watching { worker, time });
                self.reloads.tell(&ReloadNews::Watching { worker, time });
            }
            Announcement::Replaced { slot, done } => {
                (self.observe)(Event::Replaced { slot, done, slots });
                self.reloads.tell(&ReloadNews::Replaced { slot, done, slots });
            }
            Announcement::RollingBack { generation, id, slot, fault } => {
                let reason = self.fault_in_words(id, fault);
                let missing = self.missing_by(id, fault);
                let last_output = self.output_of(id, fault);
                let failure = ReloadFailure { generation, id, slot, fault, reason, missing, last_output };
                (self.observe)(Event::RollingBack { failure: &failure });
                self.reloads.tell(&ReloadNews::RollingBack(failure.clone()));
                if let Some(current) = &mut self.reloads.current {
                    current.failure = Some(failure);
                }
            }
            Announcement::Reloaded { generation, took } => {
                (self.observe)(Event::Reloaded { generation, took });
                self.settle_generations();
                self.generations.succeed(generation);
                self.ports.keep_tried();
                if self.reloads.may_move() {
                    let pool = &self.pool;
                    self.ports.close_unused(|id| is_staying(pool, id));
                }
                self.reloads.end(ReloadOutcome::Reloaded { generation, took });
            }
            Announcement::ReloadFailed { is_rolled_back, .. } => {
                self.settle_generations();
                self.generations.keep();
                self.close_tried();
                let failure = self.reloads.current.as_mut().and_then(|current| current.failure.take());
                let Some(failure) = failure else { return };
                (self.observe)(Event::ReloadFailed { failure: &failure, is_rolled_back });
                self.reloads.end(ReloadOutcome::Failed { failure, is_rolled_back });
            }
            Announcement::ReloadStopped { .. } => {
                self.generations.keep();
                self.close_tried();
                let is_stopping = self.pool.is_stopping();
                let outcome = if is_stopping { ReloadOutcome::Stopped } else { ReloadOutcome::Disconnected };
                self.reloads.stop(&outcome);
            }
            _ => {}
        }
    }

    fn begin_reload(&mut self, generation: u32) {
        let (wish, listeners) = self.reloads.next.take().unwrap_or_default();
        self.generations.begin(generation, self.pool.generation(), &wish);
        self.reloads.current = Some(Current { wish, listeners, failure: None });
        let slots = self.pool.target();
        (self.observe)(Event::Reloading { generation, slots });
        self.reloads.tell(&ReloadNews::Began { generation, slots });
    }

    /// Closes addresses that only a version which is not to be has listened on, where none of its workers stays.
    fn close_tried(&mut self) {
        self.ports.close_tried(|id| is_staying(&self.pool, id));
    }

    /// Forgets what no slot will run again.
    fn settle_generations(&mut self) {
        let current = self.pool.generation();
        let slots: Vec<u32> = self.pool.slots().map(|slot| slot.generation).collect();
        self.generations.retain(|generation| generation == current || slots.contains(&generation));
    }

    /// Where the worker listens that one of this generation is to take the place of by a reload. Sockets that are given to both
    /// are no question.
    pub(super) fn addresses_before(&self, slot: Slot, generation: u32) -> BTreeSet<String> {
        // What a version that was no good listens on is no measure; nor what one does that nobody waits for.
        let brings = |reload: ReloadView| reload.generation == generation && !reload.is_rolling_back;
        if self.reloads.may_move() || !self.pool.reloading().is_some_and(brings) {
            return BTreeSet::new();
        }
        let is_before = |worker: &&Worker| {
            worker.about.slot == slot
                && worker.generation != generation
                && is_staying(&self.pool, worker.about.id)
        };
        let lanes = self.workers.values().filter(is_before).flat_map(|worker| {
            let listens_again = |lane: &&LaneId| {
                worker.lanes.get(lane) != Some(&Rung::Inherited) && !worker.aside.contains(lane)
            };
            worker.announced.iter().filter(listens_again)
        });
        lanes.filter_map(|lane| Some(self.ports.describe(*lane)?.address.to_string())).collect()
    }

    /// Tells who waits for a reload how far a worker has come.
    pub(super) fn report_progress(&mut self, id: WorkerId, state: State) {
        if let Some(worker) = self.workers.get(&id) {
            let (about, generation) = (worker.about, worker.generation);
            self.reloads.tell(&ReloadNews::Worker { worker: about, generation, state });
        }
    }

    fn output_of(&self, id: WorkerId, fault: Fault) -> Vec<Vec<u8>> {
        match fault {
            Fault::NotSpawned => Vec::new(),
            Fault::Exited { .. } => self.last_tail.clone(),
            _ => {
                self.workers.get(&id).map(|worker| worker.tail.iter().cloned().collect()).unwrap_or_default()
            }
        }
    }

    fn fault_in_words(&self, id: WorkerId, fault: Fault) -> String {
        let worker = self.workers.get(&id);
        match fault {
            Fault::NotSpawned => format!("it could not be started: {}", self.last_spawn_failure),
            Fault::Exited { status } if worker.is_some_and(|worker| worker.announced.is_empty()) => {
                format!("it ended by {status} before it was ready")
            }
            Fault::Exited { status } => format!("it ended by {status} before the reload was over"),
            Fault::NotReady { lack } => self.lateness_in_words(id, lack),
            Fault::Hung => "it stopped taking connections while it was watched".into(),
            Fault::Unhealthy => format!("it became unhealthy while it was watched: {}", self.complaint(id)),
            Fault::NotListening => "it closed its listeners while it was watched".into(),
        }
    }

    fn lateness_in_words(&self, id: WorkerId, lack: Lack) -> String {
        let since = self.pool.worker(id).map_or(self.turn, |view| view.started);
        let waited = self.turn.saturating_sub(since);
        let missing = match self.lack_in_truth(id, lack) {
            Lack::Listening if self.is_given_and_unseen(id) => {
                "has accepted nothing from the sockets that it was given; where nobody connects, say how it is known to \
                 serve: --health-http PATH, or --wait-ready"
                    .into()
            }
            Lack::Listening => self.silence_in_words(id),
            Lack::Word => "has not said that it is ready, by READY=1 or process.send('ready')".into(),
            Lack::Health => match self.reason_of(id) {
                Some(reason) => format!("has passed no health check, the last: {reason}"),
                None => "has passed no health check".into(),
            },
        };
        format!("after {waited:.1?} it {missing}")
    }

    fn silence_in_words(&self, id: WorkerId) -> String {
        match self.missing(id) {
            missing if missing.is_empty() => match self.elsewhere(id) {
                Some(text) => format!("does not listen on any address that workers share: it {text}"),
                None => "does not listen on any address".into(),
            },
            missing => format!("does not listen on {}, as the worker before it does", missing.join(", ")),
        }
    }

    /// What a worker is no good for the want of, if it is that.
    fn missing_by(&self, id: WorkerId, fault: Fault) -> Vec<String> {
        match fault {
            Fault::NotReady { lack }
                if matches!(self.lack_in_truth(id, lack), Lack::Listening)
                    && !self.is_given_and_unseen(id) =>
            {
                self.missing(id)
            }
            _ => Vec::new(),
        }
    }

    /// Where a worker that listens somewhere does not, as the one before it does.
    fn missing(&self, id: WorkerId) -> Vec<String> {
        let worker = self.workers.get(&id).filter(|worker| !worker.announced.is_empty());
        worker.into_iter().flat_map(|worker| worker.awaited.iter().cloned()).collect()
    }
}

/// Whether a worker is there and not on its way out.
fn is_staying(pool: &Pool, id: WorkerId) -> bool {
    pool.worker(id).is_some_and(|view| view.state != State::Draining)
}
