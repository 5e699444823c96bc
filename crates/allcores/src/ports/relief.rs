//! Taking connections that wait for a busy worker, for workers that are free and can be handed one.
//!
//! Steering keeps later connections away from a busy worker; the one that showed that it is busy waits there. Where
//! workers have a channel, it need not.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use allcores_core::worker::WorkerId;
use rustix::fs::OFlags;

use super::lane::{Kind, Lane};
use super::{Delivery, Ports};

/// How long a worker is left alone after its queue was emptied by others. Then one connection is risked on it.
pub(super) const RESPITE: Duration = Duration::from_millis(8);

/// How long ago a worker may have taken something last to be handed a connection while it is at work.
const ALIVE: Duration = Duration::from_millis(10);

impl Ports {
    /// Takes connections that wait for busy workers, one for each worker that is free and can be handed one.
    pub(crate) fn relieve(&mut self, now: Duration) -> Vec<Delivery> {
        let until = now + RESPITE;
        let mut reliefs = Vec::new();
        if !self.steering.tuning.is_on {
            return reliefs;
        }
        let is_free = |lane: &Lane| {
            lane.kind == Kind::Handed && lane.is_listening && !lane.watch.is_busy() && lane.watch.depth() == 0
        };
        // What waits was looked at, so it is hot.
        for key in self.hot_groups() {
            let Some(group) = self.groups.get_mut(key) else { continue };
            // Handing one over costs more than it saves while its worker is only short of a core.
            let is_held_up = now < group.held_up_until;
            // What waits there may be a connection of our own, about this very worker, which could not be given back.
            let is_asked = |lane: &Lane| {
                lane.kind == Kind::Own && group.openings.iter().any(|opening| opening.to == lane.id)
            };
            let is_stuck = |lane: &Lane| {
                let stands_still = is_held_up && lane.watch.is_busy();
                (stands_still || lane.kind == Kind::Waiting) && lane.watch.depth() > 0 && !is_asked(lane)
            };
            if !group.is_spread() || !group.address.is_tcp() || !group.lanes.iter().any(is_stuck) {
                continue;
            }
            let user = |lane: &Lane| lane.users.last().copied();
            // Once the pool stops nobody gets new connections, and those that have come are still to be served.
            let is_able = |worker: &WorkerId| group.desk.core().is_free(*worker, now);
            let free = group.lanes.iter().filter(|lane| is_free(lane));
            let free: Vec<_> = free.filter_map(|lane| Some((lane, user(lane).filter(is_able)?))).collect();
            // Who has just taken what it was handed goes on to the next, in turns, as where the primary accepts
            // everything. Of who has not for long, nobody knows how long it will be held up, unless it has nothing to do.
            let is_alive = |lane: &Lane| now.saturating_sub(lane.watch.alive_at()) < ALIVE;
            // To ask what a worker does is dear: not where the answer changes nothing, as nobody else could take one.
            let is_asleep = |lane: &Lane, worker: WorkerId| {
                !(free.len() == 1 && is_alive(lane)) && self.steering.is_asleep(worker)
            };
            let turn = |worker: WorkerId| std::cmp::Reverse(group.desk.core().turn_of(worker));
            // The last is taken first, and that is one that has nothing to do.
            let mut takers: Vec<_> = free
                .iter()
                .filter_map(|(lane, worker)| {
                    let is_asleep = is_asleep(lane, *worker);
                    (is_asleep || is_alive(lane)).then_some((is_asleep, turn(*worker), *worker))
                })
                .collect();
            takers.sort();
            let mut takers: Vec<WorkerId> = takers.into_iter().map(|(.., worker)| worker).collect();
            let mut stuck: Vec<&mut Lane> = group.lanes.iter_mut().filter(|lane| is_stuck(lane)).collect();
            // The waiting room last: what waits in a lane has waited for longer, as the room is for when all are busy.
            stuck.sort_by_key(|lane| (lane.kind == Kind::Waiting, std::cmp::Reverse(lane.watch.depth())));
            'lanes: for lane in stuck {
                while lane.watch.depth() > 0 {
                    let Some(taker) = takers.pop() else { break 'lanes };
                    let Some(connection) = accept(&lane.socket) else { break };
                    if let Some(own) = user(lane)
                        && group.openings.iter().any(|opening| opening.is(&connection))
                    {
                        // One of our own, and about this very worker.
                        takers.push(taker);
                        reliefs.push(group.desk.give(lane.id, connection, own, now));
                        continue;
                    }
                    lane.watch.relieve(until);
                    reliefs.push(group.desk.give(lane.id, connection, taker, now));
                }
            }
            self.groups.stir(key);
        }
        reliefs
    }
}

/// Takes a waiting connection, never waiting for one: its worker may be quicker, and may have changed the flags.
pub(super) fn accept(socket: impl AsFd) -> Option<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&socket).ok()?;
    let accepted = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    if flags.contains(OFlags::NONBLOCK) { rustix::net::accept_with(&socket, accepted).ok() } else { None }
}
