//! Watching workers that are to go: when have they finished what they have?
//!
//! Asks the kernel, so that it works for a program without a line of shutdown code.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use allcores_core::pool::Input;
use allcores_core::worker::WorkerId;
use rustix::process::Signal;

use super::Engine;
use crate::primary::Event;
use crate::proc;

/// How often the kernel is asked while somebody drains.
const INTERVAL: Duration = Duration::from_millis(20);

/// How often while somebody is held still, and its clients with it.
const INSTANT: Duration = Duration::from_millis(1);

/// Workers that are being watched.
#[derive(Debug, Default)]
pub(super) struct Drains {
    watched: BTreeMap<WorkerId, Hold>,
    next: Option<Duration>,
}

/// A worker that accepts from the same listener as others can't be steered away from. It is held still for an
/// instant; if it has no connection then, it is asked to go without a chance to take one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Free,
    Still,
}

impl Drains {
    pub(super) fn watch(&mut self, id: WorkerId) {
        self.watched.entry(id).or_insert(Hold::Free);
        self.next.get_or_insert(Duration::ZERO);
    }

    /// Whether it is held still; it is watched no more.
    pub(super) fn forget(&mut self, id: WorkerId) -> bool {
        self.watched.remove(&id) == Some(Hold::Still)
    }

    pub(super) fn next_look(&self) -> Option<Duration> {
        self.next.filter(|_| !self.watched.is_empty())
    }
}

impl<O: FnMut(Event<'_>)> Engine<O> {
    pub(super) fn look_at_drains(&mut self) {
        let now = self.now();
        if self.drains.next_look().is_none_or(|next| now < next) {
            return;
        }
        let watched: Vec<(WorkerId, Hold)> =
            self.drains.watched.iter().map(|(id, hold)| (*id, *hold)).collect();
        for (id, hold) in watched {
            self.look_at_drain(id, hold);
        }
        let is_held = self.drains.watched.values().any(|hold| *hold == Hold::Still);
        self.drains.next = Some(now + if is_held { INSTANT } else { INTERVAL });
    }

    fn look_at_drain(&mut self, id: WorkerId, hold: Hold) {
        let Some(worker) = self.workers.get(&id) else {
            self.drains.forget(id);
            return;
        };
        let mut members = proc::session_members(worker.about.pid);
        members.push(worker.about.pid);
        // By its channel a worker can be told to stop accepting, without a signal.
        let needs_hold = worker.channel.is_none() && self.ports.is_sharing(id) && !self.pool.is_stopping();
        // Before its connections are looked at, in this order: one that it accepts meanwhile would be overlooked.
        let can_accept = match hold {
            Hold::Still => !members.iter().all(|pid| proc::is_stopped(*pid)),
            Hold::Free => !needs_hold && (self.ports.has_waiting(id) || self.is_handing_over(id)),
        };
        if can_accept {
            return;
        }
        let open: HashSet<u64> = proc::established_inodes(&self.ports.tcp_ports()).into_iter().collect();
        let is_idle = proc::open_sockets(&members).is_disjoint(&open);
        match (hold, is_idle) {
            (Hold::Free, true) if needs_hold => {
                self.drains.watched.insert(id, Hold::Still);
                self.signal(id, Signal::STOP);
            }
            (Hold::Still, false) => {
                self.drains.watched.insert(id, Hold::Free);
                self.signal(id, Signal::CONT);
            }
            (_, true) => self.tell(Input::Quiet { id }),
            (Hold::Free, false) => {}
        }
    }
}
