//! Addresses that workers bind only to see whether they can: closed again at once, without a word.
//!
//! Nothing tells us of a socket that a program closes. So it is told that a worker listens only when it still does a moment
//! later, and it is looked twice whether it has closed what it has bound lately; what nobody has any more is closed. What is
//! closed later than that is found as soon as somebody waits there (`clock.rs`).

use std::time::Duration;

use allcores_core::pool::Input;
use allcores_core::worker::{Rung, State, WorkerId};
use tokio::sync::oneshot;

use super::Engine;
use crate::ports::LaneId;
use crate::primary::spawn_deaf;
use crate::primary::worker::Seen;
use crate::proc;

/// How long a program that only tries an address has it.
const MOMENT: Duration = Duration::from_millis(20);

/// How long after a worker has bound something it is looked whether it has closed it. However much it binds meanwhile, it is
/// looked no more often.
const SOON: Duration = Duration::from_millis(250);

/// And then again.
const LATER: Duration = Duration::from_secs(1);

/// What was found of the lanes that a worker has bound.
#[derive(Debug)]
pub(in crate::primary) struct Trial {
    /// How often it had bound something until then: what it has bound since may be a lane of these.
    binds: u64,
    lanes: Vec<(LaneId, u64)>,
    /// The sockets that nobody has any more.
    closed: Vec<u64>,
}

impl Engine {
    /// Takes note that a worker listens, if it still does in a moment.
    pub(super) fn listens_unless_it_tries(&mut self, id: WorkerId, lane: LaneId) {
        let is_news = self.workers.get(&id).is_some_and(|worker| !worker.announced.contains(&lane));
        // A program around us sees what its workers do in the order in which they do it.
        if is_news && self.owns_process() && self.ports.triable(lane).is_some() {
            self.see_later(MOMENT, Seen::Settled(id, lane));
        } else {
            self.listens(id, lane);
        }
    }

    /// A worker has bound something: it is to be looked whether it only tried to.
    pub(super) fn look_later(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.binds += 1;
        if std::mem::replace(&mut worker.looks, 2) == 0 {
            self.see_later(SOON, Seen::Tried(id));
        }
    }

    pub(super) fn look_at_tried(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.looks = worker.looks.saturating_sub(1);
        let adopted = worker.lanes.iter().filter(|(_, rung)| **rung == Rung::Adopted);
        let lanes = adopted.filter_map(|(lane, _)| Some((*lane, self.ports.triable(*lane)?)));
        let lanes: Vec<(LaneId, u64)> = lanes.collect();
        let (binds, leader) = (worker.binds, worker.about.pid);
        if worker.looks > 0 {
            self.see_later(LATER, Seen::Tried(id));
        }
        if lanes.is_empty() {
            return;
        }
        let (found, finding) = oneshot::channel();
        let wanted = lanes.iter().map(|(_, inode)| *inode).collect();
        // Without a thread nothing is sent, and so nothing found closed.
        let _ = spawn_deaf("allcores-look", move || drop(found.send(proc::closed_by(leader, wanted))));
        let seen = self.seen.clone();
        tokio::spawn(async move {
            let closed = finding.await.unwrap_or_default();
            let _ = seen.send(Seen::LookedAt(id, Trial { binds, lanes, closed })).await;
        });
    }

    pub(super) fn take_trial(&mut self, id: WorkerId, trial: &Trial) {
        let is_going = self.pool.is_stopping() || self.state_of(id) == Some(State::Draining);
        let Some(worker) = self.workers.get(&id).filter(|worker| !worker.is_retired && !is_going) else {
            return;
        };
        if worker.binds != trial.binds {
            // It is looked at again for that.
            return;
        }
        for (lane, inode) in &trial.lanes {
            let Some(worker) = self.workers.get(&id) else { return };
            if !worker.lanes.contains_key(lane) {
                continue;
            }
            if trial.closed.contains(inode) {
                self.give_up(id, *lane);
            } else if !worker.announced.contains(lane) && self.ports.has_listened(*lane) {
                // It was on its way from one process to another.
                self.listens(id, *lane);
            }
        }
        if !self.ports.is_listening(id) {
            self.tell(Input::NotListening { id });
        }
    }
}
