//! Addresses that workers bind only to see whether they can: closed again at once, without a word.
//!
//! Nothing tells us of a socket that a program closes. So it is told that a worker listens only when it still does a moment
//! later, and it is looked twice whether it has closed what it has bound lately; what nobody has any more is closed. What is
//! closed later than that is found when somebody has waited there for half a second (`clock.rs`).

use std::time::Duration;

use allcores_core::pool::Input;
use allcores_core::worker::{Rung, State, WorkerId};

use super::Engine;
use super::look::Purpose;
use crate::ports::LaneId;
use crate::primary::worker::{Seen, Worker};

/// How long a program that only tries an address has it.
const MOMENT: Duration = Duration::from_millis(20);

/// How long after a worker has bound something it is looked whether it has closed it. However much it binds meanwhile, it is
/// looked no more often.
const SOON: Duration = Duration::from_millis(250);

/// And then again.
const LATER: Duration = Duration::from_secs(1);

impl Engine {
    /// Takes note that a worker listens, if it still does in a moment.
    pub(super) fn listens_unless_it_tries(&mut self, id: WorkerId, lane: LaneId) {
        let is_news = self.workers.get(&id).is_some_and(|worker| !worker.announced.contains(&lane));
        // A program around us sees what its workers do in the order in which they do it.
        if is_news && self.owns_process() && self.ports.is_triable(lane) {
            self.see_later(MOMENT, Seen::Settled(id, lane));
        } else {
            self.listens(id, lane);
        }
    }

    /// A worker has a lane that listens, and has had time to say so, or to close it.
    pub(super) fn settled(&mut self, id: WorkerId, lane: LaneId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.keys.has_lane(lane) {
            self.listens_after_all(id, lane);
        } else if worker.lanes.contains_key(&lane) && !worker.announced.contains(&lane) {
            self.look_at_settled(id, lane);
        }
    }

    /// A worker has a lane still, and listens on it if it has ever said so.
    pub(super) fn listens_after_all(&mut self, id: WorkerId, lane: LaneId) {
        let is_news = |worker: &Worker| worker.lanes.contains_key(&lane) && !worker.announced.contains(&lane);
        if self.workers.get(&id).is_some_and(is_news) && self.ports.has_listened(lane) {
            self.listens(id, lane);
        }
    }

    /// A worker has bound something: it is to be looked whether it only tried to.
    pub(super) fn look_later(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if std::mem::replace(&mut worker.looks, 2) == 0 {
            self.see_later(SOON, Seen::Tried(id));
        }
    }

    pub(super) fn look_at_tried(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.looks = worker.looks.saturating_sub(1);
        let adopted = worker.lanes.iter().filter(|(_, rung)| **rung == Rung::Adopted).map(|(lane, _)| *lane);
        let lanes: Vec<_> =
            adopted.filter(|lane| self.ports.is_triable(*lane)).map(|lane| (id, lane)).collect();
        if worker.looks > 0 {
            self.see_later(LATER, Seen::Tried(id));
        }
        self.look_at(Purpose::Trial(id), lanes);
    }

    /// Whether what a worker has closed is to be taken from it: one that goes leaves its place to its successor.
    pub(super) fn is_tried_by(&self, id: WorkerId) -> bool {
        let is_going = self.pool.is_stopping() || self.state_of(id) == Some(State::Draining);
        !is_going && self.workers.get(&id).is_some_and(|worker| !worker.is_retired)
    }

    /// It has been looked what a worker has closed.
    pub(super) fn end_trial(&mut self, id: WorkerId) {
        if !self.ports.is_listening(id) {
            self.tell(Input::NotListening { id });
        }
    }
}
