//! All sockets of one address.

mod saved;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use allcores_core::selector::{self, Chosen, Detour};
use allcores_core::worker::{Slot, WorkerId};
use rustix::net::sockopt;

use super::desk::Desk;
use super::hold::Hold;
use super::lane::{self, Beside, Kind, Lane, Manner, Profile, Unavailable, Vacancy};
use super::passage::Opening;
use super::selection::Served;
use super::socket_file::{self, SocketFile};
use super::table::{Key, Lanes};
use super::{Applicant, LaneId};
use crate::address::{Address, canonical};
use crate::primary::Policy;
use crate::sys::socket as raw;

pub(super) use saved::GroupSaved;

/// How long a queue must have stood still for its worker to count as held up by what it does; when all are, new connections
/// are kept out of all of them. A pool that is only short of cores moves within that time, and is served best by the
/// kernel's way. Chosen, with [`super::relief`]'s, by `cargo xtask bench mixed throughput`.
pub(super) const HELD_UP: Duration = Duration::from_millis(10);

/// What a worker listens on.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) address: Address,
    /// Never `Auto`.
    pub(crate) policy: Policy,
}

/// How a new address is to be served.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) policy: Policy,
    /// Who asks can be handed connections.
    pub(super) is_by_channel: bool,
    /// How many may wait to be handed over.
    pub(super) pending: usize,
}

impl Way {
    /// What that comes to: nobody can be handed datagrams, or anything without a channel, and Unix sockets have no lanes.
    fn policy_at(&self, address: &Address) -> Policy {
        match &self.policy {
            Policy::Shared => Policy::Shared,
            policy if policy.is_handoff() && self.is_by_channel && !address.is_udp() => policy.clone(),
            _ if matches!(address, Address::Unix(_)) => Policy::Shared,
            _ => Policy::Lanes,
        }
    }
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The app's.
    Kept,
    /// Only workers of a version that is on trial have asked for it.
    OnTrial,
    /// Nobody comes after those who listen there: their version was no good, or those after them listen elsewhere, or by
    /// choice no more.
    Unwanted,
}

/// All sockets of one address.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) key: Key,
    /// What the sockets are bound to.
    pub(super) address: Address,
    /// What was asked for where that differs: port 0, and which of several such wishes.
    pub(super) asked: Option<(Address, u64)>,
    /// `Lanes`, `Shared`, or one of those where the primary accepts.
    policy: Policy,
    /// It was taken in, and nobody has asked for it yet, of whom it depends how it is served.
    is_unsettled: bool,
    /// How its first worker wanted the address to be bound.
    manner: Manner,
    /// Its program listens on sockets of which there are copies by then, so none can take their place.
    pub(super) has_copies: bool,
    /// Connections that are ours until a worker takes them.
    pub(super) desk: Desk,
    /// What a TLS server's workers share, as its first worker gave it.
    pub(super) data: Option<String>,
    pub(super) lanes: Lanes,
    next_lane: u64,
    /// Lanes in the order in which they began to listen: the kernel's numbering.
    pub(super) order: Vec<LaneId>,
    /// Of these, the ones whose workers serve.
    pub(super) served: Served,
    /// The numbers that the program in force picks from.
    attached: Option<Chosen>,
    /// Workers that share its listener and are to get nothing more.
    pub(super) leaving: BTreeSet<WorkerId>,
    /// Until when it is remembered that a worker was held up by what it does.
    pub(super) held_up_until: Duration,
    /// Until when it is looked at often: somebody stood still for as long as it is not looked at otherwise.
    pub(super) alert_until: Duration,
    /// A Unix socket's.
    pub(super) file: SocketFile,
    /// What its first socket is called, where somebody else has bound that and gave it to us.
    pub(super) given: Option<String>,
    /// Connections of our own that are to reach one lane.
    pub(super) openings: Vec<Opening>,
    /// New connections are held off: nobody is ready.
    pub(super) held: Option<Hold>,
    pub(super) standing: Standing,
}

impl Group {
    /// Binds the address.
    pub(super) fn open(
        key: Key,
        address: &Address,
        index: u64,
        way: &Way,
        profile: &Profile,
        beside: Beside,
    ) -> Result<Self, Unavailable> {
        let manner = profile.manner();
        let (socket, file) = match address.path() {
            Some(path) => socket_file::bind(address, path, profile.owner.as_ref())?,
            None => (lane::bind_first(address, &manner, beside)?, SocketFile::default()),
        };
        profile.apply(&socket)?;
        let mut group = Self::around(key, address, way, socket, file)?;
        group.manner = manner;
        if address.socket().is_some_and(|socket| socket.port() == 0) {
            let bound = socket2::SockRef::from(&group.lanes[0].socket).local_addr()?.as_socket();
            group.address = address.with_port(bound.map_or(0, |bound| bound.port()));
            group.asked = Some((address.clone(), index));
        }
        Ok(group)
    }

    /// Takes in a socket that somebody else has bound, or a primary before this one, and that may listen already. Says what is
    /// in the way of lanes there, where there would be some.
    pub(super) fn take_in(
        key: Key,
        address: &Address,
        way: &Way,
        (socket, name): (OwnedFd, Option<String>),
    ) -> io::Result<(Self, Option<io::Error>)> {
        let file = address.path().map(SocketFile::of_another).unwrap_or_default();
        let manner = Profile::of(&socket).manner();
        let mut group = Self::around(key, address, way, socket, file)?;
        group.manner = manner;
        group.given = name;
        group.is_unsettled = true;
        let socket = socket2::SockRef::from(&group.lanes[0].socket);
        // A primary that stops, or has nobody ready, lets no connection in.
        let _ = raw::detach_filter(&group.lanes[0].socket);
        let mut obstacle = None;
        if group.is_spread() {
            // The kernel lets only sockets of one user share an address: where ours can't join, all workers share the one.
            socket.set_reuse_port(true)?;
            if let Err(error) = lane::bind_next(address, &group.manner) {
                group.policy = Policy::Shared;
                obstacle = Some(error);
            }
        }
        if !address.is_udp() && sockopt::socket_acceptconn(&group.lanes[0].socket)? {
            let queue = raw::accept_queue(&group.lanes[0].socket).ok().filter(|_| address.is_tcp());
            group.lanes[0].backlog = queue.map_or(0, |queue| i32::try_from(queue.limit).unwrap_or(i32::MAX));
            group.lanes[0].is_listening = true;
            group.order.push(group.lanes[0].id);
        }
        Ok((group, obstacle))
    }

    /// Has an address that was taken in be served in the way of the first who asks for it.
    pub(super) fn settle(&mut self, way: &Way) {
        let policy = way.policy_at(&self.address);
        // Whether there can be lanes was found out when it was taken in.
        if std::mem::take(&mut self.is_unsettled) && policy != Policy::Lanes {
            self.desk = Desk::new(&policy, way.pending);
            self.policy = policy;
        }
    }

    fn around(key: Key, address: &Address, way: &Way, socket: OwnedFd, file: SocketFile) -> io::Result<Self> {
        let policy = way.policy_at(address);
        // Slot 0 until the applicant's is known, at once, in `obtain`.
        let lane = Lane { is_stream: !address.is_udp(), ..Lane::new(key.lane(0), socket, Slot(0))? };
        Ok(Self {
            key,
            address: address.clone(),
            asked: None,
            desk: Desk::new(&policy, way.pending),
            policy,
            is_unsettled: false,
            manner: Manner::default(),
            has_copies: false,
            data: None,
            lanes: Lanes::new(vec![lane]),
            next_lane: 1,
            order: Vec::new(),
            served: Served::default(),
            attached: None,
            leaving: BTreeSet::new(),
            held_up_until: Duration::ZERO,
            alert_until: Duration::ZERO,
            file,
            given: None,
            openings: Vec::new(),
            held: None,
            standing: Standing::Kept,
        })
    }

    /// Some worker has it.
    pub(super) fn is_used(&self) -> bool {
        self.is_used_by(|_| true)
    }

    /// One of these workers has it.
    pub(super) fn is_used_by(&self, is_meant: impl Fn(WorkerId) -> bool) -> bool {
        self.lanes.iter().flat_map(|lane| &lane.users).any(|user| is_meant(*user))
    }

    /// Nobody listens there, and nobody is to any more. What somebody else has bound is never left: he may have it still, and then
    /// we could not bind it again for who listens there after all.
    pub(super) fn is_left(&self) -> bool {
        self.standing == Standing::Unwanted && self.given.is_none() && !self.is_used()
    }

    /// Whether somebody else has bound this lane, and gave it to us.
    pub(super) fn is_given(&self, lane: LaneId) -> bool {
        self.given.is_some() && lane == self.key.lane(0)
    }

    /// Where a lane stands among its group's.
    pub(super) fn position(&self, lane: LaneId) -> Option<usize> {
        self.lanes.binary_search_by_key(&lane, |lane| lane.id).ok()
    }

    pub(super) fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.position(id).map(|at| &self.lanes[at])
    }

    pub(super) fn listener(&self) -> Listener {
        Listener { address: self.address.clone(), policy: self.policy.clone() }
    }

    /// Whether there is a lane for each worker, or one listener for all.
    pub(super) fn is_spread(&self) -> bool {
        self.policy == Policy::Lanes
    }

    /// Whether a lane that listens is given to who calls `listen`, and not to who binds: that may be somebody who never
    /// does, and what comes to that lane would wait for ever.
    pub(super) fn is_given_at_listen(&self) -> bool {
        self.is_spread() && self.address.is_tcp() && !self.has_copies
    }

    /// Whether what comes there can be passed on by connecting to its address from its address.
    pub(super) fn can_be_passed_on(&self) -> bool {
        self.address.is_tcp() && !self.manner.is_transparent()
    }

    /// Whether workers accept from one listener.
    pub(super) fn is_shared(&self) -> bool {
        self.policy == Policy::Shared
    }

    /// Whether the primary accepts, and hands over.
    pub(super) fn is_handoff(&self) -> bool {
        self.policy.is_handoff()
    }

    /// The lane that `applicant` should have, if it exists: one that a hung worker has which it replaces, since
    /// somebody has to serve what waits there; the one of its slot that nobody has; or any that nobody has and nobody
    /// is coming back to. Of TCP's lanes only such as are meant.
    pub(super) fn free_lane(
        &self,
        applicant: &Applicant,
        target: u16,
        is_meant: impl Fn(&Lane) -> bool,
    ) -> Option<usize> {
        if !self.is_spread() {
            return Some(0);
        }
        let is_free = |lane: &Lane| lane.users.is_empty() && lane.kind != Kind::Waiting;
        let has_own = |lane: &Lane| lane.slot == applicant.slot;
        let is_new_to = |lane: &Lane| !lane.users.contains(&applicant.worker);
        let shared_with_hung = |lane: &Lane| {
            applicant.replaces.is_some_and(|hung| lane.users.contains(&hung)) && is_new_to(lane)
        };
        let position = |test: &dyn Fn(&Lane) -> bool| self.lanes.iter().position(test);
        if self.address.is_udp() {
            // Nobody is steered away from a UDP socket: who comes beside another reads from the same one. What somebody else has
            // bound, he keeps open, and the kernel chooses it for ever: it is for slot 0, which there always is.
            let is_anybodys = |lane: &Lane| is_free(lane) && !lane.is_listening && !self.is_given(lane.id);
            return position(&|lane| has_own(lane) && is_new_to(lane)).or_else(|| position(&is_anybodys));
        }
        // Of several that workers of the slot had, the one where somebody waits.
        let own = self.lanes.iter().enumerate();
        let own = own.filter(|(_, lane)| is_meant(lane) && is_free(lane) && has_own(lane));
        let own =
            own.max_by_key(|(_, lane)| (lane.depth(), lane.vacancy != Vacancy::Parked)).map(|(at, _)| at);
        let served = self.served_slots();
        // Nobody is coming back to it.
        let is_spare = |lane: &Lane| {
            lane.vacancy == Vacancy::Parked
                || lane.slot.0 >= target
                || !lane.is_listening
                || served.contains(&lane.slot)
        };
        position(&|lane| is_meant(lane) && shared_with_hung(lane))
            .or(own)
            .or_else(|| position(&|lane| is_meant(lane) && is_free(lane) && is_spare(lane)))
    }

    /// Slots whose workers listen here. Who has only bound may yet be given what its predecessor had.
    fn served_slots(&self) -> BTreeSet<Slot> {
        let is_served = |lane: &&Lane| lane.is_listening && !lane.users.is_empty();
        self.lanes.iter().filter(is_served).map(|lane| lane.slot).collect()
    }

    /// Takes note of lanes that nobody has and nobody is coming back to: while another of its slot is in use, the slot
    /// needs no second.
    pub(super) fn park(&mut self) {
        let served = self.served_slots();
        let is_spare = |lane: &&mut Lane| {
            lane.users.is_empty() && lane.vacancy == Vacancy::Awaited && served.contains(&lane.slot)
        };
        for lane in self.lanes.iter_mut().filter(is_spare) {
            lane.vacancy = Vacancy::Parked;
        }
    }

    /// Makes a lane that the table is to add.
    pub(super) fn next_lane(&mut self, slot: Slot) -> io::Result<Lane> {
        let id = self.key.lane(self.next_lane);
        let mut lane = Lane::new(id, lane::bind_next(&self.address, &self.manner)?, slot)?;
        lane.is_stream = !self.address.is_udp();
        self.next_lane += 1;
        Ok(lane)
    }

    /// Whether a waiting room is missing: where workers can be handed connections, there is one queue of ours besides
    /// their lanes, for when all of them are busy.
    pub(super) fn wants_waiting_room(&self) -> bool {
        let has_kind = |kind: Kind| self.lanes.iter().any(|lane| lane.kind == kind);
        self.address.is_tcp() && self.is_spread() && has_kind(Kind::Handed) && !has_kind(Kind::Waiting)
    }

    /// Makes a lane listen, or sees to it that one that does has at least this backlog.
    pub(super) fn listen(&mut self, at: usize, backlog: i32) -> io::Result<()> {
        if !self.lanes[at].is_stream {
            self.lanes[at].is_listening = true;
            return Ok(());
        }
        // Who had it before may have shut it down: then it comes in as a new one does, behind all others.
        let is_shut = self.lanes[at].is_shut_down();
        if is_shut {
            self.forget_number(at);
        }
        let lane = &mut self.lanes[at];
        let is_new = !lane.is_listening;
        let has_listened = is_shut || lane.backlog > 0;
        lane.vacancy = Vacancy::Awaited;
        // A negative one is the longest that there can be, to the kernel as to programs.
        lane.backlog = lane.backlog.max(if backlog < 0 { i32::MAX } else { backlog });
        if is_new
            && self.address.is_tcp()
            && self.is_spread()
            && self.attached.is_none()
            && let Some(all) = Chosen::of(0..u32::try_from(self.order.len()).unwrap_or(u32::MAX))
        {
            // So that the new one gets nothing before it is ready to: the old ones' numbers, by a program.
            self.attach(all);
        }
        if is_new {
            if has_listened && self.address.is_tcp() {
                self.mend(at)?;
            }
            self.begin(at)?;
        } else {
            let lane = &self.lanes[at];
            socket2::SockRef::from(&lane.socket).listen(lane.backlog)?;
        }
        if is_shut {
            self.reattach();
        }
        Ok(())
    }

    /// Whether the kernel picks from these; `None` where it is not told yet.
    pub(super) fn is_attached(&self, numbers: &Chosen) -> Option<bool> {
        self.attached.as_ref().map(|attached| attached == numbers)
    }

    pub(super) fn attach(&mut self, numbers: Chosen) {
        let Some(lane) = self.lanes.iter().find(|lane| lane.is_listening) else { return };
        let program = selector::with_detours(&self.detours(), selector::pick_random(&numbers));
        if raw::attach_selector(&lane.socket, &program).is_ok() {
            self.attached = Some(numbers);
        }
    }

    /// Brings the program in line with the passages that are being made.
    pub(super) fn reattach(&mut self) {
        if let Some(numbers) = self.attached.take() {
            self.attach(numbers);
        }
    }

    /// The kernel's number of a lane.
    pub(super) fn number_of(&self, lane: LaneId) -> Option<u32> {
        (0_u32..).zip(&self.order).find(|(_, id)| **id == lane).map(|(number, _)| number)
    }

    /// The socket that the primary accepts from by way of the desk.
    pub(super) fn desk_lane(&self) -> Option<&Lane> {
        if self.is_handoff() { self.lanes.first() } else { self.room().filter(|_| self.is_shared()) }
    }

    fn detours(&self) -> Vec<Detour> {
        let open = self.openings.iter().filter(|opening| !opening.is_connected);
        open.filter_map(|opening| Some(Detour { from: opening.from, to: self.number_of(opening.to)? }))
            .collect()
    }

    /// Puts back what a worker may have changed: a lane is the same open file in the worker and here.
    /// `most` is what the kernel lets a backlog be.
    pub(super) fn reassert(&mut self, most: u32) {
        for lane in self.lanes.iter().filter(|lane| lane.is_listening && lane.is_stream) {
            let Ok(queue) = raw::accept_queue(&lane.socket) else { continue };
            let limit = lane.backlog.cast_unsigned().min(most);
            if queue.is_listening && queue.limit < limit {
                let _ = socket2::SockRef::from(&lane.socket).listen(lane.backlog);
            }
            if self.is_spread() {
                let _ = sockopt::set_socket_reuseport(&lane.socket, true);
            }
        }
    }

    /// Has lanes listen that a worker has shut down, as programs do at their end that are to wake up from `accept`. Gives those
    /// that can't any more.
    pub(super) fn listen_again(&mut self, is_meant: impl Fn(&Lane) -> bool) -> Vec<LaneId> {
        let is_shut = |at: &usize| is_meant(&self.lanes[*at]) && self.lanes[*at].is_shut_down();
        let shut: Vec<usize> = (0..self.lanes.len()).filter(is_shut).collect();
        // All have left before the first comes back. In which order is not to be found out, and matters where several have.
        for at in &shut {
            self.forget_number(*at);
        }
        let spoilt: Vec<usize> =
            shut.into_iter().filter(|at| self.mend(*at).and_then(|()| self.begin(*at)).is_err()).collect();
        // With the last that listened the kernel has forgotten it; and a worker may have put one of its own in its place.
        self.reattach();
        spoilt.into_iter().map(|at| self.lanes[at].id).collect()
    }

    /// Puts back what a lane of TCP needs to listen once more. Its worker has the same open file, and may have connected it
    /// meanwhile; and the kernel unbinds what it has itself chosen the port of.
    fn mend(&self, at: usize) -> io::Result<()> {
        let socket = &self.lanes[at].socket;
        if self.is_spread() || self.lanes.len() > 1 {
            sockopt::set_socket_reuseport(socket, true)?;
        }
        rustix::net::connect_unspec(socket)?;
        let Some(own) = self.address.socket() else { return Ok(()) };
        let socket = socket2::SockRef::from(socket);
        match socket.bind(&own.into()) {
            // It is bound still, or elsewhere.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let bound = socket.local_addr()?.as_socket();
                if bound.map(canonical) == Some(canonical(own)) { Ok(()) } else { Err(error) }
            }
            bound => bound,
        }
    }

    /// Has a lane listen, behind all others.
    fn begin(&mut self, at: usize) -> io::Result<()> {
        let lane = &mut self.lanes[at];
        socket2::SockRef::from(&lane.socket).listen(lane.backlog)?;
        lane.is_listening = true;
        self.order.push(lane.id);
        Ok(())
    }

    /// A lane listens no more. The kernel gives its number to the last.
    fn forget_number(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        lane.is_listening = false;
        let id = lane.id;
        if let Some(number) = self.order.iter().position(|other| *other == id) {
            self.order.swap_remove(number);
        }
    }

    /// Lets handshakes under way complete and answers no new one.
    pub(super) fn refuse_new(&mut self) {
        if self.is_handoff() && !self.address.is_tcp() {
            // Who connects from now on is refused; who has connected is still to be accepted.
            for lane in &self.lanes {
                let _ = rustix::net::shutdown(&lane.socket, rustix::net::Shutdown::Read);
            }
            self.desk.note_ready();
        }
        if !self.address.is_tcp() {
            return;
        }
        for lane in &self.lanes {
            let _ = raw::attach_filter(&lane.socket, &selector::refuse_new_connections());
        }
    }

    /// Takes new connections again. False where that can't be done: a Unix socket that was shut down stays so.
    pub(super) fn reopen(&mut self) -> bool {
        if self.is_handoff() && !self.address.is_tcp() {
            return false;
        }
        self.desk.reopen();
        if self.address.is_tcp() {
            for lane in &self.lanes {
                let _ = raw::detach_filter(&lane.socket);
            }
        }
        self.held = None;
        true
    }
}
