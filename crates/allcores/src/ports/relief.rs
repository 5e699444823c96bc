//! Taking connections that wait for a busy worker, for workers that are free and can be handed one.
//!
//! Steering keeps later connections away from a busy worker; the one that showed that it is busy waits there. Where
//! workers have a channel, it need not.

use std::cmp::Reverse;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use allcores_core::worker::WorkerId;
use rustix::fs::OFlags;

use super::group::Group;
use super::lane::{Kind, Lane};
use super::steer::Steering;
use super::{Delivery, Ports};

/// How long a worker is left alone after its queue was emptied by others. Then one connection is risked on it.
pub(super) const RESPITE: Duration = Duration::from_millis(8);

/// How long ago a worker may have taken something last to be handed a connection while it is at work.
const ALIVE: Duration = Duration::from_millis(10);

impl Ports {
    /// Takes connections that wait for busy workers, one for each worker that is free and can be handed one.
    pub(crate) fn relieve(&mut self, now: Duration) -> Vec<Delivery> {
        let mut reliefs = Vec::new();
        if !self.steering.tuning.is_on {
            return reliefs;
        }
        // What waits was looked at, so it is hot.
        for key in self.hot_groups() {
            let Some(group) = self.groups.get_mut(key) else { continue };
            let stuck = group.stuck(now);
            if !stuck.is_empty() {
                group.relieve(&stuck, &self.steering, now, &mut reliefs);
                self.groups.stir(key);
            }
        }
        reliefs
    }
}

impl Group {
    /// Lanes in which somebody waits who can be handed to another worker, in the order in which they are to be relieved.
    fn stuck(&self, now: Duration) -> Vec<usize> {
        if !self.is_spread() || !self.address.is_tcp() {
            return Vec::new();
        }
        // Handing one over costs more than it saves while its worker is only short of a core.
        let is_held_up = now < self.held_up_until;
        // What waits there may be a connection of our own, about this very worker, which could not be given back.
        let is_asked =
            |lane: &Lane| lane.kind == Kind::Own && self.openings.iter().any(|opening| opening.to == lane.id);
        let is_stuck = |lane: &Lane| {
            let stands_still = is_held_up && lane.watch.is_busy();
            (stands_still || lane.kind == Kind::Waiting) && lane.watch.depth() > 0 && !is_asked(lane)
        };
        let mut stuck: Vec<usize> = (0..self.lanes.len()).filter(|at| is_stuck(&self.lanes[*at])).collect();
        // The waiting room last: what waits in a lane has waited for longer, as the room is for when all are busy.
        stuck.sort_by_key(|at| {
            let lane = &self.lanes[*at];
            (lane.kind == Kind::Waiting, Reverse(lane.watch.depth()))
        });
        stuck
    }

    /// Who can be handed a connection, each of them one, from the last on.
    fn takers(&self, steering: &Steering, now: Duration) -> Vec<WorkerId> {
        let is_free = |lane: &&Lane| {
            lane.kind == Kind::Handed && lane.is_listening && !lane.watch.is_busy() && lane.watch.depth() == 0
        };
        // Once the pool stops nobody gets new connections, and those that have come are still to be served.
        let is_able = |worker: &WorkerId| self.desk.core().is_free(*worker, now);
        let free = self.lanes.iter().filter(is_free);
        let free: Vec<_> = free.filter_map(|lane| Some((lane, lane.user().filter(is_able)?))).collect();
        let is_only = free.len() == 1;
        let mut takers = Vec::new();
        for (lane, worker) in free {
            // Who has just taken what it was handed goes on to the next, in turns, as where the primary accepts everything.
            // Of who has not for long, nobody knows how long it will be held up, unless it has nothing to do.
            let is_alive = now.saturating_sub(lane.watch.alive_at()) < ALIVE;
            // To ask what a worker does is dear: not where the answer changes nothing, as nobody else could take one.
            let is_asleep = !(is_only && is_alive) && steering.is_asleep(worker);
            if is_asleep || is_alive {
                takers.push((is_asleep, Reverse(self.desk.core().turn_of(worker)), worker));
            }
        }
        // The last is one that has nothing to do, if there is any.
        takers.sort();
        takers.into_iter().map(|(.., worker)| worker).collect()
    }

    /// Takes what waits in these lanes, as much as somebody can be handed.
    fn relieve(&mut self, stuck: &[usize], steering: &Steering, now: Duration, reliefs: &mut Vec<Delivery>) {
        let mut takers = self.takers(steering, now);
        for at in stuck {
            let lane = &mut self.lanes[*at];
            while lane.watch.depth() > 0 {
                let Some(taker) = takers.pop() else { return };
                let Some(connection) = accept(&lane.socket) else { break };
                if let Some(own) = lane.user()
                    && self.openings.iter().any(|opening| opening.is(&connection))
                {
                    // One of our own, and about this very worker.
                    takers.push(taker);
                    reliefs.push(self.desk.give(lane.id, connection, own, now));
                    continue;
                }
                lane.watch.relieve(now + RESPITE);
                reliefs.push(self.desk.give(lane.id, connection, taker, now));
            }
        }
    }
}

/// Takes a waiting connection, never waiting for one: its worker may be quicker, and may have changed the flags. (One that changes
/// them between these two calls, and is quicker as well, can't be helped: `docs/security.md`.)
pub(super) fn accept(socket: impl AsFd) -> Option<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&socket).ok()?;
    let accepted = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    if flags.contains(OFlags::NONBLOCK) { rustix::net::accept_with(&socket, accepted).ok() } else { None }
}
