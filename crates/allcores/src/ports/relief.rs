//! Taking connections that wait for a busy worker, for workers that are free and can be handed one.
//!
//! Steering keeps later connections away from a busy worker; the one that showed that it is busy waits there. Where
//! workers have a channel, it need not.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use allcores_core::worker::WorkerId;
use rustix::fs::OFlags;

use super::lane::{Kind, Lane};
use super::{LaneId, Ports};

/// How many ticks a worker is left alone after its queue was emptied by others. Then one connection is risked on it.
pub(super) const RESPITE: u32 = 8;

/// How long a queue must have stood still before connections are taken out of it. Handing one over costs more than it
/// saves while its worker is only short of a core.
const STUCK: Duration = Duration::from_millis(2);

/// How long ago a worker may have taken something last to be handed a connection while it is at work.
const ALIVE: Duration = Duration::from_millis(10);

/// How long connections wait for a worker that has nothing to do, before they are risked on another.
const PATIENCE: Duration = Duration::from_millis(1);

/// A connection that waited for a busy worker, and who is to have it.
#[derive(Debug)]
pub(crate) struct Relief {
    pub(crate) connection: OwnedFd,
    /// Where it waited.
    pub(crate) lane: LaneId,
    pub(crate) taker: WorkerId,
}

impl Ports {
    /// Takes connections that wait for busy workers, one for each worker that is free and `can_take` one.
    pub(crate) fn relieve(&mut self, now: Duration, can_take: impl Fn(WorkerId) -> bool) -> Vec<Relief> {
        let until = now + self.steering.tuning.tick * RESPITE;
        let mut reliefs = Vec::new();
        if !self.steering.tuning.is_on {
            return reliefs;
        }
        let is_stuck = |lane: &Lane| {
            let is_held_up = lane.watch.is_busy() && lane.watch.stalled_for(now) >= STUCK;
            (is_held_up || lane.kind == Kind::Waiting) && lane.watch.depth() > 0
        };
        let is_free = |lane: &Lane| {
            lane.kind == Kind::Handed && lane.is_listening && !lane.watch.is_busy() && lane.watch.depth() == 0
        };
        for group in self.groups.iter_mut().filter(|group| group.is_spread && group.address.is_tcp()) {
            if !group.lanes.iter().any(is_stuck) {
                continue;
            }
            let mut free: Vec<&Lane> = group.lanes.iter().filter(|lane| is_free(lane)).collect();
            let is_asleep =
                |lane: &&Lane| lane.users.last().is_some_and(|user| self.steering.is_asleep(*user));
            let user = |lane: &Lane| lane.users.last().copied();
            // Once the pool stops nobody gets new connections, and those that have come are still to be served.
            let is_able =
                |worker: &WorkerId| (self.is_closing || self.serving.contains(worker)) && can_take(*worker);
            free.retain(|lane| user(lane).as_ref().is_some_and(is_able));
            let mut takers: Vec<WorkerId> =
                free.iter().filter(|lane| is_asleep(lane)).filter_map(|lane| user(lane)).collect();
            if takers.is_empty() && now.saturating_sub(group.relieved_at) >= PATIENCE {
                // Nobody has nothing to do, and that for long: who took something just now is the least likely to be
                // held up by it.
                let is_alive = |lane: &&Lane| now.saturating_sub(lane.watch.alive_at()) < ALIVE;
                let liveliest = free.into_iter().filter(is_alive).max_by_key(|lane| lane.watch.alive_at());
                takers = liveliest.and_then(user).into_iter().collect();
            }
            let mut stuck: Vec<&mut Lane> = group.lanes.iter_mut().filter(|lane| is_stuck(lane)).collect();
            // The waiting room last: what waits in a lane has waited for longer, as the room is for when all are busy.
            stuck.sort_by_key(|lane| (lane.kind == Kind::Waiting, std::cmp::Reverse(lane.watch.depth())));
            'lanes: for lane in stuck {
                while lane.watch.depth() > 0 {
                    let Some(taker) = takers.pop() else { break 'lanes };
                    let Some(connection) = accept(&lane.socket) else { break };
                    group.relieved_at = now;
                    lane.watch.relieve(until);
                    reliefs.push(Relief { connection, lane: lane.id, taker });
                }
            }
        }
        reliefs
    }
}

/// Takes a waiting connection, never waiting for one: its worker may be quicker, and may have changed the flags.
fn accept(socket: impl AsFd) -> Option<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&socket).ok()?;
    let accepted = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    if flags.contains(OFlags::NONBLOCK) { rustix::net::accept_with(&socket, accepted).ok() } else { None }
}
