//! Watching the lanes' queues: which workers are busy, which hang.
//!
//! Nothing is polled while no lane has a queue. A lane with connections waiting makes the epoll descriptor readable,
//! once; from then on it is looked at on each tick until it is found empty, and then armed again.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use allcores_core::steering::Reading;
use allcores_core::worker::WorkerId;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};

use super::lane::Lane;
use super::relief::RESPITE;
use super::{LaneId, Ports};
use crate::sys::Watch;

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
    /// `/proc/PID/fd`: its size is the number of descriptors (Linux 6.2).
    descriptors: OwnedFd,
    /// `/proc/PID/stat`: its third field is what the main thread does.
    stat: OwnedFd,
}

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

    fn arm(&self, lane: &Lane) {
        let _ = epoll::modify(&self.epoll, &lane.socket, EventData::new_u64(lane.id.0), ARMED);
    }

    pub(super) fn forget(&mut self, lane: &Lane) {
        let _ = epoll::delete(&self.epoll, &lane.socket);
        self.hot.remove(&lane.id);
    }

    pub(super) fn set_process(&mut self, worker: WorkerId, pid: u32) {
        let open = |name: &str, flags: OFlags| {
            rustix::fs::open(format!("/proc/{pid}/{name}"), flags | OFlags::CLOEXEC, Mode::empty())
        };
        let descriptors = open("fd", OFlags::PATH | OFlags::DIRECTORY);
        if let (Ok(descriptors), Ok(stat)) = (descriptors, open("stat", OFlags::RDONLY)) {
            self.processes.insert(worker, Process { descriptors, stat });
        }
    }

    pub(super) fn forget_process(&mut self, worker: WorkerId) {
        self.processes.remove(&worker);
    }

    fn open_descriptors(&self, lane: &Lane) -> Option<u32> {
        let worker = lane.users.last()?;
        let size = rustix::fs::fstat(&self.processes.get(worker)?.descriptors).ok()?.st_size;
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
        self.steering.hot.extend(lanes);
        self.steering.misfit.arrivals += lanes.len() as u64;
        let is_ready = |lane: &&mut Lane| lanes.contains(&lane.id);
        if !self.steering.tuning.is_on {
            return;
        }
        for lane in self.groups.iter_mut().flat_map(|group| &mut group.lanes).filter(is_ready) {
            lane.watch.note_arrival();
            let depth = lane.depth().unwrap_or(0);
            lane.watch.observe(Reading { depth, open: None }, now);
        }
    }

    /// Sends a worker no connections for a while, unless it shows life before: it was handed one and does not answer.
    pub(crate) fn distrust(&mut self, worker: WorkerId, now: Duration) {
        let until = now + self.steering.tuning.tick * RESPITE;
        for lane in self.groups.iter_mut().flat_map(|group| &mut group.lanes) {
            if lane.users.contains(&worker) && !lane.watch.is_busy() {
                lane.watch.distrust(until);
                self.steering.hot.insert(lane.id);
            }
        }
    }

    /// Takes in that a worker has just done something.
    pub(crate) fn note_life(&mut self, worker: WorkerId, now: Duration) {
        for lane in self.groups.iter_mut().flat_map(|group| &mut group.lanes) {
            if lane.users.contains(&worker) {
                lane.watch.note_life(now);
            }
        }
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

    /// Looks at the lanes that had connections waiting, and steers.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = now;
        let mut cooled = Vec::new();
        for group in self.groups.iter_mut().filter(|group| group.is_spread) {
            let mut newly_busy = 0;
            for lane in group.lanes.iter_mut().filter(|lane| self.steering.hot.contains(&lane.id)) {
                let depth = lane.depth().unwrap_or(0);
                if self.steering.tuning.is_on {
                    // Who is left out anyway need not be counted.
                    let open = if lane.watch.is_busy() { None } else { self.steering.open_descriptors(lane) };
                    if lane.watch.is_relieved()
                        && lane.users.last().is_none_or(|user| self.steering.is_asleep(*user))
                    {
                        lane.watch.note_life(now);
                    }
                    let was_busy = lane.watch.is_busy();
                    lane.watch.observe(Reading { depth, open }, now);
                    newly_busy += u64::from(lane.watch.is_busy() && !was_busy);
                }
                if depth == 0 && !lane.watch.is_relieved() {
                    cooled.push(lane.id);
                    self.steering.arm(lane);
                }
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
        self.refresh();
    }

    /// Workers whose connections have waited for longer than `limit` without any being taken.
    pub(crate) fn stalled(&self, limit: Duration, now: Duration) -> Vec<Stall> {
        let lanes = self.groups.iter().filter(|group| group.is_spread).flat_map(|group| &group.lanes);
        let stalled = lanes.filter_map(|lane| {
            // The oldest: while a hung worker is being replaced, it is the one that hangs.
            let (worker, stalled) = (*lane.users.first()?, lane.watch.stalled_for(now));
            (stalled >= limit).then_some(Stall { worker, lane: lane.id })
        });
        stalled.collect()
    }

    /// Puts back what workers may have changed, and looks at all counts again. To be called about once a second.
    pub(crate) fn maintain(&mut self, now: Duration) {
        self.now = now;
        for group in &mut self.groups {
            group.reassert();
            if group.address.is_tcp() && group.is_spread && self.steering.tuning.is_on {
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
        self.refresh();
    }
}
