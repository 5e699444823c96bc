//! The port table: one group for each address that workers listen on, with its lanes or its one shared listener.
//!
//! The only owner of listening sockets, of the order in which they were made to listen (which is how the kernel
//! numbers them) and of the programs that pick among them. Knows workers by id and slot only: nothing of
//! processes, channels or notifications.

mod desk;
mod divert;
mod full;
mod group;
mod handoff;
mod heads;
mod hold;
mod lane;
mod leave;
mod limits;
mod obtain;
mod overlap;
mod passage;
mod questions;
mod relief;
mod removals;
mod saved;
mod selection;
mod socket_file;
mod starving;
mod steer;
mod strays;
mod table;
mod udp;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use allcores_core::worker::{Slot, WorkerId};

use crate::address::Address;
use crate::primary::{Depot, Policy, name_of};

use group::Group;
pub(crate) use group::Listener;
pub(crate) use handoff::Delivery;
pub(crate) use heads::Looked;
use heads::Unread;
use lane::{Kind, Lane};
pub(crate) use lane::{Profile, Unavailable};
pub(crate) use limits::{MOST_OF_WORKER, too_many_listeners};
pub(crate) use passage::{Passage, Reach};
use removals::Removals;
pub(crate) use removals::Touched;
pub(crate) use saved::PortsSaved;
use steer::Steering;
pub(crate) use steer::Tuning;
pub(crate) use strays::Stray;
use table::{Key, Table};

/// Names one listening socket; never reused. Begins with its group's name, and grows with its age there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(u64);

impl LaneId {
    /// As a number, for who writes it down.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The lane of this number.
    pub(crate) fn of_number(number: u64) -> Self {
        Self(number)
    }
}

/// A worker that asks for a listener.
#[derive(Clone, Debug)]
pub(crate) struct Applicant {
    pub(crate) worker: WorkerId,
    pub(crate) slot: Slot,
    /// The hung worker whose lanes it shares.
    pub(crate) replaces: Option<WorkerId>,
    /// It asks over its channel, by which it can be handed connections.
    pub(crate) is_by_channel: bool,
    /// How it wants the address to be served, if it is the first to ask for it.
    pub(crate) policy: Option<Policy>,
    /// Its version may be taken back, with what only it listens on.
    pub(crate) is_on_trial: bool,
}

/// The port table.
#[derive(Debug)]
pub(crate) struct Ports {
    policy: Policy,
    /// How many connections of one address may wait to be handed over.
    pending: usize,
    groups: Table,
    /// Workers that may get connections.
    serving: HashSet<WorkerId>,
    /// How many slots there should be: lanes of higher ones are not waited for.
    target: u16,
    /// A worker that goes is replaced, in its slot.
    is_kept: bool,
    steering: Steering,
    strays: u64,
    descriptors: limits::Descriptors,
    full: full::Full,
    /// Connections whose heads are to be read.
    unread: Vec<Unread>,
    /// Why nothing can be accepted at an address, where that has not been told.
    shortage: Option<(String, io::Error)>,
    /// The group that was maintained last.
    maintained: Key,
    removals: Removals,
    is_closing: bool,
    /// Workers have to show that they are ready.
    is_gated: bool,
    /// Lanes that their workers were found to have closed or have others for, for who remembers which they have.
    closed: Vec<(WorkerId, LaneId)>,
    /// Sockets of addresses that were closed a moment ago, and when.
    gone: Vec<(u64, Instant)>,
    /// Where listeners are put away.
    depot: Option<Box<dyn Depot>>,
    /// When the lanes were last looked at.
    now: Duration,
}

impl Ports {
    /// An empty table.
    pub(crate) fn new(policy: Policy, pending: usize, steering: Tuning) -> io::Result<Self> {
        Ok(Self {
            policy,
            pending,
            groups: Table::default(),
            serving: HashSet::new(),
            target: 0,
            is_kept: true,
            steering: Steering::new(steering)?,
            strays: 0,
            descriptors: limits::Descriptors::default(),
            full: full::Full::default(),
            unread: Vec::new(),
            shortage: None,
            maintained: Key::default(),
            removals: Removals::default(),
            is_closing: false,
            is_gated: false,
            closed: Vec::new(),
            gone: Vec::new(),
            depot: None,
            now: Duration::ZERO,
        })
    }

    /// Binds `address` before anybody asks for it, so that what is wrong with it is known.
    pub(crate) fn prepare(&mut self, address: &Address) -> Result<(), Unavailable> {
        if self.groups.find(address, 0).is_none() {
            self.open_group(address, 0, &Profile::default(), None)?;
        }
        Ok(())
    }

    /// Has listeners put away from now on, and those that there are. What is there already stays as it is.
    pub(crate) fn put_away_in(&mut self, depot: Box<dyn Depot>) {
        self.depot = Some(depot);
        for group in self.groups.iter() {
            self.put_away(group);
        }
    }

    /// What does not listen yet is put away when it does: systemd would take it for hung up.
    fn put_away(&self, group: &Group) {
        let first = group.order.first().and_then(|lane| group.lane(*lane));
        if let (Some(depot), Some(name), Some(lane)) = (&self.depot, name_put_away(group), first) {
            depot.put(&name, lane.socket.as_fd());
        }
    }

    /// Takes in a socket that somebody else has bound, who has a name for it, or a primary before this one. Says why workers have
    /// no lanes there, where they would have some.
    pub(crate) fn take_in(
        &mut self,
        address: &Address,
        socket: OwnedFd,
        name: Option<String>,
    ) -> io::Result<Option<io::Error>> {
        let way = self.way(None);
        let (group, obstacle) = Group::take_in(self.groups.next_key(), address, &way, (socket, name))?;
        let key = self.groups.insert(group);
        self.follow(key);
        Ok(obstacle)
    }

    /// The sockets that were taken in: their addresses and names, and whether any worker has them.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&Address, &str, bool)> {
        self.groups.iter().filter_map(|group| {
            let is_used = group.lanes.iter().any(|lane| !lane.users.is_empty());
            Some((&group.address, group.given.as_deref()?, is_used))
        })
    }

    /// Makes a lane listen, if it does not yet, and lets its users have connections.
    pub(crate) fn listen(&mut self, id: LaneId, backlog: i32) -> io::Result<()> {
        let Some((group, at)) = self.locate(id) else { return Ok(()) };
        let is_first = self.groups[group].order.is_empty();
        self.groups[group].listen(at, backlog)?;
        if is_first {
            self.put_away(&self.groups[group]);
        }
        self.groups[group].park();
        if self.groups[group].wants_waiting_room() {
            let room = self.open_room(group, backlog)?;
            self.steering.watch(&self.groups[group].lanes[room])?;
        }
        let lane = &self.groups[group].lanes[at];
        if self.groups[group].is_handoff() {
            self.steering.watch_desk(lane)?;
        }
        if self.groups[group].address.is_tcp() && self.groups[group].is_spread() {
            self.steering.watch(lane)?;
        }
        self.refresh(group);
        Ok(())
    }

    fn locate(&self, id: LaneId) -> Option<(Key, usize)> {
        self.groups.locate(id)
    }

    fn lane(&self, id: LaneId) -> Option<(&Group, &Lane)> {
        let (group, at) = self.locate(id)?;
        Some((&self.groups[group], &self.groups[group].lanes[at]))
    }

    /// A lane's socket.
    pub(crate) fn socket(&self, id: LaneId) -> Option<BorrowedFd<'_>> {
        self.lane(id).map(|(_, lane)| lane.socket.as_fd())
    }

    /// A lane's socket, for whoever passes it on: many may wait to be, and are one descriptor.
    pub(crate) fn shared_socket(&self, id: LaneId) -> Option<Arc<OwnedFd>> {
        self.lane(id).map(|(_, lane)| Arc::clone(&lane.socket))
    }

    /// Whether a lane listens.
    pub(crate) fn has_listened(&self, id: LaneId) -> bool {
        self.lane(id).is_some_and(|(_, lane)| lane.is_listening)
    }

    /// Gives a lane what its worker has set on one since it has bound that.
    pub(crate) fn dress_as(&self, id: LaneId, bound: LaneId) {
        let Some(socket) = self.socket(bound) else { return };
        let is_nonblocking = rustix::fs::fcntl_getfl(socket).ok();
        let is_nonblocking = is_nonblocking.map(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK));
        self.dress(id, &Profile { is_nonblocking, ..Profile::of(socket) });
    }

    /// Gives a lane the options of the socket whose place it takes. What others have bound keeps those that they have set.
    pub(crate) fn dress(&self, id: LaneId, profile: &Profile) {
        let Some((group, lane)) = self.lane(id) else { return };
        if group.given.is_none() {
            let _ = profile.undo_others(&lane.socket);
        }
        let _ = profile.apply(&lane.socket);
    }

    /// The lane that is the socket with this inode.
    pub(crate) fn by_inode(&self, inode: u64) -> Option<LaneId> {
        self.groups.by_inode(inode)
    }

    /// The inode of a lane's socket, by which `/proc` names it.
    pub(crate) fn inode(&self, id: LaneId) -> Option<u64> {
        self.lane(id).map(|(_, lane)| lane.inode)
    }

    /// Who has the lane that this socket is, if it is one.
    pub(crate) fn users_of_socket(&self, inode: u64) -> Option<impl Iterator<Item = WorkerId> + '_> {
        let (_, lane) = self.lane(self.by_inode(inode)?)?;
        Some(lane.users.iter().copied())
    }

    /// Takes note that the worker of this lane can be handed connections.
    pub(crate) fn set_handed(&mut self, id: LaneId) {
        if let Some((group, lane)) = self.locate(id) {
            self.groups[group].lanes[lane].kind = Kind::Handed;
        }
    }

    /// The data that belongs to a listener's address: what was offered first.
    pub(crate) fn share_data(&mut self, id: LaneId, offered: &str) -> String {
        let Some((group, _)) = self.locate(id) else { return offered.to_owned() };
        self.groups[group].data.get_or_insert_with(|| offered.to_owned()).clone()
    }

    /// Whether two lanes are of the same address.
    pub(crate) fn are_siblings(&self, one: LaneId, other: LaneId) -> bool {
        one.group() == other.group() && self.groups.get(one.group()).is_some()
    }

    /// Whether the primary accepts at a lane's address.
    pub(crate) fn is_handoff(&self, id: LaneId) -> bool {
        self.lane(id).is_some_and(|(group, _)| group.is_handoff())
    }

    /// The port of a lane's address; -1 for a Unix socket, as in Node.
    pub(crate) fn port(&self, id: LaneId) -> Option<i64> {
        let (group, _) = self.lane(id)?;
        Some(group.address.socket().map_or(-1, |socket| socket.port().into()))
    }

    /// What a lane listens on, and whether it is one of several.
    pub(crate) fn describe(&self, id: LaneId) -> Option<Listener> {
        self.lane(id).map(|(group, _)| group.listener())
    }

    /// The workers that use a lane.
    pub(crate) fn users(&self, id: LaneId) -> impl Iterator<Item = WorkerId> + '_ {
        self.lane(id).into_iter().flat_map(|(_, lane)| lane.users.iter().copied())
    }

    /// Says whether `worker` may get connections.
    pub(crate) fn serve(&mut self, worker: WorkerId, is_serving: bool, now: Duration) {
        if is_serving {
            self.serving.insert(worker);
            self.groups.visit_lanes_of(worker, |lane| lane.watch.begin(now));
        } else {
            self.serving.remove(&worker);
        }
        for key in self.groups.keys_of(worker) {
            self.groups.stir(key);
            self.groups[key].desk.serve(worker, is_serving);
            self.refresh(key);
        }
        self.divert(worker, !is_serving);
    }

    /// Says whether a worker that goes is replaced, as is taken for granted otherwise.
    pub(crate) fn set_kept(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// Says that workers which listen are not to get anything before they are known to be ready.
    pub(crate) fn set_gated(&mut self) {
        self.is_gated = true;
    }

    /// Says how many slots there should be.
    pub(crate) fn set_target(&mut self, target: u16) {
        self.target = target;
    }

    /// Brings a group's program in line with who serves.
    fn refresh(&mut self, key: Key) {
        let Some(group) = self.groups.get_mut(key) else { return };
        group.refresh(&self.serving, self.target, self.now);
        group.redirect();
        if self.is_gated && !self.is_closing {
            group.hold(&self.serving);
        }
    }

    /// What each worker's processes have open, for readings of how many connections they hold.
    pub(crate) fn set_process(&mut self, worker: WorkerId, pid: u32) {
        self.steering.set_process(worker, pid);
    }
}

/// What the first listener of an address is called where it is put away. A port that the kernel has chosen means nothing to
/// the next primary, and what others have bound they keep themselves.
fn name_put_away(group: &Group) -> Option<String> {
    let is_kept = group.address.is_tcp() && group.asked.is_none() && group.given.is_none();
    group.address.socket().filter(|_| is_kept).map(name_of)
}

#[cfg(test)]
mod tests;
