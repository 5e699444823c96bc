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

/// How often connections waited for a busy worker while another had none waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Misfit {
    /// Looks at groups that had connections waiting.
    pub(crate) ticks: u64,
    /// Those of them that found such a pair.
    pub(crate) uneven: u64,
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
    /// `/proc/PID/fd` of each worker: its size is the number of descriptors (Linux 6.2).
    processes: HashMap<WorkerId, OwnedFd>,
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
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(folder) = rustix::fs::open(format!("/proc/{pid}/fd"), flags, Mode::empty()) {
            self.processes.insert(worker, folder);
        }
    }

    pub(super) fn forget_process(&mut self, worker: WorkerId) {
        self.processes.remove(&worker);
    }

    fn open_descriptors(&self, lane: &Lane) -> Option<u32> {
        let worker = lane.users.last()?;
        let size = rustix::fs::fstat(self.processes.get(worker)?).ok()?.st_size;
        u32::try_from(size).ok().filter(|count| *count > 0)
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

    /// Takes note of lanes that have connections waiting.
    pub(crate) fn note_ready(&mut self, lanes: &[LaneId]) {
        self.steering.hot.extend(lanes);
        for lane in self.groups.iter_mut().flat_map(|group| &mut group.lanes) {
            if lanes.contains(&lane.id) {
                lane.watch.note_arrival();
            }
        }
    }

    /// Lanes whose queue has been emptied since this was last asked.
    pub(crate) fn take_emptied(&mut self) -> Vec<LaneId> {
        std::mem::take(&mut self.steering.emptied)
    }

    /// How often connections waited for a busy worker while another had none waiting.
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
        let mut cooled = Vec::new();
        for group in self.groups.iter_mut().filter(|group| group.is_spread) {
            for lane in group.lanes.iter_mut().filter(|lane| self.steering.hot.contains(&lane.id)) {
                let depth = lane.depth().unwrap_or(0);
                if self.steering.tuning.is_on {
                    let open = self.steering.open_descriptors(lane);
                    lane.watch.observe(Reading { depth, open }, now);
                }
                if depth == 0 {
                    cooled.push(lane.id);
                    self.steering.arm(lane);
                }
            }
            let served = || {
                group.lanes.iter().filter(|lane| lane.users.iter().any(|user| self.serving.contains(user)))
            };
            if served().any(|lane| lane.watch.depth() > 0) {
                let is_uneven =
                    served().any(|lane| lane.watch.is_busy()) && served().any(|lane| lane.watch.depth() == 0);
                self.steering.misfit.ticks += 1;
                self.steering.misfit.uneven += u64::from(is_uneven);
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
