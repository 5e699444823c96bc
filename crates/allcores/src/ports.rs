//! The port table: one group for each address that workers listen on, with its lanes or its one shared listener.
//!
//! The only owner of listening sockets, of the order in which they were made to listen (which is how the kernel
//! numbers them) and of the programs that pick among them. Knows workers by id and slot only: nothing of
//! processes, channels or notifications.

mod group;
mod lane;
mod relief;
mod steer;
mod strays;

use std::collections::HashSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use allcores_core::worker::{Slot, WorkerId};

use crate::address::Address;
use crate::primary::Policy;
use crate::proc;

use group::Group;
pub(crate) use group::Listener;
use lane::{Kind, Lane};
pub(crate) use lane::{Profile, Unavailable};
use steer::Steering;
pub(crate) use steer::Tuning;
pub(crate) use strays::Stray;

/// Names one listening socket; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(u64);

/// A worker that asks for a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applicant {
    pub(crate) worker: WorkerId,
    pub(crate) slot: Slot,
    /// The hung worker whose lanes it shares.
    pub(crate) replaces: Option<WorkerId>,
}

/// The port table.
#[derive(Debug)]
pub(crate) struct Ports {
    policy: Policy,
    groups: Vec<Group>,
    /// Workers that may get connections.
    serving: HashSet<WorkerId>,
    /// How many slots there should be: lanes of higher ones are not waited for.
    target: u16,
    steering: Steering,
    next_lane: u64,
    strays: u64,
    is_closing: bool,
    /// When the lanes were last looked at.
    now: Duration,
}

impl Ports {
    /// An empty table.
    pub(crate) fn new(policy: Policy, steering: Tuning) -> io::Result<Self> {
        Ok(Self {
            policy,
            groups: Vec::new(),
            serving: HashSet::new(),
            target: 0,
            steering: Steering::new(steering)?,
            next_lane: 0,
            strays: 0,
            is_closing: false,
            now: Duration::ZERO,
        })
    }

    /// Binds `address` before anybody asks for it, so that what is wrong with it is known.
    pub(crate) fn prepare(&mut self, address: &Address) -> Result<(), Unavailable> {
        if self.find(address, 0).is_none() {
            self.open_group(address, 0, &Profile::default())?;
        }
        Ok(())
    }

    /// Finds or makes the listener for `address` that `applicant` is to have.
    ///
    /// `index` tells apart listeners on port 0, which are different addresses though they are asked for alike.
    /// `still_has` says whether the applicant still has a socket open: one that it closed it may ask for again.
    pub(crate) fn obtain(
        &mut self,
        applicant: Applicant,
        address: &Address,
        index: u64,
        profile: &Profile,
        mut still_has: impl FnMut(u64) -> bool,
    ) -> Result<LaneId, Unavailable> {
        let at = match self.find(address, index) {
            Some(at) => at,
            None => self.open_group(address, index, profile)?,
        };
        let target = self.target;
        let group = &mut self.groups[at];
        for lane in &mut group.lanes {
            if lane.users.contains(&applicant.worker) && !still_has(lane.inode) {
                lane.users.remove(&applicant.worker);
            }
        }
        let already_has = group.lanes.iter().any(|lane| lane.users.contains(&applicant.worker));
        if already_has && !(profile.is_reuse_port && group.is_spread) {
            return Err(Unavailable::errno(libc::EADDRINUSE));
        }
        let at_lane = if let Some(free) = group.free_lane(applicant, target) {
            free
        } else {
            let id = next_id(&mut self.next_lane);
            group.add_lane(id, applicant.slot)?
        };
        let lane = &mut group.lanes[at_lane];
        lane.users.insert(applicant.worker);
        lane.slot = applicant.slot;
        Ok(lane.id)
    }

    fn find(&self, address: &Address, index: u64) -> Option<usize> {
        self.groups.iter().position(|group| {
            group.address == *address
                || group.asked.as_ref().is_some_and(|(asked, nth)| asked == address && *nth == index)
        })
    }

    fn open_group(&mut self, address: &Address, index: u64, profile: &Profile) -> Result<usize, Unavailable> {
        let id = next_id(&mut self.next_lane);
        let group = Group::open(id, address, index, self.policy, profile)?;
        self.groups.push(group);
        Ok(self.groups.len() - 1)
    }

    /// Takes a Unix socket that a worker is about to bind by itself into the table, so that others can share it.
    pub(crate) fn adopt_unix(
        &mut self,
        applicant: Applicant,
        address: &Address,
        socket: OwnedFd,
    ) -> io::Result<LaneId> {
        let id = next_id(&mut self.next_lane);
        self.groups.push(Group::around_unix(id, applicant, address, socket)?);
        Ok(id)
    }

    /// The shared Unix socket at `address`, if there is one: `Ok` once it is bound, `Err` while its first user has
    /// not come so far.
    pub(crate) fn shared_unix(
        &mut self,
        applicant: Applicant,
        address: &Address,
    ) -> Option<Result<LaneId, ()>> {
        let group = self.groups.iter_mut().find(|group| group.address == *address)?;
        let lane = group.lanes.first_mut()?;
        if !lane.is_listening {
            return Some(Err(()));
        }
        group.files.restore();
        lane.users.insert(applicant.worker);
        Some(Ok(lane.id))
    }

    /// Makes a lane listen, if it does not yet, and lets its users have connections.
    pub(crate) fn listen(&mut self, id: LaneId, backlog: i32) -> io::Result<()> {
        let Some((group, at)) = self.locate(id) else { return Ok(()) };
        self.groups[group].listen(at, backlog)?;
        if self.groups[group].wants_waiting_room() {
            let id = next_id(&mut self.next_lane);
            let room = self.groups[group].add_lane(id, Slot(u16::MAX))?;
            self.groups[group].lanes[room].kind = Kind::Waiting;
            self.groups[group].listen(room, backlog)?;
            self.steering.watch(&self.groups[group].lanes[room])?;
        }
        let lane = &self.groups[group].lanes[at];
        if self.groups[group].address.is_tcp() && self.groups[group].is_spread {
            self.steering.watch(lane)?;
        }
        self.refresh();
        Ok(())
    }

    fn locate(&self, id: LaneId) -> Option<(usize, usize)> {
        self.groups.iter().enumerate().find_map(|(group, candidate)| {
            Some((group, candidate.lanes.iter().position(|lane| lane.id == id)?))
        })
    }

    fn lane(&self, id: LaneId) -> Option<(&Group, &Lane)> {
        let (group, at) = self.locate(id)?;
        Some((&self.groups[group], &self.groups[group].lanes[at]))
    }

    /// A lane's socket.
    pub(crate) fn socket(&self, id: LaneId) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.lane(id).map(|(_, lane)| lane.socket.as_fd())
    }

    /// Whether a lane listens.
    pub(crate) fn has_listened(&self, id: LaneId) -> bool {
        self.lane(id).is_some_and(|(_, lane)| lane.is_listening)
    }

    /// Gives a lane the options of the socket whose place it takes.
    pub(crate) fn dress(&self, id: LaneId, profile: &Profile) {
        if let Some((_, lane)) = self.lane(id) {
            let _ = profile.apply(&lane.socket);
        }
    }

    /// The lane that is the socket with this inode.
    pub(crate) fn by_inode(&self, inode: u64) -> Option<LaneId> {
        self.groups.iter().flat_map(|group| &group.lanes).find(|lane| lane.inode == inode).map(|lane| lane.id)
    }

    /// The inode of a lane's socket, by which `/proc` names it.
    pub(crate) fn inode(&self, id: LaneId) -> Option<u64> {
        self.lane(id).map(|(_, lane)| lane.inode)
    }

    /// Takes note that the worker of this lane can be handed connections.
    pub(crate) fn set_handed(&mut self, id: LaneId) {
        if let Some((group, lane)) = self.locate(id) {
            self.groups[group].lanes[lane].kind = Kind::Handed;
        }
    }

    /// Whether two lanes are of the same address.
    pub(crate) fn are_siblings(&self, one: LaneId, other: LaneId) -> bool {
        let group = |id| self.locate(id).map(|(group, _)| group);
        group(one).is_some() && group(one) == group(other)
    }

    /// What a lane listens on, and whether it is one of several.
    pub(crate) fn describe(&self, id: LaneId) -> Option<Listener> {
        self.lane(id).map(|(group, _)| group.listener())
    }

    /// Says whether `worker` may get connections.
    pub(crate) fn serve(&mut self, worker: WorkerId, is_serving: bool, now: Duration) {
        if is_serving {
            self.serving.insert(worker);
            for lane in self.groups.iter_mut().flat_map(|group| &mut group.lanes) {
                if lane.users.contains(&worker) {
                    lane.watch.begin(now);
                }
            }
        } else {
            self.serving.remove(&worker);
        }
        self.refresh();
    }

    /// Says how many slots there should be.
    pub(crate) fn set_target(&mut self, target: u16) {
        self.target = target;
    }

    /// Forgets a worker that is gone. Its lanes stay open, with what waits in them, for the next.
    pub(crate) fn release(&mut self, worker: WorkerId, now: Duration) {
        self.serving.remove(&worker);
        for lane in self.groups.iter_mut().flat_map(|group| &mut group.lanes) {
            lane.release(worker, now);
        }
        // A Unix socket whose first user went before it listened was never bound.
        self.groups.retain(|group| {
            let is_unix = matches!(group.address, Address::Unix(_));
            !is_unix || group.lanes.iter().any(|lane| lane.is_listening || !lane.users.is_empty())
        });
        self.steering.forget_process(worker);
        self.close_surplus_udp();
        self.refresh();
    }

    /// Closes UDP sockets that nobody will read again: unlike a TCP lane, one can't be steered away from.
    fn close_surplus_udp(&mut self) {
        let target = self.target;
        for group in self.groups.iter_mut().filter(|group| group.address.is_udp() && group.is_spread) {
            group.lanes.retain(|lane| lane.slot.0 < target || !lane.users.is_empty());
        }
    }

    /// A worker has closed one of its listeners by choice. An address that every worker has closed is closed.
    pub(crate) fn give_up(&mut self, worker: WorkerId, id: LaneId, now: Duration) {
        let Some((at, lane)) = self.locate(id) else { return };
        self.groups[at].lanes[lane].release(worker, now);
        self.groups[at].lanes[lane].is_given_up = true;
        let group = &self.groups[at];
        let is_left = |lane: &Lane| lane.users.is_empty() && lane.is_given_up;
        if group.lanes.iter().all(|lane| lane.kind == Kind::Waiting || is_left(lane)) {
            for lane in &group.lanes {
                self.steering.forget(lane);
            }
            self.groups.remove(at);
        }
        self.refresh();
    }

    /// Refuses new connections everywhere and keeps those that wait: the pool stops.
    pub(crate) fn close_to_new(&mut self) {
        self.is_closing = true;
        for group in &mut self.groups {
            group.refuse_new();
        }
    }

    /// The lanes of one worker.
    pub(crate) fn lanes_of(&self, worker: WorkerId) -> impl Iterator<Item = (String, Option<u32>)> + '_ {
        self.groups.iter().flat_map(move |group| {
            let lanes = group.lanes.iter().filter(move |lane| lane.users.contains(&worker));
            lanes.map(|lane| (group.address.to_string(), lane.depth()))
        })
    }

    /// Whether connections wait in any lane of `worker`, or, once the pool stops, for whoever is free.
    pub(crate) fn has_waiting(&self, worker: WorkerId) -> bool {
        let is_room = |lane: &&Lane| self.is_closing && lane.kind == Kind::Waiting;
        let rooms = self.groups.iter().flat_map(|group| &group.lanes).filter(is_room);
        let own = self.lanes_of(worker).map(|(_, depth)| depth);
        rooms.map(Lane::depth).chain(own).any(|depth| depth.is_some_and(|depth| depth > 0))
    }

    /// Whether `worker` accepts from a listener that others accept from too.
    pub(crate) fn is_sharing(&self, worker: WorkerId) -> bool {
        let mut shared = self.groups.iter().filter(|group| !group.is_spread).flat_map(|group| &group.lanes);
        shared.any(|lane| lane.users.contains(&worker) && lane.users.len() > 1)
    }

    /// Whether `worker` has any listener that listens.
    pub(crate) fn is_listening(&self, worker: WorkerId) -> bool {
        let mut lanes = self.groups.iter().flat_map(|group| &group.lanes);
        lanes.any(|lane| lane.is_listening && lane.users.contains(&worker))
    }

    /// TCP ports that workers listen on.
    pub(crate) fn tcp_ports(&self) -> Vec<u16> {
        let tcp = self.groups.iter().filter(|group| group.address.is_tcp());
        tcp.filter_map(|group| Some(group.address.socket()?.port())).collect()
    }

    /// Addresses that listen, in the order in which they came.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let open = self.groups.iter().filter(|group| group.lanes.iter().any(|lane| lane.is_listening));
        open.map(|group| group.address.to_string()).collect()
    }

    /// Connections taken from parked lanes and passed on, since the start.
    pub(crate) fn strays(&self) -> u64 {
        self.strays
    }

    /// Brings each group's program in line with who serves.
    fn refresh(&mut self) {
        for group in &mut self.groups {
            group.refresh(&self.serving, self.target, self.now);
        }
    }

    /// What each worker's processes have open, for readings of how many connections they hold.
    pub(crate) fn set_process(&mut self, worker: WorkerId, pid: u32) {
        self.steering.set_process(worker, pid);
    }

    /// Closes everything and removes the files of Unix sockets.
    pub(crate) fn close(&mut self) {
        self.groups.clear();
    }
}

/// A name that no lane has had before.
fn next_id(next: &mut u64) -> LaneId {
    let id = LaneId(*next);
    *next += 1;
    id
}

/// Sockets of `pids` that are still open, looked up once for several questions.
pub(crate) fn still_open(pids: Vec<u32>) -> impl FnMut(u64) -> bool {
    let mut open: Option<HashSet<u64>> = None;
    move |inode| open.get_or_insert_with(|| proc::open_sockets(&pids)).contains(&inode)
}
