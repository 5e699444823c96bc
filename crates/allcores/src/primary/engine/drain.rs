//! Watching workers that are to go: when have they finished what they have?
//!
//! Asks the kernel, so that it works for a program without a line of shutdown code.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::time::Duration;

use allcores_core::pool::Input;
use allcores_core::worker::WorkerId;
use rustix::process::Signal;

use super::Engine;
use crate::proc::{self, Processes};

/// How often the kernel is asked while somebody drains.
const INTERVAL: Duration = Duration::from_millis(20);

/// How often while somebody is held still, and its clients with it.
const INSTANT: Duration = Duration::from_millis(1);

/// How long a handshake that was under way may take to land in the lane that got its first packet: a round trip, even
/// across an ocean.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// Workers that are being watched.
#[derive(Debug, Default)]
pub(super) struct Drains {
    watched: BTreeMap<WorkerId, Hold>,
    next: Option<Duration>,
}

/// How long a worker that can only be held still is looked at before it is held still without having been seen idle. And
/// how long one that was turned away may need to take what it was told of before.
const HOPE: Duration = Duration::from_millis(200);

/// A worker that accepts from the same listener as others can't be steered away from. Its event loop is had forget the
/// listener. Where that can't be done it is held still for an instant; if it has no connection then, it is asked to go
/// without a chance to take one.
///
/// One that takes the next connection as soon as it has done with one is never seen idle, or not any more when it stands
/// still. It is stopped at any instant then, again and again: sooner or later in between two connections.
///
/// A thread that was on its way to `accept` when it was stopped goes on when it is told to go: a program of one thread is
/// gone by then, or finishes what it took. One of many threads may do neither, and loses it if it has no event loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Free {
        since: Duration,
    },
    Still {
        since: Duration,
    },
    /// It is told of no more connections, and takes at most those that it was told of before.
    Deaf {
        since: Duration,
    },
    /// It was disconnected: only what is on its way to it is waited for, not the end of what it has.
    Landing {
        since: Duration,
    },
}

impl Drains {
    /// One that landed is waited for now until it has finished what it has.
    fn watch(&mut self, id: WorkerId, hold: Hold) {
        self.watched.insert(id, hold);
        self.next.get_or_insert(Duration::ZERO);
    }

    pub(super) fn land(&mut self, id: WorkerId, since: Duration) {
        self.watched.insert(id, Hold::Landing { since });
        self.next = Some(Duration::ZERO);
    }

    /// Whether it is held still; it is watched no more.
    pub(super) fn forget(&mut self, id: WorkerId) -> bool {
        matches!(self.watched.remove(&id), Some(Hold::Still { .. }))
    }

    pub(super) fn next_look(&self) -> Option<Duration> {
        self.next.filter(|_| !self.watched.is_empty())
    }
}

impl Engine {
    /// A worker that gets no new connections is to be told of when it has finished those that it has.
    pub(super) fn drain(&mut self, id: WorkerId) {
        let since = self.turn;
        let is_deaf = self.needs_hold(id) && self.turn_away(id);
        self.drains.watch(id, if is_deaf { Hold::Deaf { since } } else { Hold::Free { since } });
    }

    /// Whether nothing else keeps a worker from accepting. By its channel it can be told to stop.
    fn needs_hold(&self, id: WorkerId) -> bool {
        let is_alone = self.workers.get(&id).is_some_and(|worker| worker.channel.is_none());
        is_alone && self.ports.is_sharing(id) && !self.pool.is_stopping()
    }

    /// A worker's processes.
    pub(super) fn members(&self, id: WorkerId) -> Vec<u32> {
        self.members_of(id, &Processes::read())
    }

    fn members_of(&self, id: WorkerId, processes: &Processes) -> Vec<u32> {
        let Some(worker) = self.workers.get(&id) else { return Vec::new() };
        let mut members = processes.session_members(worker.about.pid);
        if !members.contains(&worker.about.pid) {
            members.push(worker.about.pid);
        }
        members
    }

    pub(super) fn look_at_drains(&mut self) {
        let now = self.now();
        if self.drains.next_look().is_none_or(|next| now < next) {
            return;
        }
        let watched: Vec<(WorkerId, Hold)> =
            self.drains.watched.iter().map(|(id, hold)| (*id, *hold)).collect();
        // Processes and connections are listed once for all: where there are many, that takes its time.
        let processes = OnceCell::new();
        let mut settled = Vec::new();
        for (id, hold) in watched {
            let sockets = self.look_at_drain(id, hold, || processes.get_or_init(Processes::read));
            settled.extend(sockets.map(|sockets| (id, hold, sockets)));
        }
        if !settled.is_empty() {
            let connections = self.connections();
            for (id, hold, sockets) in settled {
                // Of one that may not be looked at it is known that it has none when nobody has any.
                let is_idle = sockets.map_or(connections.is_empty(), |sockets: HashSet<u64>| {
                    sockets.is_disjoint(&connections)
                });
                self.judge_drain(id, hold, is_idle);
            }
        }
        let is_held = self.drains.watched.values().any(|hold| matches!(hold, Hold::Still { .. }));
        // A look at very many takes longer than the interval: most of the time is for those that serve.
        let interval = INTERVAL.max(4 * self.now().saturating_sub(now));
        self.drains.next = Some(now + if is_held { INSTANT } else { interval });
    }

    /// The sockets of a worker that can't accept any more, where they can be seen. Which of them are connections is to be asked
    /// afterwards: one that it accepted in between would be overlooked.
    fn look_at_drain<'a>(
        &mut self,
        id: WorkerId,
        hold: Hold,
        processes: impl FnOnce() -> &'a Processes,
    ) -> Option<io::Result<HashSet<u64>>> {
        if !self.workers.contains_key(&id) {
            self.drains.forget(id);
            return None;
        }
        if let Hold::Landing { since } = hold {
            self.look_at_landing(id, since);
            return None;
        }
        let needs_hold = !matches!(hold, Hold::Deaf { .. }) && self.needs_hold(id);
        if matches!(hold, Hold::Free { .. })
            && !needs_hold
            && (self.ports.has_waiting(id) || self.is_handing_over(id))
        {
            return None;
        }
        let members = self.members_of(id, processes());
        let can_accept = match hold {
            Hold::Still { .. } => !members.iter().all(|pid| proc::is_stopped(*pid)),
            Hold::Deaf { since } => {
                let is_settled = members.iter().all(|pid| proc::is_asleep(*pid));
                self.ports.has_last_waiting(id) || !(is_settled || self.now() >= since + HOPE)
            }
            Hold::Landing { .. } | Hold::Free { .. } => false,
        };
        if can_accept {
            return None;
        }
        if let Hold::Free { since } = hold
            && needs_hold
            && self.now() >= since + HOPE
        {
            self.stand_still(id, since);
            return None;
        }
        let sockets = members.iter().map(|pid| proc::all_sockets_of(*pid));
        let all = sockets.collect::<io::Result<Vec<_>>>();
        Some(all.map(|all| all.into_iter().flatten().map(|(_, inode)| inode).collect()))
    }

    /// Decides about a worker of which it is known by now whether it has a connection.
    fn judge_drain(&mut self, id: WorkerId, hold: Hold, is_idle: bool) {
        if self.drains.watched.get(&id) != Some(&hold) {
            // What was decided about another has changed something about this one.
            return;
        }
        match (hold, is_idle) {
            (Hold::Free { since }, true) if self.needs_hold(id) => self.stand_still(id, since),
            (Hold::Still { since }, false) => {
                self.drains.watched.insert(id, Hold::Free { since });
                self.signal(id, Signal::CONT);
            }
            (_, true) => self.tell(Input::Quiet { id }),
            (Hold::Free { .. } | Hold::Deaf { .. } | Hold::Landing { .. }, false) => {}
        }
    }

    fn stand_still(&mut self, id: WorkerId, since: Duration) {
        self.drains.watched.insert(id, Hold::Still { since });
        self.signal(id, Signal::STOP);
    }

    /// The connections that clients have to the app's addresses, by their inodes. What waits to be accepted has 0.
    pub(super) fn connections(&self) -> HashSet<u64> {
        let tcp = proc::established_inodes(&self.ports.tcp_ports());
        let unix = proc::connected_unix_inodes(&self.ports.unix_listeners());
        tcp.into_iter().chain(unix).collect()
    }

    fn look_at_landing(&mut self, id: WorkerId, since: Duration) {
        let is_under_way = self.ports.takes_connections(id) && self.now() < since + HANDSHAKES;
        if !is_under_way && !self.ports.has_waiting(id) && !self.is_handing_over(id) {
            self.tell(Input::Quiet { id });
        }
    }
}
