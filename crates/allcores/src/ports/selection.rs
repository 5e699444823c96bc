//! Which of a group's lanes the kernel picks from.
//!
//! Who serves changes rarely, and is found out where it does. How busy those are who serve changes all the time, and is
//! looked at on each tick: so that is a walk over one list, however many workers there are.

use std::collections::HashSet;
use std::time::Duration;

use allcores_core::selector::Chosen;
use allcores_core::worker::WorkerId;

use super::LaneId;
use super::group::Group;
use super::lane::{Kind, Lane, Vacancy};

/// The lanes whose workers serve, and the waiting room.
#[derive(Debug, Default)]
pub(super) struct Served {
    lanes: Vec<Place>,
    room: Option<Place>,
}

/// Where a lane is found.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The kernel's number.
    number: u32,
    id: LaneId,
    /// Among the lanes of its group.
    at: usize,
}

impl Served {
    pub(super) fn count(&self) -> usize {
        self.lanes.len()
    }
}

impl Group {
    /// Brings the program in line with who serves, which may have changed.
    pub(super) fn refresh(&mut self, serving: &HashSet<WorkerId>, target: u16, now: Duration) {
        let mut served = Served::default();
        for (number, id) in (0_u32..).zip(&self.order) {
            let Some(at) = self.position(*id) else { continue };
            let (lane, place) = (&self.lanes[at], Place { number, id: *id, at });
            if lane.kind == Kind::Waiting {
                served.room.get_or_insert(place);
            }
            if lane.users.iter().any(|user| serving.contains(user)) {
                served.lanes.push(place);
            }
        }
        self.served = served;
        self.reselect(target, now);
    }

    /// Brings the program in line with how busy those are who serve.
    pub(super) fn reselect(&mut self, target: u16, now: Duration) {
        if !self.address.is_tcp() || !self.is_spread() {
            return;
        }
        let Some(wanted) = self.wanted(target, now) else { return };
        // One socket alone needs no program.
        let is_in_force = self.is_attached(&wanted).unwrap_or(self.order.len() <= 1);
        if !is_in_force {
            self.attach(wanted);
        }
    }

    /// The kernel's numbers of the lanes that should get connections: of workers that serve and are not busy; if
    /// none serves, of those that a worker will come back to. `None` where no lane listens.
    fn wanted(&self, target: u16, now: Duration) -> Option<Chosen> {
        let found = |place: &Place| self.lanes.get(place.at).filter(|lane| lane.id == place.id);
        let served = || self.served.lanes.iter().filter_map(|place| Some((place.number, found(place)?)));
        let room = self.served.room.and_then(|place| Some((place.number, found(&place)?)));
        if let Some((number, room)) = room.filter(|_| now < self.held_up_until)
            && served().all(|(_, lane)| lane.kind == Kind::Handed)
        {
            // Who comes now comes after those who wait already, as long as anybody is held up.
            let mut busy = served().map(|(_, lane)| lane.watch.is_busy());
            let are_busy = if room.watch.depth() > 0 { busy.any(|is| is) } else { busy.all(|is| is) };
            if are_busy && !self.served.lanes.is_empty() {
                return Some(Chosen::one(number));
            }
        }
        let watches: Vec<_> = served().map(|(_, lane)| &lane.watch).collect();
        if !watches.is_empty() {
            let chosen = allcores_core::steering::choose(&watches);
            return Chosen::of(served().zip(chosen).filter(|(_, is)| *is).map(|((number, _), _)| number));
        }
        let numbered = || (0_u32..).zip(self.order.iter().filter_map(|id| self.lane(*id)));
        let is_expected = |lane: &Lane| lane.slot.0 < target && lane.vacancy == Vacancy::Awaited;
        let numbers_of = |is_meant: &dyn Fn(&Lane) -> bool| {
            Chosen::of(numbered().filter(|(_, lane)| is_meant(lane)).map(|(number, _)| number))
        };
        numbers_of(&is_expected)
            .or_else(|| numbers_of(&|lane| lane.kind != Kind::Waiting))
            // Only the waiting room is left: there who comes waits for whoever is next.
            .or_else(|| numbers_of(&|_| true))
    }
}
