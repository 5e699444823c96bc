//! Looking whether workers still have what they have bound: on a thread of its own, as all of `/proc` may have to be read for it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use allcores_core::worker::WorkerId;
use tokio::sync::oneshot;

use super::Engine;
use crate::ports::LaneId;
use crate::primary::spawn_deaf;
use crate::primary::worker::Seen;
use crate::proc;

/// Why it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A worker is said to listen on it, if it has it.
    Settling,
    /// This worker may have bound it only to see whether it can.
    Trial(WorkerId),
    /// It stands still, or its path was removed.
    Suspicion,
}

/// Lanes of which workers have said that they listen on them, and it is to be looked whether they have them still. All that have
/// come meanwhile are looked at by one look, and the next follows when that is over: a worker may have a thousand listeners, or open
/// and close one without end.
#[derive(Debug, Default)]
pub(super) struct Settling {
    waiting: BTreeSet<(WorkerId, LaneId)>,
    is_under_way: bool,
}

/// What was found.
#[derive(Debug)]
pub(in crate::primary) struct Look {
    pub(super) purpose: Purpose,
    since: Duration,
    lanes: Vec<Looked>,
    /// The sockets that workers have closed for sure, by the workers' pids.
    closed: HashSet<(u32, u64)>,
}

#[derive(Debug)]
struct Looked {
    worker: WorkerId,
    pid: u32,
    lane: LaneId,
    socket: u64,
}

impl Engine {
    /// Looks at lanes that workers have. False if there is none.
    pub(super) fn look_at(
        &self,
        purpose: Purpose,
        lanes: impl IntoIterator<Item = (WorkerId, LaneId)>,
    ) -> bool {
        let since = self.now();
        let looked = |(worker, lane)| {
            let pid = self.workers.get(&worker)?.about.pid;
            Some(Looked { worker, pid, lane, socket: self.ports.inode(lane)? })
        };
        let lanes: Vec<Looked> = lanes.into_iter().filter_map(looked).collect();
        if lanes.is_empty() {
            return false;
        }
        let mut asked = BTreeMap::<u32, HashSet<u64>>::new();
        for looked in &lanes {
            asked.entry(looked.pid).or_default().insert(looked.socket);
        }
        let asked = asked.into_iter().collect();
        let workers: Vec<u32> = self.workers.values().map(|worker| worker.about.pid).collect();
        let (found, finding) = oneshot::channel();
        // Without a thread nothing is sent, and so nothing found closed.
        let _ = spawn_deaf("allcores-look", move || drop(found.send(proc::closed_by(asked, &workers))));
        let seen = self.seen.clone();
        tokio::spawn(async move {
            let closed = finding.await.unwrap_or_default().into_iter().collect();
            let _ = seen.send(Seen::LookedAt(Look { purpose, since, lanes, closed })).await;
        });
        true
    }

    /// Looks whether a worker has this lane, with all others that have settled: by the next look, if one is under way.
    pub(super) fn look_at_settled(&mut self, id: WorkerId, lane: LaneId) {
        self.settling.waiting.insert((id, lane));
        if !self.settling.is_under_way {
            self.look_at_all_settled();
        }
    }

    fn look_at_all_settled(&mut self) {
        let lanes = std::mem::take(&mut self.settling.waiting);
        self.settling.is_under_way = self.look_at(Purpose::Settling, lanes);
    }

    pub(super) fn take_look(&mut self, look: &Look) {
        if look.purpose == Purpose::Suspicion {
            self.clock.note_looked(look.since);
            // Who stops closes what it has, and leaves it to whoever is next.
            if self.pool.is_stopping() {
                return;
            }
        }
        if let Purpose::Trial(id) = look.purpose
            && !self.is_tried_by(id)
        {
            return;
        }
        for looked in &look.lanes {
            let (id, lane) = (looked.worker, looked.lane);
            let Some(worker) = self.workers.get(&id) else { continue };
            // What it was given since it may have closed before, and have again.
            let is_known = worker.given.get(&lane).is_none_or(|given| *given < look.since);
            if !is_known || !worker.lanes.contains_key(&lane) {
                continue;
            }
            match (look.purpose, look.closed.contains(&(looked.pid, looked.socket))) {
                (Purpose::Settling, true) | (Purpose::Suspicion, false) => {}
                (Purpose::Settling | Purpose::Trial(_), false) => self.listens_after_all(id, lane),
                (Purpose::Trial(_) | Purpose::Suspicion, true) => self.give_up(id, lane),
            }
        }
        match look.purpose {
            Purpose::Settling => self.look_at_all_settled(),
            Purpose::Trial(id) => self.end_trial(id),
            Purpose::Suspicion => {}
        }
    }
}

#[cfg(test)]
mod tests;
