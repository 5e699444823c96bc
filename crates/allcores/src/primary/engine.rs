//! The engine: performs what the pool decides, and tells it what was seen.
//!
//! One task, on a thread that lives as long as it does, owns the pool, the port table and every worker. Others send it what they see and
//! what they want. Nothing is announced before it is true.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant, SystemTime};

use allcores_core::pool::{Effect, Input, Pool};
use allcores_core::worker::{Rung, Slot, State, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::answers::{Answer, Answers};
use super::census::Census;
use super::launch::Extras;
use super::recall::Recaller;
use super::worker::{Seen, Worker};
use super::{
    AppSnapshot, Event, Guest, Host, Outcome, Refusal, Reload, ReloadNews, Settings, Upgrade, UpgradeNews,
};
use crate::Signal;
use crate::error::Error;
use crate::ports::{LaneId, Looked, Ports};
use crate::sys::seccomp::Notification;

mod adoption;
mod announce;
mod channel;
mod clock;
mod drain;
mod exits;
mod farewell;
mod generations;
mod handoff;
mod hang_up;
mod health;
mod hints;
mod inherit;
mod inquiry;
mod look;
mod memory;
mod notify;
mod orders;
mod pace;
mod picture;
mod relays;
mod reload;
mod rendezvous;
mod scaling;
mod sources;
mod spawn;
mod taken;
mod tally;
mod trial;
mod turn_away;
mod upgrade;
mod users;

use clock::Clock;
use drain::Drains;
use generations::Generations;
pub(super) use health::Subject;
pub(super) use look::Look;
pub(super) use notify::Ear;
use reload::Reloads;
use rendezvous::Rendezvous;
pub(super) use rendezvous::Visitor;
use scaling::Scaling;
pub(super) use scaling::Size;
use sources::{News, Sources};
pub(super) use taken::Found;
use tally::Tally;
pub(super) use upgrade::{Checked, EngineSaved, Upgrades};

/// How many sightings are taken in before others have their turn.
const AT_ONCE: usize = 64;

/// And for how long, as some take more than others.
const TURN: Duration = Duration::from_millis(2);

/// What a [`Handle`](super::Handle) asks for.
pub(super) enum Command {
    Stop,
    StopNow,
    Scale(Size, oneshot::Sender<Result<AppSnapshot, Refusal>>),
    Reload(Box<Reload>, mpsc::UnboundedSender<ReloadNews>),
    Upgrade(Upgrade, mpsc::UnboundedSender<UpgradeNews>),
    Snapshot(oneshot::Sender<AppSnapshot>),
    Census(oneshot::Sender<Census>),
    Signal(Option<Slot>, Signal, oneshot::Sender<orders::Done>),
    Send(Option<Slot>, String, oneshot::Sender<orders::Done>),
    /// Whoever asked is answered before anything else happens.
    Fork(Extras, Box<dyn FnOnce(Result<WorkerId, Error>) + Send>),
    Disconnect(WorkerId),
    DisconnectAll(oneshot::Sender<()>),
    SetUp(Box<Settings>),
}

/// Who is told what happens. Not known by its type: everything here would be compiled once for each.
pub(super) type Observe = Box<dyn FnMut(Event<'_>) + Send>;

/// Who is told once whether the first workers could be started.
pub(super) type Begun = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Everything that one app is.
pub(super) struct Engine {
    settings: Settings,
    generations: Generations,
    reloads: Reloads,
    pool: Pool,
    ports: Ports,
    workers: BTreeMap<WorkerId, Worker>,
    seen: mpsc::Sender<Seen>,
    answers: Answers,
    /// Those that are being taken.
    answered: Vec<Answer>,
    recaller: Recaller,
    /// Lets in who comes by itself.
    rendezvous: Option<JoinHandle<Option<Rendezvous>>>,
    started: Instant,
    started_at: SystemTime,
    clock: Clock,
    drains: Drains,
    /// Who waits for a new number of workers to be reached.
    scaling: Option<Scaling>,
    /// The last address that could not be had while no worker was ready.
    unavailable: Option<Outcome>,
    last_tail: Vec<Vec<u8>>,
    searches: taken::Searches,
    settling: look::Settling,
    /// Why a worker could not be started, the last time.
    last_spawn_failure: String,
    /// The last worker of each slot, for pictures of slots that have none.
    last_ids: BTreeMap<Slot, WorkerId>,
    /// The workers that orphans came of, so far as that was seen: of their exits none is taken elsewhere, so their numbers are theirs.
    orphans: BTreeMap<u32, WorkerId>,
    /// Orphans that were sent SIGKILL and have not gone yet.
    condemned: BTreeSet<u32>,
    /// Workers that have ended, and whose exits are taken when it is known whether they have gone to the background.
    lingering: Vec<WorkerId>,
    /// When workers died for want of memory.
    oom_exits: BTreeSet<Duration>,
    /// The time of the pool's present turn.
    turn: Duration,
    handoffs: handoff::Handoffs,
    pace: pace::Pace,
    farewells: farewell::Farewells,
    hints: hints::Hints,
    out_of_memory_kills: Option<u64>,
    care: health::Care,
    hearts: notify::Hearts,
    measuring: memory::Measuring,
    inquiries: inquiry::Inquiries,
    is_stranger_reported: bool,
    is_adoption_reported: bool,
    /// Calls that are answered together: see [`adoption`].
    together: Vec<(WorkerId, Notification)>,
    is_background_reported: bool,
    relays: relays::Relays,
    /// Workers that were told to go because of what they did, and have time to: one for each.
    outlaws: Tally,
    pub(super) upgrades: Upgrades,
    outcome: Option<Outcome>,
    wishes: users::Wishes,
    guest: Option<Guest>,
    observe: Observe,
}

impl Engine {
    pub(super) fn new(
        mut settings: Settings,
        guest: Option<Guest>,
        seen: mpsc::Sender<Seen>,
        observe: Observe,
    ) -> io::Result<Self> {
        settings.pool.wait_healthy = settings.upkeep.health.is_some();
        let open_files = (settings.host == Host::Process).then(raise_open_files).flatten();
        let jitter = (u64::from(std::process::id()) << 32) ^ u64::from(clock::subsecond_nanos());
        Ok(Self {
            generations: Generations::new(&settings, open_files),
            reloads: Reloads::default(),
            pool: Pool::new(settings.pool.clone(), jitter),
            ports: Ports::new(settings.policy.clone(), settings.pending, clock::tuning_from_env())?,
            workers: BTreeMap::new(),
            seen,
            answers: Answers::default(),
            answered: Vec::new(),
            recaller: Recaller::new(),
            rendezvous: None,
            started: Instant::now(),
            started_at: SystemTime::now(),
            clock: Clock::new()?,
            drains: Drains::default(),
            scaling: None,
            unavailable: None,
            last_tail: Vec::new(),
            searches: taken::Searches::default(),
            settling: look::Settling::default(),
            last_spawn_failure: String::new(),
            last_ids: BTreeMap::new(),
            orphans: BTreeMap::new(),
            condemned: BTreeSet::new(),
            lingering: Vec::new(),
            oom_exits: BTreeSet::new(),
            turn: Duration::ZERO,
            handoffs: handoff::Handoffs::default(),
            pace: pace::Pace::new(),
            farewells: farewell::Farewells::default(),
            hints: hints::Hints::default(),
            out_of_memory_kills: crate::proc::out_of_memory_kills(),
            care: health::Care::new(&settings.upkeep),
            hearts: notify::Hearts::default(),
            measuring: memory::Measuring::default(),
            inquiries: inquiry::Inquiries::default(),
            is_stranger_reported: false,
            is_adoption_reported: false,
            together: Vec::new(),
            is_background_reported: false,
            relays: relays::Relays::default(),
            outlaws: Tally::default(),
            upgrades: Upgrades::default(),
            outcome: None,
            wishes: users::Wishes::default(),
            guest,
            observe,
            settings,
        })
    }

    /// Runs until the pool has ended.
    pub(super) async fn run(
        mut self,
        commands: mpsc::UnboundedReceiver<Command>,
        sightings: mpsc::Receiver<Seen>,
        begun: Begun,
    ) -> Outcome {
        let signals = self.owns_process().then(tokio::signal::unix::SignalKind::child);
        let children = signals.and_then(|kind| tokio::signal::unix::signal(kind).ok());
        let mut sources = Sources::new(commands, sightings, self.answers.clone(), children);
        if let Some(before) = self.upgrades.before.take() {
            self.announce_upgrade(&before);
        } else if let Some(failure) = self.begin() {
            return failure;
        }
        begun(self.take_start());
        loop {
            if let Some(outcome) = self.outcome.take() {
                self.give_up_upgrade("the app has ended");
                self.ports.close();
                self.end_exams().await;
                self.end_descendants(&mut sources.children).await;
                self.relays.finish().await;
                return outcome;
            }
            sources.set_alarm(self.started + self.next_deadline());
            let news = sources.next(&self.ports, &self.clock).await;
            // Whatever has come: who has answered is not to be taken for silent.
            self.take_answers();
            match news {
                News::Answers => {}
                News::Sighting(sighting) => self.take_in_all(sighting, &mut sources.sightings),
                News::Command(command) => self.obey(command),
                // Whoever comes now does not find it.
                News::Touched(touched) => self.take_touched(&touched),
                // Looks at the lanes' queues, which the kernel has or a tick has called for.
                News::Ready(lanes) => self.take_ready(&lanes),
                News::Tick => self.tick(),
                News::Alarm => self.wake(),
                News::Child => drop(self.reap_orphans()),
            }
            self.take_postponed_exits();
            self.go_on_with_upgrade(&mut sources).await;
            self.hand_off();
            self.let_go();
        }
    }

    /// Starts the app's first workers, if its addresses can be had.
    fn begin(&mut self) -> Option<Outcome> {
        if let Some(failure) = self.bind_inherited() {
            return Some(failure);
        }
        self.ports.set_target(self.pool.target());
        self.ports.set_kept(self.settings.pool.keep);
        if self.is_gated() {
            self.ports.set_gated();
        }
        self.report_unshared();
        self.open_rendezvous();
        self.tell(Input::Start);
        None
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
            Effect::Spawn { id, slot, generation, replaces } => self.spawn(id, slot, generation, replaces),
            Effect::Steer { id, on } => self.ports.serve(id, on, self.turn),
            Effect::StopAccepting => self.ports.close_to_new(),
            Effect::ResumeAccepting => self.ports.reopen(),
            Effect::Drain { id } => self.drain(id),
            Effect::Land { id } => self.drains.land(id, self.turn),
            Effect::Retire { id } => self.retire(id),
            Effect::Urge { id } => self.urge(id),
            Effect::HangUp { id } => self.hang_up(id),
            Effect::Kill { id } => {
                self.ports.dismiss(id);
                self.signal(id, rustix::process::Signal::KILL);
            }
            Effect::Announce(announcement) => self.announce(announcement),
            Effect::Finished(verdict) => self.finish(verdict),
        }
    }

    /// Takes in what was seen, and what else has been seen by now. Of who has much to say, so much as others can wait
    /// for: [`worker::Share`].
    fn take_in_all(&mut self, first: Seen, others: &mut mpsc::Receiver<Seen>) {
        let until = Instant::now() + TURN;
        self.take_in(first);
        for _ in 1..AT_ONCE {
            if self.outcome.is_some() || Instant::now() >= until {
                return;
            }
            match others.try_recv() {
                Ok(sighting) => self.take_in(sighting),
                Err(_) => return,
            }
        }
    }

    fn take_in(&mut self, sighting: Seen) {
        // Who said yes and then closed its channel, or died, has what it said yes to.
        self.take_answers();
        match sighting {
            Seen::Output(id, stream, line, _place) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.remember(&line.bytes);
                    let (worker, is_partial) = (worker.about, line.is_partial);
                    (self.observe)(Event::Output { worker, stream, line: &line.bytes, is_partial });
                }
            }
            Seen::Ended(id) => self.take_exit(id),
            Seen::Notified(id, notification, _place) => self.answer(id, notification),
            Seen::Unheard(id, error) => self.close_listener(id, &error),
            Seen::Arrived(id, arrival, _place) => self.take_arrival(id, arrival),
            Seen::Spoke(id, texts, _place) => self.take_texts(id, texts),
            Seen::ChannelEnded(id, end) => self.channel_ended(id, &end),
            Seen::Overdue(id) => self.urge(id),
            Seen::Outlawed(id) => self.signal(id, rustix::process::Signal::KILL),
            Seen::Mute(id) => self.end_mute(id),
            Seen::Settled(id, lane) => self.settled(id, lane),
            Seen::Tried(id) => self.look_at_tried(id),
            Seen::LookedAt(look) => self.take_look(&look),
            Seen::Together => self.answer_together(),
            Seen::Reached(from) => self.take_reached(from),
            Seen::Answered(subject, from, result) => self.take_answer(subject, from, &result),
            Seen::Took(id, has_taken) => self.take_life(id, has_taken),
            Seen::Examined(pid, is_over) => self.take_exam(pid, is_over),
            Seen::Said(id, sender, said) => self.take_said(id, sender, said),
            Seen::Measured(usage) => self.take_usage(&usage),
            Seen::Checked(checked) => self.take_checked(&checked),
            Seen::Came(visitor) => self.meet(visitor),
            Seen::Found(found) => self.take_found(found),
            Seen::Looked(Looked::Known(read)) => self.ports.take_read(read),
            Seen::Looked(Looked::Back(unread)) => self.ports.give_back(unread),
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
        let address = listener.address.to_string();
        worker.awaited.remove(&address);
        let is_complete = worker.awaited.is_empty();
        if is_news {
            (self.observe)(Event::Listening {
                worker: about,
                address: &address,
                rung,
                policy: &listener.policy,
            });
            self.report_no_handoff(&listener);
        }
        if is_complete {
            self.tell(Input::Listening { id });
        }
        if is_news {
            self.begin_checks(id);
        }
    }

    /// Asks a worker to stop.
    fn retire(&mut self, id: WorkerId) {
        let now = self.now();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.is_retired = true;
        self.ports.serve(id, false, now);
        self.ports.dismiss(id);
        let was_held = self.drains.forget(id);
        let listens_by_channel = matches!(worker.rung, None | Some(Rung::Crate | Rung::Node));
        if worker.channel.is_some() && listens_by_channel {
            self.say_goodbye(id);
            self.expect_an_answer(id);
        } else {
            self.urge(id);
        }
        if was_held {
            self.signal(id, rustix::process::Signal::CONT);
        }
    }

    /// Sends a worker the app's stop signal, once: there are programs to which a second one says not to be so careful.
    pub(super) fn urge(&mut self, id: WorkerId) {
        let signal = self.workers.get_mut(&id).and_then(|worker| worker.stop_signal.take());
        if let Some(signal) = signal {
            self.signal(id, signal.raw().unwrap_or(rustix::process::Signal::TERM));
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
            Command::Census(reply) => drop(reply.send(self.census())),
            Command::Signal(slot, signal, reply) => drop(reply.send(self.signal_workers(slot, signal))),
            Command::Send(slot, message, reply) => drop(reply.send(self.send_to_workers(slot, &message))),
            Command::Scale(size, reply) => self.scale(&size, reply),
            Command::Fork(extras, reply) => {
                let forked = self.fork(extras);
                reply(forked);
            }
            Command::Disconnect(id) => self.tell(Input::Disconnect { id }),
            Command::DisconnectAll(reply) => self.disconnect_all(reply),
            Command::SetUp(settings) => self.set_up(*settings),
            Command::Reload(wish, listener) => self.reload(*wish, listener),
            Command::Upgrade(wish, news) => self.upgrade(wish, news),
        }
    }

    /// Whether there is any worker that connections can be handed to.
    fn has_channels(&self) -> bool {
        self.workers.values().any(|worker| worker.channel.is_some())
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
