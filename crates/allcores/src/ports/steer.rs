//! Watching the lanes' queues: which workers are busy, which hang.
//!
//! Nothing is polled while no lane has a queue. A lane with connections waiting makes the epoll descriptor readable,
//! once; from then on it is looked at on each tick until it is found empty, and then armed again.

mod saved;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use allcores_core::steering::Reading;
use allcores_core::worker::WorkerId;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};

use super::group::HELD_UP;
use super::lane::{Kind, Lane};
use super::relief::RESPITE;
use super::table::Key;
use super::{LaneId, Ports};
use crate::sys::Watch;

pub(super) use saved::SteeringSaved;

/// How the lanes are steered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// How long after a connection came its lane is looked at, and again.
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

/// How often a connection came to a worker that was busy with another, while a third had none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Misfit {
    /// Times that connections came to a lane where none waited.
    pub(crate) arrivals: u64,
    /// Those of them after which the worker was found busy, and another free.
    pub(crate) misplaced: u64,
}

#[derive(Debug)]
pub(super) struct Steering {
    pub(super) tuning: Tuning,
    epoll: Watch,
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
}

/// How long it is remembered that a worker was held up by what it does.
const MEMORY: Duration = Duration::from_secs(1);

/// How many addresses are maintained at a time.
const AT_ONCE: usize = 256;

const ARMED: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

impl Steering {
    pub(super) fn new(tuning: Tuning) -> io::Result<Self> {
        Ok(Self {
            tuning,
            epoll: Watch::readable(epoll::create(CreateFlags::CLOEXEC)?)?,
            misfit: Misfit::default(),
            emptied: Vec::new(),
            hot: BTreeSet::new(),
            processes: HashMap::new(),
        })
    }

    pub(super) fn watch(&self, lane: &Lane) -> io::Result<()> {
        match epoll::add(&self.epoll, &lane.socket, EventData::new_u64(lane.id.0), ARMED) {
            Err(rustix::io::Errno::EXIST) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn arm(&self, lane: &Lane) {
        let _ = epoll::modify(&self.epoll, &lane.socket, EventData::new_u64(lane.id.0), ARMED);
    }

    pub(super) fn forget(&mut self, lane: &Lane) {
        let _ = epoll::delete(&self.epoll, &lane.socket);
        self.hot.remove(&lane.id);
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
            self.processes.insert(worker, Process { pid, descriptors, stat });
        }
    }

    pub(super) fn forget_process(&mut self, worker: WorkerId) {
        self.processes.remove(&worker);
    }

    fn open_descriptors(&self, lane: &Lane) -> Option<u32> {
        self.descriptors_of(*lane.users.last()?)
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
    /// Waits until connections wait in lanes that were found empty before, and says which.
    ///
    /// # Cancel safety
    ///
    /// Safe: a lane that was said to be ready is not armed again before it has been looked at.
    pub(crate) async fn next_ready(&self) -> Vec<LaneId> {
        let ready = self.steering.epoll.read(|epoll| {
            let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let count = epoll::wait(epoll, &mut events[..], Some(&now))?;
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(events[..count].iter().map(|event| LaneId({ event.data }.u64())).collect())
        });
        match ready.await {
            Ok(lanes) => lanes,
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes note of lanes that have connections waiting, and has a first look at them.
    pub(crate) fn note_ready(&mut self, lanes: &[LaneId], now: Duration) {
        for id in lanes {
            let Some((key, at)) = self.locate(*id) else { continue };
            let group = &mut self.groups[key];
            if group.desk_lane().is_some_and(|lane| lane.id == *id) {
                group.desk.note_ready();
                self.groups.stir(key);
                continue;
            }
            self.steering.hot.insert(*id);
            self.steering.misfit.arrivals += 1;
            if self.steering.tuning.is_on && !group.is_handoff() {
                let lane = &mut group.lanes[at];
                lane.watch.note_arrival();
                let depth = lane.depth().unwrap_or(0);
                lane.watch.observe(Reading { depth, open: None }, now);
            }
        }
    }

    /// Sends a worker no connections for a while, unless it shows life before: it was handed one and does not answer.
    pub(crate) fn distrust(&mut self, worker: WorkerId, now: Duration) {
        let until = now + self.steering.tuning.tick * RESPITE;
        self.groups.visit_lanes_of(worker, |lane| {
            if !lane.watch.is_busy() {
                lane.watch.distrust(until);
                self.steering.hot.insert(lane.id);
            }
        });
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
        !self.steering.hot.is_empty()
    }

    /// How often to look.
    pub(crate) fn tick_interval(&self) -> Duration {
        self.steering.tuning.tick
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
        let mut cooled = Vec::new();
        let hot = self.hot_groups();
        for key in &hot {
            let Some(group) = self.groups.get_mut(*key).filter(|group| group.is_spread()) else { continue };
            let mut newly_busy = 0;
            for lane in group.lanes.iter_mut().filter(|lane| self.steering.hot.contains(&lane.id)) {
                let depth = lane.depth().unwrap_or(0);
                if self.steering.tuning.is_on {
                    // Who is left out anyway need not be counted.
                    let open = if lane.watch.is_busy() { None } else { self.steering.open_descriptors(lane) };
                    if lane.kind == Kind::Handed
                        && lane.watch.is_relieved()
                        && lane.users.last().is_none_or(|user| self.steering.is_asleep(*user))
                    {
                        lane.watch.note_life(now);
                    }
                    let was_busy = lane.watch.is_busy();
                    lane.watch.observe(Reading { depth, open }, now);
                    newly_busy += u64::from(lane.watch.is_busy() && !was_busy);
                }
                // One that has no channel is left alone for long, and there is nothing to look at meanwhile.
                if depth == 0 && (lane.kind == Kind::Own || !lane.watch.is_relieved()) {
                    cooled.push(lane.id);
                    self.steering.arm(lane);
                }
            }
            if group.lanes.iter().any(|lane| lane.watch.held_up_for(now) >= HELD_UP) {
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
        for key in hot {
            self.refresh(key);
        }
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
            let Some((since, worker)) = lane.watch.relieved_since().zip(lane.users.last().copied()) else {
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
        own.any(|(group, lane)| group.is_spread() && lane.users.last() != Some(&worker))
    }

    /// Puts back what workers may have changed, and looks at all counts again, of some addresses after others where there
    /// are many. To be called about once a second.
    pub(crate) fn maintain(&mut self, now: Duration) {
        self.now = now;
        let keys = self.groups.round(self.maintained, AT_ONCE);
        let most = somaxconn();
        for key in &keys {
            let group = &mut self.groups[*key];
            group.reassert(most);
            if group.address.is_tcp() && group.is_spread() && self.steering.tuning.is_on {
                for lane in group.lanes.iter_mut().filter(|lane| lane.is_listening && !lane.users.is_empty())
                {
                    let open = self.steering.open_descriptors(lane);
                    let depth = lane.depth().unwrap_or(0);
                    lane.watch.observe(Reading { depth, open }, now);
                    if depth > 0 {
                        self.steering.hot.insert(lane.id);
                    }
                }
            }
            if self.is_closing {
                group.refuse_new();
            }
        }
        for key in &keys {
            self.refresh(*key);
        }
        self.maintained = keys.last().copied().unwrap_or_default();
    }
}

/// How long the kernel lets an accept queue be.
fn somaxconn() -> u32 {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(128)
}
