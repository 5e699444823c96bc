//! Who gets which listener: finding or making the lane that a worker is to have.

use allcores_core::worker::WorkerId;

use super::group::{Group, Standing, Way};
use super::lane::{Beside, Kind, Lane, Profile, Unavailable, Vacancy};
use super::table::Key;
use super::{Applicant, LaneId, Ports, limits};
use crate::address::Address;

impl Ports {
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

    pub(super) fn obtain_such(
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

    pub(super) fn lend(&mut self, id: LaneId, applicant: &Applicant) {
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
    pub(super) fn way(&self, applicant: Option<&Applicant>) -> Way {
        let wish = applicant.and_then(|applicant| applicant.policy.clone());
        Way {
            policy: wish.unwrap_or_else(|| self.policy.clone()),
            is_by_channel: applicant.is_some_and(|applicant| applicant.is_by_channel),
            pending: self.pending,
        }
    }

    pub(super) fn open_group(
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
}
