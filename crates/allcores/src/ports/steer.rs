//! Watching the lanes' queues: which workers are busy, which hang.
//!
//! Nothing is polled while no lane has a queue. The first connection that waits rings a bell, once; from then on the kernel is
//! asked on each tick which lanes have a queue, until none has, and then the bell is wound up again. So a tick costs no
//! more for the connections that came and were taken since the last.

mod saved;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use allcores_core::steering::Reading;
use allcores_core::worker::WorkerId;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};

use super::group::{Group, HELD_UP};
use super::lane::{Kind, Lane};
use super::relief::RESPITE;
use super::table::Key;
use super::{LaneId, Ports};
use crate::proc::Schedstat;
use crate::sys::Watch;

pub(super) use saved::SteeringSaved;

/// How the lanes are steered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// How often lanes in which connections wait are looked at, where somebody was held up lately.
    pub(crate) tick: Duration,
    /// False leaves the choice to chance, for comparison.
    pub(crate) is_on: bool,
}

/// A worker whose queue does not move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) worker: WorkerId,
    pub(crate) lane: LaneId,
}

/// How often a connection waited for a worker that was busy with another, while a third had none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Misfit {
    /// Times that connections were seen to wait in a lane where none had.
    pub(crate) arrivals: u64,
    /// Those of them after which the worker was found busy, and another free.
    pub(crate) misplaced: u64,
    /// Times that a worker took several connections from one look to the next: then it does not take one at a time.
    pub(crate) gulps: u64,
}

#[derive(Debug)]
pub(super) struct Steering {
    pub(super) tuning: Tuning,
    /// Watches `lanes`, and the listeners from which the primary itself accepts, each until it has told of it once.
    bell: Watch,
    /// Watches the workers' lanes.
    lanes: OwnedFd,
    /// The bell has rung for lanes, and is not wound up for them.
    has_rung: bool,
    /// Whose worker's descriptors were counted last.
    counted: LaneId,
    misfit: Misfit,
    /// Lanes whose queue was emptied since this was last taken.
    emptied: Vec<LaneId>,
    /// Lanes that are looked at on each tick.
    hot: BTreeSet<LaneId>,
    processes: HashMap<WorkerId, Process>,
}

/// Where the kernel tells what a worker's process is doing, kept open because it is read often.
#[derive(Debug)]
struct Process {
    pid: u32,
    /// `/proc/PID/fd`: its size is the number of descriptors (Linux 6.2).
    descriptors: OwnedFd,
    /// `/proc/PID/stat`: its third field is what the main thread does.
    stat: OwnedFd,
    /// `/proc/PID/schedstat`: how long the main thread was on a core.
    schedstat: Option<OwnedFd>,
    /// `/proc/PID/io`: how often it has read and written.
    io: Option<OwnedFd>,
}

/// How long it is remembered that a worker was held up by what it does.
const MEMORY: Duration = Duration::from_millis(200);

/// How often lanes are looked at while nobody is held up.
const RELAXED: Duration = Duration::from_millis(4);

/// For each so many workers that serve an address it is looked at a millisecond later, until that is [`MOST_RELAXED`]: the
/// more there are, the fewer connections come to the one that is held up before that is seen, and the more a look costs.
const CROWD: usize = 64;

/// How rarely lanes are looked at at most: still more than once in [`HELD_UP`].
const MOST_RELAXED: Duration = Duration::from_millis(8);

/// How many addresses are maintained at a time.
const AT_ONCE: usize = 256;

/// How many connections one that takes one at a time does not take from one look to the next, unless it is so quick that nobody waits
/// for long.
const SEVERAL: u32 = 2;

/// Of how many lanes' workers the descriptors are counted on a tick.
const COUNTED: usize = 4;

/// How many lanes the kernel may name at a time.
const NAMED: usize = 1024;

/// How many bells at a time.
const RINGING: usize = 64;

/// In place of a lane's name: connections wait in some lane.
const ANY: LaneId = LaneId(u64::MAX);

const ONCE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

impl Steering {
    pub(super) fn new(tuning: Tuning) -> io::Result<Self> {
        let lanes = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&bell, &lanes, EventData::new_u64(ANY.0), ONCE)?;
        Ok(Self {
            tuning,
            bell: Watch::readable(bell)?,
            lanes,
            has_rung: false,
            counted: LaneId(0),
            misfit: Misfit::default(),
            emptied: Vec::new(),
            hot: BTreeSet::new(),
            processes: HashMap::new(),
        })
    }

    /// Watches a lane from which a worker accepts.
    pub(super) fn watch(&self, lane: &Lane) -> io::Result<()> {
        add(&self.lanes, lane, EventFlags::IN)
    }

    /// Watches a listener from which the primary accepts.
    pub(super) fn watch_desk(&self, lane: &Lane) -> io::Result<()> {
        add(&self.bell, lane, ONCE)
    }

    /// Has the bell ring once more for a listener from which the primary accepts.
    pub(super) fn wind_desk(&self, lane: &Lane) {
        let _ = epoll::modify(&self.bell, &lane.socket, EventData::new_u64(lane.id.0), ONCE);
    }

    fn wind(&mut self) {
        let _ = epoll::modify(&self.bell, &self.lanes, EventData::new_u64(ANY.0), ONCE);
        self.has_rung = false;
    }

    pub(super) fn forget(&mut self, lane: &Lane) {
        let _ = epoll::delete(&self.bell, &lane.socket);
        let _ = epoll::delete(&self.lanes, &lane.socket);
        self.hot.remove(&lane.id);
    }

    /// The lanes in which connections wait at this moment: all of them, if they are fewer than [`NAMED`].
    fn waiting(&self) -> BTreeSet<LaneId> {
        named::<NAMED>(&self.lanes).unwrap_or_default().into_iter().collect()
    }

    pub(super) fn set_process(&mut self, worker: WorkerId, pid: u32) {
        if self.processes.get(&worker).is_some_and(|known| known.pid == pid) {
            // There are programs that call `listen` twice.
            return;
        }
        let open = |name: &str, flags: OFlags| {
            rustix::fs::open(format!("/proc/{pid}/{name}"), flags | OFlags::CLOEXEC, Mode::empty())
        };
        let descriptors = open("fd", OFlags::PATH | OFlags::DIRECTORY);
        if let (Ok(descriptors), Ok(stat)) = (descriptors, open("stat", OFlags::RDONLY)) {
            let schedstat = open("schedstat", OFlags::RDONLY).ok();
            let io = open("io", OFlags::RDONLY).ok();
            self.processes.insert(worker, Process { pid, descriptors, stat, schedstat, io });
        }
    }

    pub(super) fn forget_process(&mut self, worker: WorkerId) {
        self.processes.remove(&worker);
    }

    fn read(&self, lane: &Lane, depth: u32) -> Reading {
        // Of interest while something waits, or did until others took it: of idle workers nothing is read.
        let is_wanted = depth > 0 || lane.watch.relieved_since().is_some();
        let user = lane.user().filter(|_| is_wanted);
        let ran = user.and_then(|user| self.time_on_a_core(user));
        let work = user.filter(|_| lane.kind == Kind::Handed).and_then(|user| self.work(user));
        Reading { depth, work, ran }
    }

    /// How often the worker has written something; where the kernel does not tell, how many descriptors it has.
    fn work(&self, worker: WorkerId) -> Option<u64> {
        self.writes(worker).or_else(|| self.descriptors_of(worker).map(u64::from))
    }

    fn writes(&self, worker: WorkerId) -> Option<u64> {
        let mut text = [0; 256];
        let length = rustix::io::pread(self.processes.get(&worker)?.io.as_ref()?, &mut text, 0).ok()?;
        let mut lines = std::str::from_utf8(&text[..length]).ok()?.lines();
        lines.find_map(|line| line.strip_prefix("syscw: "))?.parse().ok()
    }

    /// How long the worker's main thread has been on a core.
    fn time_on_a_core(&self, worker: WorkerId) -> Option<Duration> {
        Some(Schedstat::read(self.processes.get(&worker)?.schedstat.as_ref()?)?.ran)
    }

    /// Whether the worker has something to do that takes so long, rather than to wait for a core.
    fn is_held_up(&self, lane: &Lane, time: Duration, now: Duration) -> bool {
        lane.watch.held_up_for(now) >= time
            && (lane.watch.ran_meanwhile().is_none_or(|ran| ran >= time)
                || lane.user().is_some_and(|user| self.is_asleep(user)))
    }

    fn open_descriptors(&self, lane: &Lane) -> Option<u32> {
        self.descriptors_of(lane.user()?)
    }

    /// How many descriptors a worker has open, where the kernel tells that cheaply.
    pub(super) fn descriptors_of(&self, worker: WorkerId) -> Option<u32> {
        let size = rustix::fs::fstat(&self.processes.get(&worker)?.descriptors).ok()?.st_size;
        u32::try_from(size).ok().filter(|count| *count > 0)
    }

    /// Whether the worker's main thread waits for something to do: of an event loop, the proof that it is free.
    pub(super) fn is_asleep(&self, worker: WorkerId) -> bool {
        let mut text = [0; 96];
        let read = self.processes.get(&worker).map(|process| rustix::io::pread(&process.stat, &mut text, 0));
        let Some(Ok(length)) = read else { return false };
        // "PID (NAME) S …", where the name may hold anything, and is at most 64 bytes long.
        let state = text[..length]
            .windows(3)
            .rposition(|part| part.starts_with(b") ") && part[2].is_ascii_uppercase());
        state.is_some_and(|at| text[at + 2] == b'S')
    }
}

impl Ports {
    /// Ready when connections wait where none did: at which listeners of the primary's own, and whether in any lane. What was
    /// named rings again only once it has been looked at.
    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Vec<LaneId>> {
        let ready = self.steering.bell.poll_read_part(context, |bell| {
            let names = named::<RINGING>(bell)?;
            let is_emptied = names.len() < RINGING;
            if names.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok((names, is_emptied)) }
        });
        match ready!(ready) {
            Ok(names) => Poll::Ready(names),
            Err(_) => Poll::Pending,
        }
    }

    /// Takes note of where connections wait, and has a first look.
    pub(crate) fn note_ready(&mut self, names: &[LaneId], now: Duration) {
        for name in names {
            if *name == ANY {
                self.steering.has_rung = true;
                self.look(now);
                continue;
            }
            let Some((key, _)) = self.locate(*name) else { continue };
            let group = &mut self.groups[key];
            if group.desk_lane().is_some_and(|lane| lane.id == *name) {
                group.desk.note_ready();
                self.groups.stir(key);
            }
        }
    }

    /// Has a first look at lanes in which connections wait and that were found empty before. Gives all in which some wait, as far
    /// as the kernel names them.
    fn look(&mut self, now: Duration) -> BTreeSet<LaneId> {
        let waiting = self.steering.waiting();
        for id in &waiting {
            let Some((key, at)) = self.locate(*id) else { continue };
            if self.steering.hot.contains(id) {
                continue;
            }
            self.steering.hot.insert(*id);
            self.steering.misfit.arrivals += 1;
            let lane = &mut self.groups[key].lanes[at];
            if self.steering.tuning.is_on {
                lane.watch.note_arrival();
                let reading = self.steering.read(lane, lane.depth().unwrap_or(0));
                lane.watch.observe(reading, now);
            }
        }
        waiting
    }

    /// Sends a worker no connections for a while, unless it shows life before: it was handed one and does not answer.
    pub(crate) fn distrust(&mut self, worker: WorkerId, now: Duration) {
        let until = now + RESPITE;
        for id in self.groups.ids_of(worker) {
            // From elsewhere nobody is steered away.
            let Some((key, at)) = self.locate(id).filter(|(key, _)| self.groups[*key].is_spread()) else {
                continue;
            };
            let lane = &mut self.groups[key].lanes[at];
            if !lane.watch.is_busy() {
                lane.watch.distrust(until);
                self.steering.hot.insert(id);
            }
        }
    }

    /// Takes in that a worker has just done something.
    pub(crate) fn note_life(&mut self, worker: WorkerId, now: Duration) {
        self.groups.visit_lanes_of(worker, |lane| lane.watch.note_life(now));
    }

    /// Lanes whose queue has been emptied since this was last asked.
    pub(crate) fn take_emptied(&mut self) -> Vec<LaneId> {
        std::mem::take(&mut self.steering.emptied)
    }

    /// How often connections came to busy workers while others were free.
    pub(crate) fn misfit(&self) -> Misfit {
        self.steering.misfit
    }

    /// Whether there is something to look at on ticks.
    pub(crate) fn is_hot(&self) -> bool {
        self.steering.has_rung || !self.steering.hot.is_empty()
    }

    /// How often to look: rarely as long as nobody was held up lately, as each look costs the workers a piece of their cores.
    pub(crate) fn tick_interval(&self) -> Duration {
        let tick = self.steering.tuning.tick;
        let hot = self.hot_groups();
        let groups = hot.iter().filter_map(|key| self.groups.get(*key));
        let intervals =
            groups.map(|group| if self.now < group.alert_until { tick } else { relaxed(group, tick) });
        intervals.min().unwrap_or(RELAXED.max(tick))
    }

    /// The lanes that are looked at on ticks.
    #[cfg(test)]
    pub(super) fn hot_lanes(&self) -> Vec<LaneId> {
        self.steering.hot.iter().copied().collect()
    }

    /// The groups of lanes that are looked at on ticks, each once.
    pub(super) fn hot_groups(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.steering.hot.iter().map(|lane| lane.group()).collect();
        // They are in order.
        keys.dedup();
        keys
    }

    /// Looks at the lanes that had connections waiting, and steers.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = now;
        // What is gone, or is not steered, would never be found empty.
        let groups = &self.groups;
        self.steering.hot.retain(|id| groups.locate(*id).is_some_and(|(key, _)| groups[key].is_spread()));
        // What was known to wait is looked at again; what came since then for the first time, and so its worker is not busy yet.
        let known = self.steering.hot.clone();
        let waiting = self.look(now);
        let counted = self.count(now);
        let mut cooled = Vec::new();
        let hot = self.hot_groups();
        for key in &hot {
            let Some(group) = self.groups.get_mut(*key).filter(|group| group.is_spread()) else { continue };
            let mut newly_busy = 0;
            for id in known.range(key.lane(0)..).take_while(|id| id.group() == *key) {
                let Some(at) = group.position(*id) else { continue };
                let lane = &mut group.lanes[at];
                let has_queue = waiting.len() >= NAMED || waiting.contains(&lane.id);
                let reading = self.steering.read(lane, if has_queue { lane.depth().unwrap_or(0) } else { 0 });
                if self.steering.tuning.is_on {
                    if lane.kind == Kind::Handed
                        && lane.watch.is_relieved()
                        && lane.user().is_none_or(|user| self.steering.is_asleep(user))
                    {
                        lane.watch.note_life(now);
                    }
                    self.steering.misfit.gulps += u64::from(lane.watch.depth() >= reading.depth + SEVERAL);
                    let was_busy = lane.watch.is_busy();
                    lane.watch.observe(reading, now);
                    newly_busy += u64::from(lane.watch.is_busy() && !was_busy);
                }
                // One that has no channel is left alone for long, and there is nothing to look at meanwhile.
                if reading.depth == 0 && (lane.kind == Kind::Own || !lane.watch.is_relieved()) {
                    cooled.push(lane.id);
                }
            }
            // Nobody but the primary takes what is in the waiting room.
            let of_workers = group.lanes.iter().filter(|lane| lane.kind != Kind::Waiting);
            let relaxed = relaxed(group, self.steering.tuning.tick).min(HELD_UP);
            let is_still = |lane: &&Lane| self.steering.is_held_up(lane, relaxed, now);
            let mut still = of_workers.filter(is_still).peekable();
            if still.peek().is_some() {
                group.alert_until = now + MEMORY;
            }
            if still.any(|lane| self.steering.is_held_up(lane, HELD_UP, now)) {
                group.held_up_until = now + MEMORY;
            }
            let mut served =
                group.lanes.iter().filter(|lane| lane.users.iter().any(|user| self.serving.contains(user)));
            if newly_busy > 0 && served.any(|lane| lane.watch.depth() == 0 && !lane.watch.is_busy()) {
                self.steering.misfit.misplaced += newly_busy;
            }
        }
        for id in &cooled {
            self.steering.hot.remove(id);
        }
        self.steering.emptied = cooled;
        if self.steering.hot.is_empty() {
            self.steering.wind();
        }
        for key in hot.into_iter().chain(counted).collect::<BTreeSet<Key>>() {
            if let Some(group) = self.groups.get_mut(key) {
                group.reselect(self.target, now);
            }
        }
    }

    /// Counts what some of the workers hold, of others on the next tick. Gives the groups of their lanes.
    fn count(&mut self, now: Duration) -> Vec<Key> {
        let lanes = if self.steering.tuning.is_on {
            self.groups.lanes_after(self.steering.counted, COUNTED)
        } else {
            Vec::new()
        };
        for id in &lanes {
            let Some((key, at)) = self.locate(*id) else { continue };
            let group = &mut self.groups[key];
            let is_steered = group.address.is_tcp() && group.is_spread();
            if let Some(lane) = Some(&mut group.lanes[at]).filter(|lane| is_steered && lane.is_listening)
                && let Some(open) = self.steering.open_descriptors(lane)
            {
                lane.watch.count(open, now);
            }
        }
        self.steering.counted = lanes.last().copied().unwrap_or(LaneId(0));
        lanes.into_iter().map(LaneId::group).collect()
    }

    /// Workers whose connections have waited for longer than `limit` without any being taken.
    pub(crate) fn stalled(&self, limit: Duration, now: Duration) -> Vec<Stall> {
        let lanes = self.groups.iter().filter(|group| group.is_spread()).flat_map(|group| &group.lanes);
        let stalled = lanes.filter_map(|lane| {
            // The oldest: while a hung worker is being replaced, it is the one that hangs.
            let worker = *lane.users.first()?;
            // What starved in its queue others were given; those that can be handed something are asked about.
            let is_own = lane.kind == Kind::Own;
            let stalled = if is_own { lane.watch.standing_for(now) } else { lane.watch.stalled_for(now) };
            (stalled >= limit).then_some(Stall { worker, lane: lane.id })
        });
        stalled.collect()
    }

    /// Workers whose waiting connections others have taken, and that have shown no life since then: they may be busy, or
    /// hang.
    pub(crate) fn relieved(&mut self, now: Duration) -> Vec<(WorkerId, Duration)> {
        let mut relieved = Vec::new();
        let lanes = self.groups.iter_mut().flat_map(|group| &mut group.lanes);
        for lane in lanes.filter(|lane| lane.kind == Kind::Handed) {
            let Some((since, worker)) = lane.watch.relieved_since().zip(lane.user()) else {
                continue;
            };
            if self.steering.is_asleep(worker) {
                lane.watch.note_life(now);
            } else {
                relieved.push((worker, since));
            }
        }
        relieved
    }

    /// Whether another worker, which is to take its place, accepts from a lane of this one.
    pub(crate) fn is_succeeded(&self, worker: WorkerId) -> bool {
        let mut own = self.groups.lanes_of(worker);
        own.any(|(group, lane)| group.is_spread() && lane.user() != Some(worker))
    }

    /// Puts back what workers may have changed, and looks at all counts again, of some addresses after others where there
    /// are many. To be called about once a second.
    pub(crate) fn maintain(&mut self, now: Duration) {
        self.now = now;
        let keys = self.groups.round(self.maintained, AT_ONCE);
        let most = somaxconn();
        for key in &keys {
            if let Some(group) = self.groups.get_mut(*key) {
                group.reassert(most);
            }
            self.listen_again(*key, now, |_| true);
            let Some(group) = self.groups.get_mut(*key) else { continue };
            if group.address.is_tcp() && group.is_spread() && self.steering.tuning.is_on {
                for lane in group.lanes.iter_mut().filter(|lane| lane.is_listening && !lane.users.is_empty())
                {
                    let reading = self.steering.read(lane, lane.depth().unwrap_or(0));
                    lane.watch.observe(reading, now);
                    if let Some(open) = self.steering.open_descriptors(lane) {
                        lane.watch.count(open, now);
                    }
                    if reading.depth > 0 {
                        self.steering.hot.insert(lane.id);
                    }
                }
            }
            if self.is_closing {
                group.refuse_new();
            }
            if group.file.is_kept(self.is_closing) {
                group.file.maintain();
            }
        }
        for key in &keys {
            self.refresh(*key);
        }
        self.maintained = keys.last().copied().unwrap_or_default();
    }
}

/// How often the lanes of a group are looked at while nobody is held up.
fn relaxed(group: &Group, tick: Duration) -> Duration {
    let crowd = u32::try_from(group.served.count() / CROWD).unwrap_or(u32::MAX);
    (RELAXED + Duration::from_millis(1) * crowd).min(MOST_RELAXED).max(tick)
}

fn add(epoll: impl AsFd, lane: &Lane, flags: EventFlags) -> io::Result<()> {
    match epoll::add(epoll, &lane.socket, EventData::new_u64(lane.id.0), flags) {
        Err(rustix::io::Errno::EXIST) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What an epoll descriptor has to tell at this moment, `MOST` names of lanes at most.
fn named<const MOST: usize>(epoll: impl AsFd) -> io::Result<Vec<LaneId>> {
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; MOST];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let count = epoll::wait(epoll, &mut events[..], Some(&now))?;
    Ok(events[..count].iter().map(|event| LaneId({ event.data }.u64())).collect())
}

/// How long the kernel lets an accept queue be.
fn somaxconn() -> u32 {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(128)
}

#[cfg(test)]
mod tests;
