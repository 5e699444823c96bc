//! The engine: performs what the pool decides, and tells it what was seen.
//!
//! One task, on the main thread, owns the pool, the port table and every worker. Others send it what they see and
//! what they want. Nothing is announced before it is true.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use allcores_core::pool::{Effect, Input, Pool};
use allcores_core::worker::{Rung, Slot, State, WorkerId};
use tokio::sync::{mpsc, oneshot};

use super::launch::{LaunchError, Launcher};
use super::worker::{self, Seen, Worker};
use super::{AppSnapshot, Event, Outcome, Refusal, Settings};
use crate::ports::{LaneId, Ports};
use crate::sys::Watch;
use crate::sys::seccomp::Notification;

mod adoption;
mod announce;
mod channel;
mod clock;
mod drain;
mod exits;
mod handover;
mod hints;
mod inherit;
mod picture;

use clock::Clock;
use drain::Drains;

/// What a [`Handle`](super::Handle) asks for.
#[derive(Debug)]
pub(super) enum Command {
    Stop,
    StopNow,
    Scale(u16, oneshot::Sender<Result<AppSnapshot, Refusal>>),
    Snapshot(oneshot::Sender<AppSnapshot>),
}

/// Everything that one app is.
pub(super) struct Engine<O> {
    settings: Settings,
    launcher: Launcher,
    pool: Pool,
    ports: Ports,
    workers: BTreeMap<WorkerId, Worker>,
    seen: mpsc::Sender<Seen>,
    started: Instant,
    started_at: SystemTime,
    clock: Clock,
    drains: Drains,
    /// Who waits for a new number of workers to be reached.
    scaling: Option<(u16, oneshot::Sender<Result<AppSnapshot, Refusal>>)>,
    /// Callers whose answer depends on what another worker does.
    deferred: Vec<(WorkerId, Notification, Duration)>,
    /// The last address that could not be had while no worker was ready.
    unavailable: Option<Outcome>,
    last_tail: Vec<Vec<u8>>,
    /// Why a worker could not be started, the last time.
    last_spawn_failure: String,
    /// The last worker of each slot, for pictures of slots that have none.
    last_ids: BTreeMap<Slot, WorkerId>,
    /// Orphans that were sent SIGKILL and have not gone yet.
    condemned: BTreeSet<u32>,
    /// When workers died for want of memory.
    oom_exits: BTreeSet<Duration>,
    /// The time of the pool's present turn.
    turn: Duration,
    handovers: handover::Handovers,
    hints: hints::Hints,
    out_of_memory_kills: Option<u64>,
    is_adoption_reported: bool,
    is_background_reported: bool,
    outcome: Option<Outcome>,
    observe: O,
}

impl<O: FnMut(Event<'_>)> Engine<O> {
    pub(super) fn new(settings: Settings, seen: mpsc::Sender<Seen>, observe: O) -> io::Result<Self> {
        let open_files = raise_open_files();
        let jitter = (u64::from(std::process::id()) << 32) ^ u64::from(clock::subsecond_nanos());
        Ok(Self {
            launcher: Launcher::new(&settings, open_files),
            pool: Pool::new(settings.pool.clone(), jitter),
            ports: Ports::new(settings.policy, clock::tuning_from_env())?,
            workers: BTreeMap::new(),
            seen,
            started: Instant::now(),
            started_at: SystemTime::now(),
            clock: Clock::new()?,
            drains: Drains::default(),
            scaling: None,
            deferred: Vec::new(),
            unavailable: None,
            last_tail: Vec::new(),
            last_spawn_failure: String::new(),
            last_ids: BTreeMap::new(),
            condemned: BTreeSet::new(),
            oom_exits: BTreeSet::new(),
            turn: Duration::ZERO,
            handovers: handover::Handovers::default(),
            hints: hints::Hints::default(),
            out_of_memory_kills: crate::proc::out_of_memory_kills(),
            is_adoption_reported: false,
            is_background_reported: false,
            outcome: None,
            observe,
            settings,
        })
    }

    /// Runs until the pool has ended.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut sightings: mpsc::Receiver<Seen>,
    ) -> Outcome {
        if let Some(failure) = self.bind_inherited() {
            return failure;
        }
        let mut children = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()).ok();
        self.ports.set_target(self.pool.target());
        self.report_unshared();
        self.tell(Input::Start);
        loop {
            if let Some(outcome) = self.outcome.take() {
                self.ports.close();
                self.end_descendants(&mut children).await;
                return outcome;
            }
            let deadline = self.next_deadline();
            tokio::select! {
                Some(command) = commands.recv() => self.obey(command),
                Some(sighting) = sightings.recv() => self.take_in(sighting),
                // Looks at the lanes' queues, which the kernel has or a tick has called for.
                due = self.steering_due() => self.steer(due),
                () = clock::sleep_until(self.started + deadline) => self.wake(),
                () = exits::child_changed(&mut children) => {
                    self.reap_orphans();
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells the pool something and performs what it answers.
    fn tell(&mut self, input: Input) {
        let now = self.now();
        self.turn = now;
        let mut effects = Vec::new();
        self.pool.handle(input, now, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
        self.settle_scaling();
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { id, slot, replaces, .. } => self.spawn(id, slot, replaces),
            Effect::Steer { id, on } => self.ports.serve(id, on, self.turn),
            Effect::StopAccepting => self.ports.close_to_new(),
            Effect::Drain { id } => self.drains.watch(id),
            Effect::Retire { id } => self.retire(id),
            Effect::Kill { id } => self.signal(id, rustix::process::Signal::KILL),
            Effect::Announce(announcement) => self.announce(announcement),
            Effect::Finished(verdict) => self.finish(verdict),
        }
    }

    fn spawn(&mut self, id: WorkerId, slot: Slot, replaces: Option<WorkerId>) {
        let sockets = match self.inherited_for(id, slot, replaces) {
            Ok(sockets) => sockets,
            Err(reason) => return self.spawn_failed(id, slot, &reason),
        };
        let lanes: Vec<LaneId> = sockets.iter().map(|(lane, _)| *lane).collect();
        let descriptors: Vec<_> = sockets
            .iter()
            .filter_map(|(lane, name)| Some((self.ports.socket(*lane)?, name.clone())))
            .collect();
        match self.launcher.launch(id, slot, &descriptors) {
            Ok(launched) => self.launched(id, slot, replaces, launched, &lanes),
            Err(error) => self.launch_failed(id, slot, error),
        }
    }

    fn launched(
        &mut self,
        id: WorkerId,
        slot: Slot,
        replaces: Option<WorkerId>,
        launched: super::launch::Launched,
        lanes: &[LaneId],
    ) {
        let process = launched.process;
        let mut worker = Worker::new(slot, id, process.pid, process.pidfd);
        worker.replaces = replaces;
        if let Err(error) =
            self.connect(&mut worker, launched.channel, launched.stdout, launched.stderr, process.listener)
        {
            // It runs, and can't be watched: end it, and let the pool try again.
            let _ = rustix::process::pidfd_send_signal(&worker.pidfd, rustix::process::Signal::KILL);
            return self.spawn_failed(id, slot, &format!("watching its process: {error}"));
        }
        if let Some(error) = process.filter_error {
            self.report_no_adoption(&error);
        }
        worker.lanes = lanes.iter().map(|lane| (*lane, Rung::Inherited)).collect();
        worker.rung = (!lanes.is_empty()).then_some(Rung::Inherited);
        self.ports.set_process(id, process.pid);
        if !lanes.is_empty() {
            // That it serves can only be seen by what it accepts, so it must be sent something.
            let now = self.now();
            self.ports.serve(id, true, now);
        }
        self.last_ids.insert(slot, id);
        self.workers.insert(id, worker);
        self.tell(Input::Spawned { id, pid: process.pid });
        // `exec` has happened: the spawn returns only then. Node says more than that by itself.
        self.tell(Input::Online { id });
    }

    fn connect(
        &self,
        worker: &mut Worker,
        channel: Option<(crate::channel::Sender, crate::channel::Carrier)>,
        stdout: Option<Watch>,
        stderr: Option<Watch>,
        listener: Option<OwnedFd>,
    ) -> io::Result<()> {
        let id = worker.about.id;
        let process = Watch::readable(worker.pidfd.as_fd().try_clone_to_owned()?)?;
        let seen = || self.seen.clone();
        // Not aborted with the worker: it tells of its end.
        tokio::spawn(worker::watch_process(id, process, stdout, stderr, seen()));
        if let Some(listener) = listener {
            let listener = Arc::new(Watch::readable(listener)?);
            worker.listener = Some(Arc::clone(&listener));
            worker.tasks.push(tokio::spawn(worker::watch_notifications(id, listener, seen())).abort_handle());
        }
        if let Some((sender, carrier)) = channel {
            worker.channel = Some(sender);
            worker.tasks.push(tokio::spawn(worker::watch_channel(id, carrier, seen())).abort_handle());
        }
        Ok(())
    }

    fn report_no_adoption(&mut self, error: &io::Error) {
        if std::mem::replace(&mut self.is_adoption_reported, true) {
            return;
        }
        let instead = if self.launcher.has_channel() {
            "node's own channel is used alone"
        } else {
            "only programs that take sockets by LISTEN_FDS (see --listen) can share a port"
        };
        let reason = match error.raw_os_error() {
            Some(libc::EBUSY) => {
                "another allcores, or what watches this container, answers these calls already".into()
            }
            _ => error.to_string(),
        };
        let text = format!("adoption is not available here ({reason}); {instead}");
        (self.observe)(Event::Notice { text: &text });
    }

    /// Says what becomes of programs that want the same port when nothing here will share it among them.
    fn report_unshared(&mut self) {
        let is_shared =
            self.settings.adopt || self.launcher.has_channel() || !self.settings.listen.is_empty();
        if is_shared || self.pool.target() == 1 {
            return;
        }
        let text = "adoption is off (--no-adopt): each worker binds by itself, and all but one will find a port taken \
                    unless the program sets SO_REUSEPORT; addresses given with --listen are shared by LISTEN_FDS";
        (self.observe)(Event::Notice { text });
    }

    fn launch_failed(&mut self, id: WorkerId, slot: Slot, error: LaunchError) {
        let (outcome, reason) = match error {
            LaunchError::NotFound { program, reason } => {
                let text = format!("{program}: not found: {reason}");
                (Some(Outcome::CommandNotFound { program, reason }), text)
            }
            LaunchError::NotExecutable { program, reason } => {
                let text = format!("{program}: can't be executed: {reason}");
                (Some(Outcome::NotExecutable { program, reason }), text)
            }
            LaunchError::Failed(reason) => (None, reason),
        };
        if let Some(outcome) = outcome.filter(|_| self.last_ids.is_empty()) {
            // Nothing was ever started, and trying again would find the same.
            self.outcome.get_or_insert(outcome);
            return;
        }
        self.spawn_failed(id, slot, &reason);
    }

    fn spawn_failed(&mut self, id: WorkerId, slot: Slot, reason: &str) {
        if self.outcome.is_none() {
            (self.observe)(Event::SpawnFailed { slot, reason });
        }
        reason.clone_into(&mut self.last_spawn_failure);
        let now = self.now();
        self.ports.release(id, now);
        self.tell(Input::SpawnFailed { id });
    }

    fn take_in(&mut self, sighting: Seen) {
        match sighting {
            Seen::Output(id, stream, line) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.remember(&line);
                    (self.observe)(Event::Output { worker: worker.about, stream, line: &line });
                }
            }
            Seen::Ended(id) => self.take_exit(id),
            Seen::Notified(id, notification) => self.answer(id, notification),
            Seen::Message(id, message) => self.take_message(id, message),
            Seen::ChannelEnded(id, end) => self.channel_ended(id, &end),
            Seen::Overdue(id) => self.signal(id, rustix::process::Signal::TERM),
            Seen::Settled(id, lane) => self.settled(id, lane),
        }
    }

    /// A worker was seen to listen on a lane.
    fn listens(&mut self, id: WorkerId, lane: LaneId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(listener) = self.ports.describe(lane) else { return };
        let rung = worker.lanes.get(&lane).copied().unwrap_or(Rung::Adopted);
        worker.rung = Some(worker.rung.map_or(rung, |known| first_of(known, rung)));
        let is_news = worker.announced.insert(lane);
        let about = worker.about;
        if is_news {
            let address = listener.address.to_string();
            (self.observe)(Event::Listening {
                worker: about,
                address: &address,
                rung,
                policy: listener.policy,
            });
        }
        self.tell(Input::Listening { id });
    }

    /// Asks a worker to stop.
    fn retire(&mut self, id: WorkerId) {
        let now = self.now();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.is_retired = true;
        self.ports.serve(id, false, now);
        let was_held = self.drains.forget(id);
        let listens_by_channel = matches!(worker.rung, Some(Rung::Node)) || worker.rung.is_none();
        if worker.channel.is_some() && listens_by_channel {
            worker.say(allcores_core::channel::Speaker::disconnect, None);
        } else {
            self.signal(id, rustix::process::Signal::TERM);
        }
        if was_held {
            self.signal(id, rustix::process::Signal::CONT);
        }
    }

    /// Sends a signal to a worker's whole process group.
    fn signal(&mut self, id: WorkerId, signal: rustix::process::Signal) {
        let Some(worker) = self.workers.get(&id) else { return };
        // Its exit has not been taken, so the number can't be another's by now.
        if let Some(group) = i32::try_from(worker.about.pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Stop => self.tell(Input::Stop),
            Command::StopNow => self.tell(Input::StopNow),
            Command::Snapshot(reply) => {
                let _ = reply.send(self.picture());
            }
            Command::Scale(workers, reply) => self.scale(workers, reply),
        }
    }

    fn scale(&mut self, workers: u16, reply: oneshot::Sender<Result<AppSnapshot, Refusal>>) {
        if self.pool.is_stopping() {
            let _ = reply.send(Err(Refusal("the app is stopping".into())));
            return;
        }
        if let Some((other, waiter)) = self.scaling.replace((workers, reply)) {
            let text = format!("scaling to {other} was overtaken by scaling to {workers}");
            let _ = waiter.send(Err(Refusal(text)));
        }
        self.ports.set_target(workers.max(1));
        self.tell(Input::Scale(workers));
    }

    /// Answers who waits for a number of workers, once it is reached or can't be.
    fn settle_scaling(&mut self) {
        let Some((target, _)) = &self.scaling else { return };
        let failure = if self.pool.is_stopping() {
            Some("the app is stopping".to_owned())
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

    fn state_of(&self, id: WorkerId) -> Option<State> {
        self.pool.worker(id).map(|view| view.state)
    }
}

/// The higher of two rungs of the ladder.
fn first_of(a: Rung, b: Rung) -> Rung {
    let rank = |rung| match rung {
        Rung::Crate => 0,
        Rung::Node => 1,
        Rung::Adopted => 2,
        Rung::Inherited => 3,
    };
    if rank(a) <= rank(b) { a } else { b }
}

/// Lets us have as many descriptors as we may; returns the limits that workers are to have, which are those that we
/// were given.
fn raise_open_files() -> Option<(u64, u64)> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).ok()?;
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    Some((number(limit.current), number(limit.maximum)))
}
