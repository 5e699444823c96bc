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
mod limits;
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

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use allcores_core::worker::{Slot, WorkerId};

use crate::address::Address;
use crate::primary::{Depot, Policy, name_of};
use crate::sys::socket as raw;

pub(crate) use group::Listener;
use group::{Group, Standing, Way};
pub(crate) use handoff::Delivery;
pub(crate) use heads::Looked;
use heads::Unread;
use lane::{Beside, Kind, Lane, Vacancy};
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

/// How long a worker is trusted to read its UDP socket where it was just seen to have it.
const DOUBT: Duration = Duration::from_secs(5);

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

    /// Finds or makes the listener for `address` that `applicant` is to have.
    ///
    /// `index` tells apart listeners on port 0, which are different addresses though they are asked for alike.
    /// `still_has` says whether the applicant still has a lane, which is the socket of this inode, open: one that it
    /// closed it may ask for again, and is not in the way of others.
    pub(crate) fn obtain(
        &mut self,
        applicant: &Applicant,
        address: &Address,
        index: u64,
        profile: &Profile,
        mut still_has: impl FnMut(LaneId, u64) -> bool,
    ) -> Result<LaneId, Unavailable> {
        self.check_overlap(applicant.worker, address, profile, &mut still_has)?;
        self.obtain_such(applicant, (address, index), profile, still_has, |_, _| true)
    }

    /// The same for who was not asked whether the address goes with what else it has: the operator named both.
    pub(crate) fn obtain_named(
        &mut self,
        applicant: &Applicant,
        address: &Address,
        profile: &Profile,
    ) -> Result<LaneId, Unavailable> {
        self.obtain_such(applicant, (address, 0), profile, |_, _| true, |_, _| true)
    }

    /// As [`Self::obtain`], for who binds an address by itself and may never listen there. A lane that listens it gets by
    /// [`Self::successor_of`] when it does.
    pub(crate) fn obtain_to_bind(
        &mut self,
        applicant: &Applicant,
        address: &Address,
        profile: &Profile,
        mut still_has: impl FnMut(LaneId, u64) -> bool,
    ) -> Result<LaneId, Unavailable> {
        self.check_overlap(applicant.worker, address, profile, &mut still_has)?;
        let is_meant = |group: &Group, lane: &Lane| !(group.is_given_at_listen() && lane.is_listening);
        self.obtain_such(applicant, (address, 0), profile, still_has, is_meant)
    }

    fn obtain_such(
        &mut self,
        applicant: &Applicant,
        (address, index): (&Address, u64),
        profile: &Profile,
        mut still_has: impl FnMut(LaneId, u64) -> bool,
        is_meant: impl Fn(&Group, &Lane) -> bool,
    ) -> Result<LaneId, Unavailable> {
        self.check_share(applicant, &mut still_has)?;
        let key = match self.groups.find(address, index) {
            Some(key) => {
                let way = self.way(Some(applicant));
                self.groups[key].settle(&way);
                key
            }
            None => self.open_group(address, index, profile, Some(applicant))?,
        };
        let group = &self.groups[key];
        if group.is_handoff() && !applicant.is_by_channel {
            return Err(Unavailable::because(
                libc::EADDRINUSE,
                "workers that have a channel are handed its connections",
            ));
        }
        let closed: Vec<LaneId> = group
            .lanes
            .iter()
            .filter(|lane| lane.users.contains(&applicant.worker) && !still_has(lane.id, lane.inode))
            .map(|lane| lane.id)
            .collect();
        for lane in closed {
            self.groups.take_back(lane, applicant.worker, self.now);
            self.closed.push((applicant.worker, lane));
        }
        let target = self.target;
        let is_short = self.descriptors.are_short();
        let group = &self.groups[key];
        let already_has = group.lanes.iter().any(|lane| lane.users.contains(&applicant.worker));
        // As the kernel has it. Where all workers share one listener, one worker's sockets do.
        let may_have_more = (profile.is_reuse_port && group.address.socket().is_some())
            || profile.is_reuse_address
            || group.file.is_removed();
        if already_has && !may_have_more {
            return Err(Unavailable::errno(libc::EADDRINUSE));
        }
        let free = group.free_lane(applicant, target, |lane| is_meant(group, lane));
        let at_lane = if let Some(free) = free {
            free
        } else if is_short {
            return Err(limits::too_few_descriptors());
        } else {
            self.groups.add_lane(key, applicant.slot)?
        };
        let group = &mut self.groups[key];
        let id = group.lanes[at_lane].id;
        match (applicant.is_on_trial, group.standing) {
            (false, _) => group.standing = Standing::Kept,
            (true, Standing::Unwanted) => group.standing = Standing::OnTrial,
            (true, _) => {}
        }
        group.file.bind_again();
        self.lend(id, applicant);
        Ok(id)
    }

    fn lend(&mut self, id: LaneId, applicant: &Applicant) {
        let Some((key, at)) = self.locate(id) else { return };
        let lane = &mut self.groups[key].lanes[at];
        if lane.users.is_empty() {
            // Until its new worker is known to be one that can be handed connections.
            lane.kind = Kind::Own;
            lane.vacancy = Vacancy::Awaited;
        }
        lane.slot = applicant.slot;
        self.groups.lend(id, applicant.worker);
        self.groups[key].park();
    }

    /// Whether it matters, to whom a worker is that is about to listen on a lane, if there are copies of its descriptor.
    pub(crate) fn cares_for_copies(&self, id: LaneId) -> bool {
        let is_asked = |(group, lane): (&Group, &Lane)| {
            group.is_spread() && group.address.is_tcp() && (group.has_copies || !lane.is_listening)
        };
        self.lane(id).is_some_and(is_asked)
    }

    /// Takes note of whether there are copies of the descriptor on which a worker listens: the program will do the same next
    /// time.
    pub(crate) fn note_copies(&mut self, id: LaneId, has_copies: bool) {
        if let Some((key, _)) = self.locate(id) {
            self.groups[key].has_copies = has_copies;
        }
    }

    /// The lane that listens already, for which somebody is to come, and that is to take the place of one on which a worker is
    /// about to listen.
    pub(crate) fn successor_of(&self, bound: LaneId, applicant: &Applicant) -> Option<LaneId> {
        let (group, lane) = self.lane(bound)?;
        let is_bound_only = !lane.is_listening && lane.users.contains(&applicant.worker);
        if !is_bound_only || !group.is_given_at_listen() {
            return None;
        }
        group.free_lane(applicant, self.target, |lane| lane.is_listening).map(|at| group.lanes[at].id)
    }

    /// A worker has a lane in the place of one that it had bound, and of which it has no descriptor any more.
    pub(crate) fn exchange(&mut self, bound: LaneId, for_lane: LaneId, applicant: &Applicant) {
        self.lend(for_lane, applicant);
        self.groups.take_back(bound, applicant.worker, self.now);
        if let Some((key, at)) = self.locate(bound) {
            let group = &mut self.groups[key];
            if at == 0 {
                // What the address is known by.
                group.lanes[at].vacancy = Vacancy::Parked;
            } else if group.lanes[at].users.is_empty() {
                self.groups.remove_lane(bound);
            }
        }
        self.closed.push((applicant.worker, bound));
    }

    /// Lanes that their workers were found to have closed when they asked for others, or have others for, and have not got
    /// again.
    pub(crate) fn take_closed(&mut self) -> Vec<(WorkerId, LaneId)> {
        let mut closed = std::mem::take(&mut self.closed);
        closed.retain(|(worker, lane)| self.users(*lane).all(|user| user != *worker));
        closed
    }

    /// How an address is to be served that this is the first to ask for.
    fn way(&self, applicant: Option<&Applicant>) -> Way {
        let wish = applicant.and_then(|applicant| applicant.policy.clone());
        Way {
            policy: wish.unwrap_or_else(|| self.policy.clone()),
            is_by_channel: applicant.is_some_and(|applicant| applicant.is_by_channel),
            pending: self.pending,
        }
    }

    fn open_group(
        &mut self,
        address: &Address,
        index: u64,
        profile: &Profile,
        applicant: Option<&Applicant>,
    ) -> Result<Key, Unavailable> {
        self.check_room()?;
        let way = self.way(applicant);
        let key = self.groups.next_key();
        let opened = match Group::open(key, address, index, &way, profile, Beside::Nobody) {
            Err(why) if why.errno == libc::EADDRINUSE && self.is_only_ours(address) => {
                Group::open(key, address, index, &way, profile, Beside::OurOwn)
            }
            opened => opened,
        };
        let mut group = opened?;
        if applicant.is_some_and(|applicant| applicant.is_on_trial) {
            group.standing = Standing::OnTrial;
        }
        let key = self.groups.insert(group);
        self.follow(key);
        Ok(key)
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

    /// Forgets a worker that is gone. Its lanes stay open, with what waits in them, for the next.
    pub(crate) fn release(&mut self, worker: WorkerId, now: Duration) {
        self.serving.remove(&worker);
        let keys = self.groups.keys_of(worker);
        let lanes: Vec<LaneId> = self.groups.ids_of(worker);
        for lane in &lanes {
            self.groups.take_back(*lane, worker, now);
        }
        for key in keys {
            if !self.is_closing {
                // Before another listens: the kernel numbers them by who came when.
                self.listen_again(key, now, |lane| lanes.contains(&lane.id));
            }
            let Some(group) = self.groups.get_mut(key) else { continue };
            group.desk.leave(worker);
            group.park();
            // A Unix socket whose first user went before it listened was never bound.
            let is_unix = matches!(group.address, Address::Unix(_));
            if is_unix && group.lanes.iter().all(|lane| !lane.is_listening) {
                group.standing = Standing::Unwanted;
            }
            if !self.sweep(key) {
                self.groups[key].file.forget(worker);
                self.groups.stir(key);
                self.refresh(key);
            }
        }
        self.divert(worker, false);
        self.steering.forget_process(worker);
        self.full.forget(worker);
        self.close_surplus_udp();
    }

    /// Has lanes listen that workers have shut down. One that can't any more is closed: whoever has it has done that to itself, and
    /// listens there no more.
    fn listen_again(&mut self, key: Key, now: Duration, is_meant: impl Fn(&Lane) -> bool) {
        let Some(group) = self.groups.get_mut(key) else { return };
        let spoilt = group.listen_again(is_meant);
        if !group.is_spread() {
            // There is no other, and whoever comes next tries again.
            return;
        }
        for id in spoilt {
            for worker in self.users(id).collect::<Vec<_>>() {
                self.give_up(worker, id, now);
                self.closed.push((worker, id));
            }
            self.close_spoilt(id);
        }
    }

    /// Closes a lane that can't listen, so that nobody is given it.
    fn close_spoilt(&mut self, id: LaneId) {
        let Some((key, at)) = self.locate(id) else { return };
        let group = &mut self.groups[key];
        self.steering.forget(&group.lanes[at]);
        // What somebody else has bound is kept for who tries again.
        if !group.is_given(id) {
            self.groups.remove_lane(id);
        }
        if self.groups[key].lanes.is_empty() {
            self.close_group(key);
        }
    }

    /// Closes a UDP socket that its worker has closed while others read theirs: the kernel would go on choosing it, and
    /// nobody would know.
    fn close_unread(&mut self, key: Key, lane: usize) {
        let group = &self.groups[key];
        let is_unread = group.address.is_udp() && group.is_spread() && group.lanes[lane].users.is_empty();
        // What somebody else has bound is open at his place all the same.
        let is_ours = !group.is_given(group.lanes[lane].id);
        if is_unread && is_ours && group.lanes.iter().any(|lane| !lane.users.is_empty()) {
            self.groups.remove_lane(group.lanes[lane].id);
        }
    }

    /// UDP sockets in which something waits, and who has them: nobody else could tell that he has closed his, and the kernel goes
    /// on choosing it. Where there is always something, that is asked now and then.
    pub(crate) fn unread(&mut self, now: Duration) -> Vec<(WorkerId, LaneId)> {
        let mut unread = Vec::new();
        let groups = self.groups.iter_mut().filter(|group| group.address.is_udp());
        for lane in groups.flat_map(|group| &mut group.lanes) {
            let is_due = !lane.users.is_empty() && now >= lane.doubted_at + DOUBT;
            if is_due && rustix::io::ioctl_fionread(&lane.socket).is_ok_and(|waiting| waiting > 0) {
                lane.doubted_at = now;
                unread.extend(lane.users.iter().map(|user| (*user, lane.id)));
            }
        }
        unread
    }

    /// Closes UDP sockets that nobody will read again: unlike a TCP lane, one can't be steered away from.
    fn close_surplus_udp(&mut self) {
        let mut surplus = Vec::new();
        for group in self.groups.iter().filter(|group| group.address.is_udp() && group.is_spread()) {
            // With nobody left at all, what comes may wait for whoever is next.
            let is_awaited = self.is_kept || group.lanes.iter().all(|lane| lane.users.is_empty());
            // What somebody else has bound would be chosen all the same: it is kept for who reads it next.
            let stays = |lane: &Lane| is_awaited && lane.slot.0 < self.target || group.is_given(lane.id);
            let is_surplus = |lane: &&Lane| lane.users.is_empty() && !stays(lane);
            surplus.extend(group.lanes.iter().filter(is_surplus).map(|lane| lane.id));
        }
        for lane in surplus {
            self.groups.remove_lane(lane);
        }
        let empty = self.groups.iter().filter(|group| group.lanes.is_empty()).map(|group| group.key);
        for key in empty.collect::<Vec<_>>() {
            self.close_group(key);
        }
    }

    /// A worker has closed one of its listeners by choice. An address that every worker has closed is closed, if we have bound it.
    pub(crate) fn give_up(&mut self, worker: WorkerId, id: LaneId, now: Duration) {
        let Some((key, lane)) = self.locate(id) else { return };
        self.groups.take_back(id, worker, now);
        self.groups[key].lanes[lane].vacancy = Vacancy::GivenUp;
        self.groups[key].desk.leave(worker);
        self.groups[key].leaving.remove(&worker);
        self.groups.stir(key);
        self.close_unread(key, lane);
        let group = &mut self.groups[key];
        let is_left = |lane: &Lane| lane.users.is_empty() && lane.vacancy != Vacancy::Awaited;
        if group.lanes.iter().all(|lane| lane.kind == Kind::Waiting || is_left(lane)) {
            group.standing = Standing::Unwanted;
        }
        if !self.sweep(key) {
            self.refresh(key);
        }
    }

    /// Closes an address if nobody has it and nobody is to any more. Says whether it was so.
    fn sweep(&mut self, key: Key) -> bool {
        let is_left = self.groups.get(key).is_some_and(Group::is_left);
        if is_left {
            self.close_group(key);
        }
        is_left
    }

    /// Nobody is to come to such addresses any more: they are closed when the last who has them goes.
    fn give_away(&mut self, is_meant: impl Fn(&Group) -> bool) {
        let meant: Vec<Key> =
            self.groups.iter().filter(|group| is_meant(group)).map(|group| group.key).collect();
        for key in meant {
            self.groups[key].standing = Standing::Unwanted;
            self.sweep(key);
        }
    }

    fn close_group(&mut self, key: Key) {
        let Some(group) = self.groups.remove(key) else { return };
        self.forget_gone();
        self.gone.extend(group.lanes.iter().map(|lane| (lane.inode, Instant::now())));
        for lane in &group.lanes {
            self.steering.forget(lane);
        }
        if let (Some(depot), Some(name)) = (&self.depot, name_put_away(&group)) {
            // Of what is put away there is another descriptor for a while, and it is not to be found listening.
            for lane in &group.lanes {
                let _ = rustix::net::shutdown(&lane.socket, rustix::net::Shutdown::Both);
            }
            drop(group);
            depot.discard(&name);
        }
    }

    /// Closes an address unless a worker has a lane there.
    pub(crate) fn close_if_unused(&mut self, address: &Address) {
        if let Some(key) = self.groups.find(address, 0) {
            self.give_away(|group| group.key == key && !group.is_used());
        }
    }

    /// Refuses new connections everywhere and keeps those that wait: the pool stops.
    pub(crate) fn close_to_new(&mut self) {
        self.is_closing = true;
        let all: Vec<Key> = self.groups.iter().map(|group| group.key).collect();
        for key in all {
            self.groups[key].refuse_new();
            self.groups[key].desk.close();
            self.groups.stir(key);
        }
    }

    /// Takes new connections again, after all.
    pub(crate) fn reopen(&mut self) {
        self.is_closing = false;
        let all: Vec<Key> = self.groups.iter().map(|group| group.key).collect();
        for key in all {
            if self.groups[key].reopen() {
                // Who was to stop may have removed it.
                let _ = self.groups[key].file.link();
                self.groups.stir(key);
                self.refresh(key);
            } else {
                // Who had it serves what has come; who asks for its address gets another.
                self.groups.disown(key);
            }
        }
    }

    /// A version on trial has taken the place of the one before: its addresses are kept as any.
    pub(crate) fn keep_tried(&mut self) {
        for group in self.groups.iter_mut().filter(|group| group.standing == Standing::OnTrial) {
            group.standing = Standing::Kept;
        }
    }

    /// A version on trial is taken back. Addresses that only its workers have asked for are closed as soon as these have
    /// gone: nobody comes after them. Where one of them stays after all, its address does.
    pub(crate) fn close_tried(&mut self, stays: impl Fn(WorkerId) -> bool) {
        self.give_away(|group| group.standing == Standing::OnTrial && !group.is_used_by(&stays));
        self.keep_tried();
    }

    /// A version may listen elsewhere than the one before. Addresses where nobody of those who stay listens are closed as soon as
    /// those have gone who do.
    pub(crate) fn close_unused(&mut self, stays: impl Fn(WorkerId) -> bool) {
        self.give_away(|group| !group.is_used_by(&stays));
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

    /// Closes everything and removes the files of Unix sockets. What is asked for afterwards is made anew. Who connects to a
    /// socket that somebody else has bound waits there for whoever is next.
    pub(crate) fn close(&mut self) {
        for lane in self.groups.iter().flat_map(|group| &group.lanes) {
            self.steering.forget(lane);
        }
        let given = self.groups.iter().filter(|group| group.given.is_some());
        let firsts = given.filter_map(|group| group.lanes.first()?.socket.try_clone().ok());
        let firsts: Vec<OwnedFd> = firsts.collect();
        self.groups.clear();
        // Not before: what comes then could still be a lane's.
        for socket in &firsts {
            let _ = raw::detach_filter(socket);
        }
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
